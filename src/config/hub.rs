//! The settings of Kafka.

use std::fmt;
use std::path::{Path, PathBuf};

use super::values::Reader;

/// How to reach Kafka, and what to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Brokers to start from, `host:port` each.
    pub brokers: Vec<String>,
    /// Topics that events are read from; the first also takes published ones. Not empty.
    pub source_topics: Vec<String>,
    /// SASL login.
    pub sasl: Option<Sasl>,
    /// TLS, if enabled.
    pub tls: Option<Tls>,
    /// Seconds out of reach until `/health` says so.
    pub unreachable_seconds: u64,
    /// Longest pause between two attempts to connect, in milliseconds.
    pub reconnect_max_ms: u64,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// The mechanism's registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A SASL login; its debug form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// Mechanism.
    pub mechanism: SaslMechanism,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// TLS towards the brokers; its debug form hides the passphrase.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authority; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Passphrase of the key.
    pub key_passphrase: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("ca_file", &self.ca_file)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Reads them; `None` without brokers. All are validated either way.
pub(super) fn kafka(reader: &mut Reader<'_>) -> Option<KafkaSettings> {
    let brokers = reader.list("KAFKA_BROKERS");
    for broker in &brokers {
        if !is_broker(broker) {
            reader.problem(
                "KAFKA_BROKERS",
                format!("{broker:?} is not host:port"),
                "Use a list such as kafka-1:9092,kafka-2:9092",
            );
        }
    }
    let settings = KafkaSettings {
        source_topics: topics(reader),
        sasl: sasl(reader),
        tls: tls(reader, !brokers.is_empty()),
        unreachable_seconds: reader.number("KAFKA_UNREACHABLE_SECONDS", 1..=86_400),
        reconnect_max_ms: reader.number("KAFKA_RESTART_DELAY_MS", 100..=3_600_000),
        brokers,
    };
    (!settings.brokers.is_empty()).then_some(settings)
}

/// Where and how nodes find each other: their topic, and the address of this one where it is given.
pub(super) fn nodes(reader: &mut Reader<'_>) -> (String, Option<String>) {
    let topic = topic(reader, "NODES_TOPIC");
    let address = reader.text("NODE_ADDRESS");
    if address.as_ref().is_some_and(|address| !is_broker(address)) {
        reader.problem("NODE_ADDRESS", "not host or host:port", "Use an address such as 10.0.0.7 or 10.0.0.7:4020");
    }
    (topic, address)
}

/// The topic that a setting names.
pub(super) fn topic(reader: &mut Reader<'_>, variable: &'static str) -> String {
    let topic = reader.text(variable).unwrap_or_default();
    if !is_topic(&topic) {
        let remedy = "Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens";
        reader.problem(variable, "not a topic name", remedy);
    }
    topic
}

/// `host`, `host:port` or `[ipv6]:port`.
fn is_broker(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is_plausible = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == ',');
    host_is_plausible && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// The source topics, each once.
pub(super) fn source_topics(reader: &Reader<'_>) -> Vec<String> {
    let mut topics = reader.list("KAFKA_SOURCE_TOPICS");
    let mut seen = std::collections::HashSet::new();
    topics.retain(|topic| seen.insert(topic.clone()));
    topics
}

fn topics(reader: &mut Reader<'_>) -> Vec<String> {
    let topics = source_topics(reader);
    for topic in &topics {
        if !is_topic(topic) {
            reader.problem(
                "KAFKA_SOURCE_TOPICS",
                format!("{topic:?} is not a topic name"),
                "Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens",
            );
        }
    }
    if topics.is_empty() {
        reader.problem("KAFKA_SOURCE_TOPICS", "no topic", "Name at least one topic");
    }
    topics
}

pub(super) fn is_topic(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn sasl(reader: &mut Reader<'_>) -> Option<Sasl> {
    let text = reader.text("KAFKA_SASL")?;
    let mut parts = text.splitn(3, ':');
    let (mechanism, user, password) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let mechanism = match mechanism.to_ascii_lowercase().replace('_', "-").as_str() {
        "plain" => Some(SaslMechanism::Plain),
        "scram-sha-256" => Some(SaslMechanism::ScramSha256),
        "scram-sha-512" => Some(SaslMechanism::ScramSha512),
        _ => None,
    };
    match (mechanism, user, password) {
        (Some(mechanism), Some(user), Some(password)) if !user.is_empty() => {
            Some(Sasl { mechanism, user: user.to_owned(), password: password.to_owned() })
        }
        _ => {
            reader.problem(
                "KAFKA_SASL",
                "not mechanism:user:password",
                "Use plain:user:password, scram-sha-256:user:password or scram-sha-512:user:password",
            );
            None
        }
    }
}

fn tls(reader: &mut Reader<'_>, kafka_in_use: bool) -> Option<Tls> {
    if !reader.switch("KAFKA_SSL_ENABLED") {
        return None;
    }
    let mut file = |variable: &'static str| {
        let path = PathBuf::from(reader.text(variable)?);
        if path.is_file() {
            return Some(path);
        }
        if kafka_in_use && reader.values().is_set(variable) {
            reader.problem(variable, "no such file", "Give the path of a readable PEM file, or leave it unset");
        }
        None
    };
    let ca_file = file("KAFKA_SSL_CA_CERTFILE");
    let (certificate, key) = (file("KAFKA_SSL_CERTFILE"), file("KAFKA_SSL_KEYFILE"));
    if kafka_in_use && certificate.is_some() != key.is_some() {
        let missing = if key.is_none() { "KAFKA_SSL_KEYFILE" } else { "KAFKA_SSL_CERTFILE" };
        reader.problem(missing, "only one of client certificate and key is there", "Give both or neither");
    }
    Some(Tls { ca_file, client: certificate.zip(key), key_passphrase: reader.text("KAFKA_SSL_KEYFILE_PASS") })
}

impl Tls {
    /// The path as librdkafka takes it.
    #[must_use]
    pub fn path(path: &Path) -> String {
        path.to_string_lossy().into_owned()
    }
}
