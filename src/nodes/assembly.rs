//! The nodes' parts, made from the settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_shards::node::Node;
use tidegate_shards::peers::CallKey;
use tidegate_shards::settings::ShardSettings;

use super::{NodeDesk, Nodes};
use crate::config::Config;

impl Nodes {
    /// The other nodes: those on the same Kafka that share the cookie. `None` where there can't be any.
    #[must_use]
    pub fn of(config: &Config, settings: &ShardSettings) -> Option<Arc<Self>> {
        let cookie = config.node_cookie.as_deref().filter(|_| config.kafka.is_some())?;
        let longest_poll = Duration::from_millis(config.long_polling_wait_ms);
        Some(Self::new(settings.node_id, cookie, settings.proxy.correlation_key.clone(), longest_poll))
    }
}
impl NodeDesk {
    /// For the calls of such nodes.
    #[must_use]
    pub fn of(config: &Config, me: u64, node: &Node) -> Option<Self> {
        let cookie = config.node_cookie.as_deref().filter(|_| config.kafka.is_some())?;
        Some(Self { me, key: CallKey::derive_from(cookie), holders: node.holders() })
    }
}
/// Where other nodes reach the internal port.
#[must_use]
pub fn address(config: &Config, internal: SocketAddr) -> String {
    if let Some(address) = &config.node_address {
        return address.clone();
    }
    match &config.host {
        Some(host) => format!("{host}:{}", internal.port()),
        None if internal.ip().is_unspecified() => {
            tracing::warn!("other nodes can't know this node's address: set NODE_ADDRESS or HOST");
            format!("127.0.0.1:{}", internal.port())
        }
        None => internal.to_string(),
    }
}
