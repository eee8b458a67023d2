//! What a token that was verified says.

use std::fmt;

use serde_json::{Map, Value};

/// A token that was signed by a key of its issuer and was valid when it was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The session it belongs to: the claim at `JWT_SESSION_FIELD`, where that is a text or a number.
    pub session: Option<Box<str>>,
    /// From this second of Unix time on it counts no more: `exp`, plus the leeway.
    pub expires_at_s: u64,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// The sessions whose tokens are refused although they are valid.
pub trait SessionList: fmt::Debug + Send + Sync {
    /// Whether the tokens of this session are refused now. Called by shards for each use of a token: it must not block.
    fn is_blacklisted(&self, session: &str) -> bool;
}
