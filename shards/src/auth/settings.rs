//! What tokens must be like, and where they are, as a node is told at start.

use std::sync::Arc;

use crossbeam::channel::Sender;

use super::check::Check;
use super::key::Key;
use crate::pointer::JsonPointer;

/// One who issues tokens.
#[derive(Clone, Debug, Default)]
pub struct Issuer {
    /// `iss` of its tokens; `None` takes any.
    pub name: Option<Box<str>>,
    /// One of these must be in `aud`; with none of them, `aud` doesn't matter.
    pub audiences: Box<[Box<str>]>,
    /// The keys that are known at start.
    pub keys: Arc<[Key]>,
    /// Asks for newer keys, where they come from a URL.
    pub refresh: Option<Sender<()>>,
}

/// Settings of tokens and of checks. By default there is no issuer, and every token is refused.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Who may issue tokens.
    pub issuers: Vec<Issuer>,
    /// Where the session is in the claims (`JWT_SESSION_FIELD`).
    pub session_field: JsonPointer,
    /// Seconds that clocks may differ, for `exp` and `nbf` (`JWT_LEEWAY_SECONDS`).
    pub leeway_s: u64,
    /// Memory for verified tokens per shard, in bytes (`JWT_CACHE_BYTES`, shared out).
    pub cache_bytes: usize,
    /// Cookie that holds a token (`JWT_COOKIE`).
    pub cookie: Option<Box<str>>,
    /// Who may subscribe (`SUBSCRIPTION_CHECK`).
    pub subscription_check: Check,
    /// Who may publish (`SUBMISSION_CHECK`).
    pub submission_check: Check,
    /// Time for an answer to a check by URL, in milliseconds (`CHECK_TIMEOUT_MS`).
    pub check_timeout_ms: u64,
    /// How long such an answer counts for the same question, in milliseconds; 0 asks every time (`CHECK_CACHE_MS`).
    pub check_cache_ms: u64,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            session_field: JsonPointer::parse("/jti").expect("invariant: a JSON pointer"),
            leeway_s: 0,
            cache_bytes: 8 << 20,
            cookie: None,
            subscription_check: Check::Nobody,
            submission_check: Check::Nobody,
            check_timeout_ms: 5_000,
            check_cache_ms: 0,
        }
    }
}
