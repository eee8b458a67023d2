//! The event sink on Kafka: the first source topic, key = `subject`, acknowledged by all in-sync replicas.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tidegate_shards::submit::{EventSink, Submission, SubmitAnswer, SubmitError};

use crate::config::KafkaSettings;
use crate::kafka::{LogContext, PolledProducer, client_config};

/// Time until an event that Kafka didn't acknowledge is given up, in milliseconds.
const DELIVERY_TIMEOUT_MS: u64 = 5_000;
/// Events in flight at most.
const MAX_IN_FLIGHT: u64 = 100_000;
/// Memory of events in flight, in KiB.
const MAX_IN_FLIGHT_KIB: u64 = 128 << 10;
/// Largest message handed to Kafka; the topic's own limit is usually lower, and decides.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// How long a stop waits for events in flight.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Counters of one producer.
#[derive(Debug, Default)]
pub struct ProducerMetrics {
    /// Events acknowledged.
    pub produced: AtomicU64,
    /// Events refused or given up.
    pub failed: AtomicU64,
}

/// The sink; shared by all threads.
pub struct KafkaSink {
    producer: PolledProducer<Deliveries>,
    topic: String,
    metrics: Arc<ProducerMetrics>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KafkaSink")
            .field("topic", &self.topic)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Creates the producer and its thread. Kafka may be out of reach.
    ///
    /// # Errors
    /// librdkafka refuses a setting, such as an unreadable certificate.
    pub fn start(settings: &KafkaSettings) -> io::Result<Self> {
        let metrics = Arc::<ProducerMetrics>::default();
        let mut config = producer_config(settings);
        config.set("partitioner", "murmur2_random");
        let context = Deliveries { metrics: Arc::clone(&metrics) };
        let producer: BaseProducer<_> = config.create_with_context(context).map_err(io::Error::other)?;
        let producer = PolledProducer::start(producer)?;
        let topic = settings.source_topics.first().cloned().unwrap_or_default();
        Ok(Self { producer, topic, metrics, stopping: AtomicBool::new(false) })
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ProducerMetrics> {
        &self.metrics
    }

    /// The topic it writes to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Takes nothing more, and waits a bounded time for what is in flight.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Err(error) = self.producer.flush(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "published events were still unacknowledged at the stop");
        }
    }
}

impl EventSink for KafkaSink {
    fn submit(&self, events: Vec<Submission>) -> SubmitAnswer {
        let (answer, receiver) = oneshot::channel();
        let call = Arc::new(Call::new(events.len(), answer));
        if self.stopping.load(Ordering::Acquire) {
            call.finish(Err(SubmitError::ShuttingDown));
            return receiver;
        }
        if events.is_empty() {
            call.finish(Ok(()));
        }
        for event in &events {
            let headers =
                OwnedHeaders::new().insert(Header { key: "content-type", value: Some("application/cloudevents+json") });
            let record =
                BaseRecord::with_opaque_to(&self.topic, Arc::clone(&call)).payload(&event.body[..]).headers(headers);
            let record = match &event.subject {
                Some(subject) => record.key(subject.as_bytes()),
                None => record,
            };
            if let Err((error, record)) = self.producer.send(record) {
                self.metrics.failed.fetch_add(1, Ordering::Relaxed);
                record.delivery_opaque.settle(Err(refusal(&error)));
            }
        }
        receiver
    }
}

/// Settings of every producer: idempotent, acknowledged by all in-sync replicas, and bounded in time and memory.
pub(super) fn producer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = client_config(settings);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("message.timeout.ms", DELIVERY_TIMEOUT_MS.to_string())
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("queue.buffering.max.messages", MAX_IN_FLIGHT.to_string())
        .set("queue.buffering.max.kbytes", MAX_IN_FLIGHT_KIB.to_string())
        .set("topic.metadata.propagation.max.ms", DELIVERY_TIMEOUT_MS.to_string());
    config
}

/// One call: answered when each of its events is settled, with the first error if there was one.
#[derive(Debug)]
struct Call {
    open: AtomicUsize,
    outcome: Mutex<Outcome>,
}

#[derive(Debug)]
struct Outcome {
    result: Result<(), SubmitError>,
    answer: Option<oneshot::Sender<Result<(), SubmitError>>>,
}

