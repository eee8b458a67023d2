//! Who a client is: PROXY protocol and header fields, from trusted addresses only.

use serde_json::json;

use crate::support::backend::{Backend, Notes};
use crate::support::clients::{query, to_type};
use crate::support::events::{event, structured};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;
use crate::support::wait_for;
use crate::support::websocket_frames::{RawWebSocket, upgrade};

const STRANGER: [u8; 4] = [127, 0, 0, 2];
const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8");
const PROXIED: [(&str, &str); 2] = [TRUSTED, ("PROXY_PROTOCOL", "true")];
/// What HTTP says to such a header.
const IS_NO_REQUEST: [u16; 2] = [400, 505];
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

fn version_1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 4711 80\r\n").into_bytes()
}

fn version_2(client: [u8; 4]) -> Vec<u8> {
    [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &client, &[192, 0, 2, 1, 1, 2, 0, 80]].concat()
}

/// What the backend was told of the client.
fn told(notes: &Notes) -> (String, Vec<String>) {
    let got = notes.next();
    let forwarded = got.header("forwarded").unwrap_or_default();
    let client = forwarded.split(';').next().unwrap_or_default().to_owned();
    (client, got.headers_named("x-forwarded-for").into_iter().map(str::to_owned).collect())
}

#[test]
fn a_header_of_the_proxy_protocol_names_the_client() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&PROXIED);
    let request = Request::get("/to/x").to_bytes();
    for header in [version_1("198.51.100.7"), version_2([198, 51, 100, 7])] {
        let mut connection = Connection::open(gateway.inbound());
        connection.send([&header[..], &request].concat());
        assert_eq!(connection.response().status, 200);
        assert_eq!(told(&notes), ("for=198.51.100.7".to_owned(), vec!["198.51.100.7".to_owned()]));
        // The next request on the connection is the same client's.
        connection.send(&request);
        assert_eq!(connection.response().status, 200);
        assert_eq!(told(&notes).0, "for=198.51.100.7");
    }
}

#[test]
fn the_header_may_come_in_pieces_before_every_kind_of_connection() {
    let gateway = Gateway::with(&PROXIED);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for header in [version_1("198.51.100.7"), version_2([198, 51, 100, 7])] {
        for (request, answer) in [
            (Request::get("/_rig/v1/connection/sse").to_bytes(), &b"HTTP/1.1 200 "[..]),
            (upgrade("/_rig/v1/connection/ws").to_bytes(), b"HTTP/1.1 101 "),
            (Request::get("/_rig/health").to_bytes(), b"HTTP/1.1 200 "),
            (preface.clone(), b"\0\0"),
        ] {
            for cut in [1, 5, 6, 11, 13, 16, header.len() - 1, header.len(), header.len() + 1] {
                let bytes = [&header[..], &request].concat();
                let mut connection = Connection::open(gateway.inbound());
                connection.send(&bytes[..cut]);
                connection.send(&bytes[cut..]);
                let mut received = Vec::new();
                while received.len() < answer.len() {
                    assert!(connection.fill().expect("an answer comes"), "cut at {cut}: {received:?}");
                    received.append(&mut connection.take_buffer());
                }
                assert!(received.starts_with(answer), "cut at {cut}: {:?}", String::from_utf8_lossy(&received));
            }
        }
    }
}

#[test]
fn a_stranger_who_sends_such_a_header_is_not_believed() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&PROXIED);
    let mut liar = Connection::open_from(STRANGER, gateway.inbound());
    liar.send([&version_1("198.51.100.7")[..], &Request::get("/to/x").to_bytes()].concat());
    assert!(IS_NO_REQUEST.contains(&liar.response().status));
    let mut honest = Connection::open_from(STRANGER, gateway.inbound());
    assert_eq!(honest.request(&Request::get("/to/x")).status, 200);
    assert_eq!(told(&notes).0, "for=127.0.0.2");
    assert!(notes.try_next().is_none());
}

#[test]
fn a_trusted_proxy_that_sends_no_such_header_is_not_served() {
    let gateway = Gateway::with(&PROXIED);
    for bytes in [Request::get("/_rig/health").to_bytes(), b"PROXY TCP4 nonsense\r\n".to_vec(), vec![0; 20]] {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(bytes);
        connection.assert_closed();
    }
    assert!(gateway.metrics().sum("tidegate_requests_malformed_total") >= 3.0);
}

#[test]
fn the_proxys_own_health_check_is_served() {
    let gateway = Gateway::with(&PROXIED);
    let mut connection = Connection::open(gateway.inbound());
    connection.send([&SIGNATURE[..], &[0x20, 0, 0, 0], &Request::get("/_rig/health").to_bytes()].concat());
    assert_eq!(connection.response().text(), "OK");
}

