//! Who sent a request: signed tokens (RFC 7519, RFC 7515).

mod hmac_tokens;

use serde_json::{Map, Value};

pub use hmac_tokens::Verifier;

/// What a valid token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The session at the configured pointer.
    pub session: Option<Box<str>>,
    /// `exp`, in seconds since 1970.
    pub expires_at_s: u64,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Not a token, or not one of the configured algorithm.
    #[error("the token is malformed, or not of the configured algorithm")]
    Malformed,
    /// The signature isn't that of the configured key.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is missing, no number, or past.
    #[error("the token has expired, or doesn't say when it does")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYet,
    /// Its session is blacklisted.
    #[error("the token's session is blacklisted")]
    Blacklisted,
}

/// Where a refused session is looked up.
pub trait SessionList: Send + Sync + std::fmt::Debug {
    /// Is it refused at this moment?
    fn is_blacklisted(&self, session: &str) -> bool;
}
