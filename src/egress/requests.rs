//! The API proxy's way into Kafka: requests, and the request log. A producer of its own beside the events', so that neither
//! waits for room in the other's queue; it partitions as RIG does.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Partitioner, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tidegate_shards::proxy::outbound::{ReplyAddress, RequestMessage, RequestSink};
use tidegate_shards::submit::{SubmitAnswer, SubmitError};

use super::avro::Writer;
use super::murmur3::murmur3_x86_32;
use super::producer::{FLUSH_TIMEOUT, ProducerMetrics, producer_config, refusal};
use crate::avro::registry::Registry;
use crate::config::KafkaSettings;
use crate::kafka::{LogContext, PolledProducer};
use crate::replies::ReplyState;

/// Topics that get a label of their own in the metrics; definitions name them, so there are few.
const MAX_TOPIC_LABELS: usize = 1_000;
/// The label of topics beyond.
const OTHER_TOPICS: &str = "other";

/// The sink; shared by all shards.
pub struct KafkaRequests {
    outgoing: Arc<Outgoing>,
    /// Writes what has a schema; `None` without a schema registry.
    writer: Option<Writer>,
    replies: Arc<ReplyState>,
}

/// Who waits for what becomes of a message.
pub(super) type Asker = oneshot::Sender<Result<(), SubmitError>>;

/// The producer.
pub(super) struct Outgoing {
    producer: PolledProducer<Deliveries, ByKey>,
    counts: Arc<TopicCounts>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for KafkaRequests {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KafkaRequests").field("replies", &self.replies).finish_non_exhaustive()
    }
}

impl KafkaRequests {
    /// Creates the producer and its thread. Kafka may be out of reach. `replies` knows where answers are read, `schemas` how
    /// requests are written in Avro.
    ///
    /// # Errors
    /// librdkafka refuses a setting, such as an unreadable certificate.
    pub fn start(
        settings: &KafkaSettings,
        replies: Arc<ReplyState>,
        schemas: Option<Arc<Registry>>,
    ) -> io::Result<Self> {
        let counts = Arc::<TopicCounts>::default();
        let context = Deliveries { counts: Arc::clone(&counts), by_key: ByKey };
        let producer: BaseProducer<_, ByKey> =
            producer_config(settings).create_with_context(context).map_err(io::Error::other)?;
        let producer = PolledProducer::start(producer)?;
        let outgoing = Arc::new(Outgoing { producer, counts, stopping: AtomicBool::new(false) });
        Ok(Self { outgoing, writer: schemas.map(Writer::new), replies })
    }

    /// Its counters.
    #[must_use]
    pub fn counts(&self) -> &Arc<TopicCounts> {
        &self.outgoing.counts
    }

    /// Takes nothing more, and waits a bounded time for what is in flight.
    pub fn stop(&self) {
        self.outgoing.stopping.store(true, Ordering::Release);
        if let Err(error) = self.outgoing.producer.flush(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "requests were still unacknowledged at the stop");
        }
    }
}

impl Outgoing {
    /// Hands a message to librdkafka.
    pub(super) fn send(&self, message: &RequestMessage, asker: Asker) {
        if self.stopping.load(Ordering::Acquire) {
            let _receiver_is_here = asker.send(Err(SubmitError::ShuttingDown));
            return;
        }
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) }));
        let mut record =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(&message.topic, Box::new(asker)).payload(&message.value);
        if !message.headers.is_empty() {
            record = record.headers(headers);
        }
        record.key = message.key.as_deref();
        if let Err((error, record)) = self.producer.send(record) {
            self.refuse(message, *record.delivery_opaque, refusal_of(&error, &message.topic));
        }
    }

    /// Counts a message that doesn't get to Kafka, and says why.
    pub(super) fn refuse(&self, message: &RequestMessage, asker: Asker, error: SubmitError) {
        self.counts.of(&message.topic).failed.fetch_add(1, Ordering::Relaxed);
        // The caller may have gone meanwhile; then nobody wants the answer.
        let _gone_meanwhile = asker.send(Err(error));
    }
}

