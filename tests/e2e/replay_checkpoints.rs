//! Cursors that refer to checkpoints, on Kafka: at the same node, another one, after a restart, and when the checkpoint is gone.

use std::ops::Range;

use serde_json::{Value, json};

use crate::support::clients::{query, to_type};
use crate::support::events::event;
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::kafka::{KAFKA_DEADLINE, Producer, Record, gateway_on, own_broker, shared_brokers, topic_name};
use crate::support::sse::EventStream;

/// Begins every cursor that refers to a checkpoint: its version, in base64.
const CHECKPOINTED: &str = "Ag";
/// Makes every cursor refer to a checkpoint as soon as there is one.
const ALWAYS: (&str, &str) = ("TEST_CURSOR_CHARS", "1");

fn connected(gateway: &Gateway, last_event_id: Option<&str>) -> EventStream {
    let path = format!("/_rig/v1/connection/sse?{}", query(&to_type("greeting")));
    let request = Request::get(&path);
    let request = match last_event_id {
        Some(id) => request.header("last-event-id", id),
        None => request,
    };
    EventStream::with_request(gateway, &request)
}

fn read_first_events(stream: &mut EventStream) {
    assert_eq!(stream.next_event().name, "rig.connection.create");
    assert_eq!(stream.next_event().name, "rig.subscriptions_set");
}

fn subscribed(gateway: &Gateway, last_event_id: Option<&str>) -> EventStream {
    let mut stream = connected(gateway, last_event_id);
    read_first_events(&mut stream);
    stream
}

/// Events with these numbers, in turn for each partition.
fn publish(producer: &Producer, topic: &str, partitions: usize, numbers: Range<usize>) {
    for number in numbers {
        let event = event("greeting", &number.to_string(), &json!(null));
        let partition = i32::try_from(number % partitions).expect("a small number");
        producer.queue(topic, &Record::structured(&event).for_partition(partition));
    }
    producer.flush();
}

