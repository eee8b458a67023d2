//! Attacks that only HTTP/2 allows: rapid reset, floods of CONTINUATION, windows that stay shut, connections that are opened
//! and left. Frames are written by hand (RFC 9113, sections 4 and 6).

use std::time::Duration;

use serde_json::json;

use crate::support::backend::{Backend, notes, resident_bytes};
use crate::support::clients::{Client, Transport};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::Connection;
use crate::support::wait_for;

const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection after its preface and an empty SETTINGS.
fn open(gateway: &Gateway) -> Connection {
    let mut connection = Connection::open(gateway.inbound());
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    connection
}

/// `:method: GET`, `:scheme: http`, `:path` and `:authority`, uncompressed (RFC 7541, section 6).
fn get(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1], b"a"].concat()
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(path))
}

/// Reads what there is, without waiting for more than a moment; false once the connection has ended.
fn drain(connection: &mut Connection) -> bool {
    connection.set_read_timeout(Duration::from_millis(1));
    let open = loop {
        match connection.fill() {
            Ok(true) => {}
            Ok(false) => break false,
            Err(_nothing_there) => break true,
        }
    };
    connection.take_buffer();
    open
}

/// A connection whose client lets no byte of any answer pass: `SETTINGS_INITIAL_WINDOW_SIZE` is 0.
fn open_shut(gateway: &Gateway) -> Connection {
    let mut connection = Connection::open(gateway.inbound());
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    connection.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    connection.set_read_timeout(Duration::from_millis(1));
    connection
}

/// Reads until a frame of this kind and with this flag has come for each of these streams; others are skipped.
fn wait_for_frames(connection: &mut Connection, kind: u8, flag: u8, streams: &[u32]) {
    let mut bytes = Vec::new();
    wait_for("frames of a kind for every stream", || {
        while matches!(connection.fill(), Ok(true)) {}
        bytes.extend(connection.take_buffer());
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((_, next)) = after.split_at_checked(length) else { break };
            if (head[3], head[4] & flag) == (kind, flag) {
                found.push(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            }
            rest = next;
        }
        streams.iter().all(|stream| found.contains(stream)).then_some(())
    });
}

/// A backend that answers nobody, and a note of every request that reaches it.
fn silent_backend() -> (Backend, std::sync::mpsc::Receiver<()>) {
    let (note, requests) = notes();
    let backend = Backend::scripted(move |peer| {
        if peer.head().is_some() {
            note(());
        }
        peer.until_end();
    });
    (backend, requests)
}

#[test]
fn rapid_reset_ends_the_connection_and_leaves_nothing_at_the_backend() {
    let (backend, requests) = silent_backend();
    let mut gateway = backend.gateway(&[("MAX_HTTP2_RESETS", "20"), ("PROXY_RECV_TIMEOUT", "60000")]);
    let mut bystander = Client::of_type(&gateway, Transport::Sse, "greeting");
    let mut connection = open(&gateway);
    let mut resets = 0;
    for number in 0..1_000 {
        let stream = 2 * number + 1;
        if !connection.try_send(request(stream, "/to/x")) {
            break;
        }
        // Each request is under way before it is taken back: no count of unseen streams can help here.
        let under_way = wait_for("the request to arrive, or the connection to end", || {
            if requests.try_recv().is_ok() { Some(true) } else { (!drain(&mut connection)).then_some(false) }
        });
        if !under_way || !connection.try_send(frame(RST_STREAM, 0, stream, &CANCEL)) {
            break;
        }
        resets += 1;
    }
    assert!((20..=23).contains(&resets), "ended after {resets} resets");
    assert_eq!(gateway.metrics().sum("tidegate_connections_resetting_total"), 1.0);
    wait_for("the backend's connections to be ended", || (backend.open() == 0).then_some(()));
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    gateway.assert_alive();
}

#[test]
fn a_burst_of_resets_costs_a_few_requests_at_most() {
    let (backend, requests) = silent_backend();
    let mut gateway = backend.gateway(&[("MAX_HTTP2_RESETS", "50")]);
    let mut connection = open(&gateway);
    let burst: Vec<u8> = (0..5_000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [request(stream, "/to/x"), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
        })
        .collect();
    connection.try_send(&burst);
    wait_for("the connection to be ended", || (!drain(&mut connection)).then_some(()));
    wait_for("the backend's connections to be ended", || (backend.open() == 0).then_some(()));
    let reached = requests.try_iter().count();
    assert!(reached <= 100, "{reached} of 5,000 requests reached the backend");
    gateway.assert_alive();
}

