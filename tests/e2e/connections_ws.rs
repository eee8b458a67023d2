//! WebSockets: contract, section 1, and RFC 6455.

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Message};

use crate::connections_sse::assert_own_event;
use crate::support::clients::{Client, Transport, query, to_type};
use crate::support::events::{event, publish, publish_text};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::websocket::WebSocketClient;
use crate::support::websocket_frames::{
    ACCEPT, BINARY, CLOSE, CONTINUATION, Frame, KEY, PING, PONG, RawWebSocket, TEXT, close_payload, upgrade,
};

const PATH: &str = "/_rig/v1/connection/ws";
const ONE_WAY: &str = "This WebSocket endpoint cannot be used for two-way communication.";

#[test]
fn the_handshake_is_answered_without_subprotocol_and_extension() {
    let gateway = Gateway::start();
    let request = upgrade(PATH)
        .header("sec-websocket-protocol", "chat, superchat")
        .header("sec-websocket-extensions", "permessage-deflate");
    let socket = RawWebSocket::with_request(&gateway, &request);
    assert_eq!(socket.head.header("sec-websocket-accept"), Some(ACCEPT));
    assert!(socket.head.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    assert!(socket.head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(socket.head.header("sec-websocket-protocol"), None);
    assert_eq!(socket.head.header("sec-websocket-extensions"), None);
}

#[test]
fn versions_8_and_13_are_accepted() {
    let gateway = Gateway::start();
    for version in ["8", "13"] {
        let request = Request::get(PATH)
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", version)
            .header("sec-websocket-key", KEY);
        let mut socket = RawWebSocket::with_request(&gateway, &request);
        assert_eq!(socket.next_frame().opcode(), TEXT, "version {version}");
    }
}

#[test]
fn a_call_without_upgrade_gets_426() {
    let gateway = Gateway::start();
    let response = gateway.call(Request::get(PATH));
    assert_eq!(response.status, 426);
    assert_eq!(response.header("upgrade"), Some("websocket"));
}

#[test]
fn a_handshake_without_key_or_version_gets_400() {
    let gateway = Gateway::start();
    let base = || Request::get(PATH).header("connection", "Upgrade").header("upgrade", "websocket");
    for (what, request) in [
        ("no key", base().header("sec-websocket-version", "13")),
        ("no version", base().header("sec-websocket-key", KEY)),
    ] {
        assert_eq!(gateway.call(request).status, 400, "{what}");
    }
}

#[test]
fn a_new_websocket_receives_its_token_then_its_subscriptions() {
    let gateway = Gateway::start();
    let mut socket = WebSocketClient::open(&gateway, &query(&to_type("greeting")));
    let data = assert_own_event(&socket.next_text(), "rig.connection.create");
    assert_eq!(data["connection_token"].as_str().map(str::len), Some(84));
    assert_eq!(data["errors"], json!([]));
    let data = assert_own_event(&socket.next_text(), "rig.subscriptions_set");
    assert_eq!(data, json!([{ "eventType": "greeting", "oneOf": [] }]));
}

#[test]
fn each_event_is_one_text_frame() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, &query(&to_type("greeting")));
    socket.next_of(TEXT);
    socket.next_of(TEXT);
    for size in [0, 125, 126, 127, 65_535, 65_536, 200_000] {
        let text = event("greeting", "1", &Value::from("x".repeat(size))).to_string();
        publish_text(&gateway, &text);
        let frame = socket.next_frame();
        assert_eq!(frame.first_byte, 0x80 | TEXT, "a final text frame without reserved bits");
        assert_eq!(frame.payload, text.as_bytes(), "{size} bytes of data");
    }
}

#[test]
fn the_gateway_pings_with_an_empty_payload() {
    let gateway = Gateway::with(&[("HEARTBEAT_MS", "200")]);
    let mut socket = RawWebSocket::open(&gateway, "");
    for _ in 0..3 {
        let ping = socket.next_of(PING);
        assert_eq!((ping.first_byte, ping.payload.len()), (0x80 | PING, 0));
    }
}

#[test]
fn a_clients_ping_gets_one_pong_and_the_connection_goes_on() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, &query(&to_type("greeting")));
    socket.next_of(TEXT);
    socket.next_of(TEXT);
    let longest = [b'x'; 125];
    for payload in [&b""[..], b"are you there?", &longest] {
        socket.send(&Frame::new(PING, payload));
        let pong = socket.next_frame();
        assert_eq!((pong.opcode(), pong.payload.as_slice()), (PONG, payload));
        publish(&gateway, &event("greeting", "1", &json!(null)));
        assert_eq!(socket.next_frame().opcode(), TEXT, "exactly one pong, then the event");
    }
}

