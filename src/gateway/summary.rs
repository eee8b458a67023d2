//! What a node says on standard output when it listens.

use std::net::SocketAddr;

use super::Gateway;
use super::certificates::access;
use crate::config::Config;
use crate::cores::format_list;

impl Gateway {
    /// One line for scripts: where to reach the gateway, now that it listens.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let inbound = self.addresses.inbound.first().map(ToString::to_string).unwrap_or_default();
        let tls = |name: &str, address: Option<&SocketAddr>| address.map(|address| format!(" {name}={address}"));
        let inbound_tls = tls("inbound-tls", self.addresses.inbound_tls.first()).unwrap_or_default();
        let internal_tls = tls("internal-tls", self.addresses.internal_tls.as_ref()).unwrap_or_default();
        format!("tidegate ready inbound={inbound} internal={}{inbound_tls}{internal_tls}", self.addresses.internal)
    }

    /// The start-up summary.
    #[must_use]
    pub fn summary(&self, config: &Config) -> String {
        let plain = self.addresses.inbound.iter().map(|address| format!("http://{address}"));
        let tls = self.addresses.inbound_tls.iter().map(|address| format!("https://{address}"));
        let urls = plain.chain(tls).collect::<Vec<_>>().join(", ");
        let pinned: Vec<_> = self.cores.iter().copied().flatten().collect();
        let shards = match (self.cores.len(), pinned.as_slice()) {
            (count, []) => format!("{count}, not pinned"),
            (1, [core]) => format!("1 on core {core}"),
            (count, pinned) => format!("{count} on cores {}", format_list(pinned)),
        };
        let endpoints = self.apis.endpoints();
        let hub = config.kafka.as_ref().map_or_else(
            || "local to this process (KAFKA_BROKERS reads from Kafka)".to_owned(),
            |kafka| format!("Kafka at {}, topics {}", kafka.brokers.join(","), kafka.source_topics.join(", ")),
        );
        format!(
            "Tidegate {version}\n  clients   {urls} (event streams, WebSocket, long polling)\n  \
             internal  {internal} (/health, /metrics, /v3/messages, /v3/apis)\n  \
             access    {access}\n  shards    {shards}\n  hub       {hub}\n  apis      \
             {endpoints} endpoint{s}",
            s = if endpoints == 1 { "" } else { "s" },
            version = env!("CARGO_PKG_VERSION"),
            internal = self.internal_urls(),
            access = access(config),
        )
    }

    fn internal_urls(&self) -> String {
        let plain = self.control.plain().map(|address| format!("http://{address}"));
        let tls = self.control.tls().map(|address| format!("https://{address}"));
        plain.into_iter().chain(tls).collect::<Vec<_>>().join(", ")
    }
}
