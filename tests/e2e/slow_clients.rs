//! Clients that don't read: what is left out for them, and what they are told; and those that read slowly.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clients::{Client, Transport, query, to_type};
use crate::support::events::{accepted, event, structured};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;
use crate::support::longpolling::LongPolling;
use crate::support::wait_for;
use crate::support::websocket::WebSocketClient;

/// Bytes of filler in one event; some hundred of them fill every buffer of the kernel.
const FILLER_BYTES: usize = 128 * 1024;

fn gateway(slow_client: &str) -> Gateway {
    Gateway::with(&[("SLOW_CLIENT", slow_client), ("MAX_QUEUE_BYTES", "1100000"), ("HEARTBEAT_MS", "3600000")])
}

fn publish(gateway: &Gateway, id: usize, subject: Option<&str>) {
    let mut large = event("quote", &id.to_string(), &json!("x".repeat(FILLER_BYTES)));
    if let Some(subject) = subject {
        large["subject"] = json!(subject);
    }
    accepted(gateway, structured(large.to_string()));
}

/// Reads up to the event with this id: the ids of what came, and how many the notices tell of.
fn read_up_to(client: &mut Client<'_>, last: usize) -> (Vec<usize>, u64) {
    let (mut ids, mut dropped) = (Vec::new(), 0);
    loop {
        let event = client.next();
        if event["type"] == "tidegate.dropped" {
            assert_eq!((&event["specversion"], &event["source"]), (&json!("0.2"), &json!("rig")));
            dropped += event["data"]["dropped"].as_u64().expect("a number");
            continue;
        }
        let id: usize = event["id"].as_str().expect("an id").parse().expect("a number");
        ids.push(id);
        if id == last {
            return (ids, dropped);
        }
    }
}

#[test]
fn a_client_that_drops_is_told_how_many_events_it_has_missed() {
    let gateway = gateway("drop");
    for transport in [Transport::Sse, Transport::WebSocket] {
        let before = gateway.metrics().sum("tidegate_events_dropped_total");
        let mut slow = Client::of_type(&gateway, transport, "quote");
        let mut published = 0;
        wait_for("events to be dropped", || {
            publish(&gateway, published, None);
            published += 1;
            (gateway.metrics().sum("tidegate_events_dropped_total") >= before + 20.0).then_some(())
        });
        assert!(gateway.metrics().sum("tidegate_queue_bytes") <= 1_100_000.0);
        let (ids, dropped) = read_up_to(&mut slow, published - 1);
        assert!(ids.is_sorted() && ids[0] == 0, "{transport:?}: {ids:?}");
        assert!(dropped >= 20, "{transport:?}: {dropped} dropped");
        assert_eq!(ids.len() as u64 + dropped, published as u64, "{transport:?}: each one is here or counted");
        publish(&gateway, published, None);
        assert_eq!(slow.next_id(), published.to_string(), "{transport:?}: it goes on as before");
    }
    assert!(gateway.metrics().sum("tidegate_connections_slow_total") < 1.0);
}

#[test]
fn a_client_that_conflates_gets_the_newest_of_each_subject() {
    let gateway = gateway("disconnect,conflate");
    let mut slow = Client::with_query(&gateway, Transport::Sse, &format!("{}&slow=conflate", query(&to_type("quote"))));
    let subjects = ["a", "b", "c"];
    let mut published = 0;
    wait_for("events to be conflated", || {
        publish(&gateway, published, Some(subjects[published % 3]));
        published += 1;
        (gateway.metrics().sum("tidegate_events_conflated_total") >= 20.0).then_some(())
    });
    let (ids, dropped) = read_up_to(&mut slow, published - 1);
    assert_eq!(dropped, 0, "three subjects have room");
    assert!(ids.is_sorted() && ids.len() + 20 <= published, "{ids:?} of {published}");
    for newest in published - 3..published {
        assert!(ids.contains(&newest), "{newest} is the newest of its subject: {ids:?}");
    }
}

