//! Settings of the API proxy.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_shards::proxy::definition::{Definition, Surroundings};

use super::hub::is_topic;
use super::values::Reader;
use super::{MAX_BYTES, MAX_TIMEOUT_MS, registry};

/// What the API proxy of a node is told at start.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// API definitions of the start (`PROXY_CONFIG_FILE`), compiled.
    pub definitions: Vec<Definition>,
    /// Topic of API definitions, where there is Kafka (`PROXY_APIS_TOPIC`).
    pub apis_topic: String,
    /// Whether Kafka gets Avro (`KAFKA_SERIALIZER`).
    pub avro: bool,
    /// Folder of the state file without Kafka (`STATE_DIR`).
    pub state_dir: Option<PathBuf>,
    /// `by` of the `forwarded` header (`HOST`, resolved).
    pub forwarded_by: String,
    /// Time to connect to a backend, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time for a backend to begin its answer, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// Time between two pieces of a body, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Life of an unused connection to a backend, in milliseconds.
    pub keep_alive_ms: u64,
    /// Connections to one backend.
    pub max_connections: usize,
    /// Certificate authority for https backends, PEM.
    pub ca_pem: Option<Arc<[u8]>>,
    /// Time for an answer over `/v3/responses`, in milliseconds.
    pub http_async_timeout_ms: u64,
    /// Time for an answer over Kafka, in milliseconds.
    pub kafka_timeout_ms: u64,
    /// Topics that carry answers of services that know nothing of reply partitions.
    pub response_topics: Vec<String>,
    /// Topic of which each node reads a partition of its own for answers.
    pub reply_topic: String,
    /// Requests that may wait for correlated answers.
    pub max_pending: usize,
    /// Memory for stored answers, in bytes.
    pub stored_bytes: usize,
    /// Life of a stored answer, in milliseconds.
    pub stored_ms: u64,
    /// Log calls to the console.
    pub log_console: bool,
    /// Log calls to Kafka.
    pub log_kafka: bool,
    /// Topic of the request log.
    pub log_topic: String,
    /// Subject of its Avro schema, where Kafka gets Avro (`KAFKA_LOG_SCHEMA`).
    pub log_schema: Option<String>,
}

/// Reads and validates them.
pub(super) fn proxy(reader: &mut Reader<'_>) -> ProxyConfig {
    let timeout = |reader: &mut Reader<'_>, variable| reader.number(variable, 1..=MAX_TIMEOUT_MS);
    let (log_console, log_kafka) = request_log(reader);
    ProxyConfig {
        definitions: definitions(reader),
        apis_topic: topics(reader, "PROXY_APIS_TOPIC").pop().unwrap_or_default(),
        avro: registry::is_avro(reader),
        state_dir: reader.text("STATE_DIR").map(PathBuf::from),
        forwarded_by: forwarded_by(reader),
        connect_timeout_ms: timeout(reader, "PROXY_CONNECT_TIMEOUT"),
        first_byte_timeout_ms: timeout(reader, "PROXY_RECV_TIMEOUT"),
        idle_timeout_ms: timeout(reader, "PROXY_IDLE_TIMEOUT"),
        keep_alive_ms: timeout(reader, "PROXY_KEEP_ALIVE"),
        max_connections: reader.size("PROXY_MAX_CONNECTIONS", 1..=65_536),
        ca_pem: ca(reader),
        http_async_timeout_ms: timeout(reader, "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT"),
        kafka_timeout_ms: timeout(reader, "PROXY_KAFKA_RESPONSE_TIMEOUT"),
        response_topics: topics(reader, "PROXY_KAFKA_RESPONSE_TOPICS"),
        reply_topic: topics(reader, "PROXY_REPLY_TOPIC").pop().unwrap_or_default(),
        max_pending: reader.size("PROXY_MAX_PENDING", 1..=1 << 30),
        stored_bytes: reader.size("PROXY_STORED_BYTES", 0..=MAX_BYTES),
        stored_ms: reader.number("PROXY_STORED_SECONDS", 1..=MAX_TIMEOUT_MS / 1_000) * 1_000,
        log_console,
        log_kafka,
        log_topic: topics(reader, "KAFKA_LOG_TOPIC").pop().unwrap_or_default(),
        log_schema: reader.text("KAFKA_LOG_SCHEMA").filter(|_| registry::is_avro(reader)),
    }
}

fn definitions(reader: &mut Reader<'_>) -> Vec<Definition> {
    let Some(text) = reader.text("PROXY_CONFIG_FILE") else { return Vec::new() };
    let json = match super::json_or_file(&text) {
        Ok(json) => json,
        Err(error) => {
            reader.problem("PROXY_CONFIG_FILE", error, "Give the JSON itself or the path of a readable file");
            return Vec::new();
        }
    };
    let surroundings = Surroundings { environment: &|name| std::env::var(name).ok(), avro: registry::is_avro(reader) };
    Definition::parse_list(&json, &surroundings).unwrap_or_else(|wrong| {
        for error in wrong {
            reader.problem("PROXY_CONFIG_FILE", error, "Correct the definition");
        }
        Vec::new()
    })
}

/// The address that `HOST` resolves to, an IPv4 one first; by default that of the loopback interface.
fn forwarded_by(reader: &mut Reader<'_>) -> String {
    let Some(host) = reader.text("HOST") else { return Ipv4Addr::LOCALHOST.to_string() };
    let mut addresses: Vec<IpAddr> = match (host.as_str(), 0).to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        Err(error) => {
            reader.problem("HOST", format!("can't be resolved ({error})"), "Use an address, or a name that resolves");
            return String::new();
        }
    };
    addresses.sort_by_key(IpAddr::is_ipv6);
    match addresses.first() {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => host,
    }
}

fn ca(reader: &mut Reader<'_>) -> Option<Arc<[u8]>> {
    let path = reader.text("PROXY_CA_CERTFILE")?;
    match std::fs::read(&path) {
        Ok(pem) => Some(pem.into()),
        Err(error) => {
            let wrong = format!("the file can't be read ({error})");
            reader.problem("PROXY_CA_CERTFILE", wrong, "Give the path of a readable PEM file");
            None
        }
    }
}

pub(super) fn topics(reader: &mut Reader<'_>, variable: &'static str) -> Vec<String> {
    let topics = reader.list(variable);
    for topic in topics.iter().filter(|topic| !is_topic(topic)) {
        reader.problem(
            variable,
            format!("{topic:?} is not a topic name"),
            "Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens",
        );
    }
    topics
}

fn request_log(reader: &mut Reader<'_>) -> (bool, bool) {
    let (mut console, mut kafka) = (false, false);
    for sink in reader.list("REQUEST_LOG") {
        match sink.as_str() {
            "console" => console = true,
            "kafka" => kafka = true,
            _ => reader.problem("REQUEST_LOG", format!("unknown sink {sink:?}"), "Use console, kafka or both"),
        }
    }
    (console, kafka)
}
