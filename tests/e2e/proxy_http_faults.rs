//! Issue 4, faults and bad input: backends that fail in every way, and clients that would abuse them.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use crate::support::backend::{Backend, api, gateway, notes, ok, resident_bytes};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::http2::Http2Connection;
use crate::support::{DEADLINE, wait_for};

const SHORT: [(&str, &str); 3] =
    [("PROXY_CONNECT_TIMEOUT", "300"), ("PROXY_RECV_TIMEOUT", "300"), ("PROXY_IDLE_TIMEOUT", "300")];

#[track_caller]
fn assert_bad_gateway(answer: &Response, what: &str) {
    assert_eq!((answer.status, answer.text()), (502, "Bad gateway."), "{what}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{what}");
}

#[test]
fn a_backend_that_refuses_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let gateway = gateway(&json!([api("shop", "http://127.0.0.1", port)]), &[]);
    for _ in 0..3 {
        assert_bad_gateway(&gateway.call(Request::get("/to/x")), "refused");
    }
    gateway.wait_for_log("Connection refused");
}

#[test]
fn a_name_without_address_is_a_bad_gateway() {
    let gateway = gateway(&json!([api("shop", "http://nowhere.invalid", 80)]), &[]);
    assert_bad_gateway(&gateway.call(Request::get("/to/x")), "no such name");
    gateway.wait_for_log("nowhere.invalid");
}

#[test]
fn a_backend_that_hangs_before_or_within_its_head_is_late() {
    for beginning in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let backend = Backend::scripted(move |peer| {
            peer.request();
            peer.try_send(beginning);
            peer.until_end();
        });
        let gateway = backend.gateway(&SHORT);
        for method in ["GET", "POST"] {
            let answer = gateway.call(Request::new(method, "/to/x").body("b"));
            assert_eq!(answer.status, 504, "{beginning:?}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
        wait_for("the backend's connections to be ended", || (backend.open() == 0).then_some(()));
    }
}

#[test]
fn a_backend_that_hangs_within_a_body_ends_the_clients_connection() {
    for head in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let backend = Backend::scripted(move |peer| {
            peer.head();
            peer.try_send(format!("HTTP/1.1 200 OK\r\n{head}"));
            peer.until_end();
        });
        let gateway = backend.gateway(&SHORT);
        let mut connection = Connection::open(gateway.inbound());
        connection.send(Request::get("/to/x").to_bytes());
        assert_eq!(connection.head().status, 200);
        let rest = connection.until_end();
        assert!(rest == b"half" || rest == b"4\r\nhalf\r\n", "{:?}", String::from_utf8_lossy(&rest));
        wait_for("the backend's connection to be ended", || (backend.open() == 0).then_some(()));
    }
}

