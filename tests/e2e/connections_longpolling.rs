//! Long polling: contract, section 1.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::connections_sse::assert_own_event;
use crate::support::clients::{Client, Transport, put_request, query, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, percent_encode};
use crate::support::longpolling::{LongPolling, cookie};

const PATH: &str = "/_rig/v1/connection/longpolling";

/// Settings under which an empty poll ends soon.
const IMPATIENT: &[(&str, &str)] = &[("LONG_POLLING_WAIT_MS", "100")];

fn publish_numbered(gateway: &Gateway, numbers: std::ops::Range<usize>) {
    for number in numbers {
        publish(gateway, &event("greeting", &number.to_string(), &json!(null)));
    }
}

#[test]
fn the_first_call_answers_ok_and_sets_two_cookies() {
    let gateway = Gateway::start();
    let response = LongPolling::opening_call(&gateway, "");
    assert_eq!((response.status, response.text()), (200, "\"ok\""));
    assert_eq!(cookie(&response, "last_event_id"), "\"first_event\"");
    assert_eq!(cookie(&response, "connection_token").len(), 84);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(response.header("cache-control"), Some("no-cache"));
}

#[test]
fn the_first_poll_brings_token_and_subscriptions() {
    let gateway = Gateway::start();
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    let batch = session.poll_for_events(&gateway);
    assert_eq!(batch.types(), ["rig.connection.create", "rig.subscriptions_set"]);
    let data = assert_own_event(&batch.events[0].to_string(), "rig.connection.create");
    assert_eq!(data["errors"], json!([]));
    let data = assert_own_event(&batch.events[1].to_string(), "rig.subscriptions_set");
    assert_eq!(data, json!([{ "eventType": "greeting", "oneOf": [] }]));
    assert_eq!(json!(batch.last_event_id), batch.events[1]["id"]);
}

#[test]
fn every_answer_sets_both_cookies_and_the_newest_id() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    publish_numbered(&gateway, 2..3);
    let response = gateway.call(session.request());
    let batch = LongPolling::batch(&response);
    assert_eq!(batch.last_event_id, "2");
    assert_eq!(cookie(&response, "last_event_id"), "\"2\"");
    assert!(!cookie(&response, "connection_token").is_empty());

    let session = LongPolling::from_response(&response);
    let empty = gateway.call(session.request());
    assert_eq!(LongPolling::batch(&empty).events, Vec::<Value>::new());
    assert_eq!(LongPolling::batch(&empty).last_event_id, "2");
    assert_eq!(cookie(&empty, "last_event_id"), "\"2\"", "an empty answer keeps the id");
}

#[test]
fn a_poll_waits_for_a_first_event() {
    let gateway = Gateway::with(&[("LONG_POLLING_WAIT_MS", "15000")]);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    let mut waiting = Connection::open(gateway.inbound());
    waiting.send(session.request().to_bytes());
    publish_numbered(&gateway, 0..1);
    let batch = LongPolling::batch(&waiting.response());
    assert_eq!(batch.ids(), ["0"]);
}

#[test]
fn a_poll_without_events_ends_after_the_longest_wait() {
    let gateway = Gateway::with(&[("LONG_POLLING_WAIT_MS", "300")]);
    let mut session = LongPolling::open(&gateway, "");
    session.poll_for_events(&gateway);
    let start = Instant::now();
    assert!(session.poll(&gateway).events.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(250), "it waited, if only a tick less");
}

#[test]
fn an_unknown_id_brings_everything_buffered() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    publish_numbered(&gateway, 0..3);
    session.poll_for(&gateway, 3);
    for unknown in ["\"first_event\"", "\"no such id\"", "\"\""] {
        session.last_event_id = unknown.to_owned();
        let batch = LongPolling::batch(&gateway.call(session.request()));
        assert_eq!(batch.events.len(), 5, "{unknown}: the two first events and three more");
    }
}

#[test]
fn polling_with_an_old_id_repeats() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    let old = session.clone();
    publish_numbered(&gateway, 0..3);
    for _ in 0..2 {
        assert_eq!(old.clone().poll_for(&gateway, 3).len(), 3);
    }
}

#[test]
fn two_polls_at_once_both_get_the_event() {
    let gateway = Gateway::with(&[("LONG_POLLING_WAIT_MS", "15000"), ("SHARDS", "2")]);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    let mut polls: Vec<_> = (0..4).map(|_| Connection::open(gateway.inbound())).collect();
    for poll in &mut polls {
        poll.send(session.request().to_bytes());
    }
    publish_numbered(&gateway, 0..1);
    for poll in &mut polls {
        assert_eq!(LongPolling::batch(&poll.response()).ids(), ["0"]);
    }
}

