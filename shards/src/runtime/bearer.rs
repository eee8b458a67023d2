//! Whose request it is, by its tokens.

use std::borrow::Cow;
use std::str::Utf8Error;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::World;
use crate::auth::credentials::{self, MAX_CREDENTIALS};
use crate::auth::{TokenRefusal, Verified};
use crate::bearer::{Bearer, TokenFacts};
use crate::clock;
use crate::proxy::endpoint::TokenPlace;

/// Credentials in the head of a request, as far as its caller knows them.
#[derive(Clone, Copy)]
pub(super) struct Credentials<A, C> {
    /// Values of `authorization`.
    pub(super) authorization: A,
    /// Values of `cookie`.
    pub(super) cookies: C,
}

/// Those of a request that hyper has read.
pub(super) fn of_headers(headers: &HeaderMap) -> Credentials<impl Iterator<Item = &[u8]>, impl Iterator<Item = &[u8]>> {
    Credentials { authorization: values(headers, &header::AUTHORIZATION), cookies: values(headers, &header::COOKIE) }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// Of a connection call: the `jwt` parameter, or else what is valid in `Authorization` and in the configured cookie. An
/// invalid header never refuses a connection.
///
/// # Errors
/// The reason why the parameter is refused.
pub(super) fn of_connection<'a>(
    world: &World,
    jwt: Option<&str>,
    credentials: Credentials<impl Iterator<Item = &'a [u8]>, impl Iterator<Item = &'a [u8]>>,
) -> Result<Bearer, String> {
    let verified = match jwt {
        Some(token) => vec![verify(world, token).map_err(|refusal| refused(&refusal))?],
        None => {
            let sent = credentials::bearer(credentials.authorization);
            sent.chain(in_cookies(world, credentials.cookies)).filter_map(|token| verify(world, token).ok()).collect()
        }
    };
    Ok(bearer(world, &verified))
}

/// Of a PUT of subscriptions: every `Bearer` token must be valid. Without one, that of the configured cookie counts.
///
/// # Errors
/// The reason why the call is refused.
pub(super) fn of_put(world: &World, headers: &HeaderMap) -> Result<Bearer, String> {
    let tokens = credentials::bearer(values(headers, &header::AUTHORIZATION)).map(|token| verify(world, token));
    let mut verified: Vec<_> = tokens.collect::<Result<_, _>>().map_err(|refusal| refused(&refusal))?;
    if verified.is_empty() {
        let cookies = in_cookies(world, values(headers, &header::COOKIE));
        verified.extend(cookies.filter_map(|token| verify(world, token).ok()));
    }
    Ok(bearer(world, &verified))
}

/// Whether a request shows a valid token in `Authorization`, bare or behind `Bearer`, or in the configured cookie.
pub(super) fn shows_token(world: &World, headers: &HeaderMap) -> bool {
    let sent = credentials::any(values(headers, &header::AUTHORIZATION));
    sent.chain(in_cookies(world, values(headers, &header::COOKIE))).any(|token| verify(world, token).is_ok())
}

/// Whether a request may call an endpoint that wants its token there: `Authorization: Bearer` always counts, other headers
/// may hold it bare too.
pub(super) fn may_call(world: &World, headers: &HeaderMap, query: Option<&str>, place: &TokenPlace) -> bool {
    let is_valid = |token: &str| verify(world, token).is_ok();
    if credentials::bearer(values(headers, &header::AUTHORIZATION)).any(is_valid) {
        return true;
    }
    let header = place.header.as_ref();
    if header.is_some_and(|name| credentials::any(values(headers, name)).any(is_valid)) {
        return true;
    }
    let Some(name) = &place.query else { return false };
    let tokens = parameters(query, name).take(MAX_CREDENTIALS);
    tokens.filter_map(|token| decoded(token).ok()).any(|token| is_valid(&token))
}

/// What tells the callers of an endpoint apart: everything that stands where tokens are looked for, valid or not.
pub(super) fn of_caller<'a>(
    world: &World,
    parts: &'a Parts,
    place: Option<&'a TokenPlace>,
) -> impl Iterator<Item = &'a [u8]> {
    let headers = &parts.headers;
    let header = place.and_then(|place| place.header.as_ref());
    let name = place.and_then(|place| place.query.as_deref());
    let in_header = header.into_iter().flat_map(move |name| values(headers, name));
    let in_query = name.into_iter().flat_map(move |name| parameters(parts.uri.query(), name));
    let in_cookies = in_cookies(world, values(headers, &header::COOKIE));
    values(headers, &header::AUTHORIZATION).chain(in_header).chain(in_query.chain(in_cookies).map(str::as_bytes))
}

/// The values of a parameter in a query, as they were sent.
fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(sent, _)| decoded(sent).is_ok_and(|sent| sent == name)).map(|(_, value)| value)
}

fn decoded(text: &str) -> Result<Cow<'_, str>, Utf8Error> {
    percent_encoding::percent_decode_str(text).decode_utf8()
}

fn in_cookies<'a>(world: &World, cookies: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    let name = world.settings.tokens.cookie.as_deref();
    name.map(|name| credentials::cookie(cookies, name).collect::<Vec<_>>()).unwrap_or_default().into_iter()
}

fn verify(world: &World, token: &str) -> Result<Arc<Verified>, TokenRefusal> {
    let now_unix_s = world.settings.sessions.unix_ms(clock::now_ms()) / 1_000;
    world.verifier.verify(token, now_unix_s)
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
