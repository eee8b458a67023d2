//! A real Kafka: one broker for the whole run, and a producer and a reader to look at it from outside.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use xtask::kafka::{Kafka, Options};

use super::clients::{query, to_type};
use super::events::event;
use super::gateway::Gateway;
use super::longpolling::LongPolling;
use super::{wait_for, wait_up_to};

/// How long Kafka may take for what clients wait for: elections, sessions that end, metadata that spreads.
pub(crate) const KAFKA_DEADLINE: Duration = Duration::from_secs(60);

/// Largest message the tests write: more than what Kafka's clients allow by default.
const MAX_MESSAGE_BYTES: &str = "12000000";

/// Addresses of the broker that all tests of this process share; `None` (said loudly) where there can't be one.
/// It ends with the process.
pub(crate) fn shared_brokers(test: &str) -> Option<&'static str> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    SHARED.get_or_init(|| Kafka::start_or_skip(test, Options::default())).as_ref().map(Kafka::brokers)
}

/// A broker for one test alone, which may kill it.
pub(crate) fn own_broker(test: &str, port: Option<u16>) -> Option<Kafka> {
    Kafka::start_or_skip(test, Options { own: true, port, ..Options::default() })
}

/// A topic name that no other test uses.
pub(crate) fn topic_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A gateway that reads this topic, with these settings besides. Gateways on the same topics share their API definitions and their blacklist.
pub(crate) fn gateway_on(brokers: &str, topics: &str, settings: &[(&str, &str)]) -> Gateway {
    let apis = format!("apis-of-{}", topics.replace(',', "-"));
    let sessions = format!("sessions-of-{}", topics.replace(',', "-"));
    let positions = format!("positions-of-{}", topics.replace(',', "-"));
    let base = [
        ("SESSIONS_TOPIC", sessions.as_str()),
        ("POSITIONS_TOPIC", positions.as_str()),
        ("PROXY_APIS_TOPIC", apis.as_str()),
        ("KAFKA_BROKERS", brokers),
        ("KAFKA_SOURCE_TOPICS", topics),
        ("SHARDS", "2"),
        ("LONG_POLLING_WAIT_MS", "200"),
        ("KAFKA_RESTART_DELAY_MS", "500"),
    ];
    Gateway::with(&[&base, settings].concat())
}

/// A Kafka client that writes and administrates.
pub(crate) struct Producer {
    brokers: String,
    producer: ThreadedProducer<DefaultProducerContext>,
}

/// One message to write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// An event in structured mode, without any header.
    pub(crate) fn structured(event: &Value) -> Self {
        Self { value: Some(event.to_string().into_bytes()), ..Self::default() }
    }

    /// An event in binary mode with 0.2 attributes.
    pub(crate) fn binary(event_type: &str, id: &str, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let attributes = [
            ("ce_specversion", "0.2"),
            ("ce_type", event_type),
            ("ce_source", "/test"),
            ("ce_id", id),
            ("content-type", content_type),
        ];
        let headers =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_owned())).collect();
        Self { value: Some(body.as_ref().to_owned()), headers, ..Self::default() }
    }

    /// The same record for this partition.
    pub(crate) fn for_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

impl Producer {
    pub(crate) fn new(brokers: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .set("linger.ms", "0")
            .set("enable.idempotence", "true")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .create()
            .expect("a producer can be made");
        Self { brokers: brokers.to_owned(), producer }
    }

    /// Creates a topic and waits until it can be seen.
    pub(crate) fn create_topic(&self, topic: &str, partitions: usize) {
        let count = i32::try_from(partitions).expect("a small number");
        let new = NewTopic::new(topic, count, TopicReplication::Fixed(1));
        block_on(self.admin().create_topics([&new], &AdminOptions::new()))
            .expect("Kafka answers")
            .remove(0)
            .expect("the topic is created");
        self.wait_for_partitions(topic, partitions);
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&self, topic: &str) {
        block_on(self.admin().delete_topics(&[topic], &AdminOptions::new()))
            .expect("Kafka answers")
            .remove(0)
            .expect("the topic is deleted");
    }

