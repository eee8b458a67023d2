//! Settings: read as text, validated once with every problem listed, then immutable.

pub mod catalogue;
mod features;
mod hub;
mod limits;
mod proxy;
mod registry;
mod sessions;
mod snapshots;
#[cfg(test)]
mod tests;
pub mod tls;
mod tokens;
pub mod values;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tidegate_shards::auth::check::CheckUrl;
use tidegate_shards::extractor::Extractors;
use tidegate_shards::limits::origin::Cors;
use tidegate_shards::proxy::definition::Definition;
use tidegate_shards::queue::SlowClient;

pub use features::LATER_VERSION;
pub use hub::{KafkaSettings, Sasl, SaslMechanism, Tls};
pub use limits::LimitsConfig;
pub use proxy::ProxyConfig;
pub use sessions::SessionsConfig;
pub use snapshots::SnapshotSettings;
pub use tls::TlsConfig;
pub use tokens::{RemoteKeys, TokenConfig};

use crate::control::Access;
use crate::cores;
use crate::logging::{Format, Level};
use values::{Problem, Reader, Values};

/// All settings in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses for clients (`INBOUND_HOST`).
    pub inbound_hosts: Vec<IpAddr>,
    /// Port for clients; 0 takes a free one.
    pub inbound_port: u16,
    /// Address of the internal port.
    pub internal_host: IpAddr,
    /// Internal port; 0 takes a free one, `None` opens none.
    pub internal_port: Option<u16>,
    /// Who may call the internal ports.
    pub access: Access,
    /// The TLS ports; `None` opens none.
    pub tls: Option<TlsConfig>,
    /// Time over which clients are moved away after SIGTERM, in seconds.
    pub drain_seconds: u64,
    /// Listen although another gateway of the same user does.
    pub takeover: bool,
    /// `access-control-allow-origin` on own answers.
    pub cors: Cors,
    /// Number of shards; `None` derives it from the usable cores.
    pub shards: Option<usize>,
    /// Cores for the shards, as named; `None` takes those this process may use.
    pub cpus: Option<Vec<usize>>,
    /// Microseconds a shard spins before it sleeps.
    pub spin_us: u64,
    /// Extractors in force.
    pub extractors: Arc<Extractors>,
    /// Refuse constraints on fields without extractor.
    pub strict_constraints: bool,
    /// Subscriptions one connection may hold.
    pub max_subscriptions: usize,
    /// Bytes of recent events kept.
    pub history_bytes: usize,
    /// Clients may ask for more than a cursor leads to.
    pub replay_earliest: bool,
    /// Initial states that are kept for clients.
    pub snapshots: SnapshotSettings,
    /// Kafka; `None` means the hub is local.
    pub kafka: Option<KafkaSettings>,
    /// Where the schema registry is; `None` without one.
    pub schema_registry: Option<CheckUrl>,
    /// Topic of the checkpoints that cursors refer to.
    pub positions_topic: String,
    /// Cursors longer than this refer to checkpoints, in characters.
    pub max_plain_cursor_chars: usize,
    /// Topic in which nodes find each other.
    pub nodes_topic: String,
    /// Port for calls of other nodes; 0 takes a free one.
    pub node_port: u16,
    /// Host, or `host:port`, under which other nodes reach it; `None` takes `HOST` or `INTERNAL_HOST`.
    pub node_address: Option<String>,
    /// `HOST`, as given.
    pub host: Option<String>,
    /// New connections a minute on this node.
    pub max_connections_per_minute: u32,
    /// Bytes that may wait for one connection.
    pub max_queue_bytes: usize,
    /// What happens at that bound, and what else clients may ask for; never empty.
    pub slow_client: Vec<SlowClient>,
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Bytes of an event from Kafka.
    pub max_event_bytes: usize,
    /// Bytes of a WebSocket message from a client.
    pub max_message_bytes: usize,
    /// Milliseconds until a request head must be complete.
    pub header_timeout_ms: u64,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// Milliseconds a long-polling call waits at most.
    pub long_polling_wait_ms: u64,
    /// Milliseconds a long-polling session outlives its last call.
    pub long_polling_session_ms: u64,
    /// Limits on clients, and who they are.
    pub limits: LimitsConfig,
    /// The API proxy.
    pub proxy: ProxyConfig,
    /// How tokens are verified, and where they are needed.
    pub tokens: TokenConfig,
    /// Identities of connections, and the blacklist.
    pub sessions: SessionsConfig,
    /// Key for connection tokens and correlation ids; `None` takes a random one.
    pub node_cookie: Option<String>,
    /// Log level.
    pub log_level: Level,
    /// Log format.
    pub log_format: Format,
    /// Serve `/metrics`.
    pub metrics: bool,
    /// Serve the WebSocket echo for conformance suites.
    pub echo_endpoint: bool,
    /// What the operator should know: settings that have no effect in this version.
    pub warnings: Vec<String>,
}

