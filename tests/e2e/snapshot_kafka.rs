//! Clients that ask for their initial state, on Kafka: from a topic that was there before the gateway, and after its restart.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, query};
use crate::support::events::event;
use crate::support::gateway::Gateway;
use crate::support::kafka::{KAFKA_DEADLINE, Producer, Record, gateway_on, own_broker, shared_brokers, topic_name};
use crate::support::sse::EventStream;

const PARTITIONS: usize = 3;

struct Stage {
    brokers: String,
    producer: Producer,
    topic: String,
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        Some(Self::on(shared_brokers(test)?))
    }

    fn on(brokers: &str) -> Self {
        let stage =
            Self { brokers: brokers.to_owned(), producer: Producer::new(brokers), topic: topic_name("snapshot") };
        stage.producer.create_topic(&stage.topic, PARTITIONS);
        stage
    }

    fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        let kept = [("SNAPSHOT_TOPICS", self.topic.as_str())];
        gateway_on(&self.brokers, &self.topic, &[&kept, settings].concat())
    }

    /// Events of one key each; the id is the key and a number.
    fn publish(&self, event_type: &str, keys: std::ops::Range<usize>, number: usize, text: &str) {
        for key in keys {
            let event = event(event_type, &format!("{key}-{number}"), &json!(text));
            self.queue(key, Some(&event));
        }
        self.producer.flush();
    }

    fn queue(&self, key: usize, event: Option<&Value>) {
        let partition = i32::try_from(key % PARTITIONS).expect("a small number");
        let record = event.map_or_else(Record::default, Record::structured).for_partition(partition);
        self.producer.queue(&self.topic, &Record { key: Some(key.to_string().into_bytes()), ..record });
    }
}

fn subscriptions() -> Value {
    json!([{"eventType": "seat", "snapshot": true}])
}

/// Ids of published events up to `tidegate.snapshot`, and its data.
fn snapshot(client: &mut Client<'_>) -> (BTreeSet<String>, Value) {
    snapshot_of(|| client.next())
}

fn snapshot_of(mut next: impl FnMut() -> Value) -> (BTreeSet<String>, Value) {
    let mut ids = BTreeSet::new();
    loop {
        let next = next();
        match next["type"].as_str().expect("a type is text") {
            "tidegate.snapshot" => return (ids, next["data"].clone()),
            name if name.starts_with("rig.") => {}
            _ => assert!(ids.insert(next["id"].as_str().expect("an id is text").to_owned()), "twice: {next}"),
        }
    }
}

fn newest(keys: std::ops::Range<usize>, number: usize) -> BTreeSet<String> {
    keys.map(|key| format!("{key}-{number}")).collect()
}

#[test]
fn a_late_comer_gets_the_newest_event_of_each_key_that_was_there_before_the_gateway_and_after_its_restart() {
    let Some(stage) = Stage::new("snapshot_kafka") else { return };
    stage.publish("seat", 0..20, 1, "x");
    stage.publish("seat", 0..10, 2, "x");
    stage.queue(19, None);
    stage.producer.flush();
    let expected: BTreeSet<String> = newest(0..10, 2).union(&newest(10..19, 1)).cloned().collect();
    for round in 0..2 {
        let gateway = stage.gateway(&[]);
        for transport in TRANSPORTS {
            let mut client = Client::subscribe(&gateway, transport, &subscriptions());
            let (ids, data) = snapshot(&mut client);
            assert_eq!(ids, expected, "{transport:?}, start {round}");
            assert_eq!(data, json!({"complete": true, "events": 19}), "{transport:?}, start {round}");
        }
        let mut client = Client::of_type(&gateway, Transport::Sse, "other");
        client.replace(&subscriptions());
        assert_eq!(snapshot(&mut client).0, expected);
    }
}

#[test]
fn events_that_come_during_a_snapshot_larger_than_the_queue_are_seen_once_and_after_those_of_the_snapshot() {
    let Some(stage) = Stage::new("snapshot_kafka") else { return };
    let text = "x".repeat(2_000);
    stage.publish("seat", 0..2_000, 1, &text);
    let gateway = stage.gateway(&[("MAX_QUEUE_BYTES", "1048576")]);
    stage.producer.wait_until_read(&gateway, &stage.topic, PARTITIONS);
    let mut client = Client::subscribe(&gateway, Transport::Sse, &subscriptions());
    stage.publish("seat", 0..50, 2, "x");
    stage.publish("seat", 2_000..2_001, 2, "x");
    let (mut seen, mut last) = (BTreeSet::new(), vec![0; 2_001]);
    let mut told = None;
    while !(told.is_some() && (0..50).chain([2_000]).all(|key| last[key] == 2)) {
        let next = client.next();
        if next["type"] == "tidegate.snapshot" {
            told = Some(next["data"]["complete"].clone());
        } else if next["type"] == "seat" {
            let id = next["id"].as_str().expect("an id is text").to_owned();
            let (key, number) = id.split_once('-').expect("key and number");
            let (key, number): (usize, usize) = (key.parse().expect("a key"), number.parse().expect("a number"));
            assert!(number > last[key], "{id} after {}", last[key]);
            last[key] = number;
            assert!(seen.insert(id));
        }
    }
    assert_eq!(told, Some(json!(true)));
    assert!(last.iter().all(|number| *number > 0), "every key has come");
}

#[test]
fn brokers_that_vanish_cut_no_snapshot_short_and_a_node_that_starts_meanwhile_gives_it_once_they_are_back() {
    let Some(mut kafka) = own_broker("snapshots without brokers", None) else { return };
    let stage = Stage::on(kafka.brokers());
    stage.publish("seat", 0..2_000, 1, &"x".repeat(2_000));
    let small_queues = [("MAX_QUEUE_BYTES", "1048576")];
    let gateway = stage.gateway(&small_queues);
    stage.producer.wait_until_read(&gateway, &stage.topic, PARTITIONS);
    gateway.wait_for_metric("tidegate_snapshot_keys", 2_000.0);
    let mut early = Client::subscribe(&gateway, Transport::Sse, &subscriptions());
    kafka.kill().expect("the broker can be killed");
    let mut late = Client::subscribe(&gateway, Transport::WebSocket, &subscriptions());
    let expected = (newest(0..2_000, 1), json!({"complete": true, "events": 2_000}));
    assert_eq!(snapshot(&mut early), expected, "it was under way");
    assert_eq!(snapshot(&mut late), expected, "the node has it all");

    let young = stage.gateway(&small_queues);
    let mut waiting = EventStream::open(&young, &query(&subscriptions()));
    waiting.set_read_timeout(KAFKA_DEADLINE);
    kafka.restart().expect("the broker starts again");
    let next = || serde_json::from_str(&waiting.next_event().data).expect("an event is JSON");
    assert_eq!(snapshot_of(next), expected, "the node reads the topic from its beginning");
    stage.publish("seat", 7..8, 2, "x");
    for client in [&mut early, &mut late] {
        client.set_read_timeout(KAFKA_DEADLINE);
        assert_eq!(client.next_published_id(), "7-2");
    }
    let news: Value = serde_json::from_str(&waiting.next_event().data).expect("an event is JSON");
    assert_eq!(news["id"], "7-2");
}
