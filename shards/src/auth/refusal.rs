//! Why a token is refused.

use thiserror::Error;

/// Why a token is refused. The texts go into logs and metrics; clients are told no more than that it is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum TokenRefusal {
    /// Longer than [`super::compact::MAX_TOKEN_BYTES`].
    #[error("the token is too long")]
    Oversized,
    /// JSON nested deeper than [`super::compact::MAX_DEPTH`].
    #[error("the token's JSON is nested too deeply")]
    TooDeep,
    /// Not three parts of Base64 with JSON objects in them, or one that asks for what isn't understood (`crit`).
    #[error("this is no signed JSON Web Token")]
    Malformed,
    /// Names an algorithm that no key of its issuer has, `none` included.
    #[error("no key here verifies the token's algorithm")]
    Algorithm,
    /// Names a key (`kid`) that isn't known, or there are no keys at all.
    #[error("the key that has signed the token is not known here")]
    UnknownKey,
    /// No signature, or a wrong one.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is missing, or `exp` or `nbf` is no number.
    #[error("the token has no expiry (exp), or one of its times is no number")]
    Times,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is none of the configured ones.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` holds none of the configured ones.
    #[error("the token is for another audience")]
    Audience,
    /// Its session is blacklisted.
    #[error("the token's session is blacklisted")]
    Blacklisted,
}

impl TokenRefusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Oversized,
        Self::TooDeep,
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Times,
        Self::Expired,
        Self::NotYetValid,
        Self::Issuer,
        Self::Audience,
        Self::Blacklisted,
    ];

    /// Its label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::TooDeep => "too_deep",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Times => "times",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Blacklisted => "blacklisted",
        }
    }
}
