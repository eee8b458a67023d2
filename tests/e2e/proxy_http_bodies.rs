//! Contract, section 4, target http: bodies are streamed in both directions, in constant memory.

use std::io::ErrorKind;
use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::backend::{Backend, Gate, notes, resident_bytes};
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;

const GIB: usize = 1 << 30;
const PIECE: usize = 1 << 20;
/// What a gateway may grow by while a body of any size passes.
const GROWTH_BYTES: u64 = 48 << 20;
/// What may be under way in sockets' buffers when one side doesn't read.
const IN_SOCKETS_BYTES: usize = 64 << 20;

#[test]
fn an_upload_of_a_gibibyte_passes_in_constant_memory() {
    let (note, received) = notes();
    let backend = Backend::scripted(move |peer| {
        let head = peer.head().expect("a request");
        assert_eq!(head.header("content-length"), Some(GIB.to_string().as_str()));
        let mut total = 0;
        while total < GIB {
            match peer.swallow() {
                0 => break,
                length => total += length,
            }
        }
        note(total);
        peer.try_send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let gateway = backend.gateway(&[]);
    let before = resident_bytes(gateway.pid());
    let mut connection = Connection::open(gateway.inbound());
    connection.send(format!("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: {GIB}\r\n\r\n"));
    let piece = vec![b'x'; PIECE];
    for number in 0..GIB / PIECE {
        connection.send(&piece);
        if number % 128 == 0 {
            let grown = resident_bytes(gateway.pid()).saturating_sub(before);
            assert!(grown < GROWTH_BYTES, "{grown} bytes more after {number} MiB");
        }
    }
    assert_eq!(connection.response().status, 200);
    assert_eq!(received.recv().expect("the backend has counted"), GIB);
}

#[test]
fn a_download_of_a_gibibyte_passes_in_constant_memory() {
    let backend = Backend::scripted(|peer| {
        peer.head().expect("a request");
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"));
        let piece = vec![b'x'; PIECE];
        for _ in 0..GIB / PIECE {
            peer.send(&piece);
        }
    });
    let gateway = backend.gateway(&[]);
    let before = resident_bytes(gateway.pid());
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get("/to/x").to_bytes());
    assert_eq!(connection.head().header("content-length"), Some(GIB.to_string().as_str()));
    let (mut total, mut looked) = (connection.take_buffer().len(), 0);
    while total < GIB {
        assert!(connection.fill().expect("the body goes on"), "the body ended after {total} bytes");
        let piece = connection.take_buffer();
        assert!(piece.iter().all(|byte| *byte == b'x'));
        total += piece.len();
        if total / (128 * PIECE) > looked {
            looked += 1;
            let grown = resident_bytes(gateway.pid()).saturating_sub(before);
            assert!(grown < GROWTH_BYTES, "{grown} bytes more after {total} bytes");
        }
    }
    assert_eq!(total, GIB);
}

#[test]
fn a_client_that_does_not_read_stops_the_backend() {
    let (note, blocked) = notes();
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |peer| {
        peer.head().expect("a request");
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"));
        peer.stream().set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
        let (piece, mut total) = (vec![b'x'; PIECE], 0);
        let mut told = false;
        while total < GIB {
            let left = (GIB - total).min(PIECE);
            match peer.stream().write(&piece[..left]) {
                Ok(sent) => total += sent,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    assert!(!told || total > 0);
                    if !told {
                        told = true;
                        note(total);
                        opened.wait();
                    }
                }
                Err(_) => return,
            }
        }
    });
    let gateway = backend.gateway(&[]);
    let before = resident_bytes(gateway.pid());
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get("/to/x").to_bytes());
    let sent = blocked.recv().expect("the backend is stopped");
    assert!(sent < IN_SOCKETS_BYTES, "{sent} bytes went out to a client that reads none");
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "{grown} bytes are kept for it");
    gate.open();
    connection.head();
    let mut total = connection.take_buffer().len();
    while total < GIB && connection.fill().expect("the body goes on") {
        total += connection.take_buffer().len();
    }
    assert_eq!(total, GIB, "it can still read everything");
}

