//! SIGTERM moves clients away before the gateway ends; each is told in its own protocol.

use std::time::Duration;

use serde_json::json;

use crate::support::backend::{Backend, Gate, ok};
use crate::support::clients::{Client, Transport, query, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;
use crate::support::longpolling::LongPolling;
use crate::support::sse::{EventStream, Item};
use crate::support::wait_for;
use crate::support::websocket::WebSocketClient;

#[test]
fn an_event_stream_is_told_when_to_come_back_and_ends() {
    let mut gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, "");
    stream.next_event();
    stream.next_event();
    gateway.signal("TERM");
    let Some(Item::Event(last)) = stream.next_item() else { panic!("a last block is expected") };
    assert_eq!(last.fields, ["retry"]);
    let retry_ms = last.retry_ms.expect("a number");
    assert!((500..3_000).contains(&retry_ms), "{retry_ms}");
    assert_eq!(stream.next_item(), None, "the stream ends in order");
    assert!(gateway.wait_for_end().success());
}

#[test]
fn an_event_stream_on_http2_is_told_too_and_its_connection_gets_goaway() {
    let mut gateway = Gateway::start();
    let connection = Http2Connection::open(&gateway);
    let (_, mut stream) = connection.event_stream("");
    stream.next_event();
    stream.next_event();
    gateway.signal("TERM");
    let last = stream.next_event();
    assert!(last.retry_ms.is_some(), "{last:?}");
    stream.expect_end();
    let refused =
        wait_for("the connection to take no more requests", || connection.try_call("GET", "/_rig/health").err());
    assert!(refused.is_go_away() || refused.is_io() || refused.is_library(), "{refused:?}");
    assert!(gateway.wait_for_end().success());
}

#[test]
fn a_web_socket_is_closed_with_1012_and_a_reason() {
    let mut gateway = Gateway::start();
    let socket = WebSocketClient::open(&gateway, "");
    gateway.wait_for_metric("tidegate_connections", 1.0);
    gateway.signal("TERM");
    let frame = socket.wait_for_close();
    assert_eq!(u16::from(frame.code), 1012);
    assert!(frame.reason.as_str().contains("restarted"), "{frame:?}");
    assert!(gateway.wait_for_end().success());
}

#[test]
fn a_long_poll_that_waits_is_answered() {
    let mut gateway = Gateway::with(&[("LONG_POLLING_WAIT_MS", "600000")]);
    let mut session = LongPolling::open(&gateway, "");
    session.poll_for_events(&gateway);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(session.request().to_bytes());
    gateway.wait_for_metric("tidegate_connections_accepted_total", 3.0);
    gateway.signal("TERM");
    let response = connection.response();
    assert!(LongPolling::batch(&response).events.is_empty(), "it has everything: {response:?}");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(gateway.wait_for_end().success());
}

#[test]
fn what_a_long_polling_client_has_not_fetched_is_kept_for_its_next_call() {
    let mut gateway = Gateway::start();
    let mut session = LongPolling::open(&gateway, &query(&to_type("greeting")));
    session.poll_for_events(&gateway);
    let mut kept = Connection::open(gateway.inbound());
    assert_eq!(kept.request(&Request::get("/_rig/health")).status, 200);
    publish(&gateway, &event("greeting", "1", &json!(null)));
    gateway.signal("TERM");
    gateway.wait_for_metric("tidegate_connections_moved_total", 1.0);
    let response = kept.request(&session.request());
    assert_eq!(LongPolling::batch(&response).ids(), ["1"]);
    assert_eq!(response.header("connection"), Some("close"));
    kept.assert_closed();
    assert!(gateway.wait_for_end().success());
}

#[test]
fn requests_finish_and_their_connections_close_after_them() {
    let (gate, answer) = (Gate::default(), Gate::default());
    let (began, goes_on) = (gate.clone(), answer.clone());
    let backend = Backend::answering(move |_| {
        began.open();
        goes_on.wait();
        ok("done")
    });
    let mut gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get("/to/x").to_bytes());
    gate.wait();
    gateway.signal("TERM");
    wait_for("the drain", || (gateway.metrics().sum("tidegate_draining") > 0.0).then_some(()));
    answer.open();
    let response = connection.response();
    assert_eq!((response.status, response.text()), (200, "done"));
    assert_eq!(response.header("connection"), Some("close"));
    connection.assert_closed();
    assert!(gateway.wait_for_end().success());
}

#[test]
fn the_internal_port_says_that_the_node_drains() {
    let mut gateway = Gateway::start();
    let mut kept = Connection::open(gateway.inbound());
    assert_eq!(kept.request(&Request::get("/_rig/health")).status, 200);
    gateway.signal("TERM");
    let health = wait_for("health to turn", || {
        let health = gateway.call_internal(Request::get("/health"));
        (health.status == 503).then_some(health)
    });
    assert_eq!(health.text(), "draining");
    assert!((gateway.metrics().sum("tidegate_draining") - 1.0).abs() < f64::EPSILON);
    let last = kept.request(&Request::get("/_rig/health"));
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(gateway.wait_for_end().success());
}

#[test]
fn events_reach_clients_until_they_are_moved() {
    let mut gateway = Gateway::with(&[("DRAIN_SECONDS", "3600")]);
    let streams = 40;
    let mut clients: Vec<_> =
        (0..streams).map(|_| Client::of_type(&gateway, Transport::WebSocket, "greeting")).collect();
    gateway.signal("TERM");
    gateway.wait_for_metric("tidegate_connections_moved_total", 1.0);
    let published =
        gateway.call_internal(Request::new("POST", "/v3/messages").json(&event("greeting", "during", &json!(null))));
    assert_eq!(published.status, 202, "{published:?}");
    let last = clients.last_mut().expect("there are clients");
    assert_eq!(last.next_id(), "during");
    gateway.wait_for_metric("tidegate_connections_moved_total", f64::from(streams));
    drop(clients);
    assert!(gateway.wait_for_end().success(), "with nobody left the drain ends long before its time");
}

#[test]
fn a_second_signal_ends_the_drain() {
    let mut gateway = Gateway::with(&[("DRAIN_SECONDS", "3600"), ("HEADER_TIMEOUT_MS", "3600000")]);
    let mut kept = Connection::open(gateway.inbound());
    assert_eq!(kept.request(&Request::get("/_rig/health")).status, 200);
    gateway.signal("TERM");
    gateway.wait_for_log("moving clients away");
    gateway.signal("TERM");
    assert!(gateway.wait_for_end().success());
    kept.assert_closed();
}

#[test]
fn an_interrupt_ends_all_connections_at_once() {
    let mut gateway = Gateway::with(&[("DRAIN_SECONDS", "3600")]);
    let sockets: Vec<_> = (0..3).map(|_| WebSocketClient::open(&gateway, "")).collect();
    gateway.signal("INT");
    for socket in sockets {
        socket.set_read_timeout(Duration::from_secs(20));
        assert_eq!(u16::from(socket.wait_for_close().code), 1012);
    }
    assert!(gateway.wait_for_end().success());
}

#[test]
fn a_hang_up_ends_no_gateway_that_has_no_certificates_to_read_again() {
    let mut gateway = Gateway::start();
    let client = WebSocketClient::open(&gateway, "");
    gateway.signal("HUP");
    gateway.wait_for_log("SIGHUP");
    gateway.assert_alive();
    gateway.signal("INT");
    assert_eq!(u16::from(client.wait_for_close().code), 1012);
    assert!(gateway.wait_for_end().success());
}
