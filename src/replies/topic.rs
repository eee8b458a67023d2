//! Makes the reply topic where it doesn't exist.

use std::cell::Cell;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::config::KafkaSettings;
use crate::kafka::client_config;

/// Partitions of a reply topic made here: nodes that share one read each other's answers, and pass them by.
const PARTITIONS: i32 = 16;
/// Answers matter for seconds.
const RETENTION_MS: &str = "3600000";

/// Asks the brokers to make the topic. What stands in the way is logged the first time; services answer on the response
/// topics meanwhile.
pub(super) fn make(settings: &KafkaSettings, topic: &str, refused_before: &Cell<bool>) -> bool {
    let made = try_make(settings, topic);
    match &made {
        Ok(()) => tracing::info!(topic, partitions = PARTITIONS, "the reply topic is made"),
        Err(reason) if refused_before.replace(true) => tracing::debug!(topic, reason, "the reply topic can't be made"),
        Err(reason) => tracing::warn!(
            topic,
            reason,
            "the reply topic can't be made, so services can't answer straight to this node; make it, with 16 partitions"
        ),
    }
    made.is_ok()
}

fn try_make(settings: &KafkaSettings, topic: &str) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(settings).create().map_err(|error| error.to_string())?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1)).set("retention.ms", RETENTION_MS);
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let results = runtime.block_on(admin.create_topics([&new], &AdminOptions::new()));
    let result = results.map_err(|error| error.to_string())?.pop();
    match result {
        // Another node was faster.
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(code.to_string()),
    }
}
