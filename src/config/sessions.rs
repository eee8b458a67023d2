//! Settings of connections' identities: what a token subscribes to, when a connection ends, where blacklisted sessions are kept.

use std::fmt;

use tidegate_shards::pointer::JsonPointer;
use tidegate_shards::subscription::SubscriptionMode;

use super::LATER_VERSION;
use super::proxy::topics;
use super::values::Reader;

/// What a node is told of identities at start.
#[derive(Clone, Debug)]
pub struct SessionsConfig {
    /// What manual subscriptions may do beside automatic ones (`AUTO_SUBSCRIPTIONS`).
    pub mode: SubscriptionMode,
    /// A connection ends when its token expires (`END_AT_TOKEN_EXPIRY`).
    pub end_at_token_expiry: bool,
    /// Topic of blacklisted sessions, where there is Kafka (`SESSIONS_TOPIC`).
    pub topic: String,
}

/// Reads and validates them.
pub(super) fn sessions(reader: &mut Reader<'_>) -> SessionsConfig {
    SessionsConfig {
        mode: reader.word(
            "AUTO_SUBSCRIPTIONS",
            &[("unite", SubscriptionMode::Unite), ("restrict", SubscriptionMode::Restrict)],
        ),
        end_at_token_expiry: reader.switch("END_AT_TOKEN_EXPIRY"),
        topic: topics(reader, "SESSIONS_TOPIC").pop().unwrap_or_default(),
    }
}

/// How tokens are verified.
#[derive(Clone)]
pub struct TokenConfig {
    /// The algorithm that every token must have (`JWT_ALG`).
    pub algorithm: &'static str,
    /// The shared secret (`JWT_SECRET_KEY`).
    pub secret: String,
    /// Where a session is in the claims (`JWT_SESSION_FIELD`).
    pub session: JsonPointer,
}

impl fmt::Debug for TokenConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, session, .. } = self;
        formatter
            .debug_struct("TokenConfig")
            .field("algorithm", algorithm)
            .field("session", session)
            .finish_non_exhaustive()
    }
}

/// Reads and validates how tokens are verified; `None` refuses every token.
pub(super) fn tokens(reader: &mut Reader<'_>) -> Option<TokenConfig> {
    const ALGORITHMS: [&str; 6] = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512"];
    let names = ALGORITHMS.map(str::to_ascii_lowercase);
    let words: Vec<_> = names.iter().map(String::as_str).zip(ALGORITHMS).collect();
    let algorithm = reader.word("JWT_ALG", &words);
    let secret = reader.text("JWT_SECRET_KEY");
    if algorithm.starts_with("RS") {
        if !secret.unwrap_or_default().contains("-----BEGIN") {
            reader.problem("JWT_SECRET_KEY", "JWT_ALG needs a PEM public key", "Put the PEM text into this variable");
        }
        let wrong = format!("this version verifies tokens with a shared secret only, keys come with {LATER_VERSION}");
        reader.problem("JWT_ALG", wrong, "Use HS256, HS384 or HS512, or wait for that version");
        return None;
    }
    match JsonPointer::parse(&reader.text("JWT_SESSION_FIELD").unwrap_or_default()) {
        Ok(session) if !session.tokens().is_empty() => Some(TokenConfig { algorithm, secret: secret?, session }),
        _ => {
            reader.problem("JWT_SESSION_FIELD", "not a JSON pointer", "Use a pointer such as /jti");
            None
        }
    }
}