impl RequestSink for KafkaRequests {
    fn produce(&self, message: RequestMessage) -> SubmitAnswer {
        let (asker, answer) = oneshot::channel();
        match (&message.schema, &self.writer) {
            (None, _) => self.outgoing.send(&message, asker),
            (Some(_), Some(writer)) => writer.write(message, asker, Arc::clone(&self.outgoing)),
            (Some(_), None) => {
                let reason = "there is no schema registry (KAFKA_SCHEMA_REGISTRY_HOST)";
                self.outgoing.refuse(&message, asker, SubmitError::NoSchema(reason.to_owned()));
            }
        }
        answer
    }

    fn reply_address(&self) -> Option<Arc<ReplyAddress>> {
        self.replies.address()
    }

    fn receives_answers(&self) -> bool {
        self.replies.is_ready()
    }
}

/// Counters per topic.
#[derive(Debug, Default)]
pub struct TopicCounts {
    topics: Mutex<BTreeMap<Box<str>, Arc<ProducerMetrics>>>,
}

impl TopicCounts {
    fn of(&self, topic: &str) -> Arc<ProducerMetrics> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = topics.get(topic) {
            return Arc::clone(metrics);
        }
        let label = if topics.len() < MAX_TOPIC_LABELS { topic } else { OTHER_TOPICS };
        Arc::clone(topics.entry(label.into()).or_default())
    }

    /// Every topic with its counters.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, Arc<ProducerMetrics>)> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.iter().map(|(topic, metrics)| (topic.clone(), Arc::clone(metrics))).collect()
    }
}

/// The partition of a key, as RIG chooses it.
#[derive(Clone, Copy, Debug)]
struct ByKey;

impl Partitioner for ByKey {
    fn partition(&self, _topic: &str, key: Option<&[u8]>, count: i32, is_available: impl Fn(i32) -> bool) -> i32 {
        let Some(partitions) = u32::try_from(count).ok().filter(|count| *count > 0) else {
            return rdkafka::producer::PARTITION_UA;
        };
        let partition = |number: u32| i32::try_from(number % partitions).unwrap_or_default();
        match key {
            Some(key) => partition(murmur3_x86_32(key)),
            // librdkafka chooses itself where there is no key; should it ask after all, any that has a leader will do.
            None => {
                let first = fastrand::u32(..partitions);
                (first..first + partitions)
                    .map(partition)
                    .find(|number| is_available(*number))
                    .unwrap_or(partition(first))
            }
        }
    }
}

/// Receives what became of each message, on the producer's thread.
struct Deliveries {
    counts: Arc<TopicCounts>,
    by_key: ByKey,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LogContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ProducerContext<ByKey> for Deliveries {
    type DeliveryOpaque = Box<Asker>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => {
                self.counts.of(message.topic()).produced.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err((error, message)) => {
                self.counts.of(message.topic()).failed.fetch_add(1, Ordering::Relaxed);
                Err(refusal_of(error, message.topic()))
            }
        };
        // The caller may have gone meanwhile; then nobody wants the answer.
        let _gone_meanwhile = answer.send(result);
    }

    fn get_custom_partitioner(&self) -> Option<&ByKey> {
        Some(&self.by_key)
    }
}

fn refusal_of(error: &KafkaError, topic: &str) -> SubmitError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            SubmitError::Refused(format!("there is no topic {topic}"))
        }
        _ => refusal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_partition_and_none_has_any_that_can_be_written() {
        for count in [1, 2, 3, 12] {
            for key in ["a", "seat-17", ""] {
                let expected = murmur3_x86_32(key.as_bytes()) % u32::try_from(count).expect("a small number");
                let partition = ByKey.partition("t", Some(key.as_bytes()), count, |_| false);
                assert_eq!(u32::try_from(partition), Ok(expected), "{key} of {count}");
            }
            assert!((0..count).contains(&ByKey.partition("t", None, count, |_| false)));
            assert_eq!(ByKey.partition("t", None, count, |number| number == count - 1), count - 1);
        }
    }

    #[test]
    fn topics_beyond_the_bound_share_a_label() {
        let counts = TopicCounts::default();
        for number in 0..MAX_TOPIC_LABELS + 10 {
            counts.of(&format!("topic-{number}")).produced.fetch_add(1, Ordering::Relaxed);
        }
        let all = counts.all();
        assert_eq!(all.len(), MAX_TOPIC_LABELS + 1);
        let sum: u64 = all.iter().map(|(_, metrics)| metrics.produced.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, MAX_TOPIC_LABELS as u64 + 10);
    }
}