#[test]
fn a_broken_off_poll_loses_nothing() {
    let gateway = Gateway::with(&[("LONG_POLLING_WAIT_MS", "15000")]);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    let mut broken_off = Connection::open(gateway.inbound());
    broken_off.send(session.request().to_bytes());
    broken_off.reset();
    publish_numbered(&gateway, 0..3);
    let ids: Vec<_> = session.poll_for(&gateway, 3).iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, ["0", "1", "2"]);
}

#[test]
fn a_session_buffers_the_newest_200_events() {
    let gateway = Gateway::with(IMPATIENT);
    let session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    publish_numbered(&gateway, 0..250);
    let newest = crate::support::wait_for("the newest event", || {
        let batch = LongPolling::batch(&gateway.call(session.request()));
        (batch.last_event_id == "249").then_some(batch)
    });
    assert_eq!(newest.events.len(), 200);
    assert_eq!(newest.ids().first(), Some(&"50"));
}

#[test]
fn what_is_too_much_for_one_answer_comes_with_the_next_calls() {
    const EVENTS: usize = 60;
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    for number in 0..EVENTS {
        publish(&gateway, &event("greeting", &number.to_string(), &json!("x".repeat(20_000))));
    }
    let mut ids = Vec::new();
    crate::support::wait_for("all events", || {
        let batch = session.poll(&gateway);
        assert!(batch.text.len() < 300_000, "{} bytes", batch.text.len());
        ids.extend(batch.ids().into_iter().map(str::to_owned));
        (ids.len() >= EVENTS).then_some(())
    });
    assert_eq!(ids, (0..EVENTS).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn later_calls_may_land_on_any_shard() {
    let gateway = Gateway::with(&[("SHARDS", "2"), ("LONG_POLLING_WAIT_MS", "5000")]);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    for number in 0..32 {
        publish_numbered(&gateway, number..number + 1);
        assert_eq!(session.poll_for_events(&gateway).ids(), [number.to_string()]);
    }
}

#[test]
fn parameters_of_later_calls_are_ignored_even_bad_ones() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    for parameters in ["subscriptions=%5B", "jwt=nonsense", &query(&to_type("other"))] {
        let cookies = format!("connection_token={}; last_event_id={}", session.connection_token, session.last_event_id);
        let response = gateway.call(Request::get(&format!("{PATH}?{parameters}")).header("cookie", cookies));
        assert!(LongPolling::batch(&response).events.is_empty(), "{parameters}");
    }
    publish_numbered(&gateway, 0..1);
    assert_eq!(session.poll_for(&gateway, 1)[0]["id"], "0", "the first call's subscription is in force");
}

#[test]
fn the_parameter_may_be_an_object_here() {
    let gateway = Gateway::start();
    let parameter = json!({ "subscriptions": [{ "eventType": "greeting" }] });
    let client = Client::with_query(&gateway, Transport::LongPolling, &query(&parameter));
    assert_eq!(client.subscriptions[0]["eventType"], "greeting");
}

#[test]
fn bad_subscriptions_on_the_first_call_get_400_with_cors_headers() {
    let gateway = Gateway::start();
    let response = LongPolling::opening_call(&gateway, "subscriptions=%5B");
    assert_eq!(response.status, 400);
    assert!(response.text().starts_with("could not parse subscriptions: "), "{:?}", response.text());
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
}

#[test]
fn bad_percent_encoding_stays_literal_here() {
    let gateway = Gateway::start();
    let ok = LongPolling::opening_call(&gateway, "unknown=%zz");
    assert_eq!(ok.status, 200);
    let bad = LongPolling::opening_call(&gateway, "subscriptions=%zz");
    assert_eq!(bad.status, 400, "literal %zz is no list");
    assert!(bad.text().starts_with("could not parse subscriptions: "), "{:?}", bad.text());
}

#[test]
fn a_malformed_unknown_or_dead_token_opens_a_new_session() {
    let gateway = Gateway::start();
    let other = Gateway::start();
    let foreign = LongPolling::open(&other, "").connection_token;
    let cut_short = LongPolling::open(&gateway, "").connection_token[..40].to_owned();
    for token in ["", "nonsense", "%00", "AAAA", &"A".repeat(84), &"A".repeat(5000), &cut_short, &foreign] {
        let cookies = format!("connection_token={token}; last_event_id=\"first_event\"");
        let response = gateway.call(Request::get(PATH).header("cookie", cookies));
        assert_eq!((response.status, response.text()), (200, "\"ok\""), "token {token:?}");
        assert_ne!(cookie(&response, "connection_token"), token);
    }
}

#[test]
fn a_token_of_another_transport_opens_a_new_session_and_its_stream_lives_on() {
    let gateway = Gateway::start();
    for transport in [Transport::Sse, Transport::WebSocket] {
        let mut client = Client::of_type(&gateway, transport, "greeting");
        let cookies = format!("connection_token={}; last_event_id=\"first_event\"", client.token);
        let response = gateway.call(Request::get(PATH).header("cookie", cookies));
        assert_eq!((response.status, response.text()), (200, "\"ok\""), "{transport:?}");
        publish_numbered(&gateway, 7..8);
        client.expect_ids(&["7"]);
    }
}

#[test]
fn an_odd_last_event_id_cookie_brings_everything_buffered() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    publish_numbered(&gateway, 0..1);
    session.poll_for(&gateway, 1);
    let token = &session.connection_token;
    for cookies in [
        format!("connection_token={token}"),
        format!("connection_token={token}; last_event_id="),
        format!("connection_token={token}; last_event_id"),
        format!("connection_token={token}; last_event_id=first_event"),
        format!("connection_token={token}; last_event_id=\"unfinished"),
        format!("connection_token={token}; last_event_id=[1,2"),
        format!("connection_token={token}; last_event_id=null"),
        format!("last_event_id=%22%zz; a=b; connection_token={token}"),
    ] {
        let response = gateway.call(Request::get(PATH).header("cookie", &cookies));
        assert_eq!(LongPolling::batch(&response).ids(), ["0"], "cookie: {cookies}");
    }
}

