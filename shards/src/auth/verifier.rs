//! Says whether a token counts.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::cache::{TokenCache, TokenHash};
use super::compact::{Compact, MAX_TOKEN_BYTES};
use super::key::Key;
use super::settings::{Issuer, TokenSettings};
use super::{SessionList, TokenRefusal, Verified};
use crate::metrics::ShardMetrics;
use crate::pointer::JsonPointer;

/// Keys that one token is held against: a token that doesn't name its key must not cost more.
const MAX_TRIED_KEYS: usize = 8;

/// Verifies the tokens of one shard, and remembers them.
#[derive(Debug)]
pub struct Verifier {
    issuers: RefCell<Vec<Issuer>>,
    session_field: JsonPointer,
    leeway_s: u64,
    cache: RefCell<TokenCache>,
    sessions: Arc<dyn SessionList>,
    metrics: Arc<ShardMetrics>,
}

impl Verifier {
    /// A verifier for one shard; `sessions` are those whose tokens are refused.
    #[must_use]
    pub fn new(settings: &TokenSettings, sessions: Arc<dyn SessionList>, metrics: Arc<ShardMetrics>) -> Self {
        Self {
            issuers: RefCell::new(settings.issuers.clone()),
            session_field: settings.session_field.clone(),
            leeway_s: settings.leeway_s,
            cache: RefCell::new(TokenCache::new(settings.cache_bytes)),
            sessions,
            metrics,
        }
    }

    /// Puts new keys of the issuer with this index in force. A token that no key verifies any more is not remembered.
    pub fn set_keys(&self, issuer: usize, keys: Arc<[Key]>) {
        if let Some(issuer) = self.issuers.borrow_mut().get_mut(issuer) {
            issuer.keys = keys;
        }
        self.cache.borrow_mut().clear();
    }

    /// Verifies a token at this second of Unix time. Counts what became of it.
    ///
    /// # Errors
    /// See [`TokenRefusal`].
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Arc<Verified>, TokenRefusal> {
        let outcome = self.find_or_check(token, now_unix_s).and_then(|verified| match verified.session.as_deref() {
            Some(session) if self.sessions.is_blacklisted(session) => Err(TokenRefusal::Blacklisted),
            _ => Ok(verified),
        });
        let counts = &self.metrics.tokens;
        match &outcome {
            Ok(_) => counts.accepted.add(1),
            Err(refusal) => counts.refused[*refusal as usize].add(1),
        }
        outcome
    }

    fn find_or_check(&self, token: &str, now_unix_s: u64) -> Result<Arc<Verified>, TokenRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::Oversized);
        }
        let hash = TokenHash::of(token);
        if let Some(verified) = self.cache.borrow_mut().get(hash, now_unix_s) {
            self.metrics.tokens.cached.add(1);
            return Ok(verified);
        }
        if self.cache.borrow().has_failed(hash) {
            return Err(TokenRefusal::Signature);
        }
        let checked = self.check(token, now_unix_s);
        let mut cache = self.cache.borrow_mut();
        match &checked {
            Ok(verified) => cache.insert(hash, token.len(), Arc::clone(verified)),
            Err(TokenRefusal::Signature) => cache.note_failed(hash),
            Err(_) => {}
        }
        checked
    }

    /// What is cheap comes first; nothing of it is told apart to clients.
    fn check(&self, token: &str, now_unix_s: u64) -> Result<Arc<Verified>, TokenRefusal> {
        let compact = Compact::parse(token)?;
        let expires_at_s = self.check_times(&compact.claims, now_unix_s)?;
        let issuers = self.issuers.borrow();
        check_signature(&issuers, &compact)?;
        let claims = compact.claims;
        let session = self.session_field.resolve_in(&claims).and_then(|found| match found {
            Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
            Value::Number(number) => Some(number.to_string().into()),
            _ => None,
        });
        Ok(Arc::new(Verified { session, expires_at_s, claims }))
    }

    /// When the token ends, if it counts now.
    fn check_times(&self, claims: &Map<String, Value>, now_unix_s: u64) -> Result<u64, TokenRefusal> {
        let expires_at_s =
            claims.get("exp").and_then(seconds).ok_or(TokenRefusal::Times)?.saturating_add(self.leeway_s);
        if now_unix_s >= expires_at_s {
            return Err(TokenRefusal::Expired);
        }
        if let Some(begin) = claims.get("nbf") {
            let begins_at_s = seconds(begin).ok_or(TokenRefusal::Times)?;
            if begins_at_s > now_unix_s.saturating_add(self.leeway_s) {
                return Err(TokenRefusal::NotYetValid);
            }
        }
        Ok(expires_at_s)
    }
}

