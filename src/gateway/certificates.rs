//! What the assembly of a node has to do with TLS and with who may call it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_shards::node::Node;
use tidegate_shards::tls::TlsSettings;
use tokio::sync::watch;

use super::settings::listen_addresses;
use crate::config::{Config, TlsConfig};
use crate::control::InternalTls;
use crate::tls::Configs;
use crate::tls::listener::Handshakes;
use crate::tls::metrics::TlsMetrics;
use crate::tls::reload::Reload;

/// Who can call the internal ports.
pub(super) fn access(config: &Config) -> String {
    let mut rules = Vec::new();
    if config.internal_host.is_loopback() {
        rules.push("from this machine only");
    }
    if config.tls.as_ref().is_some_and(|tls| tls.files.client_ca.is_some()) {
        rules.push("with a client certificate");
    }
    if config.access.is_guarded() {
        rules.push("with the token");
    }
    if rules.is_empty() { "whoever reaches the internal port".to_owned() } else { rules.join(", ") }
}

/// The certificates in force, and who must hear of new ones.
pub(super) struct Certificates<'a> {
    config: &'a TlsConfig,
    internal: watch::Sender<Arc<rustls::ServerConfig>>,
    pub(super) metrics: Arc<TlsMetrics>,
}

impl<'a> Certificates<'a> {
    pub(super) fn new(config: &'a TlsConfig) -> Self {
        let metrics = Arc::<TlsMetrics>::default();
        metrics.expires_unix_s.store(config.configs.expires_unix_s, Ordering::Relaxed);
        Self { config, internal: watch::Sender::new(Arc::clone(&config.configs.internal)), metrics }
    }

    pub(super) fn internal(&self, host: IpAddr) -> InternalTls {
        InternalTls {
            listen: SocketAddr::new(host, self.config.internal_port),
            handshakes: Handshakes {
                config: self.internal.subscribe(),
                timeout: Duration::from_millis(self.config.handshake_timeout_ms),
                max: self.config.max_handshakes,
                metrics: Arc::clone(&self.metrics),
            },
        }
    }

    /// Starts to follow changes of the files.
    pub(super) fn follow(self, node: &Arc<Node>) -> io::Result<Reload> {
        let TlsConfig { files, contents, reload_seconds, .. } = self.config;
        let (node, internal) = (Arc::downgrade(node), self.internal);
        let apply = move |configs: &Configs| {
            let Some(node) = node.upgrade() else { return Ok(()) };
            node.set_tls(&configs.inbound).map_err(|_full| "a shard is far behind and didn't take them".to_owned())?;
            internal.send_replace(Arc::clone(&configs.internal));
            Ok(())
        };
        Reload::start(files.clone(), contents.clone(), *reload_seconds, self.metrics, apply)
    }
}

/// What the shards are told at the start.
pub(super) fn shard_tls(config: &Config, shards: u32) -> Option<TlsSettings> {
    let tls = config.tls.as_ref()?;
    Some(TlsSettings {
        listen: listen_addresses(&config.inbound_hosts, tls.inbound_port),
        config: Arc::clone(&tls.configs.inbound),
        handshake_timeout_ms: tls.handshake_timeout_ms,
        max_handshakes: tls.max_handshakes.div_ceil(shards as usize),
    })
}