#[test]
fn clients_that_take_back_a_request_now_and_then_are_served_on() {
    let (backend, requests) = silent_backend();
    let gateway = backend.gateway(&[("PROXY_RECV_TIMEOUT", "60000")]);
    let mut connection = open(&gateway);
    for number in 0..100 {
        let stream = 2 * number + 1;
        connection.send(request(stream, "/to/x"));
        wait_for("the request to arrive", || requests.try_recv().ok());
        connection.send(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    assert!(drain(&mut connection), "the connection is open");
    assert_eq!(gateway.metrics().sum("tidegate_connections_resetting_total"), 0.0);
}

/// Sends frames until the gateway ends the connection; how many bytes it took.
fn flood(connection: &mut Connection, frame: &[u8], max_bytes: usize) -> usize {
    let mut sent = 0;
    let piece = frame.repeat((64 * 1024 / frame.len()).max(1));
    while sent < max_bytes && connection.try_send(&piece) && drain(connection) {
        sent += piece.len();
    }
    sent
}

#[test]
fn a_flood_of_continuation_frames_ends_the_connection_in_bounded_memory() {
    const MAX_BYTES: usize = 64 << 20;
    let mut gateway = Gateway::start();
    let mut bystander = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    // A field that is new each time, one that is always the same (and stored nowhere), and nothing at all.
    let long = [&[0x00, 4][..], b"name", &[0x7f, 0x81, 0x7e], &[b'x'; 16_256]].concat();
    let small = [&[0x00, 1][..], b"n", &[1], b"v"].concat();
    let before = resident_bytes(gateway.pid());
    for payload in [&long[..16_000], &small, &[]] {
        let mut connection = open(&gateway);
        connection.send(frame(HEADERS, END_STREAM, 1, &get("/_rig/health")));
        let sent = flood(&mut connection, &frame(CONTINUATION, 0, 1, payload), MAX_BYTES);
        assert!(sent < MAX_BYTES, "{sent} bytes of CONTINUATION frames of {} bytes were taken", payload.len());
        let grown = resident_bytes(gateway.pid()).saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes more memory");
    }
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    gateway.assert_alive();
}

#[test]
fn event_streams_whose_windows_stay_shut_are_reset_at_their_bound_and_nothing_else_is() {
    const STREAMS: [u32; 4] = [1, 3, 5, 7];
    let mut gateway = Gateway::with(&[
        ("MAX_QUEUE_BYTES", "500000"),
        ("MAX_EVENT_BYTES", "450000"),
        ("MAX_BODY_BYTES", "450000"),
        ("HEADER_TIMEOUT_MS", "60000"),
    ]);
    let mut bystander = Client::of_type(&gateway, Transport::Sse, "flood");
    let mut connection = open_shut(&gateway);
    let path = "/_rig/v1/connection/sse?subscriptions=%5B%7B%22eventType%22:%22flood%22%7D%5D";
    STREAMS.iter().for_each(|stream| connection.send(request(*stream, path)));
    let open = || gateway.metrics().sum_where("tidegate_connections", &[("transport", "sse")]);
    wait_for("the streams to be open", || (open() == 1.0 + STREAMS.len() as f64).then_some(()));
    let mut published = 0;
    wait_for("each of them to have too much waiting", || {
        publish(&gateway, &event("flood", &published.to_string(), &json!("x".repeat(100_000))));
        bystander.expect_ids(&[&published.to_string()]);
        published += 1;
        (gateway.metrics().sum("tidegate_connections_slow_total") >= STREAMS.len() as f64).then_some(())
    });
    wait_for("their places and their memory to be free", || {
        (open() == 1.0 && gateway.metrics().sum("tidegate_queue_bytes") == 0.0).then_some(())
    });
    wait_for_frames(&mut connection, RST_STREAM, 0, &STREAMS);
    connection.send(frame(PING, 0, 0, &[7; 8]));
    wait_for_frames(&mut connection, PING, ACK, &[0]);
    gateway.assert_alive();
}

#[test]
fn answers_whose_windows_stay_shut_are_given_up_and_nothing_else_is() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "500")]);
    let mut connection = open_shut(&gateway);
    connection.send(request(1, "/_rig/v1/connection/sse"));
    connection.send([request(3, "/_rig/health"), request(5, "/_rig/health")].concat());
    wait_for_frames(&mut connection, RST_STREAM, 0, &[3, 5]);
    connection.send(frame(PING, 0, 0, &[7; 8]));
    wait_for_frames(&mut connection, PING, ACK, &[0]);
    assert_eq!(gateway.metrics().sum_where("tidegate_connections", &[("transport", "sse")]), 1.0);
    connection.send(frame(RST_STREAM, 0, 1, &CANCEL));
    wait_for("the connection to be ended, which has nothing open", || (!drain(&mut connection)).then_some(()));
}

#[test]
fn slowloris_over_http_2_is_ended() {
    let mut gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "500")]);
    let body = [&get("/_rig/v1/events")[1..], &[0x83, 0x0f, 0x10, 16], b"application/json"].concat();
    for (what, bytes) in [
        ("no request", Vec::new()),
        ("a head without end", frame(HEADERS, END_STREAM, 1, &get("/_rig/health"))),
        ("a body that doesn't come", frame(HEADERS, END_HEADERS, 1, &body)),
    ] {
        let mut connection = open(&gateway);
        connection.send(&bytes);
        let mut drips = 0_u32;
        wait_for(&format!("the connection to be ended: {what}"), || {
            drips += 1;
            // SETTINGS now and then are no request either.
            let taken = connection.try_send(frame(SETTINGS, 0, 0, &[])) || drips == 0;
            (!taken || !drain(&mut connection)).then_some(())
        });
    }
    gateway.assert_alive();
}
