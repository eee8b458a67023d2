//! CPU that a Kafka message costs which nobody wants, through production ingress and through librdkafka alone.
//!
//! What criterion shows as time is CPU time of this process, all threads, per message: a child process produces. Needs a
//! Kafka (`KAFKA_BROKERS`, or what `cargo xtask kafka` needs); says so and measures nothing without.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use tidegate::config::KafkaSettings;
use tidegate::ingress::kafka::KafkaIngress;
use tidegate::ingress::metrics::IngressMetrics;
use tidegate::ingress::{Decoder, Outlet, Stop};
use tidegate::kafka::Reachability;
use tidegate_bench::floor::consumer::BareConsumer;
use tidegate_bench::floor::producer::BareProducer;
use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tidegate_shards::event::EventLimits;
use tidegate_shards::extractor::Extractors;
use tidegate_shards::mailbox::lanes;
use tidegate_shards::publisher::{InterestLane, Publisher};
use xtask::kafka::{Kafka, Options};

const MESSAGE_BYTES: usize = 1_000;
const MAILBOX_EVENTS: usize = 4_096;
const SEGMENT_BYTES: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Production ingress without a single subscriber.
struct Ingress {
    metrics: Arc<IngressMetrics>,
    stop: Stop,
    thread: JoinHandle<()>,
}

impl Ingress {
    fn start(brokers: &str, topic: &str) -> Self {
        let settings = KafkaSettings {
            brokers: brokers.split(',').map(str::to_owned).collect(),
            source_topics: vec![topic.to_owned()],
            sasl: None,
            tls: None,
            unreachable_seconds: 30,
            reconnect_max_ms: 5_000,
        };
        let bell = Bell::new().expect("the system gives an eventfd");
        let stop = Stop::new(bell.clone());
        let metrics = Arc::new(IngressMetrics::new("kafka", &settings.source_topics));
        let (lane, _control, _inbox) = lanes(MAILBOX_EVENTS);
        let publisher = Publisher::new(vec![lane], InterestLane::default(), SEGMENT_BYTES, SEGMENT_BYTES);
        let outlet = Outlet::new(publisher, bell, stop.clone(), Arc::clone(&metrics));
        let reachability = Arc::new(Reachability::new(clock::now_ms()));
        let decoder =
            Decoder { extractors: Arc::new(Extractors::default()), limits: EventLimits::default(), schemas: None };
        let ingress = KafkaIngress::start(&settings, outlet, decoder, reachability, None)
            .expect("librdkafka takes these settings");
        Self { metrics, stop, thread: thread::spawn(move || ingress.run()) }
    }

    fn consumed(&self) -> u64 {
        self.metrics.sources[0].consumed.get()
    }

    fn stop(self) {
        self.stop.request();
        self.thread.join().expect("the ingress thread ends without a panic");
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of this process while a child produces `messages` and `done` waits for them.
fn measure(brokers: &str, topic: &str, messages: u64, mut done: impl FnMut() -> bool) -> Duration {
    let before = cpu_time();
    let mut producer = Command::new(env!("CARGO_BIN_EXE_tidegate-figures"))
        .args(["produce", "--brokers", brokers, "--topic", topic])
        .args(["--messages", &messages.to_string(), "--message-bytes", &MESSAGE_BYTES.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .expect("the producing process starts");
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{messages} messages did not arrive within {} s", PATIENCE.as_secs());
    }
    let spent = cpu_time() - before;
    assert!(producer.wait().is_ok_and(|status| status.success()), "the producing process failed");
    spent
}

fn consume(criterion: &mut Criterion) {
    let options = Options { heap_mib: 1_024, ..Options::default() };
    let Some(kafka) = Kafka::start_or_skip("benchmark consume", options) else { return };
    let brokers = kafka.brokers();
    let topic = format!("bench-consume-{}", std::process::id());
    let producer = BareProducer::new(brokers, &topic).expect("librdkafka takes the brokers' address");
    producer.send_now(b"creates the topic").expect("Kafka takes a message");

    let mut group = criterion.benchmark_group("consume/drop 1 kB from Kafka, CPU");
    group.sample_size(10).throughput(Throughput::Elements(1));
    let ingress = Ingress::start(brokers, &topic);
    let began = Instant::now();
    while ingress.consumed() == 0 {
        assert!(began.elapsed() < PATIENCE, "ingress did not find the topic within {} s", PATIENCE.as_secs());
        producer.send_now(b"until ingress reads").expect("Kafka takes a message");
    }
    // Those that were sent while ingress started have arrived when the count stands still.
    let mut seen = 0;
    while std::mem::replace(&mut seen, ingress.consumed()) != seen {
        thread::sleep(Duration::from_millis(200));
    }
    group.bench_function("tidegate: ingress", |bencher| {
        bencher.iter_custom(|messages| {
            let target = ingress.consumed() + messages;
            measure(brokers, &topic, messages, || {
                thread::sleep(Duration::from_millis(1));
                ingress.consumed() >= target
            })
        });
    });
    ingress.stop();
    let mut consumer = BareConsumer::from_end(brokers, &topic).expect("Kafka is in reach");
    group.bench_function("floor: librdkafka's batch call", |bencher| {
        bencher.iter_custom(|messages| {
            let mut left = messages;
            measure(brokers, &topic, messages, || {
                left = left.saturating_sub(consumer.consume(Duration::from_millis(10), |_| ()) as u64);
                left == 0
            })
        });
    });
    group.finish();
}

criterion_group!(benches, consume);
criterion_main!(benches);
