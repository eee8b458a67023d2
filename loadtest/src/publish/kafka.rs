//! Publishing through Kafka: structured CloudEvents, keyed by their stream.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::error::LoadError;
use crate::scenario::KafkaSource;

/// Longest wait for room in librdkafka's queue.
const QUEUE_FULL_TIMEOUT: Duration = Duration::from_secs(30);

/// A producer whose acknowledgements are counted.
pub(crate) struct KafkaPublisher {
    topic: String,
    producer: BaseProducer<Acknowledgements>,
}

#[derive(Default)]
struct Acknowledgements {
    accepted: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl ClientContext for Acknowledgements {
    /// Broker trouble shows in the acknowledgements; here it would only repeat itself on the terminal.
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.accepted.fetch_add(1, Relaxed),
            Err((error, _)) => {
                if let Ok(mut first) = self.first_failure.lock() {
                    first.get_or_insert_with(|| error.to_string());
                }
                self.failed.fetch_add(1, Relaxed)
            }
        };
    }
}

impl KafkaPublisher {
    pub(crate) fn open(source: &KafkaSource) -> Result<Self, LoadError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &source.brokers);
        config.set("client.id", "tidegate-load");
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", "30000");
        for (name, value) in &source.settings {
            config.set(name, value);
        }
        let producer = config
            .create_with_context(Acknowledgements::default())
            .map_err(|error| LoadError::Publish { destination: source.brokers.clone(), reason: error.to_string() })?;
        Ok(Self { topic: source.topic.clone(), producer })
    }

    pub(crate) fn push(&mut self, key: &str, event: &[u8]) -> Result<(), LoadError> {
        let mut record = BaseRecord::to(&self.topic).key(key).payload(event);
        let mut full_since: Option<Instant> = None;
        loop {
            let Err((error, unsent)) = self.producer.send(record) else { return Ok(()) };
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if !full || full_since.get_or_insert_with(Instant::now).elapsed() > QUEUE_FULL_TIMEOUT {
                return Err(self.error(error.to_string()));
            }
            record = unsent;
            self.producer.poll(Duration::from_millis(1));
        }
    }

    pub(crate) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    pub(crate) fn finish(&self, timeout: Duration) -> Result<(), LoadError> {
        self.producer.flush(timeout).map_err(|error| self.error(error.to_string()))
    }

    pub(crate) fn outcome(&self) -> (u64, u64, Option<String>) {
        let counts = self.producer.context();
        let reason = counts.first_failure.lock().ok().and_then(|first| first.clone());
        (counts.accepted.load(Relaxed), counts.failed.load(Relaxed), reason)
    }

    fn error(&self, reason: String) -> LoadError {
        LoadError::Publish { destination: format!("topic {}", self.topic), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::Message;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::{Offset, TopicPartitionList};

    #[test]
    fn events_arrive_in_kafka_with_their_key_in_order_and_are_acknowledged() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("load", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let settings = vec![("linger.ms".to_owned(), "0".to_owned())];
        let source = KafkaSource { brokers: brokers.clone(), topic: "load".to_owned(), settings };
        let mut publisher = KafkaPublisher::open(&source).unwrap();
        for event in ["one", "two", "three"] {
            publisher.push("k7", event.as_bytes()).unwrap();
        }
        publisher.finish(Duration::from_secs(20)).unwrap();
        assert_eq!(publisher.outcome(), (3, 0, None));

        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", "load").create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset("load", 0, Offset::Beginning).unwrap();
        consumer.assign(&partitions).unwrap();
        for event in ["one", "two", "three"] {
            let message = consumer.poll(Duration::from_secs(20)).unwrap().unwrap();
            assert_eq!((message.key(), message.payload()), (Some(&b"k7"[..]), Some(event.as_bytes())));
        }
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_is_an_error_that_names_it() {
        let settings = vec![("no.such.setting".to_owned(), "1".to_owned())];
        let source = KafkaSource { brokers: "127.0.0.1:1".to_owned(), topic: "load".to_owned(), settings };
        let error = KafkaPublisher::open(&source).err().unwrap().to_string();
        assert!(error.contains("no.such.setting"), "{error}");
    }

    #[test]
    fn events_that_kafka_never_takes_are_failures_with_the_reason() {
        let settings = vec![("message.timeout.ms".to_owned(), "300".to_owned())];
        let source = KafkaSource { brokers: "127.0.0.1:1".to_owned(), topic: "load".to_owned(), settings };
        let mut publisher = KafkaPublisher::open(&source).unwrap();
        publisher.push("k", b"{}").unwrap();
        publisher.finish(Duration::from_secs(20)).unwrap();
        let (accepted, failed, reason) = publisher.outcome();
        assert_eq!((accepted, failed), (0, 1));
        assert!(reason.is_some());
    }
}