#[test]
fn without_the_setting_such_a_header_is_a_bad_request() {
    let gateway = Gateway::with(&[TRUSTED]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send([&version_1("198.51.100.7")[..], &Request::get("/_rig/health").to_bytes()].concat());
    assert!(IS_NO_REQUEST.contains(&connection.response().status));
}

#[test]
fn of_x_forwarded_for_the_rightmost_address_that_is_not_trusted_counts() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[TRUSTED]);
    let http2 = Http2Connection::open(&gateway);
    for (sent, client) in [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ("nonsense", "127.0.0.1"),
    ] {
        let expected = (format!("for={client}"), vec![format!("{sent}, 127.0.0.1")]);
        gateway.call(Request::get("/to/x").header("x-forwarded-for", sent));
        assert_eq!(told(&notes), expected);
        http2.call_with("GET", "/to/x", &[("x-forwarded-for", sent)], b"");
        assert_eq!(told(&notes), expected);
    }
    gateway.call(Request::get("/to/x").header("forwarded", "for=198.51.100.7"));
    assert_eq!(told(&notes).0, "for=127.0.0.1", "the other header field doesn't count");
}

#[test]
fn forwarded_counts_where_it_is_configured() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[TRUSTED, ("CLIENT_ADDRESS_HEADER", "forwarded")]);
    let sent = "for=203.0.113.9, for=\"198.51.100.7:4711\";proto=https, for=10.1.2.3";
    gateway.call(Request::get("/to/x").header("forwarded", sent).header("x-forwarded-for", "192.0.2.200"));
    assert_eq!(told(&notes).0, "for=198.51.100.7");
}

#[test]
fn a_stranger_who_names_another_client_is_not_believed() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[TRUSTED]);
    let mut connection = Connection::open_from(STRANGER, gateway.inbound());
    connection.request(&Request::get("/to/x").header("x-forwarded-for", "198.51.100.7"));
    assert_eq!(told(&notes).0, "for=127.0.0.2");
    // Behind a proxy that passes bytes on, the client's own words are the client's.
    let gateway = backend.gateway(&PROXIED);
    let mut connection = Connection::open(gateway.inbound());
    let request = Request::get("/to/x").header("x-forwarded-for", "203.0.113.9").to_bytes();
    connection.send([&version_1("198.51.100.7")[..], &request].concat());
    assert_eq!(connection.response().status, 200);
    assert_eq!(told(&notes).0, "for=198.51.100.7");
}

#[test]
fn limits_count_for_the_clients_behind_a_proxy_and_not_for_the_proxy() {
    let gateway = Gateway::with(&[TRUSTED, ("MAX_CONNECTIONS_PER_ADDRESS", "1")]);
    let open = |client: &str| {
        let mut connection = Connection::open(gateway.inbound());
        let request = Request::get("/_rig/v1/connection/sse").header("x-forwarded-for", client);
        connection.send(request.to_bytes());
        let status = connection.head().status;
        (connection, status)
    };
    let (first, status) = open("198.51.100.7");
    assert_eq!(status, 200);
    assert_eq!(open("203.0.113.9, 198.51.100.7").1, 429, "the same client");
    let (_second, status) = open("198.51.100.8");
    assert_eq!(status, 200, "another one");
    let target = format!("/_rig/v1/connection/ws?{}", query(&to_type("a")));
    let socket = RawWebSocket::with_request(&gateway, &upgrade(&target).header("x-forwarded-for", "198.51.100.7"));
    let close = socket.wait_for_close();
    assert_eq!((close.close_code(), close.close_reason()), (1000, "Too many connections from this address."));
    let polling = Request::get("/_rig/v1/connection/longpolling").header("x-forwarded-for", "198.51.100.7");
    assert_eq!(gateway.call(polling).status, 429);
    drop(first);
    wait_for("the client's place to be free", || (open("198.51.100.7").1 == 200).then_some(()));
}

#[test]
fn limits_count_for_the_clients_that_the_proxy_protocol_names() {
    let settings = [PROXIED[0], PROXIED[1], ("MAX_CONNECTIONS_PER_ADDRESS", "1")];
    let gateway = Gateway::with(&settings);
    let open = |client: &str| {
        let mut connection = Connection::open(gateway.inbound());
        connection.send([&version_1(client)[..], &Request::get("/_rig/v1/connection/sse").to_bytes()].concat());
        let head = connection.head();
        (connection, head.status)
    };
    let (_first, status) = open("198.51.100.7");
    assert_eq!(status, 200);
    assert_eq!(open("198.51.100.7").1, 429);
    assert_eq!(open("198.51.100.8").1, 200);
}

#[test]
fn a_stranger_cannot_get_round_a_rate_by_naming_other_clients() {
    let gateway =
        Gateway::with(&[TRUSTED, ("MAX_REQUESTS_PER_SECOND_PER_ADDRESS", "1"), ("REQUEST_BURST_SECONDS", "1")]);
    let publish = |source, client: String| {
        let body = event("greeting", "1", &json!(null)).to_string();
        Connection::open_from(source, gateway.inbound())
            .request(&structured(body).header("x-forwarded-for", client))
            .status
    };
    let mut number = 0_u8;
    wait_for("the stranger to be refused", || {
        number = number.wrapping_add(1);
        (publish(STRANGER, format!("198.51.100.{number}")) == 429).then_some(())
    });
    for number in 0..50 {
        assert_eq!(publish([127, 0, 0, 1], format!("203.0.113.{number}")), 202, "clients behind the proxy");
    }
}