#[test]
fn a_percent_encoded_last_event_id_is_understood() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    publish_numbered(&gateway, 0..2);
    session.poll_for(&gateway, 2);
    session.last_event_id = percent_encode("\"0\"");
    let response = gateway.call(session.request());
    let batch = LongPolling::batch(&response);
    assert!(batch.ids().contains(&"1"), "at the least nothing is lost: {batch:?}");
}

#[test]
fn event_ids_with_odd_characters_survive_the_cookie() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    for id in ["a;b", "a,b c", "quo\"te", "back\\slash", "line\nfeed", "\u{7f}\u{1}", "größe ✓ 𝄞", "%22", "a=b"]
    {
        publish(&gateway, &event("greeting", id, &json!(null)));
        let batch = session.poll_for_events(&gateway);
        assert_eq!(batch.ids(), [id], "{id:?}: this event alone, in valid JSON");
        assert_eq!(batch.last_event_id, id);
        assert!(
            session.last_event_id.bytes().all(|b| b > 0x20 && b < 0x7f && b != b';'),
            "{:?}",
            session.last_event_id
        );
        assert!(session.poll(&gateway).events.is_empty(), "{id:?}: the cookie is understood");
    }
}

#[test]
fn a_numeric_event_id_does_not_make_events_repeat() {
    let gateway = Gateway::with(IMPATIENT);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    publish(&gateway, &json!({ "specversion": "0.2", "type": "greeting", "source": "/test", "id": 5 }));
    assert_eq!(session.poll_for(&gateway, 1)[0]["id"], 5);
    assert!(session.poll(&gateway).events.is_empty());
}

#[test]
fn a_session_ends_after_its_time_and_the_next_poll_opens_a_new_one() {
    let gateway = Gateway::with(&[("LONG_POLLING_SESSION_MS", "1000"), ("LONG_POLLING_WAIT_MS", "50")]);
    let session = LongPolling::open(&gateway, "");
    let token = LongPolling::batch(&gateway.call(session.request())).events[0]["data"]["connection_token"].clone();
    let token = token.as_str().expect("text");
    crate::support::wait_for("the session to end", || {
        (gateway.call(put_request("longpolling", token, &json!([]))).status == 410).then_some(())
    });
    let response = gateway.call(session.request());
    assert_eq!((response.status, response.text()), (200, "\"ok\""));
}

#[test]
fn polls_keep_a_session_alive() {
    let gateway = Gateway::with(&[("LONG_POLLING_SESSION_MS", "1500"), ("LONG_POLLING_WAIT_MS", "300")]);
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert!(session.poll(&gateway).events.is_empty(), "an empty poll of the same session");
    }
}
