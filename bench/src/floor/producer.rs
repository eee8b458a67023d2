//! A producer of many equal messages, and of single ones that arrive at once.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Produces to one topic.
pub struct BareProducer {
    producer: BaseProducer,
    topic: String,
    partition: Option<i32>,
}

impl std::fmt::Debug for BareProducer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BareProducer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl BareProducer {
    /// Connects in the background, with librdkafka's default settings but for the order, which is kept.
    ///
    /// # Errors
    /// librdkafka refuses the brokers' text.
    pub fn new(brokers: &str, topic: &str) -> KafkaResult<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true");
        Ok(Self { producer: config.create()?, topic: topic.to_owned(), partition: None })
    }

    /// As [`Self::new`], and every message leaves at once, as one does that somebody waits for.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_linger(brokers: &str, topic: &str) -> KafkaResult<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "0");
        config.set("socket.nagle.disable", "true");
        Ok(Self { producer: config.create()?, topic: topic.to_owned(), partition: None })
    }

    /// Sends everything to this partition.
    #[must_use]
    pub fn to_partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Sends one message and waits for its acknowledgement. The first one creates the topic.
    ///
    /// # Errors
    /// Kafka is out of reach or refuses the message.
    pub fn send_now(&self, payload: &[u8]) -> KafkaResult<()> {
        self.queue(payload)?;
        self.flush()
    }

    /// Queues one message; waits where librdkafka's queue is full.
    ///
    /// # Errors
    /// librdkafka refuses the message.
    pub fn queue(&self, payload: &[u8]) -> KafkaResult<()> {
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic).payload(payload);
        record.partition = self.partition;
        while let Err((error, unsent)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error);
            }
            record = unsent;
            self.producer.poll(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Serves acknowledgements that have come.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Errors
    /// Something was not, within a minute.
    pub fn flush(&self) -> KafkaResult<()> {
        self.producer.flush(TIMEOUT)
    }
}
