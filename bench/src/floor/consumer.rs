//! librdkafka's fastest way to consume: batches of borrowed messages from one queue, by assignment.

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as ffi;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaType;

/// Messages taken at once.
const BATCH_MESSAGES: usize = 1_000;
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of Tidegate's ingress, so that only what is done with a message differs.
const SETTINGS: [(&str, &str); 11] = [
    ("allow.auto.create.topics", "false"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "2"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "52428800"),
    ("receive.message.max.bytes", "104857600"),
    ("queued.min.messages", "50000"),
    ("queued.max.messages.kbytes", "65536"),
];

/// Reads one topic from its present end.
#[derive(Debug)]
pub struct BareConsumer {
    client: NonNull<ffi::rd_kafka_t>,
    queue: NonNull<ffi::rd_kafka_queue_t>,
    topic: NonNull<ffi::rd_kafka_topic_t>,
    partitions: Vec<i32>,
    batch: Vec<*mut ffi::rd_kafka_message_t>,
}

// SAFETY: librdkafka's handles may be used from any thread; the consumer is moved, never shared (it isn't `Sync`).
unsafe impl Send for BareConsumer {}

impl BareConsumer {
    /// Starts reading every partition of `topic` at the offset that is its end now.
    ///
    /// # Errors
    /// Kafka is out of reach, or the topic doesn't exist.
    pub fn from_end(brokers: &str, topic: &str) -> KafkaResult<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "tidegate-floor");
        for (name, value) in SETTINGS {
            config.set(name, value);
        }
        let ends = ends(&config, topic)?;
        let native = config.create_native_config()?;
        let mut reason = [0; 512];
        // SAFETY: the configuration is valid and `reason` has the stated size. On success librdkafka owns the configuration.
        let client = unsafe {
            ffi::rd_kafka_new(RDKafkaType::RD_KAFKA_CONSUMER, native.ptr(), reason.as_mut_ptr(), reason.len())
        };
        let client =
            NonNull::new(client).ok_or_else(|| KafkaError::ClientCreation("librdkafka made no client".to_owned()))?;
        let _owned_by_client = ManuallyDrop::new(native);
        let name = CString::new(topic)?;
        // SAFETY: client and name are live; the call doesn't fail for a valid name, which is checked.
        let topic = unsafe { ffi::rd_kafka_topic_new(client.as_ptr(), name.as_ptr(), ptr::null_mut()) };
        let topic =
            NonNull::new(topic).ok_or_else(|| KafkaError::ClientCreation("the topic has no valid name".to_owned()))?;
        // SAFETY: the client is live; librdkafka aborts rather than return no queue.
        let queue = unsafe { ffi::rd_kafka_queue_new(client.as_ptr()) };
        let queue = NonNull::new(queue).expect("invariant: librdkafka aborts rather than return no queue");
        let mut consumer =
            Self { client, queue, topic, partitions: Vec::new(), batch: Vec::with_capacity(BATCH_MESSAGES) };
        for (partition, offset) in ends {
            // SAFETY: topic and queue are live handles of this client.
            let refused = unsafe {
                ffi::rd_kafka_consume_start_queue(consumer.topic.as_ptr(), partition, offset, consumer.queue.as_ptr())
            };
            if refused != 0 {
                return Err(KafkaError::ClientCreation(format!("partition {partition} can't be read")));
            }
            consumer.partitions.push(partition);
        }
        Ok(consumer)
    }

    /// Waits up to `timeout` for a message, and passes the payloads of it and of all that are there by then to `take`.
    /// Returns their number.
    pub fn consume(&mut self, timeout: Duration, mut take: impl FnMut(&[u8])) -> usize {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // A batch call with a timeout would wait until the batch is full; so only the first message is waited for.
        // SAFETY: the queue is live; a message that is returned is destroyed below.
        let first = unsafe { ffi::rd_kafka_consume_queue(self.queue.as_ptr(), timeout_ms) };
        if first.is_null() {
            return 0;
        }
        self.batch.push(first);
        let room = self.batch.spare_capacity_mut();
        // SAFETY: the queue is live; the pointers are written behind the first, within the vector's capacity.
        let more =
            unsafe { ffi::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, room.as_mut_ptr().cast(), room.len()) };
        // SAFETY: librdkafka has written that many valid pointers, never more than it was given room for.
        unsafe { self.batch.set_len(1 + usize::try_from(more).unwrap_or(0)) };
        let mut messages = 0;
        for message in self.batch.drain(..) {
            // SAFETY: the pointer is valid until it is destroyed, which happens once, below; a payload has `len` bytes.
            unsafe {
                if !(*message).payload.is_null() {
                    take(slice::from_raw_parts((*message).payload.cast::<u8>(), (*message).len));
                    messages += 1;
                }
                ffi::rd_kafka_message_destroy(message);
            }
        }
        messages
    }
}

impl Drop for BareConsumer {
    fn drop(&mut self) {
        // SAFETY: each handle is destroyed once, the client last; no message is kept.
        unsafe {
            for partition in &self.partitions {
                ffi::rd_kafka_consume_stop(self.topic.as_ptr(), *partition);
            }
            ffi::rd_kafka_topic_destroy(self.topic.as_ptr());
            ffi::rd_kafka_queue_destroy(self.queue.as_ptr());
            ffi::rd_kafka_destroy(self.client.as_ptr());
        }
    }
}

/// Partitions and the offsets after their last messages.
fn ends(config: &ClientConfig, topic: &str) -> KafkaResult<Vec<(i32, i64)>> {
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    partitions
        .map(|partition| {
            let (_, end) = consumer.fetch_watermarks(topic, partition.id(), METADATA_TIMEOUT)?;
            Ok((partition.id(), end))
        })
        .collect()
}