#[test]
fn a_client_may_ask_for_what_the_operator_allows_and_for_nothing_else() {
    let gateway = gateway("drop,disconnect");
    let answer = |slow: &str| gateway.call(Request::get(&format!("/_rig/v1/connection/sse?slow={slow}")));
    for slow in ["conflate", "never"] {
        let refused = answer(slow);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.text().contains("drop, disconnect"), "{refused:?}");
        let frame = WebSocketClient::open(&gateway, &format!("slow={slow}")).wait_for_close();
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, "Bad request."));
    }
    let none: Value = json!([]);
    for slow in ["drop", "disconnect", ""] {
        let asked = format!("{}&slow={slow}", query(&none));
        assert_eq!(Client::with_query(&gateway, Transport::Sse, &asked).subscriptions, none);
    }
}

#[test]
fn a_client_that_disconnects_by_its_own_choice_is_ended_at_the_bound() {
    let gateway = gateway("drop,disconnect");
    let _slow =
        Client::with_query(&gateway, Transport::WebSocket, &format!("{}&slow=disconnect", query(&to_type("quote"))));
    let mut published = 0;
    wait_for("the connection to be ended", || {
        publish(&gateway, published, None);
        published += 1;
        (gateway.metrics().sum("tidegate_connections_slow_total") >= 1.0).then_some(())
    });
    assert!(gateway.metrics().sum("tidegate_events_dropped_total") < 1.0);
}

#[test]
fn a_client_that_never_reads_is_ended_although_its_events_may_be_dropped() {
    let gateway = Gateway::with(&[("SLOW_CLIENT", "drop"), ("MAX_QUEUE_BYTES", "1100000"), ("HEARTBEAT_MS", "200")]);
    let _stuck = Client::of_type(&gateway, Transport::WebSocket, "quote");
    let mut published = 0;
    wait_for("the connection to be ended", || {
        publish(&gateway, published, None);
        published += 1;
        (gateway.metrics().sum("tidegate_connections_slow_total") >= 1.0).then_some(())
    });
}

/// A gateway and a session, whose next poll brings 30 MB in one event: more than the kernel's buffers hold.
fn large_answer() -> (Gateway, LongPolling) {
    let gateway = Gateway::with(&[
        ("HEADER_TIMEOUT_MS", "4000"),
        ("MAX_BODY_BYTES", "40000000"),
        ("MAX_EVENT_BYTES", "40000000"),
        ("MAX_QUEUE_BYTES", "50000000"),
        ("LONG_POLLING_WAIT_MS", "15000"),
    ]);
    let mut session = LongPolling::open(&gateway, &query(&to_type("large")));
    session.poll_for_events(&gateway);
    accepted(&gateway, structured(event("large", "1", &json!("x".repeat(30_000_000))).to_string()));
    (gateway, session)
}

/// Takes some pieces of an answer at each look, until a connection that began later has been closed for its silence; then
/// the rest. `left` bytes of it are still to come, `piece` says how many it has taken.
fn take_slowly(gateway: &Gateway, mut left: usize, mut piece: impl FnMut() -> usize) {
    assert!(left > 29_000_000, "{left} bytes");
    let mut silent = Connection::open(gateway.inbound());
    silent.set_read_timeout(Duration::from_millis(1));
    wait_for("a connection without a request to be closed", || {
        for _ in 0..4 {
            left -= if left > 0 { piece() } else { 0 };
        }
        matches!(silent.fill(), Ok(false)).then_some(())
    });
    while left > 0 {
        left -= piece();
    }
}

#[test]
fn a_large_answer_that_is_taken_slowly_arrives_whole() {
    let (gateway, session) = large_answer();
    let mut slow = Connection::open(gateway.inbound());
    slow.send(session.request().to_bytes());
    let length: usize = slow.head().header("content-length").expect("a length").parse().expect("a number");
    let left = length - slow.take_buffer().len();
    take_slowly(&gateway, left, || {
        assert!(slow.fill().expect("it comes in time"), "the connection ended within the answer");
        slow.take_buffer().len()
    });
}

#[test]
fn a_large_answer_that_is_taken_slowly_arrives_whole_over_http_2_too() {
    let (gateway, session) = large_answer();
    let slow = Http2Connection::open(&gateway);
    let cookies = format!("connection_token={}; last_event_id={}", session.connection_token, session.last_event_id);
    let (head, mut body) = slow.begin_with("/_rig/v1/connection/longpolling", &[("cookie", &cookies)]).into_parts();
    let length = head.headers["content-length"].to_str().expect("text").parse().expect("a number");
    take_slowly(&gateway, length, || slow.piece(&mut body).len());
}
