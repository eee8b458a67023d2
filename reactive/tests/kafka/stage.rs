//! One Kafka for all tests, fresh topics for each, and two executors.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_reactive::{ClientSettings, Destination, ReactiveClient, ReactiveServer, ServerSettings, Service};
use xtask::kafka::{Kafka, Options};

/// Long enough for anything that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

static SHARED: LazyLock<Mutex<Weak<Option<Kafka>>>> = LazyLock::new(Mutex::default);
static TOPICS: AtomicU32 = AtomicU32::new(0);

/// Topics of one test.
pub(crate) struct Stage {
    kafka: Arc<Option<Kafka>>,
    own: Option<Kafka>,
    pub(crate) requests: String,
    pub(crate) replies: String,
}

impl Stage {
    /// On the Kafka that the running tests share; `None` where there is none.
    pub(crate) fn set(what: &str) -> Option<Self> {
        let kafka = {
            let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let kafka = Arc::new(Kafka::start_or_skip(what, Options::default()));
                *shared = Arc::downgrade(&kafka);
                kafka
            })
        };
        kafka.is_some().then(|| Self::named(kafka, None))
    }

    /// On a Kafka of its own, that may be killed.
    pub(crate) fn set_alone(what: &str) -> Option<Self> {
        let own = Kafka::start_or_skip(what, Options { own: true, ..Options::default() })?;
        Some(Self::named(Arc::new(None), Some(own)))
    }

    fn named(kafka: Arc<Option<Kafka>>, own: Option<Kafka>) -> Self {
        let number = TOPICS.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}-{number}", std::process::id());
        Self { kafka, own, requests: format!("requests-{unique}"), replies: format!("replies-{unique}") }
    }

    pub(crate) fn kafka(&mut self) -> &mut Kafka {
        self.own.as_mut().expect("a Kafka of its own")
    }

    pub(crate) fn brokers(&self) -> &str {
        self.own.as_ref().or(self.kafka.as_ref().as_ref()).expect("a Kafka").brokers()
    }

    pub(crate) fn client_settings(&self) -> ClientSettings {
        ClientSettings { reply_partitions: 4, ..ClientSettings::new(self.brokers(), &self.replies) }
    }

    pub(crate) fn server_settings(&self) -> ServerSettings {
        ServerSettings { partitions: 4, ..ServerSettings::new(self.brokers(), &self.requests) }
    }

    pub(crate) async fn client(&self) -> ReactiveClient {
        ReactiveClient::connect(self.client_settings()).await.unwrap()
    }

    pub(crate) async fn server(&self, service: Service) -> ReactiveServer {
        ReactiveServer::start(self.server_settings(), service).await.unwrap()
    }

    pub(crate) fn to(&self, service: &str) -> Destination {
        Destination::new(&self.requests, service).unwrap()
    }

    pub(crate) fn producer(&self) -> BaseProducer {
        ClientConfig::new().set("bootstrap.servers", self.brokers()).create().unwrap()
    }

    /// Writes a message as a program without this crate would.
    pub(crate) fn write(&self, topic: &str, partition: Option<i32>, headers: &[(&str, &str)], value: &str) {
        let producer = self.producer();
        let list = headers
            .iter()
            .fold(OwnedHeaders::new(), |list, (key, value)| list.insert(Header { key, value: Some(*value) }));
        let mut record: BaseRecord<'_, (), str> = BaseRecord::to(topic).payload(value).headers(list);
        record.partition = partition;
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(SOON).unwrap();
    }

    /// Every message of a topic so far.
    pub(crate) fn messages(&self, topic: &str) -> Vec<Seen> {
        let consumer = self.consumer("seen");
        let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
        let mut left = 0;
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), SOON).unwrap();
            left += high - low;
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        (0..left).map(|_| Seen::of(&consumer.poll(SOON).expect("a message").unwrap())).collect()
    }

    /// Sum of the offsets that a group has committed on the topic of requests.
    pub(crate) fn committed(&self, group: &str) -> i64 {
        self.committed_on(&self.requests, group)
    }

    /// Sum of the offsets that a group has committed on a topic.
    pub(crate) fn committed_on(&self, topic: &str, group: &str) -> i64 {
        let consumer = self.consumer(group);
        let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition(topic, partition.id());
        }
        let committed = consumer.committed_offsets(list, SOON).unwrap();
        committed.elements().iter().filter_map(|one| one.offset().to_raw()).filter(|offset| *offset > 0).sum()
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", self.brokers()).set("group.id", group).create().unwrap()
    }
}

/// A message as it lies in Kafka.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) value: Vec<u8>,
}

impl Seen {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect()
        });
        Self {
            partition: message.partition(),
            headers: headers.unwrap_or_default(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An executor that knows nothing but to poll and to sleep.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// tokio with several threads.
pub(crate) fn on_tokio<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < SOON, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A future that is never done, and holds `guard`.
pub(crate) async fn forever<T>(guard: T) -> T {
    std::future::pending::<()>().await;
    guard
}
