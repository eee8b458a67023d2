//! Clients that come back with a cursor, on the local hub.

use serde_json::{Value, json};

use crate::support::clients::{query, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::{Request, percent_encode};
use crate::support::http2::Http2Connection;
use crate::support::longpolling::{LongPolling, cookie};
use crate::support::sse::EventStream;
use crate::support::websocket::WebSocketClient;

fn publish_ids(gateway: &Gateway, ids: std::ops::Range<u32>) {
    for id in ids {
        publish(gateway, &event("greeting", &id.to_string(), &json!(null)));
    }
}

fn id_of(text: &str) -> String {
    let event: Value = serde_json::from_str(text).expect("an event is JSON");
    event["id"].as_str().expect("an id is text").to_owned()
}

/// The next published events' ids; `tidegate.history_lost` counts as one, by its reason.
fn ids(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let next = stream.next_event();
        if next.name == "tidegate.history_lost" {
            let event: Value = serde_json::from_str(&next.data).expect("an event is JSON");
            ids.push(event["data"]["reason"].as_str().expect("a reason").to_owned());
        } else if !next.name.starts_with("rig.") {
            ids.push(id_of(&next.data));
        }
    }
    ids
}

fn come_back(gateway: &Gateway, last_event_id: &str) -> EventStream {
    let path = format!("/_rig/v1/connection/sse?{}", query(&to_type("greeting")));
    EventStream::with_request(gateway, &Request::get(&path).header("last-event-id", last_event_id))
}

#[test]
fn an_event_stream_that_comes_back_gets_what_it_missed_and_then_the_live_stream() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    assert_eq!(stream.next_event().name, "rig.connection.create");
    assert_eq!(stream.next_event().name, "rig.subscriptions_set");
    publish_ids(&gateway, 0..3);
    assert_eq!(ids(&mut stream, 2), ["0", "1"]);
    let last = stream.last_event_id().expect("a cursor").to_owned();
    drop(stream);
    publish_ids(&gateway, 3..6);
    let mut back = come_back(&gateway, &last);
    publish_ids(&gateway, 6..8);
    assert_eq!(ids(&mut back, 6), ["2", "3", "4", "5", "6", "7"]);
}

#[test]
fn every_event_carries_a_cursor_from_which_exactly_the_rest_comes() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    publish_ids(&gateway, 0..5);
    let cursors: Vec<String> = (0..5).map(|_| stream.next_event().id.expect("every event carries a cursor")).collect();
    for (at, cursor) in cursors.iter().enumerate() {
        let rest: Vec<String> = (at + 1..5).map(|id| id.to_string()).collect();
        assert_eq!(ids(&mut come_back(&gateway, cursor), rest.len()), rest);
    }
}

#[test]
fn the_query_names_a_cursor_too_and_the_head_counts_before_it() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    publish_ids(&gateway, 0..3);
    let cursors: Vec<String> = (0..3).map(|_| stream.next_event().id.expect("a cursor")).collect();
    let asked = format!("{}&lastEventId={}", query(&to_type("greeting")), cursors[0]);
    assert_eq!(ids(&mut EventStream::open(&gateway, &asked), 2), ["1", "2"]);
    let request = Request::get(&format!("/_rig/v1/connection/sse?{asked}")).header("last-event-id", &cursors[1]);
    assert_eq!(ids(&mut EventStream::with_request(&gateway, &request), 1), ["2"]);
}

#[test]
fn a_websocket_gets_cursors_where_it_asks_for_them_and_goes_on_from_one() {
    let gateway = Gateway::start();
    let asked = format!("{}&cursor=true", query(&to_type("greeting")));
    let mut socket = WebSocketClient::open(&gateway, &asked);
    let mut plain = WebSocketClient::open(&gateway, &query(&to_type("greeting")));
    for socket in [&mut socket, &mut plain] {
        socket.next_text();
        socket.next_text();
    }
    publish_ids(&gateway, 0..3);
    let first: Value = serde_json::from_str(&socket.next_text()).expect("an event is JSON");
    let cursor = first["tidegatecursor"].as_str().expect("an event carries its cursor");
    assert!(!plain.next_text().contains("tidegatecursor"));
    let asked = format!("{asked}&lastEventId={cursor}");
    let mut back = WebSocketClient::open(&gateway, &asked);
    back.next_text();
    back.next_text();
    publish_ids(&gateway, 3..4);
    let seen: Vec<String> = (0..3).map(|_| id_of(&back.next_text())).collect();
    assert_eq!(seen, ["1", "2", "3"]);
}

