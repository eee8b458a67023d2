//! Events with rising numbers into every partition, and the proof that Kafka's log holds them so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::clock::Clock;
use crate::endpoint::key;
use crate::error::LoadError;
use crate::marker::{EventTemplate, MarkFinder};
use crate::schedule::Schedule;

/// Longest wait for a broker that was killed or frozen.
const BROKER_PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);
/// Events that a broker must have taken since the last fault before it gets another one.
const TAKEN_BEFORE_NEXT_FAULT: u64 = 400;

/// What is published.
#[derive(Clone)]
pub(super) struct Flow {
    pub(super) brokers: String,
    pub(super) topic: String,
    pub(super) partitions: u32,
    pub(super) groups: u32,
    pub(super) rate_per_s: f64,
    pub(super) duration_s: f64,
    pub(super) run: u32,
    pub(super) template: EventTemplate,
}

impl Flow {
    fn error(&self, reason: impl ToString) -> LoadError {
        LoadError::Publish { destination: format!("topic {}", self.topic), reason: reason.to_string() }
    }

    /// Creates the topic; waits for the broker.
    pub(super) fn create_topic(&self, runtime: &tokio::runtime::Handle) -> Result<(), LoadError> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("log_level", "0")
            .create()
            .map_err(|error| self.error(error))?;
        let topic = NewTopic::new(&self.topic, self.partitions as i32, TopicReplication::Fixed(1));
        let options =
            AdminOptions::new().operation_timeout(Some(BROKER_PATIENCE)).request_timeout(Some(BROKER_PATIENCE));
        let created = runtime.block_on(admin.create_topics([&topic], &options)).map_err(|error| self.error(error))?;
        for outcome in created {
            outcome.map_err(|(name, code)| self.error(format!("creating {name}: {code}")))?;
        }
        Ok(())
    }

    /// One event of every stream, as often as `rounds` says; then at the rate until the time is over or `stop` is set.
    /// Returns the events of each stream once Kafka has acknowledged all of them.
    pub(super) fn publish(&self, shared: &Published, stop: &AtomicBool, clock: Clock) -> Result<Vec<u64>, LoadError> {
        let producer: BaseProducer<Acknowledgements> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tidegate-load")
            .set("log_level", "0")
            // In order and once, whatever the broker does meanwhile.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "2")
            .set("reconnect.backoff.max.ms", "500")
            .create_with_context(Acknowledgements {
                acknowledged: Arc::clone(&shared.acknowledged),
                failure: Arc::clone(&shared.failure),
            })
            .map_err(|error| self.error(error))?;
        let streams = self.partitions * self.groups;
        let mut counts = vec![0; streams as usize];
        let mut event = Vec::new();
        for stream in 0..streams {
            self.send(&producer, stream, &mut counts, clock.now_ns(), &mut event)?;
        }
        producer.flush(BROKER_PATIENCE).map_err(|error| self.error(error))?;
        shared.first_round.store(true, Relaxed);
        while !shared.go.load(Relaxed) && !stop.load(Relaxed) {
            producer.poll(PAUSE);
        }
        let schedule = *shared.schedule.get_or_init(|| Schedule::new(clock.now_ns(), self.rate_per_s, self.duration_s));
        let mut sent = 0;
        while sent < schedule.total() && !stop.load(Relaxed) {
            let due = schedule.due(clock.now_ns());
            for index in sent..due {
                let stream = (index % u64::from(streams)) as u32;
                self.send(&producer, stream, &mut counts, schedule.intended_ns(index), &mut event)?;
            }
            shared.sent.fetch_add(due - sent, Relaxed);
            sent = due;
            producer.poll(PAUSE);
        }
        producer.flush(BROKER_PATIENCE).map_err(|error| self.error(error))?;
        match shared.failure.lock().ok().and_then(|failure| failure.clone()) {
            Some(reason) => Err(self.error(reason)),
            None => Ok(counts),
        }
    }

    fn send(
        &self,
        producer: &BaseProducer<Acknowledgements>,
        stream: u32,
        counts: &mut [u64],
        intended_ns: u64,
        event: &mut Vec<u8>,
    ) -> Result<(), LoadError> {
        let key = key(stream % self.groups);
        event.clear();
        self.template.append(stream, counts[stream as usize], intended_ns, &key, event);
        let partition = (stream / self.groups) as i32;
        let mut record = BaseRecord::to(&self.topic).partition(partition).key(&key).payload(event.as_slice());
        let began = Instant::now();
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent))
                    if began.elapsed() < BROKER_PATIENCE =>
                {
                    record = unsent;
                    producer.poll(PAUSE);
                }
                Err((error, _)) => return Err(self.error(error)),
            }
        }
        counts[stream as usize] += 1;
        Ok(())
    }

    /// Reads the whole topic and compares it with what was published: only then may a client be blamed on a node.
    pub(super) fn check_log(&self, published: &[u64]) -> Result<(), LoadError> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "tidegate-load")
            .set("enable.auto.commit", "false")
            .set("log_level", "0")
            .create()
            .map_err(|error| self.error(error))?;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(&self.topic, partition as i32, Offset::Beginning)
                .map_err(|error| self.error(error))?;
        }
        consumer.assign(&list).map_err(|error| self.error(error))?;
        let mut seen = vec![0; published.len()];
        let (mut left, mut finder) = (published.iter().sum::<u64>(), MarkFinder::new());
        let mut last = Instant::now();
        while left > 0 {
            let Some(polled) = consumer.poll(Duration::from_millis(200)) else {
                if last.elapsed() > BROKER_PATIENCE {
                    return Err(self.error(format!("{left} events are not in Kafka's log")));
                }
                continue;
            };
            last = Instant::now();
            // A broker that is away for a moment is reported too.
            let Ok(message) = polled else { continue };
            let mut fault = None;
            finder.each(message.payload().unwrap_or_default(), |mark| {
                let stream = mark.stream as usize;
                if mark.run != self.run || seen.get(stream) != Some(&mark.sequence) {
                    let (partition, offset) = (message.partition(), message.offset());
                    fault = Some(format!(
                        "Kafka's log itself is wrong at partition {partition}, offset {offset}: expected {:?} of \
                         stream {stream}, found {}",
                        seen.get(stream),
                        mark.sequence
                    ));
                } else {
                    seen[stream] += 1;
                }
            });
            if let Some(fault) = fault {
                return Err(self.error(fault));
            }
            left -= 1;
        }
        Ok(())
    }
}

