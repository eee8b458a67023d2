//! Clients that ask for their initial state, on the local hub.

use serde_json::{Value, json};

use crate::sessions_api::blacklist;
use crate::support::clients::{Client, TRANSPORTS, Transport, query};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::jwt::{self, of_session};
use crate::support::sse::{EventStream, Item};
use crate::support::wait_for;

const KEPT: &[(&str, &str)] = &[("SNAPSHOT_TOPICS", "*"), ("LONG_POLLING_WAIT_MS", "200")];

fn publish_seat(gateway: &Gateway, event_type: &str, seat: &str, id: &str) {
    let mut event = event(event_type, id, &json!(null));
    event["specversion"] = json!("1.0");
    event["subject"] = json!(seat);
    publish(gateway, &event);
}

fn subscriptions() -> Value {
    json!([{"eventType": "sold", "snapshot": true}, {"eventType": "freed", "snapshot": true}])
}

/// Ids of published events up to `tidegate.snapshot`, and its data.
fn snapshot(client: &mut Client<'_>) -> (Vec<String>, Value) {
    let mut ids = Vec::new();
    loop {
        let next = client.next();
        match next["type"].as_str().expect("a type is text") {
            "tidegate.snapshot" => return (ids, next["data"].clone()),
            name if name.starts_with("rig.") => {}
            _ => ids.push(next["id"].as_str().expect("an id is text").to_owned()),
        }
    }
}

fn sell_some(gateway: &Gateway) {
    publish_seat(gateway, "sold", "1", "a");
    publish_seat(gateway, "sold", "2", "b");
    publish_seat(gateway, "sold", "1", "c");
    publish_seat(gateway, "freed", "2", "d");
    publish_seat(gateway, "other", "3", "e");
}

#[test]
fn a_late_comer_gets_the_newest_event_of_each_key_and_then_the_live_ones_on_every_transport() {
    for transport in TRANSPORTS {
        let gateway = Gateway::with(KEPT);
        sell_some(&gateway);
        let mut client = Client::subscribe(&gateway, transport, &subscriptions());
        let (ids, data) = snapshot(&mut client);
        assert_eq!(ids, ["c", "d"], "{transport:?}");
        assert_eq!(data, json!({"complete": true, "events": 2}), "{transport:?}");
        publish_seat(&gateway, "sold", "1", "f");
        assert_eq!(client.next_published_id(), "f", "{transport:?}");
    }
}

#[test]
fn a_put_of_a_live_connection_brings_a_snapshot_on_every_transport() {
    for transport in TRANSPORTS {
        let gateway = Gateway::with(KEPT);
        sell_some(&gateway);
        let mut client = Client::of_type(&gateway, transport, "other");
        let echo = client.replace(&subscriptions());
        assert_eq!(echo[0], json!({"eventType": "sold", "oneOf": []}), "the echo is RIG's");
        assert_eq!(snapshot(&mut client).0, ["c", "d"], "{transport:?}");
        publish_seat(&gateway, "freed", "1", "f");
        assert_eq!(client.next_published_id(), "f", "{transport:?}");
    }
}

#[test]
fn the_first_cursor_comes_with_the_end_of_the_snapshot_and_who_presents_it_gets_what_came_since() {
    let gateway = Gateway::with(KEPT);
    sell_some(&gateway);
    let mut stream = EventStream::open(&gateway, &query(&subscriptions()));
    let cursor = loop {
        let next = stream.next_event();
        if next.name == "tidegate.snapshot" {
            break next.id.expect("a cursor");
        }
        assert_eq!(next.id, None, "{} has a cursor", next.name);
    };
    drop(stream);
    publish_seat(&gateway, "sold", "9", "f");
    let asked = format!("{}&lastEventId={cursor}", query(&subscriptions()));
    let mut client = Client::with_query(&gateway, Transport::Sse, &asked);
    assert_eq!(client.next_published_id(), "f");
}

#[test]
fn keys_that_had_to_go_and_snapshots_that_are_off_are_told() {
    let gateway = Gateway::with(&[("SNAPSHOT_TOPICS", "*"), ("SNAPSHOT_BYTES", "2000")]);
    for seat in 0..10 {
        publish_seat(&gateway, "sold", &seat.to_string(), &seat.to_string());
    }
    let (ids, data) = snapshot(&mut Client::subscribe(&gateway, Transport::Sse, &subscriptions()));
    assert_eq!(data["complete"], false);
    assert!(!ids.is_empty() && ids.len() < 10 && ids.last().is_some_and(|last| last == "9"), "{ids:?}");
    let gateway = Gateway::start();
    sell_some(&gateway);
    let (ids, data) = snapshot(&mut Client::subscribe(&gateway, Transport::Sse, &subscriptions()));
    assert_eq!((ids.len(), data), (0, json!({"complete": false, "events": 0})));
}

#[test]
fn a_topic_that_is_no_source_is_refused_at_the_start() {
    let refusal = Gateway::refused(&[("SNAPSHOT_TOPICS", "seats")]);
    assert!(refusal.text.contains("\"seats\" is not among KAFKA_SOURCE_TOPICS"), "{}", refusal.text);
}

#[test]
fn a_session_that_is_blacklisted_while_its_snapshot_is_under_way_ends_and_the_others_go_on() {
    const SEATS: usize = 1_000;
    let gateway = Gateway::with(&[KEPT, &[jwt::SETTING, ("MAX_QUEUE_BYTES", "1048576")]].concat());
    let text = "x".repeat(8_000);
    for seat in 0..SEATS {
        let mut event = event("sold", &seat.to_string(), &json!(text));
        event["subject"] = json!(seat.to_string());
        publish(&gateway, &event);
    }
    let [mut thief, mut owner] = ["thief", "owner"].map(|session| {
        EventStream::open(&gateway, &format!("jwt={}&{}", of_session(session), query(&subscriptions())))
    });
    gateway.wait_for_metric("tidegate_snapshots_waiting", 2.0);
    blacklist(&gateway, "thief", 600);
    let mut last = String::new();
    while let Some(item) = thief.next_item() {
        let Item::Event(event) = item else { continue };
        assert_ne!(event.name, "tidegate.snapshot", "it was cut short");
        last = event.name;
    }
    assert_eq!(last, "rig.session_killed");
    let mut seats = 0;
    while owner.next_event().name != "tidegate.snapshot" {
        seats += 1;
    }
    assert_eq!(seats, SEATS + 2, "all of it, after the two first events");
    wait_for("nobody to wait", || (gateway.metrics().sum("tidegate_snapshots_waiting") == 0.0).then_some(()));
}
