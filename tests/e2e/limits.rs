//! Limits on connections and requests: each is answered with the right status, and counted.

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::clients::{Client, Transport, query, to_type};
use crate::support::events::{event, structured};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::http2::Http2Connection;
use crate::support::wait_for;
use crate::support::websocket::WebSocketClient;

/// An event stream, and the head of its answer.
fn event_stream(gateway: &Gateway, source: [u8; 4]) -> (Connection, Response) {
    let mut connection = Connection::open_from(source, gateway.inbound());
    connection.send(Request::get("/_rig/v1/connection/sse").to_bytes());
    let head = connection.head();
    (connection, head)
}

fn refused(gateway: &Gateway, limit: &str) -> f64 {
    gateway.metrics().sum_where("tidegate_connections_refused_total", &[("limit", limit)])
}

/// Asserts status and a `retry-after` of at least a second.
fn assert_told_to_retry(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{response:?}");
    let seconds: u64 = response.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or(0);
    assert!((1..=60).contains(&seconds), "{response:?}");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"), "a page may read it: {response:?}");
}

const HERE: [u8; 4] = [127, 0, 0, 1];
const THERE: [u8; 4] = [127, 0, 0, 2];

#[test]
fn a_node_that_holds_as_many_connections_as_it_may_answers_503_until_one_goes() {
    let mut gateway = Gateway::with(&[("MAX_CONNECTIONS", "3")]);
    let mut held: Vec<_> = (0..3).map(|_| event_stream(&gateway, HERE)).collect();
    assert!(held.iter().all(|(_, head)| head.status == 200));
    for target in ["/_rig/v1/connection/sse", "/_rig/v1/connection/ws", "/_rig/health", "/nothing"] {
        assert_told_to_retry(&gateway.call(Request::get(target)), 503);
    }
    assert_eq!(refused(&gateway, "total"), 4.0);
    held.pop();
    wait_for("a place to be free", || (gateway.call(Request::get("/_rig/health")).status == 200).then_some(()));
    wait_for("it to be free again", || (event_stream(&gateway, HERE).1.status == 200).then_some(()));
    drop(held);
    wait_for("all to be gone", || (gateway.metrics().sum("tidegate_connections") == 0.0).then_some(()));
    gateway.assert_alive();
}

#[test]
fn sessions_and_streams_of_http_2_hold_places_too() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS", "4")]);
    let connection = Http2Connection::open(&gateway);
    let _streams: Vec<_> = (0..3).map(|_| connection.event_stream("")).collect();
    let (head, _) = connection.event_stream("");
    assert_eq!(head.status(), 503);
    assert_told_to_retry(&gateway.call(Request::get("/_rig/health")), 503);

    let gateway = Gateway::with(&[("MAX_CONNECTIONS", "2")]);
    let session = gateway.call(Request::get("/_rig/v1/connection/longpolling"));
    assert_eq!((session.status, session.text()), (200, "\"ok\""));
    let mut connection = Connection::open(gateway.inbound());
    assert_told_to_retry(&connection.request(&Request::get("/_rig/v1/connection/longpolling")), 503);
}

#[test]
fn connections_far_over_the_bound_are_closed_without_an_answer() {
    let mut gateway = Gateway::with(&[("MAX_CONNECTIONS", "1")]);
    let _held = event_stream(&gateway, HERE);
    let mut others: Vec<_> = (0..400).filter_map(|_| Connection::try_open(gateway.inbound()).ok()).collect();
    let answers: Vec<_> = others.iter_mut().map(Connection::until_end).collect();
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 ")));
    assert!(answers.iter().any(|answer| !answer.is_empty()));
    drop((others, _held));
    wait_for("all to be gone", || (gateway.metrics().sum("tidegate_connections") == 0.0).then_some(()));
    gateway.assert_alive();
}

#[test]
fn an_address_that_holds_as_many_connections_as_it_may_gets_429_and_others_come_in() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS_PER_ADDRESS", "4"), ("SHARDS", "2")]);
    let mut held: Vec<_> = (0..4).map(|_| event_stream(&gateway, HERE)).collect();
    assert!(held.iter().all(|(_, head)| head.status == 200));
    for _ in 0..10 {
        assert_told_to_retry(&event_stream(&gateway, HERE).1, 429);
    }
    assert_eq!(refused(&gateway, "per_address"), 10.0, "whichever shard they came to");
    assert_eq!(event_stream(&gateway, THERE).1.status, 200);
    held.pop();
    wait_for("its place to be free", || (event_stream(&gateway, HERE).1.status == 200).then_some(()));
}

