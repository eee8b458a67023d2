//! Clients that come back with a cursor, on Kafka: to the same node, to another one, after a restart.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::clients::{query, to_type};
use crate::support::events::event;
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::kafka::{Producer, Record, gateway_on, shared_brokers, topic_name};
use crate::support::longpolling::{LongPolling, cookie};
use crate::support::sse::EventStream;
use crate::support::websocket::WebSocketClient;

const PARTITIONS: usize = 3;

struct Stage {
    brokers: &'static str,
    producer: Producer,
    topic: String,
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        let brokers = shared_brokers(test)?;
        let stage = Self { brokers, producer: Producer::new(brokers), topic: topic_name("replay") };
        stage.producer.create_topic(&stage.topic, PARTITIONS);
        Some(stage)
    }

    fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        let gateway = gateway_on(self.brokers, &self.topic, settings);
        self.producer.wait_until_read(&gateway, &self.topic, PARTITIONS);
        gateway
    }

    /// Events of one type, in turn for each partition.
    fn publish(&self, event_type: &str, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let event = event(event_type, &number.to_string(), &json!("x".repeat(200)));
            let partition = i32::try_from(number % PARTITIONS).expect("a small number");
            self.producer.queue(&self.topic, &Record::structured(&event).for_partition(partition));
        }
        self.producer.flush();
    }
}

fn come_back(gateway: &Gateway, last_event_id: &str) -> EventStream {
    let path = format!("/_rig/v1/connection/sse?{}", query(&to_type("greeting")));
    EventStream::with_request(gateway, &Request::get(&path).header("last-event-id", last_event_id))
}

fn number(text: &str) -> usize {
    let event: Value = serde_json::from_str(text).expect("an event is JSON");
    event["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("an event with a number: {event}"))
}

/// Fails unless these are all the numbers of the range, each once, and in order within their partition.
fn assert_exactly(numbers: &[usize], range: std::ops::Range<usize>) {
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for number in numbers {
        let before = last.insert(number % PARTITIONS, *number);
        assert!(before.is_none_or(|before| before < *number), "{number} after {before:?}");
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, range.collect::<Vec<_>>());
}

/// The numbers of the next events, own events left out.
fn numbers(stream: &mut EventStream, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let next = stream.next_event();
        assert_ne!(next.name, "tidegate.history_lost", "{}", next.data);
        if !next.name.starts_with("rig.") {
            numbers.push(number(&next.data));
        }
    }
    numbers
}

fn subscribed(gateway: &Gateway) -> EventStream {
    let mut stream = EventStream::open(gateway, &query(&to_type("greeting")));
    stream.next_event();
    assert_eq!(stream.next_event().name, "rig.subscriptions_set");
    stream
}

#[test]
fn a_client_goes_on_at_another_node_where_it_was() {
    let Some(stage) = Stage::new("a_client_goes_on_at_another_node_where_it_was") else { return };
    let (mut first, second) = (stage.gateway(&[]), stage.gateway(&[]));
    let mut stream = subscribed(&first);
    stage.publish("greeting", 0..300);
    let mut seen = numbers(&mut stream, 150);
    let cursor = stream.last_event_id().expect("a cursor").to_owned();
    drop(stream);
    first.kill();
    let mut back = come_back(&second, &cursor);
    stage.publish("greeting", 300..330);
    let rest = numbers(&mut back, 330 - seen.len());
    seen.extend(rest);
    assert_exactly(&seen, 0..330);
    assert!(second.metrics().sum("tidegate_replay_passes_total") >= 1.0, "nobody there had wanted the type before");
}

#[test]
fn a_client_goes_on_after_a_restart_of_its_node() {
    let Some(stage) = Stage::new("a_client_goes_on_after_a_restart_of_its_node") else { return };
    let mut gateway = stage.gateway(&[]);
    let mut stream = subscribed(&gateway);
    stage.publish("greeting", 0..30);
    let mut seen = numbers(&mut stream, 30);
    let cursor = stream.last_event_id().expect("a cursor").to_owned();
    gateway.kill();
    stage.publish("greeting", 30..90);
    let gateway = stage.gateway(&[]);
    let mut back = come_back(&gateway, &cursor);
    stage.publish("greeting", 90..120);
    seen.extend(numbers(&mut back, 90));
    assert_exactly(&seen, 0..120);
}

#[test]
fn a_websocket_and_a_long_polling_client_go_on_at_another_node() {
    let Some(stage) = Stage::new("a_websocket_and_a_long_polling_client_go_on_at_another_node") else { return };
    let (first, second) = (stage.gateway(&[]), stage.gateway(&[]));
    let asked = format!("{}&cursor=true", query(&to_type("greeting")));
    let mut socket = WebSocketClient::open(&first, &asked);
    socket.next_text();
    socket.next_text();
    let opened = LongPolling::opening_call(&first, &asked);
    let poll_cursor = cookie(&opened, "tidegate_cursor");
    stage.publish("greeting", 0..60);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..20 {
        let event: Value = serde_json::from_str(&socket.next_text()).expect("an event is JSON");
        cursor = event["tidegatecursor"].as_str().expect("a cursor").to_owned();
        seen.push(event["id"].as_str().and_then(|id| id.parse().ok()).expect("a number"));
    }
    drop(socket);
    let mut back = WebSocketClient::open(&second, &format!("{asked}&lastEventId={cursor}"));
    back.next_text();
    back.next_text();
    seen.extend((0..40).map(|_| number(&back.next_text())));
    assert_exactly(&seen, 0..60);

    let request = Request::get(&format!("/_rig/v1/connection/longpolling?{asked}"))
        .header("cookie", format!("tidegate_cursor={poll_cursor}; connection_token=of-another-node"));
    let mut session = LongPolling::from_response(&second.call(request));
    let seen: Vec<usize> = session.poll_for(&second, 60).iter().map(|event| number(&event.to_string())).collect();
    assert_exactly(&seen, 0..60);
}

