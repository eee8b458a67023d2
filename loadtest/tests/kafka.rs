//! Whole runs of calls over a real Kafka, and the bundled service as services behind the gateway are asked.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidegate_load::{CallLoad, CallPath, CallScenario, ReactiveCalls, ServiceCounts, ServiceOptions, run_calls, serve};
use xtask::kafka::{Kafka, Options};

const PATIENCE: Duration = Duration::from_secs(60);
const NUMBER: &str = "00000001-000000000002";

fn options(kafka: &Kafka, topic: &str, reactive: Option<&str>) -> ServiceOptions {
    ServiceOptions {
        brokers: kafka.brokers().to_owned(),
        topic: topic.to_owned(),
        response_topic: "load-responses".to_owned(),
        ignores_reply_address: false,
        reactive: reactive.map(str::to_owned),
        answer_bytes: 24,
        cpu: None,
    }
}

/// Runs `work` while the service runs.
fn while_served<T>(options: &ServiceOptions, counts: &ServiceCounts, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        let stop = &stop;
        let service = scope.spawn(move || serve(options, counts, stop, || ready.send(()).unwrap()));
        is_ready.recv_timeout(PATIENCE).expect("the service is ready");
        let result = work();
        stop.store(true, Relaxed);
        service.join().unwrap().unwrap();
        result
    })
}

/// The first message in a partition: its headers and its payload.
fn first_in(brokers: &str, topic: &str, partition: Option<i32>) -> (Vec<(String, String)>, String) {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "load-tests").create().unwrap();
    let began = Instant::now();
    let partitions: Vec<i32> = match partition {
        Some(partition) => vec![partition],
        None => {
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
            metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect()
        }
    };
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    loop {
        assert!(began.elapsed() < PATIENCE, "no message in {topic}");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
            let headers = message.headers().unwrap().iter();
            return (
                headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
                text(message.payload()),
            );
        }
    }
}

#[test]
fn the_service_answers_where_a_request_says_or_on_the_response_topic() {
    let what = "the service answers where a request says";
    let Some(kafka) = Kafka::start_or_skip(what, Options { partitions: 4, ..Options::default() }) else { return };
    let counts = ServiceCounts::default();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
    while_served(&options(&kafka, "load-asked", None), &counts, || {
        let event = format!(r#"{{"specversion":"1.0","id":"{NUMBER}","rig":{{"correlation":"abc"}}}}"#);
        let address = OwnedHeaders::new()
            .insert(Header { key: "rig-reply-topic", value: Some("load-home") })
            .insert(Header { key: "rig-reply-partition", value: Some("3") });
        producer.send(BaseRecord::<(), str>::to("load-asked").payload("something else")).unwrap();
        producer.send(BaseRecord::<(), str>::to("load-asked").payload(&event).headers(address)).unwrap();
        producer.send(BaseRecord::<(), str>::to("load-asked").payload(&event)).unwrap();
        producer.flush(PATIENCE).unwrap();
        let began = Instant::now();
        while counts.answered.load(Relaxed) + counts.unreadable.load(Relaxed) < 3 && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!((counts.answered.load(Relaxed), counts.unreadable.load(Relaxed)), (2, 1));
    for (topic, partition) in [("load-home", Some(3)), ("load-responses", None)] {
        let (headers, payload) = first_in(kafka.brokers(), topic, partition);
        assert_eq!(payload, format!("{NUMBER}ccc"));
        for (name, value) in [("rig-correlation", "abc"), ("rig-response-code", "200"), ("content-type", "text/plain")]
        {
            assert!(headers.contains(&(name.to_owned(), value.to_owned())), "{headers:?}");
        }
    }
}

#[test]
fn calls_through_bare_clients_all_get_their_own_answers_and_no_client_reads_anothers() {
    let what = "calls through bare clients";
    let Some(kafka) = Kafka::start_or_skip(what, Options { partitions: 4, ..Options::default() }) else { return };
    let calls = ReactiveCalls {
        brokers: kafka.brokers().to_owned(),
        destination: "kafka:load-called/echo".to_owned(),
        reply_topic: "load-replies".to_owned(),
        payload_bytes: 200,
        clients: 3,
    };
    let load = CallLoad { concurrency: 32, duration_s: 60.0, total: Some(600), warmup_s: 0.0, ..CallLoad::default() };
    let service = options(&kafka, "load-called", Some("echo"));
    let report = while_served(&service, &ServiceCounts::default(), || {
        let mut scenario = CallScenario::new(CallPath::Reactive(calls), load);
        scenario.answer_timeout_s = 30.0;
        run_calls(&scenario, |_| {}).unwrap()
    });
    assert!(report.passed(), "{}", report.table());
    assert_eq!((report.counts.answered, report.counts.most_in_flight), (600, 32));
    let bytes = report.reply_bytes.unwrap();
    assert_eq!(bytes.read, bytes.own, "{}", report.table());
    assert!(bytes.own >= 600 * 24);
}