#[test]
fn an_answer_that_breaks_off_never_looks_complete() {
    for head in [
        "content-length: 10\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "transfer-encoding: chunked\r\n\r\nzz",
    ] {
        let backend = Backend::saying(format!("HTTP/1.1 200 OK\r\n{head}"));
        let gateway = backend.gateway(&[]);
        let mut connection = Connection::open(gateway.inbound());
        connection.send(Request::get("/to/x").to_bytes());
        let answer = String::from_utf8_lossy(&connection.until_end()).into_owned();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!body.ends_with("0\r\n\r\n") && body.len() < 10, "{answer:?}");

        // A client of HTTP/1.0 knows the end by the connection's: it must see a reset.
        let (mut old, _) = Connection::open(gateway.inbound()).into_parts();
        std::io::Write::write_all(&mut old, b"GET /to/x HTTP/1.0\r\nhost: a\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let ended = std::io::Read::read_to_end(&mut old, &mut answer);
        let complete = String::from_utf8_lossy(&answer).contains("content-length: 10");
        assert!(complete || ended.is_err(), "{head:?}: {:?}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn an_answer_that_breaks_off_resets_its_stream_on_http_2_alone() {
    let backend = Backend::answering(|request| match request.target.as_str() {
        "/to/broken" => b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok".to_vec(),
        _ => ok("whole"),
    });
    let gateway = backend.gateway(&SHORT);
    let connection = Http2Connection::open(&gateway);
    assert!(connection.try_call("GET", "/to/broken").is_err(), "the stream ends with an error");
    let answer = connection.call("GET", "/to/x", None, b"");
    assert_eq!(&answer.body()[..], b"whole", "the connection goes on");
}

#[test]
fn an_http_2_client_that_stops_reading_lets_go_of_the_backend() {
    let backend = Backend::scripted(|peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while peer.try_send(&piece) {}
    });
    let gateway = backend.gateway(&SHORT);
    let connection = Http2Connection::open(&gateway);
    let unread = connection.begin("/to/x");
    wait_for("the backend's connection to be ended", || (backend.accepted() == 1 && backend.open() == 0).then_some(()));
    // The client's own window is full of what it hasn't read: an answer without body is all that it can take.
    assert_eq!(connection.call("HEAD", "/_rig/health", None, b"").status(), 200, "the connection goes on");
    drop(unread);
}

#[test]
fn what_is_no_answer_is_a_bad_gateway() {
    let long = "x".repeat(70_000);
    let cases = [
        ("nothing", String::new()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-".to_owned()),
        ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n".to_owned()),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (
            "both lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".to_owned()),
        ("a list of lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello".to_owned()),
        ("a signed length", "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello".to_owned()),
        ("an endless length", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhello".to_owned()),
        ("an unknown coding", "HTTP/1.1 200 OK\r\ntransfer-encoding: zip\r\n\r\nhello".to_owned()),
        ("a coding before chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a folded line", "HTTP/1.1 200 OK\r\nx-a: 1\r\n  2\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("a NUL in a value", "HTTP/1.1 200 OK\r\nx-a: 1\x002\r\ncontent-length: 0\r\n\r\n".to_owned()),
        (
            "a carriage return in a value",
            "HTTP/1.1 200 OK\r\nx-a: 1\rset-cookie: b=1\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        ("a space before a colon", "HTTP/1.1 200 OK\r\nx-a : 1\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("an overlong line", format!("HTTP/1.1 200 OK\r\nx-a: {long}\r\ncontent-length: 0\r\n\r\n")),
    ];
    for (what, bytes) in cases {
        let backend = Backend::saying(bytes);
        let gateway = backend.gateway(&[]);
        assert_bad_gateway(&gateway.call(Request::get("/to/x")), what);
        assert_bad_gateway(&gateway.call(Request::new("POST", "/to/x").body("b")), what);
    }
}

#[test]
fn a_hundred_megabytes_of_headers_end_in_a_bad_gateway_and_no_memory() {
    for line in ["x-filler: abcdefghijklmnopqrstuvwxyz\r\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        let backend = Backend::scripted(move |peer| {
            peer.head();
            peer.try_send("HTTP/1.1 200 OK\r\n");
            let piece = line.repeat((1 << 20) / line.len());
            for _ in 0..100 {
                if !peer.try_send(&piece) {
                    break;
                }
            }
        });
        let gateway = backend.gateway(&[]);
        let before = resident_bytes(gateway.pid());
        for _ in 0..3 {
            assert_bad_gateway(&gateway.call(Request::get("/to/x")), line);
        }
        let grown = resident_bytes(gateway.pid()).saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more");
    }
}

#[test]
fn more_than_was_announced_reaches_nobody() {
    let backend = Backend::answering(|request| {
        let id = request.target.rsplit('/').next().unwrap_or_default();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{id}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            id.len()
        )
        .into_bytes()
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    for number in 0..50 {
        let answer = connection.request(&Request::get(&format!("/to/{number}")));
        assert_eq!((answer.status, answer.text()), (200, number.to_string().as_str()));
    }
}

#[test]
fn a_backend_that_dies_between_requests_costs_none_of_them() {
    let backend = Backend::scripted(|peer| {
        // The connection looks as if it could be used again, and can't.
        if peer.request().is_some() {
            peer.send(ok(peer.number.to_string()));
        }
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    for number in 0..60 {
        let method = ["GET", "POST", "PUT"][number % 3];
        wait_for("the connection before to be closed", || (backend.open() == 0).then_some(()));
        let body = if method == "GET" { "" } else { "body" };
        let answer = connection.request(&Request::new(method, "/to/x").body(body));
        assert_eq!((answer.status, answer.text()), (200, number.to_string().as_str()), "{method}");
    }
}

#[test]
fn a_request_that_was_sent_is_repeated_only_where_that_is_harmless() {
    let (note, seen) = notes();
    let backend = Backend::scripted(move |peer| {
        let mut answered = 0;
        while let Some(request) = peer.request() {
            if request.target == "/to/x" {
                note(request.method);
                if answered > 0 {
                    return;
                }
            }
            answered += 1;
            peer.send(ok("answered"));
        }
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    let cases = [
        ("GET", "", 200),
        ("DELETE", "", 200),
        ("POST", "", 502),
        ("POST", "b", 502),
        ("PUT", "b", 502),
        ("PATCH", "", 502),
    ];
    for (method, body, expected) in cases {
        assert_eq!(connection.request(&Request::get("/to/warm")).status, 200);
        let answer = connection.request(&Request::new(method, "/to/x").body(body));
        assert_eq!(answer.status, expected, "{method} {body:?}");
        let seen: Vec<_> = seen.try_iter().collect();
        let times = if expected == 200 { 2 } else { 1 };
        assert_eq!(seen, vec![method; times], "{method} {body:?}");
    }
}

#[test]
fn an_https_target_that_is_not_tls_is_a_bad_gateway_in_time() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let backend = Backend::scripted(move |peer| {
            peer.try_send(answer);
            peer.until_end();
        });
        let definitions = json!([api("shop", "https://127.0.0.1", backend.port())]);
        let gateway = gateway(&definitions, &SHORT);
        let answer = gateway.call(Request::get("/to/x"));
        assert_eq!((answer.status, answer.text()), (502, "Bad gateway."));
        wait_for("the backend's connection to be ended", || (backend.open() == 0).then_some(()));
    }
}

#[test]
fn a_client_that_goes_away_ends_the_call() {
    let (note, events) = notes();
    let backend = Backend::scripted(move |peer| {
        let head = peer.head().expect("a request");
        if head.target == "/to/download" {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbeginning");
        }
        note("begun");
        peer.until_end();
        note("ended");
    });
    let gateway = backend.gateway(&[("PROXY_RECV_TIMEOUT", "600000"), ("PROXY_IDLE_TIMEOUT", "600000")]);
    let requests = [
        "GET /to/wait HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /to/download HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /to/upload HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nbeginning",
    ];
    for request in requests {
        for reset in [false, true] {
            let mut connection = Connection::open(gateway.inbound());
            connection.send(request);
            assert_eq!(events.recv_timeout(DEADLINE), Ok("begun"), "{request}");
            if reset {
                connection.reset()
            } else {
                drop(connection)
            }
            assert_eq!(events.recv_timeout(DEADLINE), Ok("ended"), "{request}");
        }
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("tidegate_panics_total"), 0.0);
}

#[test]
fn an_upload_that_stops_is_told_so_and_leaves_the_backend() {
    let backend = Backend::scripted(|peer| {
        peer.head();
        peer.until_end();
    });
    let gateway = backend.gateway(&SHORT);
    let mut connection = Connection::open(gateway.inbound());
    connection.send("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nbeginning");
    assert_eq!(connection.response().status, 408);
    wait_for("the backend's connection to be ended", || (backend.open() == 0).then_some(()));
}

/// Requests after a first harmless one, so that hyper parses them.
fn on_a_used_connection(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(gateway.inbound());
    assert_eq!(connection.request(&Request::get("/to/first")).status, 200);
    connection.send(bytes);
    connection.finish_sending();
    connection.set_read_timeout(Duration::from_secs(20));
    connection.until_end()
}

#[test]
fn a_request_that_two_parsers_read_differently_reaches_no_backend() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&SHORT);
    let smuggled = "GET /to/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = smuggled.len();
    let cases = [
        format!(
            "POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: {length}\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0, {length}\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: +{length}\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length : {length}\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("POST /to/x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("GET /to/x HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n content-length: {length}\r\n\r\n{smuggled}"),
        format!("GET /to/x HTTP/1.1\r\nhost: a\r\nx-a: 1\0{smuggled}"),
        format!("GET /to/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n{smuggled}"),
    ];
    for case in &cases {
        on_a_used_connection(&gateway, case.as_bytes());
        assert_eq!(notes.next().target, "/to/first");
        let other = notes.try_next();
        assert!(other.is_none(), "{case:?} got through as {other:?}");
    }
}

#[test]
fn no_header_of_a_client_becomes_two_at_the_backend() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&SHORT);
    for value in ["1\rx-evil: 1", "1\nx-evil: 1", "1\0x-evil: 1"] {
        on_a_used_connection(&gateway, format!("GET /to/x HTTP/1.1\r\nhost: a\r\nx-a: {value}\r\n\r\n").as_bytes());
        assert_eq!(notes.next().target, "/to/first");
        if let Some(got) = notes.try_next() {
            // A lone line feed ends a line for hyper: then it was two fields for everybody.
            assert_eq!(got.headers_named("x-a"), ["1"], "{value:?}");
        }
    }
}
