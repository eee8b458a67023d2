//! A compacted topic that all nodes follow, so that they share what is in it and it outlives them all: key = id, value = a
//! record. API definitions are kept in one, blacklisted sessions in another.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::polled::PolledProducer;
use super::{LogContext, client_config};
use crate::config::KafkaSettings;

/// The one partition: all changes are in one order.
const PARTITION: i32 = 0;
/// How long a start waits for what is stored.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of one poll: how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
/// Between two attempts to find or make the topic.
const RETRY: Duration = Duration::from_secs(1);
/// Time for Kafka to acknowledge a change, in milliseconds.
const DELIVERY_TIMEOUT_MS: u64 = 5_000;
/// Time for an answer of the brokers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the follower tells of.
#[derive(Debug)]
pub enum Entry<'a> {
    /// A record, at this offset; `None` for a tombstone.
    Record(i64, &'a str, Option<&'a [u8]>),
    /// That was all for now.
    End,
}

/// What is in a topic, for logs.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Name of the thread that follows.
    pub thread: &'static str,
    /// The records, in the plural.
    pub records: &'static str,
}

/// Resolves with the offset of a record.
type Delivered = oneshot::Receiver<KafkaResult<i64>>;

/// Takes what the follower tells, on its thread.
pub type Follower = Box<dyn FnMut(Entry<'_>) + Send>;

/// The topic, as a node reads and writes it.
pub struct CompactedLog {
    topic: String,
    subject: Subject,
    producer: Arc<PolledProducer<Deliveries>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    caught_up: Mutex<Receiver<()>>,
    started: Instant,
}

impl std::fmt::Debug for CompactedLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CompactedLog").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl CompactedLog {
    /// Starts to follow the topic. Kafka may be out of reach.
    ///
    /// # Errors
    /// librdkafka refuses a setting, or the thread can't be started.
    pub fn start(settings: &KafkaSettings, topic: &str, subject: Subject, follower: Follower) -> io::Result<Self> {
        let mut config = client_config(settings);
        config
            // Needed to assign a partition; no group is joined, and nothing is committed.
            .set("group.id", "tidegate")
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "500")
            .set("topic.metadata.refresh.interval.ms", "2000");
        let consumer: BaseConsumer<LogContext> = config.create_with_context(LogContext).map_err(io::Error::other)?;
        let producer = Arc::new(PolledProducer::start(producer(settings).map_err(io::Error::other)?)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, caught_up) = sync_channel(1);
        let following = Following {
            settings: settings.clone(),
            topic: topic.to_owned(),
            subject,
            stop: Arc::clone(&stop),
            producer: Arc::clone(&producer),
            follower,
            caught_up: Some(tell),
        };
        let thread = thread::Builder::new().name(subject.thread.to_owned()).spawn(move || following.run(&consumer))?;
        Ok(Self {
            topic: topic.to_owned(),
            subject,
            producer,
            stop,
            thread: Mutex::new(Some(thread)),
            caught_up: Mutex::new(caught_up),
            started: Instant::now(),
        })
    }

    /// Waits, a bounded time from the start, until everything stored has been read; false if it hasn't.
    pub fn wait_until_read_back(&self) -> bool {
        let caught_up = self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        caught_up.recv_timeout(READ_BACK_TIMEOUT.saturating_sub(self.started.elapsed())).is_ok()
    }

    /// Writes a record; resolves with its offset once all in-sync replicas have it.
    ///
    /// # Errors
    /// Kafka refuses it, or is out of reach.
    pub async fn write(&self, id: &str, record: &[u8]) -> KafkaResult<i64> {
        self.send(id, Some(record))?.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Writes a record, or a tombstone, and doesn't wait for what becomes of it.
    ///
    /// # Errors
    /// The producer's queue is full.
    pub fn post(&self, id: &str, record: Option<&[u8]>) -> KafkaResult<()> {
        self.send(id, record).map(drop)
    }

    fn send(&self, id: &str, record: Option<&[u8]>) -> KafkaResult<Delivered> {
        let (answer, delivered) = oneshot::channel();
        let mut message = BaseRecord::with_opaque_to(&self.topic, Box::new(answer)).partition(PARTITION).key(id);
        message.payload = record;
        self.producer.send(message).map_err(|(error, _)| error)?;
        Ok(delivered)
    }

    /// Ends following, and waits a bounded time for writes in flight.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(thread = self.subject.thread, "the thread that follows a topic panicked");
        }
        if let Err(error) = self.producer.flush(Duration::from_millis(DELIVERY_TIMEOUT_MS)) {
            tracing::warn!(%error, topic = self.topic, "a change was still unacknowledged at the stop");
        }
    }
}

