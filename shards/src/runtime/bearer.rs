//! Whose request it is, by its tokens.

use std::sync::Arc;

use super::World;
use crate::auth::{TokenRefusal, Verified};
use crate::bearer::{Bearer, TokenFacts};
use crate::clock;

/// Of a connection call: the `jwt` parameter, or else a valid `Authorization`. An invalid header never refuses a connection.
///
/// # Errors
/// The reason why the parameter is refused.
pub(super) fn of_connection<'a>(
    world: &World,
    jwt: Option<&str>,
    authorization: impl Iterator<Item = &'a [u8]>,
) -> Result<Bearer, String> {
    let verified = match jwt {
        Some(token) => vec![verify(world, token).map_err(|refusal| refused(&refusal))?],
        None => tokens(authorization).filter_map(|token| verify(world, token).ok()).collect(),
    };
    Ok(bearer(world, &verified))
}

/// Of a PUT of subscriptions: every `Bearer` token must be valid.
///
/// # Errors
/// The reason why the call is refused.
pub(super) fn of_put<'a>(world: &World, authorization: impl Iterator<Item = &'a [u8]>) -> Result<Bearer, String> {
    let verified: Result<Vec<_>, _> = tokens(authorization).map(|token| verify(world, token)).collect();
    Ok(bearer(world, &verified.map_err(|refusal| refused(&refusal))?))
}

fn tokens<'a>(authorization: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    let credentials =
        authorization.filter_map(|value| std::str::from_utf8(value).ok()).flat_map(|value| value.split(','));
    credentials.filter_map(|credential| credential.trim_start().strip_prefix("Bearer ")).map(str::trim)
}

fn verify(world: &World, token: &str) -> Result<Arc<Verified>, TokenRefusal> {
    let now_unix_s = world.settings.sessions.unix_ms(clock::now_ms()) / 1_000;
    world.settings.verifier.as_ref().ok_or(TokenRefusal::Signature)?.verify(token, now_unix_s)
}

fn refused(refusal: &TokenRefusal) -> String {
    format!("cannot accept subscription request: {refusal}")
}

fn bearer(world: &World, verified: &[Arc<Verified>]) -> Bearer {
    if verified.is_empty() {
        return Bearer::default();
    }
    let facts: Vec<_> = verified
        .iter()
        .map(|token| TokenFacts {
            session: token.session.as_deref(),
            expires_at_s: token.expires_at_s,
            claims: &token.claims,
        })
        .collect();
    Bearer::of(&facts, &world.settings.extractors, world.settings.end_at_token_expiry)
}
