//! Can Kafka be reached, and are the topics there?

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::Finding;
use crate::config::KafkaSettings;
use crate::kafka::{LogContext, client_config};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for the topics.
pub(super) fn finding(settings: &KafkaSettings) -> Finding {
    let brokers = settings.brokers.join(",");
    let mut config = client_config(settings);
    config.set("allow.auto.create.topics", "false");
    let client: BaseConsumer<LogContext> = match config.create_with_context(LogContext) {
        Ok(client) => client,
        Err(error) => return Finding::fail("Kafka", error.to_string(), "Correct the KAFKA_ settings"),
    };
    let metadata = match client.fetch_metadata(None, TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Finding::fail(
                "Kafka",
                format!("{brokers} can't be reached: {error}"),
                "Check KAFKA_BROKERS, that the brokers advertise addresses that can be reached from here, KAFKA_SASL and \
                 KAFKA_SSL_ENABLED",
            );
        }
    };
    let there = |topic: &&String| metadata.topics().iter().any(|found| found.name() == topic.as_str());
    let missing: Vec<_> = settings.source_topics.iter().filter(|topic| !there(topic)).cloned().collect();
    if missing.is_empty() {
        Finding::ok(
            "Kafka",
            format!("{} brokers, topics {}", metadata.brokers().len(), settings.source_topics.join(", ")),
        )
    } else {
        Finding::warn(
            "Kafka",
            format!("no topic {}", missing.join(", ")),
            "Create it, or let it appear later: it will be picked up",
        )
    }
}