#[test]
fn a_client_far_behind_with_a_small_history_gets_all_from_kafka_and_joins_the_live_stream() {
    let Some(stage) = Stage::new("a_client_far_behind_with_a_small_history") else { return };
    let gateway = stage.gateway(&[("HISTORY_BYTES", "0")]);
    let mut stream = subscribed(&gateway);
    stage.publish("greeting", 0..3);
    let mut seen = numbers(&mut stream, 3);
    let cursor = stream.last_event_id().expect("a cursor").to_owned();
    drop(stream);
    stage.publish("greeting", 3..20_000);
    stage.publish("other", 0..100);
    let mut back = come_back(&gateway, &cursor);
    stage.publish("greeting", 20_000..20_300);
    seen.extend(numbers(&mut back, 20_297));
    assert_exactly(&seen, 0..20_300);
}

#[test]
fn many_clients_that_come_back_together_share_their_passes() {
    let Some(stage) = Stage::new("many_clients_that_come_back_together_share_their_passes") else { return };
    let mut gateway = stage.gateway(&[]);
    let mut stream = subscribed(&gateway);
    stage.publish("greeting", 0..3);
    numbers(&mut stream, 3);
    let cursor = stream.last_event_id().expect("a cursor").to_owned();
    gateway.kill();
    stage.publish("greeting", 3..3_003);
    let gateway = stage.gateway(&[]);
    let mut clients: Vec<EventStream> = (0..200).map(|_| come_back(&gateway, &cursor)).collect();
    for client in &mut clients {
        assert_exactly(&numbers(client, 3_000), 3..3_003);
    }
    let metrics = gateway.metrics();
    let read = metrics.sum("tidegate_replay_messages_total");
    assert!(read < 30_000.0, "200 clients, {read} messages read");
}

#[test]
fn a_topic_made_anew_is_told_and_read_from_its_beginning() {
    let Some(stage) = Stage::new("a_topic_made_anew_is_told_and_read_from_its_beginning") else { return };
    let mut gateway = stage.gateway(&[]);
    let mut stream = subscribed(&gateway);
    stage.publish("greeting", 0..30);
    numbers(&mut stream, 30);
    let cursor = stream.last_event_id().expect("a cursor").to_owned();
    gateway.kill();
    stage.producer.recreate_topic(&stage.topic, PARTITIONS);
    let gateway = stage.gateway(&[]);
    stage.publish("greeting", 70..73);
    let mut back = come_back(&gateway, &cursor);
    let lost = std::iter::from_fn(|| Some(back.next_event())).find(|event| event.name == "tidegate.history_lost");
    let lost: Value = serde_json::from_str(&lost.expect("a loss is told").data).expect("an event is JSON");
    assert_eq!(lost["data"]["reason"], "topic_recreated", "{lost}");
    assert_exactly(&numbers(&mut back, 3).iter().map(|number| number - 70).collect::<Vec<_>>(), 0..3);
}

#[test]
fn a_deleted_topic_is_told_and_holds_nobody_up() {
    let test = "a_deleted_topic_is_told_and_holds_nobody_up";
    let Some(brokers) = shared_brokers(test) else { return };
    let (producer, kept, deleted) = (Producer::new(brokers), topic_name("kept"), topic_name("deleted"));
    let publish = |topic: &str, number: usize| {
        let event = event("greeting", &number.to_string(), &json!("x".repeat(200)));
        producer.send(topic, &Record::structured(&event).for_partition(0));
    };
    let gateway = || {
        let gateway = gateway_on(brokers, &format!("{kept},{deleted}"), &[]);
        [&kept, &deleted].into_iter().for_each(|topic| producer.wait_until_read(&gateway, topic, 1));
        gateway
    };
    [&kept, &deleted].into_iter().for_each(|topic| producer.create_topic(topic, 1));
    let mut first = gateway();
    let mut stream = subscribed(&first);
    [(&kept, 0), (&deleted, 1)].into_iter().for_each(|(topic, number)| publish(topic, number));
    numbers(&mut stream, 2);
    let cursor = stream.last_event_id().expect("a cursor").to_owned();
    first.kill();
    [(&kept, 2), (&deleted, 3)].into_iter().for_each(|(topic, number)| publish(topic, number));

    let second = gateway();
    producer.delete_topic(&deleted);
    let told_and_given = || {
        let (mut back, mut reason, mut given) = (come_back(&second, &cursor), None, false);
        while reason.is_none() || !given {
            let next = back.next_event();
            if next.name == "tidegate.history_lost" {
                let lost: Value = serde_json::from_str(&next.data).expect("an event is JSON");
                reason = Some(lost["data"]["reason"].clone());
            } else if !next.name.starts_with("rig.") {
                assert_eq!(number(&next.data), 2);
                given = true;
            }
        }
        reason.expect("a reason")
    };
    assert_eq!(told_and_given(), "expired", "before the node takes it for deleted");
    second.wait_for_log("the topic was deleted");
    assert_eq!(told_and_given(), "partition_not_read");
}