/// Holds a token against the keys of its issuer; of issuers without a name only if no other one has its name.
fn check_signature(issuers: &[Issuer], token: &Compact<'_>) -> Result<(), TokenRefusal> {
    let sent = token.claims.get("iss").and_then(Value::as_str);
    let named = issuers.iter().filter(|issuer| issuer.name.is_some() && issuer.name.as_deref() == sent);
    let any = issuers.iter().filter(|issuer| issuer.name.is_none());
    let is_named = named.clone().next().is_some();
    let candidates: Vec<&Issuer> = if is_named { named.collect() } else { any.collect() };
    if candidates.is_empty() {
        return Err(if issuers.is_empty() { TokenRefusal::UnknownKey } else { TokenRefusal::Issuer });
    }
    let algorithm = Algorithm::named(&token.algorithm).ok_or(TokenRefusal::Algorithm)?;
    let mut tried = 0;
    let mut fits = false;
    let mut knows_algorithm = false;
    let mut other_audience = false;
    for issuer in candidates {
        let mut knows_key = token.key_id.is_none();
        for key in issuer.keys.iter() {
            let is_meant = key.id().is_some() && key.id() == token.key_id.as_deref();
            knows_key |= is_meant;
            let allowed = key.algorithms().contains(algorithm);
            knows_algorithm |= allowed;
            // A key without a name may have signed anything.
            if !allowed || !(is_meant || key.id().is_none() || token.key_id.is_none()) || tried >= MAX_TRIED_KEYS {
                continue;
            }
            fits = true;
            tried += 1;
            if key.verifies(algorithm, token.signed, &token.signature) {
                if is_for(&issuer.audiences, &token.claims) {
                    return Ok(());
                }
                other_audience = true;
            }
        }
        if !knows_key && let Some(refresh) = &issuer.refresh {
            // Full: somebody has asked already.
            let _asked = refresh.try_send(());
        }
    }
    Err(match (other_audience, fits, knows_algorithm) {
        (true, ..) => TokenRefusal::Audience,
        (_, true, _) => TokenRefusal::Signature,
        (_, _, true) => TokenRefusal::UnknownKey,
        _ if issuers.iter().all(|issuer| issuer.keys.is_empty()) => TokenRefusal::UnknownKey,
        _ => TokenRefusal::Algorithm,
    })
}

/// Whether `aud` (a text or a list, RFC 7519 section 4.1.3) holds one of the audiences.
fn is_for(audiences: &[Box<str>], claims: &Map<String, Value>) -> bool {
    let is_one =
        |value: &Value| value.as_str().is_some_and(|text| audiences.iter().any(|audience| **audience == *text));
    audiences.is_empty()
        || match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_one),
            Some(value) => is_one(value),
            None => false,
        }
}

/// A `NumericDate` (RFC 7519 section 2), cut to whole seconds; what came before 1970 counts as 0.
fn seconds(claim: &Value) -> Option<u64> {
    let Value::Number(number) = claim else { return None };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float becomes the nearest u64")]
    let of_float = |float: f64| float.is_finite().then_some(float as u64);
    number.as_u64().or_else(|| number.as_f64().and_then(of_float))
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
