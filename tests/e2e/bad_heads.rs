//! Request heads that a client should never send: issue, "Bad input".

use std::time::Duration;

use crate::support::clients::{Client, Transport};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::Connection;

const BODY: &str = r#"{"specversion":"0.2","type":"a","source":"/t","id":"1"}"#;

/// Sends bytes that must be refused: a status of 4xx or 5xx, nothing after it, and the connection ends.
fn assert_refused(gateway: &Gateway, what: &str, bytes: &[u8], statuses: &[u16]) {
    let mut connection = Connection::open(gateway.inbound());
    connection.try_send(bytes);
    let response = connection.response();
    assert!(statuses.contains(&response.status), "{what}: {response:?}");
    connection.assert_closed();
}

/// A POST to the events with these header lines, each ended as given.
fn post(headers: &str) -> Vec<u8> {
    format!("POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}\r\n{BODY}")
        .into_bytes()
}

#[test]
fn heads_over_16_kib_are_refused() {
    let gateway = Gateway::start();
    let lines = format!("x: {}\r\n", "y".repeat(2_000)).repeat(10);
    assert_refused(&gateway, "20 kB", format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n").as_bytes(), &[431]);
    assert_refused(&gateway, "endless", format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(100_000)).as_bytes(), &[431]);
}

#[test]
fn a_head_that_never_finishes_is_cut_off_in_time() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "300")]);
    for start in ["", "G", "GET /_rig/health HTTP/1.1\r\n", "GET /_rig/health HTTP/1.1\r\nhost: a\r\n"] {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(start);
        let rest = connection.until_end();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
            "{start:?}: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
}

#[test]
fn a_head_that_drips_is_cut_off_in_time() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "500")]);
    let mut connection = Connection::open(gateway.inbound());
    connection.set_read_timeout(Duration::from_millis(20));
    connection.send("GET /_rig/health HTTP/1.1\r\n");
    crate::support::wait_for("the dripping connection to be closed", || {
        let taken = connection.try_send("x: y\r\n");
        (!taken || matches!(connection.fill(), Ok(false))).then_some(())
    });
}

#[test]
fn a_second_head_that_never_finishes_is_cut_off_in_time_and_so_is_an_idle_connection() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "300")]);
    for start in ["GET /_rig/health HTTP/1.1\r\nhost:", ""] {
        let mut connection = Connection::open(gateway.inbound());
        assert_eq!(connection.request(&crate::support::http::Request::get("/_rig/health")).status, 200);
        connection.send(start);
        let rest = connection.until_end();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
            "{start:?}: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
}