const MAX_TIMEOUT_MS: u64 = 24 * 3_600_000;
const MAX_BYTES: u64 = 1 << 40;

impl Config {
    /// Validates all settings.
    ///
    /// # Errors
    /// Every unusable setting, in the order of the catalogue's parts.
    pub fn validate(values: &Values) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(values);
        let config = Self::read(&mut reader);
        if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let (nodes_topic, node_address) = hub::nodes(reader);
        let positions_topic = hub::topic(reader, "POSITIONS_TOPIC");
        let mut internal_hosts = reader.addresses("INTERNAL_HOST");
        if internal_hosts.len() > 1 {
            reader.problem("INTERNAL_HOST", "more than one address", "Use one address");
        }
        let mut config = Self {
            inbound_hosts: reader.addresses("INBOUND_HOST"),
            inbound_port: reader.port("INBOUND_PORT"),
            internal_host: internal_hosts.pop().unwrap_or(IpAddr::from([127, 0, 0, 1])),
            internal_port: tls::plain_internal_port(reader),
            access: tls::access(reader),
            tls: tls::tls(reader),
            drain_seconds: reader.number("DRAIN_SECONDS", 0..=86_400),
            takeover: reader.switch("TAKEOVER"),
            cors: limits::cors(reader),
            shards: reader.text("SHARDS").map(|_| reader.size("SHARDS", 1..=1024)),
            cpus: cpus(reader),
            spin_us: reader.number("SPIN", 0..=1_000_000),
            extractors: Arc::new(extractors(reader)),
            strict_constraints: reader.switch("STRICT_CONSTRAINTS"),
            max_subscriptions: reader.size("MAX_SUBSCRIPTIONS", 1..=1_000_000),
            history_bytes: reader.size("HISTORY_BYTES", 0..=MAX_BYTES),
            replay_earliest: reader.switch("REPLAY_EARLIEST"),
            snapshots: snapshots::snapshots(reader),
            kafka: hub::kafka(reader),
            schema_registry: registry::registry(reader),
            positions_topic,
            max_plain_cursor_chars: reader.size("TEST_CURSOR_CHARS", 0..=1 << 20),
            nodes_topic,
            node_port: reader.port("NODE_PORT"),
            node_address,
            host: reader.text("HOST"),
            max_connections_per_minute: u32::try_from(
                reader.number("MAX_CONNECTIONS_PER_MINUTE", 1..=u64::from(u32::MAX)),
            )
            .unwrap_or(u32::MAX),
            max_queue_bytes: reader.size("MAX_QUEUE_BYTES", 1_024..=MAX_BYTES),
            slow_client: slow_client(reader),
            max_body_bytes: reader.size("MAX_BODY_BYTES", 1_024..=1 << 30),
            max_event_bytes: reader.size("MAX_EVENT_BYTES", 1_024..=1 << 30),
            max_message_bytes: reader.size("MAX_MESSAGE_BYTES", 125..=1 << 30),
            header_timeout_ms: reader.number("HEADER_TIMEOUT_MS", 100..=MAX_TIMEOUT_MS),
            heartbeat_ms: reader.number("HEARTBEAT_MS", 100..=MAX_TIMEOUT_MS),
            long_polling_wait_ms: reader.number("LONG_POLLING_WAIT_MS", 0..=MAX_TIMEOUT_MS),
            long_polling_session_ms: reader.number("LONG_POLLING_SESSION_MS", 1_000..=7 * MAX_TIMEOUT_MS),
            limits: limits::limits(reader),
            proxy: proxy::proxy(reader),
            tokens: tokens::tokens(reader),
            sessions: sessions::sessions(reader),
            node_cookie: reader.text("NODE_COOKIE"),
            log_level: reader.word("LOG_LEVEL", Level::WORDS),
            log_format: reader.word("LOG_FMT", Format::WORDS),
            metrics: reader.switch("PROMETHEUS_METRICS_ENABLED"),
            echo_endpoint: reader.switch("TEST_ECHO_ENDPOINT"),
            warnings: Vec::new(),
        };
        check_sizes(&config, reader);
        config.warnings = features::check(reader);
        config.warnings.extend(open_doors(&config));
        config.warnings.extend(config.tokens.warnings.iter().cloned());
        if config.tokens.settings.issuers.is_empty() && config.proxy.definitions.iter().any(Definition::is_secured) {
            config.warnings.push(format!("PROXY_CONFIG_FILE: {}", tokens::SECURED_WITHOUT_KEY));
        }
        config
    }
}