#[test]
fn streams_on_one_http_2_connection_count_for_its_address() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS_PER_ADDRESS", "3")]);
    let connection = Http2Connection::open(&gateway);
    let first = connection.event_stream("");
    let second = connection.event_stream("");
    assert_eq!(connection.event_stream("").0.status(), 429);
    drop((first, second));
    wait_for("their places to be free", || (connection.event_stream("").0.status() == 200).then_some(()));
}

#[test]
fn the_rate_of_connections_says_when_the_next_minute_begins() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS_PER_MINUTE", "1")]);
    let refused_once = || {
        let (_, head) = event_stream(&gateway, HERE);
        (head.status == 429).then_some(head)
    };
    // Two in a row belong to one minute, unless a minute ends between them.
    let head = wait_for("the rate to be reached", refused_once);
    assert_told_to_retry(&head, 429);
    assert_told_to_retry(&gateway.call(Request::get("/_rig/v1/connection/longpolling")), 429);
    assert!(refused(&gateway, "per_minute") >= 2.0);
    let frame = WebSocketClient::open(&gateway, &query(&to_type("a"))).wait_for_close();
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, "Reached maximum number of connections"));
}

const ONE_A_SECOND: [(&str, &str); 2] = [("MAX_REQUESTS_PER_SECOND_PER_ADDRESS", "1"), ("REQUEST_BURST_SECONDS", "3")];

fn publishing() -> Request {
    structured(event("greeting", "1", &json!(null)).to_string())
}

#[test]
fn an_address_that_publishes_too_often_gets_429_and_others_are_served() {
    let gateway = Gateway::with(&ONE_A_SECOND);
    for _ in 0..3 {
        assert_eq!(gateway.call(publishing()).status, 202);
    }
    let refusal = wait_for("the rate to be reached", || {
        let answer = gateway.call(publishing());
        (answer.status != 202).then_some(answer)
    });
    assert_told_to_retry(&refusal, 429);
    assert_eq!(refusal.text(), "Too many requests from this address.");
    let mut other = Connection::open_from(THERE, gateway.inbound());
    assert_eq!(other.request(&publishing()).status, 202);
    let limited = gateway.metrics().sum_where("tidegate_requests_limited_total", &[("limit", "per_address")]);
    assert!(limited >= 1.0);
    for _ in 0..20 {
        assert_eq!(gateway.call(Request::get("/_rig/health")).status, 200, "health checks are not limited");
        assert_eq!(gateway.call_internal(Request::get("/health")).status, 200);
    }
    Client::of_type(&gateway, Transport::Sse, "greeting");
}

#[test]
fn requests_to_the_api_proxy_count_with_those_that_publish_over_http_1_and_2() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&ONE_A_SECOND);
    let connection = Http2Connection::open(&gateway);
    for _ in 0..3 {
        connection.call("GET", "/to/x", None, b"");
    }
    let refused_over_http_2 =
        || (connection.call("POST", "/to/x", None, b"body").status().as_u16() == 429).then_some(());
    wait_for("the rate to be reached over HTTP/2", refused_over_http_2);
    wait_for("the rate to be reached over HTTP/1.1", || {
        (gateway.call(Request::get("/to/x")).status == 429).then_some(())
    });
    let mut seen = 0;
    while notes.try_next().is_some() {
        seen += 1;
    }
    let limited = gateway.metrics().sum_where("tidegate_requests_limited_total", &[("limit", "per_address")]);
    assert!(seen >= 3 && limited >= 2.0, "{seen} requests reached the backend, {limited} did not");
}

#[test]
fn a_token_that_is_used_too_often_gets_429_from_every_address_and_others_are_served() {
    let gateway = Gateway::with(&[("MAX_REQUESTS_PER_SECOND_PER_TOKEN", "1"), ("REQUEST_BURST_SECONDS", "3")]);
    let with_token = |token: &str| publishing().header("authorization", format!("Bearer {token}"));
    let refusal = wait_for("the rate to be reached", || {
        let answer = gateway.call(with_token("first"));
        (answer.status != 202).then_some(answer)
    });
    assert_told_to_retry(&refusal, 429);
    wait_for("the same from elsewhere", || {
        let mut other = Connection::open_from(THERE, gateway.inbound());
        (other.request(&with_token("first")).status == 429).then_some(())
    });
    assert_eq!(gateway.call(with_token("second")).status, 202);
    assert_eq!(gateway.call(publishing()).status, 202);
    assert!(gateway.metrics().sum_where("tidegate_requests_limited_total", &[("limit", "per_token")]) >= 2.0);
}
