//! Makes the topic of checkpoints where it doesn't exist.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::KafkaSettings;
use crate::kafka::client_config;

/// Time for an answer of the brokers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long checkpoints are kept at least, in milliseconds: 7 days.
const MIN_RETENTION_MS: i64 = 604_800_000;

/// Makes sure that the topic is there.
pub(super) fn make(settings: &KafkaSettings, topic: &str) -> KafkaResult<()> {
    let admin: AdminClient<DefaultClientContext> = client_config(settings).create()?;
    let metadata = admin.inner().fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    if found.is_some_and(|found| !found.partitions().is_empty()) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| KafkaError::AdminOpCreation(error.to_string()))?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
    let retention_ms = runtime.block_on(longest_retention(&admin, &options, &settings.source_topics)).to_string();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention_ms)
        .set("retention.bytes", "-1");
    let results = runtime.block_on(admin.create_topics([&new], &options))?;
    match results.into_iter().next() {
        Some(Ok(_)) => tracing::info!(topic, retention_ms, "the topic of checkpoints was created"),
        // Another node was faster.
        None | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code))) => return Err(KafkaError::AdminOp(code)),
    }
    Ok(())
}

/// How long the source topics are kept, -1 for ever: a cursor must last as long as the events after it. Where the brokers don't
/// say, and at least, [`MIN_RETENTION_MS`].
async fn longest_retention(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    topics: &[String],
) -> i64 {
    let names: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let Ok(described) = admin.describe_configs(&names, options).await else { return MIN_RETENTION_MS };
    let mut longest = MIN_RETENTION_MS;
    for resource in described.into_iter().flatten() {
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
        let retention_ms = value("retention.ms").and_then(|text| text.parse::<i64>().ok());
        let deletes = value("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
        match retention_ms {
            Some(retention_ms) if deletes && retention_ms >= 0 => longest = longest.max(retention_ms),
            Some(_) => return -1,
            None => {}
        }
    }
    longest
}