/// What an operator should know about who can reach the internal ports.
fn open_doors(config: &Config) -> Option<String> {
    let asks_for_certificates = config.tls.as_ref().is_some_and(|tls| tls.files.client_ca.is_some());
    if config.internal_host.is_loopback() || asks_for_certificates {
        return None;
    }
    if !config.access.is_guarded() {
        return Some(
            "INTERNAL_HOST: whoever reaches this address may publish events and change API definitions; set \
             INTERNAL_TOKEN or INTERNAL_CLIENT_CA"
                .to_owned(),
        );
    }
    let plain = config.internal_port.is_some();
    plain.then(|| {
        "INTERNAL_TOKEN: it is sent unencrypted to the plain internal port; call the TLS one, and set API_HTTP_PORT=off"
            .to_owned()
    })
}

fn check_sizes(config: &Config, reader: &mut Reader<'_>) {
    if config.max_event_bytes.max(config.max_body_bytes) > config.max_queue_bytes {
        reader.problem(
            "MAX_QUEUE_BYTES",
            "smaller than MAX_EVENT_BYTES or MAX_BODY_BYTES, so the largest events could reach nobody",
            "Raise it, or lower the other two",
        );
    }
    if config.max_queue_bytes as u64 > config.limits.max_queued_bytes {
        reader.problem(
            "MAX_QUEUED_BYTES_PER_SHARD",
            "smaller than MAX_QUEUE_BYTES, so one slow client would be all that a shard can have",
            "Raise it, or lower MAX_QUEUE_BYTES",
        );
    }
}

fn slow_client(reader: &mut Reader<'_>) -> Vec<SlowClient> {
    let names = reader.list("SLOW_CLIENT");
    let policies: Vec<_> = names.iter().filter_map(|name| SlowClient::named(&name.to_ascii_lowercase())).collect();
    if policies.len() < names.len() || policies.is_empty() {
        let remedy = "Use disconnect, drop or conflate; after the one in force, those that clients may ask for";
        reader.problem("SLOW_CLIENT", "unknown policy", remedy);
    }
    policies
}

fn cpus(reader: &mut Reader<'_>) -> Option<Vec<usize>> {
    let text = reader.text("CPUS")?;
    match cores::parse_list(&text) {
        Ok(cpus) => Some(cpus),
        Err(error) => {
            reader.problem("CPUS", error.to_string(), "Use a list such as 0-7,16-23");
            None
        }
    }
}

fn extractors(reader: &mut Reader<'_>) -> Extractors {
    let Some(text) = reader.text("EXTRACTORS") else { return Extractors::default() };
    let json = match json_or_file(&text) {
        Ok(json) => json,
        Err(error) => {
            reader.problem("EXTRACTORS", error, "Give the JSON itself or the path of a readable file");
            return Extractors::default();
        }
    };
    Extractors::parse(&json).unwrap_or_else(|errors| {
        for error in errors {
            reader.problem("EXTRACTORS", error, "See the section on extractors in docs/operations.md");
        }
        Extractors::default()
    })
}

/// The text itself if it looks like JSON, else the content of the file it names.
fn json_or_file(text: &str) -> Result<String, String> {
    if text.starts_with(['{', '[']) {
        return Ok(text.to_owned());
    }
    std::fs::read_to_string(Path::new(text)).map_err(|error| format!("the file can't be read ({error})"))
}