#[test]
fn an_event_stream_over_http2_goes_on_from_a_cursor() {
    let gateway = Gateway::start();
    let http2 = Http2Connection::open(&gateway);
    let (_, mut stream) = http2.event_stream(&query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    publish_ids(&gateway, 0..3);
    let cursor = stream.next_event().id.expect("a cursor");
    let asked = format!("{}&lastEventId={cursor}", query(&to_type("greeting")));
    let (_, mut back) = http2.event_stream(&asked);
    back.next_event();
    back.next_event();
    publish_ids(&gateway, 3..4);
    let seen: Vec<String> = (0..3).map(|_| id_of(&back.next_event().data)).collect();
    assert_eq!(seen, ["1", "2", "3"]);
}

#[test]
fn a_long_polling_session_that_is_gone_goes_on_from_the_cursor_in_its_cookie() {
    let gateway = Gateway::with(&[("LONG_POLLING_WAIT_MS", "200")]);
    let asked = format!("{}&cursor=true", query(&to_type("greeting")));
    let opened = LongPolling::opening_call(&gateway, &asked);
    assert_eq!((opened.status, opened.text()), (200, "\"ok\""));
    let cursor = cookie(&opened, "tidegate_cursor");
    publish_ids(&gateway, 0..3);
    // The session's token is lost, its cursor isn't.
    let request = Request::get(&format!("/_rig/v1/connection/longpolling?{asked}"))
        .header("cookie", format!("tidegate_cursor={cursor}"));
    let again = gateway.call(request);
    assert_eq!((again.status, again.text()), (200, "\"ok\""));
    let mut session = LongPolling::from_response(&again);
    publish_ids(&gateway, 3..5);
    let seen: Vec<Value> = session.poll_for(&gateway, 5);
    let seen: Vec<&str> = seen.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
}

#[test]
fn long_polling_without_the_wish_sets_the_two_cookies_of_the_contract_only() {
    let gateway = Gateway::start();
    let opened = LongPolling::opening_call(&gateway, &query(&to_type("greeting")));
    assert_eq!(opened.headers_named("set-cookie").len(), 2);
}

#[test]
fn a_hub_that_was_started_anew_says_so_and_gives_what_it_has() {
    let mut gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    publish_ids(&gateway, 0..1);
    let cursor = stream.next_event().id.expect("a cursor");
    gateway.kill();
    let gateway = Gateway::start();
    publish_ids(&gateway, 7..8);
    assert_eq!(ids(&mut come_back(&gateway, &cursor), 2), ["hub_restarted", "7"]);
}

#[test]
fn events_that_the_history_no_longer_holds_are_told_to_be_lost() {
    let gateway = Gateway::with(&[("HISTORY_BYTES", "0")]);
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    publish_ids(&gateway, 0..1);
    let cursor = stream.next_event().id.expect("a cursor");
    let large = event("greeting", "large", &json!("x".repeat(900_000)));
    for _ in 0..12 {
        publish(&gateway, &large);
        assert_eq!(id_of(&stream.next_event().data), "large");
    }
    let mut back = come_back(&gateway, &cursor);
    assert_eq!(ids(&mut back, 1), ["expired"]);
    publish_ids(&gateway, 8..9);
    while id_of(&stream.next_event().data) != "8" {}
    let mut last = ids(&mut back, 1);
    while last == ["large"] {
        last = ids(&mut back, 1);
    }
    assert_eq!(last, ["8"]);
}

#[test]
fn what_is_no_cursor_is_told_to_be_unknown_and_the_stream_goes_on() {
    let gateway = Gateway::start();
    for presented in ["17", "earliest", "2026-01-01T00:00:00Z", "AQAB"] {
        let mut stream = come_back(&gateway, presented);
        let reason = if presented == "17" || presented == "AQAB" { "cursor_unknown" } else { "not_allowed" };
        assert_eq!(ids(&mut stream, 1), [reason], "{presented}");
        publish_ids(&gateway, 1..2);
        assert_eq!(ids(&mut stream, 1), ["1"], "{presented}");
    }
}

#[test]
fn the_beginning_and_a_time_are_given_where_a_setting_allows_it() {
    let gateway = Gateway::with(&[("REPLAY_EARLIEST", "true")]);
    publish_ids(&gateway, 0..3);
    assert_eq!(ids(&mut come_back(&gateway, "earliest"), 3), ["0", "1", "2"]);
    assert_eq!(ids(&mut come_back(&gateway, "2020-01-01T00:00:00Z"), 3), ["0", "1", "2"]);
    let future = percent_encode("2999-01-01T00:00:00Z");
    let asked = format!("{}&lastEventId={future}", query(&to_type("greeting")));
    let mut later = EventStream::open(&gateway, &asked);
    later.next_event();
    later.next_event();
    publish_ids(&gateway, 3..4);
    assert_eq!(ids(&mut later, 1), ["3"]);
}

#[test]
fn a_quiet_stream_learns_the_present_position_with_its_heartbeat() {
    let gateway = Gateway::with(&[("HEARTBEAT_MS", "300")]);
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    let before = stream.last_event_id().expect("a position").to_owned();
    publish(&gateway, &event("other", "1", &json!(null)));
    crate::support::wait_for("a heartbeat with a new position", || {
        stream.next_comment();
        (stream.last_event_id() != Some(&before)).then_some(())
    });
}