#[test]
fn a_backend_that_does_not_read_stops_the_client() {
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |peer| {
        peer.head().expect("a request");
        opened.wait();
        let mut total = 0;
        while total < GIB / 4 {
            match peer.swallow() {
                0 => return,
                length => total += length,
            }
        }
        peer.try_send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let gateway = backend.gateway(&[]);
    let before = resident_bytes(gateway.pid());
    let (mut stream, _) = Connection::open(gateway.inbound()).into_parts();
    let head = format!("POST /to/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", GIB / 4);
    stream.write_all(head.as_bytes()).expect("the head is taken");
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    let (piece, mut total, mut stopped) = (vec![b'x'; PIECE], 0, false);
    while total < GIB / 4 {
        let left = (GIB / 4 - total).min(PIECE);
        match stream.write(&piece[..left]) {
            Ok(sent) => total += sent,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !stopped {
                    stopped = true;
                    assert!(total < IN_SOCKETS_BYTES, "{total} bytes were taken for a backend that reads none");
                    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
                    assert!(grown < GROWTH_BYTES, "{grown} bytes are kept for it");
                    gate.open();
                }
            }
            Err(error) => panic!("the upload broke: {error}"),
        }
    }
    assert!(stopped, "the client was made to wait");
    let mut answer = Vec::new();
    crate::support::backend::copy_to_end(&mut stream, &mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn each_piece_of_an_answer_arrives_before_the_next_is_made() {
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |peer| {
        peer.head().expect("a request");
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        peer.send("8\r\ndata: 1\n\r\n");
        opened.wait();
        peer.send("8\r\ndata: 2\n\r\n0\r\n\r\n");
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get("/to/x").to_bytes());
    assert_eq!(connection.head().header("content-type"), Some("text/event-stream"));
    assert_eq!(connection.chunk().as_deref(), Some(&b"data: 1\n"[..]));
    gate.open();
    assert_eq!(connection.chunk().as_deref(), Some(&b"data: 2\n"[..]));
    assert_eq!(connection.chunk(), None);
}

#[test]
fn each_piece_of_an_upload_arrives_before_the_next_is_sent() {
    let (note, pieces) = notes();
    let backend = Backend::scripted(move |peer| {
        let head = peer.head().expect("a request");
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        note(peer.exactly(6));
        note(peer.exactly(6));
        peer.exactly(5).expect("the last chunk");
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send("POST /to/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_eq!(pieces.recv().expect("a piece").as_deref(), Some(&b"1\r\na\r\n"[..]));
    connection.send("1\r\nb\r\n");
    assert_eq!(pieces.recv().expect("a piece").as_deref(), Some(&b"1\r\nb\r\n"[..]));
    connection.send("0\r\n\r\n");
    assert_eq!(connection.response().status, 200);
}

#[test]
fn trailers_pass_both_ways() {
    let (note, requests) = notes();
    let backend = Backend::scripted(move |peer| {
        note(peer.request().expect("a request"));
        peer.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 9\r\n\r\n",
        );
        peer.until_end();
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(
        "POST /to/x HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\ntransfer-encoding: chunked\r\n\
         trailer: x-check\r\n\r\n3\r\nabc\r\n0\r\nx-check: 7\r\n\r\n",
    );
    let request = requests.recv().expect("a request");
    assert_eq!(request.body, b"abc");
    assert_eq!(request.trailers, [("x-check".to_owned(), "7".to_owned())]);
    assert_eq!(request.header("te"), Some("trailers"));
    let head = connection.head();
    assert_eq!(head.header("trailer"), Some("x-sum"));
    let rest = String::from_utf8(connection.until_end()).expect("text");
    assert_eq!(rest, "2\r\nok\r\n0\r\nx-sum: 9\r\n\r\n");
}

#[test]
fn a_body_that_ends_with_the_backends_connection_passes() {
    let backend = Backend::saying("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nto the end");
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    for _ in 0..2 {
        let answer = connection.request(&Request::get("/to/x"));
        assert_eq!((answer.status, answer.text()), (200, "to the end"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "so that the client's connection can go on");
    }
    let mut old = Connection::open(gateway.inbound());
    old.send("GET /to/x HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(old.head().header("transfer-encoding"), None);
    assert_eq!(old.until_end(), b"to the end");
}

#[test]
fn the_backend_decides_whether_a_body_shall_be_sent() {
    let (note, waits) = notes();
    let backend = Backend::scripted(move |peer| {
        while let Some(head) = peer.head() {
            assert_eq!(head.header("expect"), Some("100-continue"));
            if head.target == "/to/refused" {
                peer.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno");
                peer.finish();
                return;
            }
            note(());
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = peer.exactly(5).expect("a body");
            assert_eq!(body, b"hello");
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes");
        }
    });
    let gateway = backend.gateway(&[]);
    let head =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let mut connection = Connection::open(gateway.inbound());
    connection.send(head("/to/taken"));
    assert_eq!(connection.head().status, 100);
    waits.recv().expect("the backend has seen the head");
    connection.send("hello");
    assert_eq!(connection.response().text(), "yes");
    let mut connection = Connection::open(gateway.inbound());
    connection.send(head("/to/refused"));
    let answer = connection.head();
    assert_eq!(answer.status, 417, "no body was asked for: {answer:?}");
}

#[test]
fn a_backend_that_ignores_an_expectation_gets_the_body_all_the_same() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send("POST /to/x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(connection.head().status, 100);
    connection.send("hello");
    assert_eq!(connection.response().text(), "ok");
    assert_eq!(notes.next().body, b"hello");
}

#[test]
fn an_answer_before_the_end_of_the_upload_arrives() {
    let backend = Backend::scripted(|peer| {
        peer.head().expect("a request");
        peer.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig");
        peer.until_end();
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send("POST /to/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nbeginning");
    let answer = connection.response();
    assert_eq!((answer.status, answer.text()), (413, "big"));
}

#[test]
fn bodies_pass_on_http_2() {
    let backend = Backend::answering(|request| {
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), chunks(&request.body)].concat()
    });
    let gateway = backend.gateway(&[]);
    let connection = Http2Connection::open(&gateway);
    for size in [0, 1, 16_384, 60_000] {
        let body: Vec<u8> = (0..size).map(|index: u32| index.to_le_bytes()[0]).collect();
        let answer = connection.call("POST", "/to/x", Some("text/plain"), &body);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers().get("transfer-encoding"), None);
        assert!(answer.body() == &body, "{size} bytes came back as {}", answer.body().len());
    }
}

/// A body in chunks of uneven sizes.
fn chunks(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(7_777) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn an_endless_answer_ends_when_its_client_goes() {
    let (sender, ended) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let backend = Backend::scripted(move |peer| {
        peer.head().expect("a request");
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
        peer.until_end();
        let _ = sender.lock().map(|sender| sender.send(()));
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get("/to/x").to_bytes());
    connection.head();
    assert_eq!(connection.chunk().as_deref(), Some(&b"x"[..]));
    drop(connection);
    ended.recv_timeout(crate::support::DEADLINE).expect("the backend's connection ends with the client's");
}