#[test]
fn a_pong_that_nobody_asked_for_is_ignored() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, &query(&to_type("greeting")));
    socket.next_of(TEXT);
    socket.next_of(TEXT);
    socket.send(&Frame::new(PONG, b"unasked"));
    socket.send(&Frame::new(PING, b"still there?"));
    assert_eq!(socket.next_frame().payload, b"still there?");
}

#[test]
fn any_text_or_binary_frame_from_the_client_closes_with_1000() {
    let gateway = Gateway::start();
    for message in [Message::text("hello"), Message::text(""), Message::binary(Bytes::from_static(b"\x00\xff"))] {
        let mut client = WebSocketClient::open(&gateway, "");
        client.send(message.clone());
        let frame = client.wait_for_close();
        assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Normal, ONE_WAY), "{message:?}");
    }
}

#[test]
fn a_fragmented_message_with_a_ping_between_its_parts_closes_with_1000() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.send(&Frame::new(TEXT, b"hel").unfinished());
    socket.send(&Frame::new(PING, b"between"));
    assert_eq!(socket.next_of(PONG).payload, b"between");
    socket.send(&Frame::new(CONTINUATION, b"lo"));
    let close = socket.wait_for_close();
    assert_eq!((close.close_code(), close.close_reason()), (1000, ONE_WAY));
}

#[test]
fn a_clients_close_frame_is_answered_with_the_same_code() {
    let gateway = Gateway::start();
    for (code, reason) in [(1000, "bye"), (1001, ""), (3000, "own"), (4999, "own")] {
        let client = WebSocketClient::open(&gateway, "");
        let frame = client.close(CloseFrame { code: code.into(), reason: reason.into() });
        assert_eq!(u16::from(frame.code), code);
    }
}

#[test]
fn a_close_frame_without_code_is_answered_and_the_connection_ends() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.send(&Frame::new(CLOSE, b""));
    let close = socket.wait_for_close();
    assert!(close.payload.is_empty() || close.close_code() == 1000, "{close:?}");
}

#[test]
fn bad_subscriptions_get_101_and_then_close_1000() {
    let gateway = Gateway::start();
    for parameters in ["subscriptions=%5B", "subscriptions=5", "subscriptions=%5B%7B%7D%5D", "subscriptions=%zz"] {
        let socket = RawWebSocket::open(&gateway, parameters);
        let close = socket.wait_for_close();
        assert_eq!(close.close_code(), 1000, "{parameters}");
        assert!(!close.close_reason().is_empty(), "{parameters}: the reason is given");
    }
}

#[test]
fn the_connection_rate_gets_101_and_then_close_1000() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS_PER_MINUTE", "1")]);
    let refused = (0..4).find_map(|_| {
        let mut socket = RawWebSocket::open(&gateway, "");
        let frame = socket.next_frame();
        (frame.opcode() == CLOSE).then_some(frame)
    });
    let close = refused.expect("one of four is over the limit of one");
    assert_eq!(close.close_code(), 1000);
    assert!(!close.close_reason().is_empty());
}

#[test]
fn text_that_is_not_utf_8_closes_with_1007() {
    let gateway = Gateway::start();
    for text in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"abc\xf4\x90\x80\x80"] {
        let mut socket = RawWebSocket::open(&gateway, "");
        socket.send(&Frame::new(TEXT, text));
        assert_eq!(socket.wait_for_close().close_code(), 1007, "{text:?}");
    }
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.send(&Frame::new(TEXT, b"\xff").unfinished());
    assert_eq!(socket.wait_for_close().close_code(), 1007, "seen before the message ends");
}