impl Call {
    fn new(events: usize, answer: oneshot::Sender<Result<(), SubmitError>>) -> Self {
        let outcome = Outcome { result: Ok(()), answer: Some(answer) };
        Self { open: AtomicUsize::new(events), outcome: Mutex::new(outcome) }
    }

    fn settle(&self, result: Result<(), SubmitError>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.result.is_ok() {
            outcome.result = result;
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let result = outcome.result.clone();
            drop(outcome);
            self.finish(result);
        }
    }

    fn finish(&self, result: Result<(), SubmitError>) {
        let answer = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).answer.take();
        if let Some(answer) = answer {
            // The caller may have gone meanwhile; then nobody wants the answer.
            let _ = answer.send(result);
        }
    }
}

/// Receives what became of each event, on the producer's thread.
#[derive(Debug)]
struct Deliveries {
    metrics: Arc<ProducerMetrics>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LogContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Call>;

    fn delivery(&self, result: &DeliveryResult<'_>, call: Self::DeliveryOpaque) {
        match result {
            Ok(_) => {
                self.metrics.produced.fetch_add(1, Ordering::Relaxed);
                call.settle(Ok(()));
            }
            Err((error, _)) => {
                self.metrics.failed.fetch_add(1, Ordering::Relaxed);
                call.settle(Err(refusal(error)));
            }
        }
    }
}

/// What an error means to the publisher: whether a retry helps.
pub(super) fn refusal(error: &KafkaError) -> SubmitError {
    let Some(code) = error.rdkafka_error_code() else { return SubmitError::Refused(error.to_string()) };
    match code {
        RDKafkaErrorCode::QueueFull => SubmitError::Overloaded,
        RDKafkaErrorCode::MessageTimedOut
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::LeaderNotAvailable
        | RDKafkaErrorCode::NotLeaderForPartition
        | RDKafkaErrorCode::NotEnoughReplicas
        | RDKafkaErrorCode::NotEnoughReplicasAfterAppend
        | RDKafkaErrorCode::PurgeQueue
        | RDKafkaErrorCode::PurgeInflight => SubmitError::Unreachable(code.to_string()),
        _ => SubmitError::Refused(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered_once_all_its_events_are_settled() {
        let (answer, mut receiver) = oneshot::channel();
        let call = Call::new(2, answer);
        call.settle(Ok(()));
        assert_eq!(receiver.try_recv(), Ok(None));
        call.settle(Ok(()));
        assert_eq!(receiver.try_recv(), Ok(Some(Ok(()))));
    }

    #[test]
    fn the_first_error_is_the_answer_of_the_call() {
        let (answer, mut receiver) = oneshot::channel();
        let call = Call::new(3, answer);
        call.settle(Err(SubmitError::Overloaded));
        call.settle(Err(SubmitError::ShuttingDown));
        call.settle(Ok(()));
        assert_eq!(receiver.try_recv(), Ok(Some(Err(SubmitError::Overloaded))));
    }

    #[test]
    fn errors_that_a_retry_mends_are_told_from_those_it_does_not() {
        let produced = |code| refusal(&KafkaError::MessageProduction(code));
        assert_eq!(produced(RDKafkaErrorCode::QueueFull), SubmitError::Overloaded);
        assert!(matches!(produced(RDKafkaErrorCode::MessageTimedOut), SubmitError::Unreachable(_)));
        assert!(matches!(produced(RDKafkaErrorCode::MessageSizeTooLarge), SubmitError::Refused(_)));
    }

    #[test]
    fn without_brokers_the_answer_comes_after_a_bounded_time() {
        let settings = KafkaSettings {
            brokers: vec!["127.0.0.1:1".to_owned()],
            source_topics: vec!["rig".to_owned()],
            sasl: None,
            tls: None,
            unreachable_seconds: 30,
            reconnect_max_ms: 1_000,
        };
        let sink = KafkaSink::start(&settings).expect("the settings are usable");
        let event = Submission { body: "{}".into(), event_type: "t".into(), subject: Some("s".into()) };
        let mut answer = sink.submit(vec![event]);
        let answer = loop {
            if let Some(answer) = answer.try_recv().expect("the sink answers") {
                break answer;
            }
            std::thread::yield_now();
        };
        assert!(matches!(answer, Err(SubmitError::Unreachable(_))), "{answer:?}");
        assert_eq!(sink.metrics().failed.load(Ordering::Relaxed), 1);
    }
}