    /// Deletes a topic and makes one of the same name.
    pub(crate) fn recreate_topic(&self, topic: &str, partitions: usize) {
        self.delete_topic(topic);
        let count = i32::try_from(partitions).expect("a small number");
        wait_up_to(KAFKA_DEADLINE, "the topic to be made anew", || {
            let new = NewTopic::new(topic, count, TopicReplication::Fixed(1));
            block_on(self.admin().create_topics([&new], &AdminOptions::new())).ok()?.remove(0).ok().map(drop)
        });
        self.wait_for_partitions(topic, partitions);
    }

    /// Raises the number of partitions and waits until they can be seen.
    pub(crate) fn add_partitions(&self, topic: &str, total: usize) {
        let new = NewPartitions::new(topic, total);
        block_on(self.admin().create_partitions([&new], &AdminOptions::new()))
            .expect("Kafka answers")
            .remove(0)
            .expect("partitions are added");
        self.wait_for_partitions(topic, total);
    }

    /// Deletes what is in partition 0.
    pub(crate) fn delete_records(&self, topic: &str) {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::End).expect("a valid offset");
        block_on(self.admin().delete_records(&partitions, &AdminOptions::new())).expect("records are deleted");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("an admin client can be made")
    }

    fn wait_for_partitions(&self, topic: &str, partitions: usize) {
        wait_up_to(KAFKA_DEADLINE, "the topic's partitions", || {
            let metadata = self.producer.client().fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let led =
                metadata.topics().first()?.partitions().iter().filter(|partition| partition.leader() >= 0).count();
            (led == partitions).then_some(())
        });
    }

    /// Queues a message; [`Producer::flush`] waits for its acknowledgement.
    pub(crate) fn queue(&self, topic: &str, record: &Record) {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: name, value: Some(value) })
        });
        let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        if !record.headers.is_empty() {
            base = base.headers(headers);
        }
        base.partition = record.partition;
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        self.producer.send(base).map_err(|(error, _)| error).expect("the message can be queued");
    }

    /// Waits until everything is acknowledged.
    pub(crate) fn flush(&self) {
        self.producer.flush(KAFKA_DEADLINE).expect("Kafka acknowledges in time");
    }

    /// Writes one message and waits for its acknowledgement.
    pub(crate) fn send(&self, topic: &str, record: &Record) {
        self.queue(topic, record);
        self.flush();
    }

    /// Writes probes until one has come through the gateway from each partition: from then on it misses nothing.
    pub(crate) fn wait_until_read(&self, gateway: &Gateway, topic: &str, partitions: usize) {
        self.wait_until_these_are_read(gateway, topic, 0..partitions);
    }

    /// The same for some of its partitions.
    pub(crate) fn wait_until_these_are_read(&self, gateway: &Gateway, topic: &str, partitions: Range<usize>) {
        let mut session = LongPolling::open(gateway, &query(&to_type("probe")));
        let mut unseen: Vec<String> = partitions.map(|partition| partition.to_string()).collect();
        wait_up_to(KAFKA_DEADLINE, &format!("the gateway to read {topic}"), || {
            for partition in &unseen {
                let number = partition.parse().expect("a number");
                self.queue(topic, &Record::structured(&event("probe", partition, &json!(null))).for_partition(number));
            }
            self.flush();
            let batch = session.poll(gateway);
            unseen.retain(|partition| !batch.ids().contains(&partition.as_str()));
            unseen.is_empty().then_some(())
        });
    }

    /// The first `count` messages of a topic's partition 0, from its beginning.
    pub(crate) fn read(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "tests")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer can be made");
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning).expect("a valid offset");
        consumer.assign(&partitions).expect("partitions can be assigned");
        let mut messages = Vec::new();
        wait_for("messages in Kafka", || {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                messages.push(message.detach());
            }
            (messages.len() >= count).then_some(())
        });
        messages
    }
}

/// Key and value of a message as text.
pub(crate) fn key_and_value(message: &OwnedMessage) -> (Option<String>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (message.key().map(text), text(message.payload().unwrap_or_default()))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(future)
}
