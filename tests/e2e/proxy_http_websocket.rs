//! Issue 4: a WebSocket is passed through to the backend.

use std::io::{Read as _, Write as _};

use crate::support::DEADLINE;
use crate::support::backend::{Backend, Peer, notes};
use crate::support::http::{Connection, Request};
use crate::support::wait_for;
use crate::support::websocket_frames::{ACCEPT, Frame, KEY, RawWebSocket, TEXT, upgrade};

/// Accepts the upgrade and sends back what comes.
fn echo(peer: &mut Peer) {
    while let Some(request) = peer.head() {
        if request.header("upgrade").is_none() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            continue;
        }
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("connection"), Some("Upgrade"));
        assert_eq!(request.header("sec-websocket-key"), Some(KEY));
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: \
             {ACCEPT}\r\nsec-websocket-protocol: chat\r\n\r\nearly"
        ));
        loop {
            let mut buffer = [0; 4096];
            match peer.stream().read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => peer.send(&buffer[..length]),
            }
        }
    }
}

fn read_exactly(stream: &mut std::net::TcpStream, buffer: &mut Vec<u8>, length: usize) -> Vec<u8> {
    while buffer.len() < length {
        let mut chunk = [0; 4096];
        let received = stream.read(&mut chunk).expect("bytes come in time");
        assert!(received > 0, "the connection ended after {} bytes", buffer.len());
        buffer.extend_from_slice(&chunk[..received]);
    }
    buffer.drain(..length).collect()
}

#[test]
fn a_web_socket_passes_on_a_first_and_on_a_used_connection() {
    let backend = Backend::scripted(echo);
    let gateway = backend.gateway(&[]);
    for used in [false, true] {
        let mut connection = Connection::open(gateway.inbound());
        if used {
            assert_eq!(connection.request(&Request::get("/to/x")).text(), "ok");
        }
        // The first frame comes in one piece with the request.
        let mut bytes = upgrade("/to/socket").to_bytes();
        bytes.extend_from_slice(b"first");
        connection.send(bytes);
        let head = connection.head();
        assert_eq!(head.status, 101);
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(head.header("sec-websocket-protocol"), Some("chat"));
        assert_eq!(head.header("upgrade"), Some("websocket"));
        let (mut stream, mut buffer) = connection.into_parts();
        assert_eq!(read_exactly(&mut stream, &mut buffer, 10), b"earlyfirst", "used: {used}");
        for size in [1, 1_000, 100_000] {
            let sent: Vec<u8> = (0..size).map(|index: u32| index.to_le_bytes()[0]).collect();
            let mut writer = stream.try_clone().expect("a socket can be shared");
            let copy = sent.clone();
            let writing = std::thread::spawn(move || writer.write_all(&copy));
            assert!(read_exactly(&mut stream, &mut buffer, sent.len()) == sent, "{size} bytes");
            writing.join().expect("no panic").expect("all is sent");
        }
    }
}

#[test]
fn a_real_frame_comes_back_masked_as_it_was() {
    let backend = Backend::scripted(|peer| {
        peer.head().expect("a request");
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n"
        ));
        let frame = Frame::new(TEXT, b"hello").to_bytes();
        assert_eq!(peer.exactly(frame.len()).as_deref(), Some(&frame[..]), "unchanged, mask and all");
        peer.send(Frame::new(TEXT, b"world").unmasked().to_bytes());
        peer.until_end();
    });
    let gateway = backend.gateway(&[]);
    let mut socket = RawWebSocket::with_request(&gateway, &upgrade("/to/socket"));
    socket.send(&Frame::new(TEXT, b"hello"));
    assert_eq!(socket.next_frame().payload, b"world");
}

#[test]
fn a_backend_that_declines_has_its_answer_passed_on() {
    let backend = Backend::answering(|request| {
        assert_eq!(request.header("upgrade"), Some("websocket"));
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_vec()
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    for _ in 0..2 {
        let answer = connection.request(&upgrade("/to/socket"));
        assert_eq!((answer.status, answer.text()), (403, "no"));
    }
}

#[test]
fn the_end_of_either_side_ends_the_other() {
    let (note, ended) = notes();
    let backend = Backend::scripted(move |peer| {
        let head = peer.head().expect("a request");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        if head.target == "/to/short" {
            peer.send("bye");
            return;
        }
        peer.until_end();
        note(());
    });
    let gateway = backend.gateway(&[]);
    let open = |target: &str| {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(upgrade(target).to_bytes());
        assert_eq!(connection.head().status, 101);
        connection
    };
    let mut short = open("/to/short");
    assert_eq!(short.until_end(), b"bye", "the backend's end is the client's");
    drop(short);
    for reset in [false, true] {
        let long = open("/to/long");
        if reset {
            long.reset()
        } else {
            drop(long)
        }
        ended.recv_timeout(DEADLINE).expect("the client's end is the backend's");
    }
    wait_for("nothing to be left", || (gateway.metrics().sum("tidegate_connections") == 0.0).then_some(()));
    wait_for("no backend to be left", || (backend.open() == 0).then_some(()));
}

#[test]
fn one_direction_may_end_before_the_other() {
    let backend = Backend::scripted(|peer| {
        peer.head().expect("a request");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        peer.until_end();
        peer.try_send("after your end");
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(upgrade("/to/x").to_bytes());
    assert_eq!(connection.head().status, 101);
    connection.send("last");
    connection.finish_sending();
    assert_eq!(connection.until_end(), b"after your end");
}

#[test]
fn an_idle_web_socket_lives() {
    let backend = Backend::scripted(echo);
    let gateway = backend.gateway(&[("PROXY_IDLE_TIMEOUT", "200"), ("PROXY_RECV_TIMEOUT", "200")]);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(upgrade("/to/socket").to_bytes());
    assert_eq!(connection.head().status, 101);
    let (mut stream, mut buffer) = connection.into_parts();
    read_exactly(&mut stream, &mut buffer, 5);
    // Ten calls that each outlast the limits, on another connection, are the time that it must survive.
    let silent = Backend::scripted(|peer| peer.until_end());
    let other = silent.gateway(&[("PROXY_RECV_TIMEOUT", "200")]);
    for _ in 0..10 {
        assert_eq!(other.call(Request::get("/to/x")).status, 504);
    }
    stream.write_all(b"still here").expect("the socket is open");
    assert_eq!(read_exactly(&mut stream, &mut buffer, 10), b"still here");
}
