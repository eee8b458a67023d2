//! The thread that writes checkpoints: makes the topic when the first one comes, and hands the records to a producer, whose
//! thread tells ingress what became of each.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use tidegate_shards::bell::Bell;

use super::{Draft, PARTITION, topic};
use crate::config::KafkaSettings;
use crate::kafka::{LogContext, PolledProducer, client_config};

/// Time for Kafka to acknowledge a record, in milliseconds.
const DELIVERY_TIMEOUT_MS: u64 = 5_000;
/// Pause after the topic could not be made.
const RETRY: Duration = Duration::from_secs(10);

/// The thread's state.
pub(super) struct Writer {
    settings: KafkaSettings,
    topic: String,
    outcomes: Outcomes,
    producer: Option<PolledProducer<Outcomes>>,
    not_before: Option<Instant>,
    warned: bool,
}

impl Writer {
    pub(super) fn new(
        settings: &KafkaSettings,
        topic: &str,
        written: &Arc<SegQueue<Option<u64>>>,
        bell: &Bell,
    ) -> Self {
        Self {
            settings: settings.clone(),
            topic: topic.to_owned(),
            outcomes: Outcomes { written: Arc::clone(written), bell: bell.clone() },
            producer: None,
            not_before: None,
            warned: false,
        }
    }

    pub(super) fn run(mut self, drafts: &Receiver<Draft>) {
        while let Ok(Draft::Record(record)) = drafts.recv() {
            if let Err(error) = self.write(&record) {
                if !std::mem::replace(&mut self.warned, true) {
                    let topic = &self.topic;
                    tracing::warn!(topic, %error, "checkpoints can't be written: cursors are longer than they need be");
                }
                self.outcomes.tell(None);
            }
        }
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        if self.not_before.is_some_and(|until| Instant::now() < until) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.producer.is_none() {
            self.producer = Some(self.open().inspect_err(|_| self.not_before = Some(Instant::now() + RETRY))?);
        }
        let Some(producer) = &self.producer else { return Ok(()) };
        let message: BaseRecord<'_, (), [u8]> =
            BaseRecord::to(&self.topic).partition(PARTITION.cast_signed()).payload(record);
        producer.send(message).map_err(|(error, _)| io::Error::other(error))
    }

    fn open(&self) -> io::Result<PolledProducer<Outcomes>> {
        topic::make(&self.settings, &self.topic).map_err(io::Error::other)?;
        let mut config = client_config(&self.settings);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("allow.auto.create.topics", "false")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MS.to_string());
        let producer: KafkaResult<BaseProducer<_>> = config.create_with_context(self.outcomes.clone());
        PolledProducer::start(producer.map_err(io::Error::other)?)
    }
}

/// Tells ingress what became of each record.
#[derive(Clone, Debug)]
struct Outcomes {
    written: Arc<SegQueue<Option<u64>>>,
    bell: Bell,
}

impl Outcomes {
    fn tell(&self, offset: Option<u64>) {
        self.written.push(offset);
        self.bell.ring();
    }
}

impl ClientContext for Outcomes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LogContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => self.tell(u64::try_from(message.offset()).ok()),
            Err((error, _)) => {
                tracing::info!(%error, "a checkpoint was not written");
                self.tell(None);
            }
        }
    }
}
