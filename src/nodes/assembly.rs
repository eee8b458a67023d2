//! The nodes' parts, made from the settings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_shards::node::Holders;
use tidegate_shards::settings::ShardSettings;

use super::{NodeDesk, Nodes, port, wire};
use crate::config::Config;
use crate::control::AnswerDesk;

impl Nodes {
    /// The other nodes: those on the same Kafka that share the cookie. `None` where there can't be any.
    #[must_use]
    pub fn of(config: &Config, settings: &ShardSettings) -> Option<Arc<Self>> {
        let cookie = config.node_cookie.as_deref().filter(|_| config.kafka.is_some())?;
        let longest_poll = Duration::from_millis(config.long_polling_wait_ms);
        Some(Self::new(settings.node_id, cookie, settings.proxy.correlation_key.clone(), longest_poll))
    }

    /// Opens the port for other nodes, and lets them know of it.
    ///
    /// # Errors
    /// The port can't be bound; librdkafka refuses a setting, or a thread can't be started.
    pub fn start(self: &Arc<Self>, config: &Config, holders: Holders, answers: AnswerDesk) -> io::Result<()> {
        let Some(kafka) = &config.kafka else { return Ok(()) };
        let listener = port::bind(SocketAddr::new(config.internal_host, config.node_port))?;
        let address = advertised(config, listener.local_addr()?);
        let desk = NodeDesk { me: self.me, key: self.key.clone(), holders };
        let max_call_bytes = *self.max_call_bytes.get_or_init(|| wire::max_call_bytes(config.max_body_bytes));
        self.follow(kafka, &config.nodes_topic, address, (listener, desk, answers, max_call_bytes))
    }
}

/// Where other nodes reach the port.
fn advertised(config: &Config, bound: SocketAddr) -> String {
    let given = config.node_address.as_ref().or(config.host.as_ref());
    match given {
        Some(address) if has_port(address) => address.clone(),
        Some(host) => format!("{host}:{}", bound.port()),
        None if bound.ip().is_unspecified() => {
            tracing::warn!("other nodes can't know this node's address: set NODE_ADDRESS or HOST");
            format!("127.0.0.1:{}", bound.port())
        }
        None => bound.to_string(),
    }
}

/// Whether it is `host:port`, and not a host alone; an IPv6 address stands in brackets.
fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        (!host.contains(':') || host.ends_with(']')) && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Values;

    fn address(settings: &[(&str, &str)], bound: &str) -> String {
        let values = settings.iter().fold(Values::default(), |values, (name, text)| values.with(name, text));
        advertised(&Config::validate(&values).expect("usable settings"), bound.parse().expect("an address"))
    }

    #[test]
    fn others_are_told_the_most_particular_address_there_is() {
        assert_eq!(address(&[], "10.0.0.7:5000"), "10.0.0.7:5000");
        assert_eq!(address(&[("HOST", "127.0.0.1")], "0.0.0.0:5000"), "127.0.0.1:5000");
        assert_eq!(address(&[("NODE_ADDRESS", "gw-1")], "0.0.0.0:5000"), "gw-1:5000");
        assert_eq!(address(&[("NODE_ADDRESS", "[::1]")], "[::]:5000"), "[::1]:5000");
        assert_eq!(address(&[("NODE_ADDRESS", "gw-1:6000"), ("HOST", "127.0.0.1")], "0.0.0.0:5000"), "gw-1:6000");
    }
}
