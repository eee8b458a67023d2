//! Settings of connections' identities: what a token subscribes to, when a connection ends, where blacklisted sessions are kept.

use tidegate_shards::subscription::SubscriptionMode;

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