#[test]
fn frames_that_break_the_protocol_close_with_1002() {
    let gateway = Gateway::start();
    for (what, frames) in [
        ("unmasked text", vec![Frame::new(TEXT, b"hello").unmasked()]),
        ("unmasked ping", vec![Frame::new(PING, b"").unmasked()]),
        ("unmasked close", vec![Frame::new(CLOSE, close_payload(1000, "")).unmasked()]),
        ("RSV1 without extension", vec![Frame::new(TEXT, b"hello").reserved(4)]),
        ("RSV2", vec![Frame::new(PING, b"").reserved(2)]),
        ("RSV3", vec![Frame::new(BINARY, b"").reserved(1)]),
        ("reserved data opcode", vec![Frame::new(0x3, b"")]),
        ("reserved control opcode", vec![Frame::new(0xB, b"")]),
        ("ping of 126 bytes", vec![Frame::new(PING, [b'x'; 126])]),
        ("close of 126 bytes", vec![Frame::new(CLOSE, close_payload(1000, &"x".repeat(124)))]),
        ("fragmented ping", vec![Frame::new(PING, b"").unfinished()]),
        ("continuation of nothing", vec![Frame::new(CONTINUATION, b"hello")]),
        ("text within a text", vec![Frame::new(TEXT, b"a").unfinished(), Frame::new(TEXT, b"b")]),
        ("close with half a code", vec![Frame::new(CLOSE, b"\x03")]),
        ("close with 999", vec![Frame::new(CLOSE, close_payload(999, ""))]),
        ("close with 1004", vec![Frame::new(CLOSE, close_payload(1004, ""))]),
        ("close with 1005", vec![Frame::new(CLOSE, close_payload(1005, ""))]),
        ("close with 1006", vec![Frame::new(CLOSE, close_payload(1006, ""))]),
        ("close with 2999", vec![Frame::new(CLOSE, close_payload(2999, ""))]),
        ("close with 5000", vec![Frame::new(CLOSE, close_payload(5000, ""))]),
    ] {
        let mut socket = RawWebSocket::open(&gateway, "");
        socket.next_of(TEXT);
        for frame in &frames {
            socket.send(frame);
        }
        assert_eq!(socket.wait_for_close().close_code(), 1002, "{what}");
    }
}

#[test]
fn a_length_with_its_highest_bit_set_is_refused() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.send(&Frame::new(BINARY, b"").announcing(1 << 63));
    let code = socket.wait_for_close().close_code();
    assert!(matches!(code, 1002 | 1009), "it breaks the protocol and the limit: {code}");
}

#[test]
fn a_close_reason_that_is_not_utf_8_closes_with_1007() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.send(&Frame::new(CLOSE, b"\x03\xe8\xff"));
    assert_eq!(socket.wait_for_close().close_code(), 1007);
}

#[test]
fn a_message_over_the_limit_closes_with_1009() {
    let gateway = Gateway::with(&[("MAX_MESSAGE_BYTES", "1000")]);
    let mut announced = RawWebSocket::open(&gateway, "");
    announced.send(&Frame::new(TEXT, b"").announcing(1_000_000));
    assert_eq!(announced.wait_for_close().close_code(), 1009, "a length is refused before its bytes come");

    let mut fragmented = RawWebSocket::open(&gateway, "");
    fragmented.send(&Frame::new(TEXT, [b'x'; 600]).unfinished());
    fragmented.send(&Frame::new(CONTINUATION, [b'x'; 600]));
    assert_eq!(fragmented.wait_for_close().close_code(), 1009, "the parts are added up");
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_understood() {
    let gateway = Gateway::start();
    let mut connection = Connection::open(gateway.inbound());
    for byte in upgrade(PATH).to_bytes() {
        connection.send([byte]);
    }
    assert_eq!(connection.head().status, 101);
    for byte in Frame::new(TEXT, b"hello").to_bytes() {
        connection.send([byte]);
    }
    let bytes = connection.until_end();
    assert!(bytes.windows(ONE_WAY.len()).any(|window| window == ONE_WAY.as_bytes()), "closed with the reason");
}

#[test]
fn frames_sent_together_with_the_handshake_are_read() {
    let gateway = Gateway::start();
    let mut connection = Connection::open(gateway.inbound());
    connection.send([upgrade(PATH).to_bytes(), Frame::new(TEXT, b"early").to_bytes()].concat());
    assert_eq!(connection.head().status, 101);
    let bytes = connection.until_end();
    assert!(bytes.windows(ONE_WAY.len()).any(|window| window == ONE_WAY.as_bytes()), "closed with the reason");
}

#[test]
fn a_websockets_token_dies_with_it() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    let token = client.token.clone();
    drop(client);
    crate::support::wait_for("the connection to be gone", || {
        let request = crate::support::clients::put_request("ws", &token, &json!([]));
        (gateway.call(request).status == 410).then_some(())
    });
}