#[test]
fn request_smuggling_forms_are_refused() {
    let gateway = Gateway::start();
    let length = BODY.len();
    for (what, headers) in [
        ("conflicting lengths", format!("content-length: {length}\r\ncontent-length: 5\r\n")),
        ("repeated length", format!("content-length: {length}\r\ncontent-length: {length}\r\n")),
        ("lengths in a list", format!("content-length: {length}, {length}\r\n")),
        ("signed length", format!("content-length: +{length}\r\n")),
        ("negative length", "content-length: -1\r\n".to_owned()),
        ("length in hexadecimal", "content-length: 0x10\r\n".to_owned()),
        ("empty length", "content-length: \r\n".to_owned()),
        ("length beyond 64 bits", "content-length: 99999999999999999999999\r\n".to_owned()),
        ("length and coding", format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n")),
        ("coding and length", format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n")),
        ("identity", "transfer-encoding: identity\r\n".to_owned()),
        ("unknown coding", "transfer-encoding: xchunked\r\n".to_owned()),
        ("chunked not last", "transfer-encoding: chunked, gzip\r\n".to_owned()),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n".to_owned()),
        ("chunked in a list twice", "transfer-encoding: chunked, chunked\r\n".to_owned()),
        ("space before the colon", "transfer-encoding : chunked\r\n".to_owned()),
        ("obs-fold", "transfer-encoding:\r\n chunked\r\n".to_owned()),
        ("vertical tab", "transfer-encoding: \u{b}chunked\r\n".to_owned()),
        ("quoted", "transfer-encoding: \"chunked\"\r\n".to_owned()),
    ] {
        assert_refused(&gateway, what, &post(&headers), &[400, 411, 413, 501]);
    }
    let http_1_0 = format!("POST /_rig/v1/events HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n{BODY}");
    assert_refused(&gateway, "chunked in HTTP/1.0", http_1_0.as_bytes(), &[400, 411, 501]);
}

#[test]
fn chunks_that_break_the_framing_are_refused() {
    let gateway = Gateway::start();
    for (what, body) in [
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("not a number", "zz\r\nabc\r\n0\r\n\r\n"),
        ("size beyond 64 bits", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("no end of line after the chunk", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("negative", "-3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let head = "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut connection = Connection::open(gateway.inbound());
        connection.try_send([head, body].concat());
        let answer = connection.until_end();
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4");
        assert!(refused, "{what}: {:?}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn heads_with_bare_line_feeds_folds_or_control_bytes_are_refused() {
    let gateway = Gateway::start();
    for (what, head) in [
        ("bare LF after the request line", &b"GET /_rig/health HTTP/1.1\nhost: a\r\n\r\n"[..]),
        ("bare LF after a header", b"GET /_rig/health HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"),
        ("bare LF at the end", b"GET /_rig/health HTTP/1.1\r\nhost: a\r\n\n"),
        ("lone CR in a value", b"GET /_rig/health HTTP/1.1\r\nhost: a\rx: y\r\n\r\n"),
        ("fold with a space", b"GET /_rig/health HTTP/1.1\r\nhost: a\r\n b\r\n\r\n"),
        ("fold with a tab", b"GET /_rig/health HTTP/1.1\r\nhost: a\r\n\tb\r\n\r\n"),
        ("NUL in a value", b"GET /_rig/health HTTP/1.1\r\nhost: a\0b\r\n\r\n"),
        ("escape in a value", b"GET /_rig/health HTTP/1.1\r\nhost: a\x1bb\r\n\r\n"),
        ("DEL in a value", b"GET /_rig/health HTTP/1.1\r\nhost: a\x7fb\r\n\r\n"),
        ("NUL in a name", b"GET /_rig/health HTTP/1.1\r\nho\0st: a\r\n\r\n"),
        ("space in a name", b"GET /_rig/health HTTP/1.1\r\nho st: a\r\n\r\n"),
        ("empty name", b"GET /_rig/health HTTP/1.1\r\n: a\r\n\r\n"),
        ("no colon", b"GET /_rig/health HTTP/1.1\r\nhost\r\n\r\n"),
        ("NUL in the target", b"GET /_rig/\0health HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("two spaces", b"GET  /_rig/health HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("no version", b"GET /_rig/health\r\nhost: a\r\n\r\n"),
        ("unknown version", b"GET /_rig/health HTTP/9.9\r\nhost: a\r\n\r\n"),
        ("a method of control bytes", b"G\x01T /_rig/health HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("binary", b"\x00\x01\x02\x03\xff\xfe\r\n\r\n"),
    ] {
        assert_refused(&gateway, what, head, &[400, 505]);
    }
    gateway.wait_for_metric("tidegate_requests_malformed_total", 20.0);
}

#[test]
fn a_refused_head_touches_no_other_connection() {
    let mut gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    for _ in 0..50 {
        assert_refused(&gateway, "bare LF", b"GET / HTTP/1.1\n\n", &[400]);
        assert_refused(
            &gateway,
            "length and coding",
            &post("content-length: 1\r\ntransfer-encoding: chunked\r\n"),
            &[400],
        );
    }
    publish(&gateway, &event("greeting", "1", &serde_json::json!(null)));
    client.expect_ids(&["1"]);
    gateway.assert_alive();
}

#[test]
fn a_body_after_a_refused_head_is_not_taken_for_a_request() {
    let gateway = Gateway::start();
    let smuggled = "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n\
                    GET /_rig/health HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut connection = Connection::open(gateway.inbound());
    connection.try_send(smuggled);
    let answer = String::from_utf8_lossy(&connection.until_end()).into_owned();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer alone: {answer:?}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
}