/// A client that writes; Kafka may be out of reach.
fn producer(settings: &KafkaSettings) -> KafkaResult<BaseProducer<Deliveries>> {
    let mut config = client_config(settings);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", DELIVERY_TIMEOUT_MS.to_string())
        .set("message.max.bytes", "8388608");
    config.create_with_context(Deliveries)
}

/// Tells each writer what became of its record, on the producer's thread.
#[derive(Debug)]
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LogContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<KafkaResult<i64>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, writer: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // The caller may have gone meanwhile; the follower applies the record all the same.
        let _ = writer.send(outcome);
    }
}

/// The thread that reads the topic.
struct Following {
    settings: KafkaSettings,
    topic: String,
    subject: Subject,
    producer: Arc<PolledProducer<Deliveries>>,
    stop: Arc<AtomicBool>,
    follower: Follower,
    caught_up: Option<SyncSender<()>>,
}

impl Following {
    fn run(mut self, consumer: &BaseConsumer<LogContext>) {
        self.find_topic(consumer);
        self.warm_producer();
        let mut partitions = TopicPartitionList::new();
        let assigned = partitions
            .add_partition_offset(&self.topic, PARTITION, Offset::Beginning)
            .and_then(|()| consumer.assign(&partitions));
        if let Err(error) = assigned {
            tracing::error!(topic = self.topic, %error, "{} can't be followed", self.subject.records);
            return;
        }
        let mut last_error = None;
        while !self.stopped() {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let Some(Ok(id)) = message.key_view::<str>() else { continue };
                    (self.follower)(Entry::Record(message.offset(), id, message.payload()));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    last_error = None;
                    (self.follower)(Entry::End);
                    if let Some(caught_up) = self.caught_up.take() {
                        // Nobody waits any more if it took too long.
                        let _ = caught_up.try_send(());
                    }
                }
                Some(Err(error)) => {
                    let text = error.to_string();
                    if last_error.as_ref() != Some(&text) {
                        tracing::warn!(
                            topic = self.topic,
                            error = text,
                            "{} can't be followed at the moment",
                            self.subject.records
                        );
                        last_error = Some(text);
                    }
                }
            }
        }
    }

    /// Lets the producer connect now: the first change would wait for that, up to a second.
    fn warm_producer(&self) {
        if !self.stopped()
            && let Err(error) = self.producer.client().fetch_metadata(Some(&self.topic), ANSWER_TIMEOUT)
        {
            tracing::debug!(topic = self.topic, %error, "the first change will have to wait for Kafka's answers");
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns once the topic is there, or with the stop.
    fn find_topic(&self, consumer: &BaseConsumer<LogContext>) {
        let mut told = false;
        while !self.stopped() {
            let error = match self.exists(consumer) {
                Ok(true) => return,
                Ok(false) => self.create().err(),
                Err(error) => Some(error),
            };
            match error {
                None => {}
                Some(error) => {
                    if !std::mem::replace(&mut told, true) {
                        let Self { topic, subject: Subject { records, .. }, .. } = self;
                        tracing::warn!(topic, %error, "the topic of {records} can't be read or made yet; trying again");
                    }
                    let until = Instant::now() + RETRY;
                    while !self.stopped() && Instant::now() < until {
                        let _ = consumer.poll(POLL);
                    }
                }
            }
        }
    }

    fn exists(&self, consumer: &BaseConsumer<LogContext>) -> KafkaResult<bool> {
        let metadata = consumer.fetch_metadata(Some(&self.topic), ANSWER_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        Ok(found.is_some_and(|found| found.partitions().iter().any(|partition| partition.leader() >= 0)))
    }

    fn create(&self) -> KafkaResult<()> {
        let admin: AdminClient<LogContext> = client_config(&self.settings).create_with_context(LogContext)?;
        // -1 leaves the replicas to the brokers' default.
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| KafkaError::AdminOpCreation(error.to_string()))?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
        let results = runtime.block_on(admin.create_topics([&topic], &options))?;
        for result in results {
            match result {
                Ok(_) => tracing::info!(topic = self.topic, "the topic of {} was created", self.subject.records),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code)),
            }
        }
        Ok(())
    }
}