/// The numbers of the next events, sorted.
fn numbers(stream: &mut EventStream, count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count)
        .map(|_| {
            let next = stream.next_event();
            assert_eq!(next.name, "greeting", "{}", next.data);
            let event: Value = serde_json::from_str(&next.data).expect("an event is JSON");
            event["id"].as_str().and_then(|id| id.parse().ok()).expect("a number")
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Publishes one event after the other, from `number` on, until the cursor of one refers to a checkpoint.
fn until_checkpointed(
    stream: &mut EventStream,
    producer: &Producer,
    topic: &str,
    partitions: usize,
    mut number: usize,
) -> (String, usize) {
    for _ in 0..1_000 {
        publish(producer, topic, partitions, number..number + 1);
        assert_eq!(numbers(stream, 1), [number]);
        number += 1;
        let cursor = stream.last_event_id().expect("a cursor");
        if cursor.starts_with(CHECKPOINTED) {
            return (cursor.to_owned(), number);
        }
    }
    panic!("cursors never refer to a checkpoint");
}

#[test]
fn a_cursor_with_a_checkpoint_leads_on_at_its_node_at_another_and_after_a_restart() {
    let Some(brokers) = shared_brokers("cursors with checkpoints") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("checkpoints"));
    producer.create_topic(&topic, 3);
    let gateway = || {
        let gateway = gateway_on(brokers, &topic, &[ALWAYS]);
        producer.wait_until_read(&gateway, &topic, 3);
        gateway
    };
    let (mut first, second) = (gateway(), gateway());
    let mut stream = subscribed(&first, None);
    let (cursor, next) = until_checkpointed(&mut stream, &producer, &topic, 3, 0);
    publish(&producer, &topic, 3, next..next + 30);
    let mut back = subscribed(&first, Some(&cursor));
    assert_eq!(numbers(&mut back, 30), (next..next + 30).collect::<Vec<_>>());
    let mut elsewhere = subscribed(&second, Some(&cursor));
    assert_eq!(numbers(&mut elsewhere, 30), (next..next + 30).collect::<Vec<_>>());
    first.kill();
    let restarted = gateway();
    let mut back = subscribed(&restarted, Some(&cursor));
    publish(&producer, &topic, 3, next + 30..next + 40);
    assert_eq!(numbers(&mut back, 40), (next..next + 40).collect::<Vec<_>>());
    let cursor = back.last_event_id().expect("a cursor").to_owned();
    assert_eq!(numbers(&mut elsewhere, 10), (next + 30..next + 40).collect::<Vec<_>>());
    drop(back);
    publish(&producer, &topic, 3, next + 40..next + 43);
    let mut back = subscribed(&second, Some(&cursor));
    assert_eq!(numbers(&mut back, 3), (next + 40..next + 43).collect::<Vec<_>>());
}

#[test]
fn a_client_whose_checkpoint_is_deleted_is_told_and_gets_the_live_stream() {
    let Some(brokers) = shared_brokers("a checkpoint that is deleted") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("checkpoints"));
    producer.create_topic(&topic, 3);
    let mut gateway = gateway_on(brokers, &topic, &[ALWAYS]);
    producer.wait_until_read(&gateway, &topic, 3);
    let mut stream = subscribed(&gateway, None);
    let (cursor, next) = until_checkpointed(&mut stream, &producer, &topic, 3, 0);
    gateway.kill();
    producer.delete_records(&format!("positions-of-{topic}"));
    let gateway = gateway_on(brokers, &topic, &[ALWAYS]);
    producer.wait_until_read(&gateway, &topic, 3);
    publish(&producer, &topic, 3, next..next + 3);
    let mut back = subscribed(&gateway, Some(&cursor));
    let lost = back.next_event();
    assert_eq!(lost.name, "tidegate.history_lost", "{}", lost.data);
    let lost: Value = serde_json::from_str(&lost.data).expect("an event is JSON");
    assert_eq!(lost["data"]["reason"], "cursor_expired", "{lost}");
    publish(&producer, &topic, 3, next + 3..next + 6);
    assert_eq!(numbers(&mut back, 3), (next + 3..next + 6).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_that_is_looked_for_while_the_brokers_are_away_is_found_once_they_are_back() {
    let Some(mut kafka) = own_broker("a checkpoint without brokers", None) else { return };
    let (producer, topic) = (Producer::new(kafka.brokers()), topic_name("checkpoints"));
    producer.create_topic(&topic, 3);
    let [first, second] = [(); 2].map(|()| {
        let gateway = gateway_on(kafka.brokers(), &topic, &[ALWAYS]);
        producer.wait_until_read(&gateway, &topic, 3);
        gateway
    });
    let mut stream = subscribed(&first, None);
    let (cursor, next) = until_checkpointed(&mut stream, &producer, &topic, 3, 0);
    assert!(first.metrics().sum_where("tidegate_checkpoints_total", &[("outcome", "written")]) >= 1.0);
    publish(&producer, &topic, 3, next..next + 10);
    assert_eq!(numbers(&mut stream, 10), (next..next + 10).collect::<Vec<_>>());
    kafka.kill().expect("the broker can be killed");
    let mut back = connected(&second, Some(&cursor));
    back.set_read_timeout(KAFKA_DEADLINE);
    let found = || second.metrics().sum_where("tidegate_checkpoint_lookups_total", &[("outcome", "found")]);
    assert_eq!(found(), 0.0, "nobody can know where the client is");
    kafka.restart().expect("the broker starts again");
    read_first_events(&mut back);
    assert_eq!(numbers(&mut back, 10), (next..next + 10).collect::<Vec<_>>());
    assert_eq!(found(), 1.0);
    publish(&producer, &topic, 3, next + 10..next + 13);
    assert_eq!(numbers(&mut back, 3), (next + 10..next + 13).collect::<Vec<_>>());
}

#[test]
fn cursors_of_a_thousand_partitions_stay_below_a_kibibyte() {
    const PARTITIONS: usize = 1_000;
    let Some(kafka) = own_broker("a thousand partitions", None) else { return };
    let (producer, topic) = (Producer::new(kafka.brokers()), "wide");
    producer.create_topic(topic, PARTITIONS);
    // So many before, that each partition is somewhere else.
    for partition in 0..PARTITIONS {
        let earlier = Record::structured(&event("earlier", "0", &json!(null)));
        let earlier = earlier.for_partition(i32::try_from(partition).expect("a small number"));
        (0..partition * 37 % 100).for_each(|_| producer.queue(topic, &earlier));
    }
    producer.flush();
    let gateway = || {
        let gateway = gateway_on(kafka.brokers(), topic, &[]);
        producer.wait_until_these_are_read(&gateway, topic, PARTITIONS - 1..PARTITIONS);
        gateway
    };
    let mut first = gateway();
    let mut stream = subscribed(&first, None);
    let (mut cursor, mut next) = until_checkpointed(&mut stream, &producer, topic, PARTITIONS, 0);
    for _ in 0..5 {
        publish(&producer, topic, PARTITIONS, next..next + 1_000);
        assert_eq!(numbers(&mut stream, 1_000), (next..next + 1_000).collect::<Vec<_>>());
        next += 1_000;
        stream.last_event_id().expect("a cursor").clone_into(&mut cursor);
        assert!(cursor.len() < 1_024, "{}", cursor.len());
    }
    first.kill();
    publish(&producer, topic, PARTITIONS, next..next + 2_000);
    let second = gateway();
    let mut back = subscribed(&second, Some(&cursor));
    let half = numbers(&mut back, 1_000);
    let cursor = back.last_event_id().expect("a cursor").to_owned();
    assert!(cursor.len() < 1_024, "while it catches up: {}", cursor.len());
    drop(back);
    let mut again = subscribed(&second, Some(&cursor));
    let mut all = [half, numbers(&mut again, 1_000)].concat();
    all.sort_unstable();
    assert_eq!(all, (next..next + 2_000).collect::<Vec<_>>());
}