/// What the publishing thread and the others tell each other.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Kafka has the first event of every stream.
    pub(super) first_round: AtomicBool,
    /// The rest may follow.
    pub(super) go: AtomicBool,
    /// When the rest is due, once it follows.
    pub(super) schedule: OnceLock<Schedule>,
    /// Events handed over since.
    pub(super) sent: AtomicU64,
    /// Events that Kafka has acknowledged.
    acknowledged: Arc<AtomicU64>,
    /// How many those were at the broker's last fault.
    at_last_fault: AtomicU64,
    failure: Arc<Mutex<Option<String>>>,
}

impl Published {
    /// Is the broker back from its last fault? If so, it gets another one now. On a slow machine it would never come back if
    /// it were killed by the clock alone, and nothing would be tried any more.
    pub(super) fn broker_may_fail(&self) -> bool {
        let acknowledged = self.acknowledged.load(Relaxed);
        let is_back = acknowledged >= self.at_last_fault.load(Relaxed) + TAKEN_BEFORE_NEXT_FAULT;
        if is_back {
            self.at_last_fault.store(acknowledged, Relaxed);
        }
        is_back
    }
}

struct Acknowledgements {
    acknowledged: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Acknowledgements {
    /// Broker trouble is what this is about; only an event that is given up counts.
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.acknowledged.fetch_add(1, Relaxed)),
            Err((error, _)) => {
                if let Ok(mut failure) = self.failure.lock() {
                    failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
}

/// Publishes on a thread of its own.
pub(super) fn start(
    flow: Flow,
    shared: Arc<Published>,
    stop: Arc<AtomicBool>,
    clock: Clock,
) -> Result<thread::JoinHandle<Result<Vec<u64>, LoadError>>, LoadError> {
    thread::Builder::new()
        .name("publisher".to_owned())
        .spawn(move || flow.publish(&shared, &stop, clock))
        .map_err(LoadError::system("starting the publisher's thread"))
}
