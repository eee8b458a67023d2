//! Compression bombs: nothing that a client sends is ever decompressed, so a bomb is as large as it is.

use serde_json::json;

use crate::support::backend::{Backend, resident_bytes};
use crate::support::clients::{Client, Transport};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::websocket_frames::{Frame, RawWebSocket, TEXT, upgrade};

/// What one of these bombs would become: 258 MB.
const UNPACKED_BYTES: usize = 1_000_000 * 258;
const MEMORY_BYTES: u64 = 32 << 20;

/// Bits as deflate packs them: the first one is the lowest of its byte (RFC 1951, section 3.1.1).
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, bits: &str) {
        for bit in bits.bytes() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("a byte was pushed");
            *last |= (bit - b'0') << (self.used % 8);
            self.used += 1;
        }
    }
}

/// A deflate stream of one letter, repeated: a fixed block (section 3.2.6) of a literal and a million matches of 258 bytes at
/// distance 1.
fn deflate_bomb() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push("1");
    bits.push("10");
    bits.push("10010001"); // 'a'
    for _ in 0..UNPACKED_BYTES / 258 {
        bits.push("11000101");
        bits.push("00000");
    }
    bits.push("0000000");
    bits.bytes
}

/// The same in gzip's clothes (RFC 1952); its checksum comes last, when it is too late.
fn gzip_bomb() -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u32::try_from(UNPACKED_BYTES + 1).expect("below 4 GiB").to_le_bytes();
    [&head[..], &deflate_bomb(), &[0; 4], &length].concat()
}

#[test]
fn a_compression_bomb_that_is_published_is_no_event_and_costs_no_memory() {
    let bomb = gzip_bomb();
    assert!(bomb.len() < 2_000_000);
    let mut gateway = Gateway::with(&[("MAX_BODY_BYTES", "2000000")]);
    let before = resident_bytes(gateway.pid());
    for content_type in ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"] {
        for coding in ["gzip", "deflate", "br", "gzip, gzip"] {
            let request = Request::new("POST", "/_rig/v1/events").header("content-type", content_type);
            let answer = gateway.call(request.header("content-encoding", coding).body(&bomb));
            assert_eq!(answer.status, 400, "{content_type}, {coding}: {answer:?}");
        }
    }
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "{grown} bytes more memory");
    gateway.assert_alive();
}

#[test]
fn a_compression_bomb_for_a_backend_and_from_it_passes_as_it_is() {
    let bomb = gzip_bomb();
    let answer_body = bomb.clone();
    let backend = Backend::answering(move |request| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nx-received: {}\r\ncontent-length: {}\r\n\r\n",
            request.body.len(),
            answer_body.len()
        );
        [head.as_bytes(), &answer_body].concat()
    });
    let mut gateway = backend.gateway(&[]);
    let before = resident_bytes(gateway.pid());
    let answer = gateway.call(Request::new("POST", "/to/x").header("content-encoding", "gzip").body(&bomb));
    assert_eq!(answer.header("x-received"), Some(bomb.len().to_string().as_str()));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body == bomb, "the answer's body is what the backend has sent");
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "{grown} bytes more memory");
    gateway.assert_alive();
}

#[test]
fn a_compression_bomb_on_a_web_socket_breaks_the_protocol() {
    let mut gateway = Gateway::with(&[("MAX_MESSAGE_BYTES", "4000000")]);
    let mut bystander = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    let before = resident_bytes(gateway.pid());
    let request = upgrade("/_rig/v1/connection/ws").header("sec-websocket-extensions", "permessage-deflate");
    let mut socket = RawWebSocket::with_request(&gateway, &request);
    assert_eq!(socket.head.header("sec-websocket-extensions"), None, "compression is not agreed upon");
    socket.send(&Frame::new(TEXT, deflate_bomb()).reserved(4));
    assert_eq!(socket.wait_for_close().close_code(), 1002);
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "{grown} bytes more memory");
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    gateway.assert_alive();
}
