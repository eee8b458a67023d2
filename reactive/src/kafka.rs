//! What client and server share about Kafka: how to reach it, its topics, its producer, and the words of librdkafka.

pub(crate) mod events;
pub(crate) mod inbox;
pub(crate) mod outlet;
pub(crate) mod replies;
pub(crate) mod topics;
pub(crate) mod turns;

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::{Error, Kind};

/// When Kafka has a message: which replicas must have written it before it counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// All in-sync replicas; the producer is idempotent, so that librdkafka's retries write nothing twice.
    #[default]
    All,
    /// The leader alone: a little faster, and a message may be lost with its broker.
    Leader,
}

/// How to reach Kafka.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Addresses of some brokers, as `host:port,host:port`.
    pub brokers: String,
    /// Further properties of librdkafka, such as `security.protocol`; they win over what this crate sets.
    pub properties: Vec<(String, String)>,
    /// When a message counts as acknowledged.
    pub acks: Acks,
    /// Largest message, in bytes; the topic's own limit counts too.
    pub max_message_bytes: u32,
}

impl Connection {
    /// These brokers, acknowledged by all replicas, messages up to 1 MB.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), properties: Vec::new(), acks: Acks::All, max_message_bytes: 1_000_000 }
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", concat!("tidegate-reactive-", env!("CARGO_PKG_VERSION")))
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("log.connection.close", "false");
        config
    }

    fn with_properties(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// For listing and creating topics.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.with_properties(self.base())
    }

    /// A producer that sends at once; what comes while one request is under way goes together with the next.
    pub(crate) fn producer(&self, delivery_timeout_ms: u64) -> ClientConfig {
        let mut config = self.base();
        config
            .set("linger.ms", "0")
            // Else librdkafka chooses partitions for messages without a key itself.
            .set("sticky.partitioning.linger.ms", "0")
            .set("message.timeout.ms", delivery_timeout_ms.to_string())
            .set("message.max.bytes", self.max_message_bytes.to_string())
            .set("queue.buffering.max.messages", "1000000")
            .set("topic.metadata.propagation.max.ms", "3000")
            .set("retry.backoff.ms", "20");
        match self.acks {
            Acks::All => config.set("acks", "all").set("enable.idempotence", "true"),
            Acks::Leader => config.set("acks", "1"),
        };
        self.with_properties(config)
    }

    /// A consumer that gets messages as soon as the broker has them.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS)
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.message.max.bytes", self.max_message_bytes.max(MIN_FETCH_BYTES).to_string())
            .set("receive.message.max.bytes", RECEIVE_BYTES)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("allow.auto.create.topics", "false");
        self.with_properties(config)
    }
}

/// How long a broker holds back an answer to a fetch for which it has nothing yet. It does answer at once when something
/// comes; this only bounds how long a partition that is added or taken away waits for the fetch under way.
const FETCH_WAIT_MS: &str = "100";
const MIN_FETCH_BYTES: u32 = 1 << 20;
/// Largest answer of a broker that is taken.
const RECEIVE_BYTES: &str = "100000000";

/// Milliseconds since the epoch, for deadlines that travel.
pub(crate) fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An error of librdkafka as one of this crate.
pub(crate) fn explain(what: &str, error: KafkaError) -> Error {
    let code = match &error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    let kind = match code {
        Some(code) => kind_of(code),
        None if matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)) => Kind::Settings,
        None => Kind::Refused,
    };
    Error::new(kind, what).because(error)
}

/// What an error code means for who tries again.
pub(crate) fn kind_of(code: Code) -> Kind {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Kind::TooLarge,
        Code::QueueFull => Kind::Full,
        Code::MessageTimedOut
        | Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::Resolve
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::PurgeQueue
        | Code::PurgeInflight => Kind::Unreachable,
        Code::PolicyViolation | Code::InvalidConfig => Kind::Settings,
        _ => Kind::Refused,
    }
}

/// One line of librdkafka's log, `level` counted as in syslog; lost connections are weather there and show in the outcomes of calls.
pub(crate) fn log(level: i32, facility: &str, message: &str) {
    match level {
        0..=2 => tracing::error!(target: "tidegate::reactive", facility, "{message}"),
        3..=4 if !matches!(facility, "FAIL" | "ERROR") => {
            tracing::warn!(target: "tidegate::reactive", facility, "{message}");
        }
        _ => tracing::debug!(target: "tidegate::reactive", facility, "{message}"),
    }
}
