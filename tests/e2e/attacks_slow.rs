//! Attacks by slowness: heads and bodies that come a byte now and then, on both versions of HTTP.

use std::time::Duration;

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::clients::{Client, Transport};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::wait_for;

/// Connections of one attack.
const MANY: usize = 50;
const SHORT: (&str, &str) = ("HEADER_TIMEOUT_MS", "500");

fn timed_out(gateway: &Gateway, what: &str) -> f64 {
    gateway.metrics().sum_where("tidegate_timed_out_total", &[("limit", what)])
}

/// Drips these bytes into all connections until each of them has been ended; what they were told.
fn drip(mut open: Vec<Connection>, bytes: &[u8]) -> Vec<Vec<u8>> {
    for connection in &open {
        connection.set_read_timeout(Duration::from_millis(1));
    }
    let mut told = Vec::new();
    wait_for("every slow connection to be ended", || {
        open.retain_mut(|connection| {
            let goes_on = connection.try_send(bytes) && !matches!(connection.fill(), Ok(false));
            if !goes_on {
                // A write may fail before the answer has been read.
                while matches!(connection.fill(), Ok(true)) {}
                told.push(connection.take_buffer());
            }
            goes_on
        });
        open.is_empty().then_some(())
    });
    told
}

#[test]
fn slowloris_on_heads_holds_no_connection_and_no_other_client_notices() {
    let mut gateway = Gateway::with(&[SHORT]);
    let mut bystander = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    let connections = (0..MANY)
        .map(|number| {
            let mut connection = Connection::open(gateway.inbound());
            if number % 2 == 1 {
                // On a used connection hyper reads the head.
                assert_eq!(connection.request(&Request::get("/_rig/health")).status, 200);
            }
            connection.send("GET /_rig/v1/connection/sse HTTP/1.1\r\nhost: a\r\nx: ");
            connection
        })
        .collect();
    let told = drip(connections, b"y");
    assert!(told.iter().all(|told| told.is_empty() || told.starts_with(b"HTTP/1.1 408 ")), "{told:?}");
    assert!(told.iter().any(|told| !told.is_empty()), "they are told why");
    assert!(timed_out(&gateway, "head") >= MANY as f64);
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    wait_for("only the bystander to be left", || (gateway.metrics().sum("tidegate_connections") == 1.0).then_some(()));
    gateway.assert_alive();
}

#[test]
fn slowloris_on_bodies_is_ended_with_408_however_steadily_it_drips() {
    let mut gateway = Gateway::with(&[SHORT]);
    let bystander = Client::of_type(&gateway, Transport::Sse, "greeting");
    let put = format!("PUT /_rig/v1/connection/sse/{}/subscriptions", bystander.token);
    let connections = (0..MANY)
        .map(|number| {
            let call = if number % 2 == 0 { "POST /_rig/v1/events" } else { &put };
            let mut connection = Connection::open(gateway.inbound());
            connection.send(format!(
                "{call} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
            ));
            connection
        })
        .collect();
    let told = drip(connections, b" ");
    for told in &told {
        assert!(told.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(told));
    }
    assert_eq!(timed_out(&gateway, "body"), MANY as f64);
    wait_for("only the bystander to be left", || (gateway.metrics().sum("tidegate_connections") == 1.0).then_some(()));
    gateway.assert_alive();
}

#[test]
fn slowloris_on_a_body_for_a_backend_holds_no_connection_to_it() {
    let backend = Backend::scripted(|peer| {
        peer.head();
        peer.until_end();
    });
    let mut gateway = backend.gateway(&[("PROXY_IDLE_TIMEOUT", "500")]);
    let connections = (0..MANY)
        .map(|_| {
            let mut connection = Connection::open(gateway.inbound());
            connection.send("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
            connection
        })
        .collect();
    let told = drip(connections, b"x");
    for told in &told {
        assert!(told.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(told));
    }
    assert_eq!(timed_out(&gateway, "body"), MANY as f64);
    wait_for("the backend's connections to be ended", || (backend.open() == 0).then_some(()));
    gateway.assert_alive();
}

#[test]
fn a_body_may_drip_where_no_average_is_asked_for() {
    let gateway = Gateway::with(&[SHORT, ("MIN_BODY_BYTES_PER_SECOND", "0")]);
    let body = event("greeting", "1", &json!(null)).to_string();
    let mut connection = Connection::open(gateway.inbound());
    connection.send(format!(
        "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    let mut rest = body.as_bytes();
    wait_for("the body to have dripped", || {
        let (byte, after) = rest.split_at(1);
        connection.send(byte);
        rest = after;
        rest.is_empty().then_some(())
    });
    assert_eq!(connection.response().status, 202);
}
