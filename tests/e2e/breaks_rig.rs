//! Every line on connections, subscriptions and events under "What breaks RIG" in rig-observed: here
//! it breaks nothing. (Those on claims, blacklist and checks come with the version that has them.)

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, to_type};
use crate::support::events::{accepted, binary, event, publish, publish_text, structured};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::sse::EventStream;
use crate::support::websocket_frames::{Frame, PING, PONG, RawWebSocket, TEXT};

#[test]
fn event_types_of_any_length_can_be_subscribed_and_published() {
    let mut gateway = Gateway::start();
    for length in [225, 226, 255, 256, 5_000, 70_000] {
        let long = "t".repeat(length);
        let mut clients: Vec<_> = TRANSPORTS
            .iter()
            .map(|transport| {
                let mut client = Client::of_type(&gateway, *transport, "short");
                client.replace(&to_type(&long));
                client
            })
            .collect();
        publish(&gateway, &event(&long, "1", &json!(null)));
        for client in &mut clients {
            client.expect_ids(&["1"]);
        }
    }
    gateway.assert_alive();
}

#[test]
fn a_hundred_connections_with_long_types_at_once_harm_nobody() {
    let mut gateway = Gateway::start();
    let mut bystander = Client::of_type(&gateway, Transport::Sse, "greeting");
    let subscriptions = to_type(&"t".repeat(1_000));
    let clients: Vec<_> = (0..100).map(|_| Client::subscribe(&gateway, Transport::Sse, &subscriptions)).collect();
    drop(clients);
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    gateway.assert_alive();
}

#[test]
fn thousands_of_new_types_are_forgotten_with_their_subscribers() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for round in 0..20 {
        let types = Value::from_iter((0..500).map(|n| json!({ "eventType": format!("type-{round}-{n}") })));
        client.replace(&types);
    }
    client.replace(&to_type("greeting"));
    publish(&gateway, &event("greeting", "1", &json!(null)));
    client.expect_ids(&["1"]);
    assert_eq!(gateway.metrics().sum("rig_subscriptions_total"), 1.0);
}

#[test]
fn data_that_an_extractor_does_not_expect_silences_nobody() {
    let extractors = r#"{"order":{
        "f":{"stable_field_index":1,"event":{"json_pointer":"/data/f"}},
        "deep":{"stable_field_index":2,"event":{"json_pointer":"/data/f/g/0"}},
        "index":{"stable_field_index":3,"event":{"json_pointer":"/data/0"}}
    }}"#;
    let gateway = Gateway::with(&[("EXTRACTORS", extractors)]);
    let mut unconstrained = Client::of_type(&gateway, Transport::Sse, "order");
    let constrained = json!([{ "eventType": "order", "oneOf": [{ "f": "wanted" }] }]);
    let mut constrained = Client::subscribe(&gateway, Transport::WebSocket, &constrained);
    let odd = [
        json!("text"),
        json!(5),
        json!(true),
        Value::Null,
        json!([1]),
        json!([[1]]),
        json!({ "f": 5 }),
        json!({ "f": { "g": 1 } }),
        json!({ "f": [] }),
        json!({ "f": { "g": [[]] } }),
        json!({}),
    ];
    for (number, data) in odd.iter().enumerate() {
        publish(&gateway, &event("order", &number.to_string(), data));
        assert_eq!(unconstrained.next_id(), number.to_string(), "{data}");
    }
    accepted(&gateway, binary("order", "binary", "text/plain", "text"));
    accepted(&gateway, binary("order", "empty", "text/plain", ""));
    unconstrained.expect_ids(&["binary", "empty"]);
    publish(&gateway, &event("order", "last", &json!({ "f": "wanted" })));
    unconstrained.expect_ids(&["last"]);
    constrained.expect_ids(&["last"]);
}

#[test]
fn broken_json_under_an_extractor_is_refused_and_silences_nobody() {
    let extractors = r#"{"order":{"v":{"stable_field_index":1,"event":{"json_pointer":"/data/v"}}}}"#;
    let gateway = Gateway::with(&[("EXTRACTORS", extractors)]);
    let subscriptions = json!([{ "eventType": "order", "oneOf": [{ "v": "v" }] }]);
    let mut client = Client::subscribe(&gateway, Transport::Sse, &subscriptions);
    let start = r#"{"specversion":"0.2","type":"order","source":"/t","id":"bad","data":"#;
    for rest in [r#"{"v":"v"}}garbage"#, r#"{"v":"v"#, r#"{"v":"v"}"#, r#"{"v":"v",}}"#] {
        assert_eq!(gateway.call(structured(format!("{start}{rest}"))).status, 400, "{rest}");
    }
    publish(&gateway, &event("order", "good", &json!({ "v": "v" })));
    client.expect_ids(&["good"]);
}

#[test]
fn native_clients_that_ping_by_themselves_keep_their_connection() {
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.next_of(TEXT);
    socket.next_of(TEXT);
    for _ in 0..100 {
        socket.send(&Frame::new(PING, b""));
        assert_eq!(socket.next_frame().opcode(), PONG);
    }
}

#[test]
fn line_feeds_in_an_event_type_do_not_break_the_stream() {
    let gateway = Gateway::start();
    for odd in ["two\nlines", "two\r\nlines", "two\rlines", "\n", "\n\ndata: forged\n\n", "a\0b", "größe ✓"] {
        let mut stream = EventStream::open(&gateway, &crate::support::clients::query(&to_type(odd)));
        assert_eq!(stream.next_event().name, "rig.connection.create");
        assert_eq!(stream.next_event().name, "rig.subscriptions_set");
        let mut others = [Transport::WebSocket, Transport::LongPolling].map(|t| Client::of_type(&gateway, t, odd));
        for id in ["1", "2"] {
            let text = event(odd, id, &json!(null)).to_string();
            publish_text(&gateway, &text);
            assert_eq!(stream.next_event().data, text, "{odd:?}");
            for client in &mut others {
                assert_eq!(client.next_text(), text, "{odd:?}");
            }
        }
    }
}

#[test]
fn a_numeric_type_is_refused_and_breaks_no_stream() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "5");
    let numeric = r#"{"specversion":"0.2","type":5,"source":"/t","id":"1"}"#;
    assert_eq!(gateway.call(structured(numeric)).status, 400);
    publish(&gateway, &event("5", "2", &json!(null)));
    client.expect_ids(&["2"]);
}

#[test]
fn carriage_returns_between_members_reach_browsers_whole() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &crate::support::clients::query(&to_type("a")));
    stream.next_event();
    stream.next_event();
    for separator in ["\r", "\r\n", "\n", "\r\r", "\n\r"] {
        let text =
            format!(r#"{{"specversion":"0.2",{separator}"type":"a",{separator}"source":"/t","id":"1"}}{separator}"#);
        publish_text(&gateway, &text);
        let received: Value = serde_json::from_str(&stream.next_event().data)
            .unwrap_or_else(|error| panic!("{separator:?}: JSON without its rest: {error}"));
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(received, expected, "{separator:?}");
    }
}

#[test]
fn odd_content_types_of_a_published_event_get_an_answer_of_4xx() {
    let mut gateway = Gateway::start();
    let body = event("a", "1", &json!(null)).to_string();
    let post = || Request::new("POST", "/_rig/v1/events").body(&body);
    for content_type in
        ["", "nonsense", "a/b/c", "application/json, application/json", ";", "application/", "/json", "*/*"]
    {
        let response = gateway.call(post().header("content-type", content_type));
        assert!(matches!(response.status, 400 | 415), "{content_type:?}: {response:?}");
    }
    let none = gateway.call(post());
    assert!(matches!(none.status, 400 | 415), "no content type: {none:?}");
    let doubled = post().header("content-type", "application/json").header("content-type", "text/plain");
    let doubled = gateway.call(doubled);
    assert!(matches!(doubled.status, 400 | 415), "two content types: {doubled:?}");
    gateway.assert_alive();
}

#[test]
fn bodies_that_are_json_but_no_object_get_400() {
    let gateway = Gateway::start();
    for body in ["[]", "null", "5", "\"x\"", "true", "", " ", "[{}]"] {
        assert_eq!(gateway.call(structured(body)).status, 400, "{body:?}");
    }
}

#[test]
fn a_binary_json_event_with_an_empty_or_broken_body_gets_400() {
    let gateway = Gateway::start();
    for body in [&b""[..], b"{", b"nonsense", b"{}{}", b"\xff", b"\"\xff\""] {
        let response = gateway.call(binary("a", "1", "application/json", body));
        assert_eq!(response.status, 400, "{:?}: {response:?}", String::from_utf8_lossy(body));
    }
    let response = gateway.call(binary("a", "1", "text/plain", b"\xff\xfe"));
    assert_eq!(response.status, 400, "a binary body that is no text: {response:?}");
}

#[test]
fn odd_content_types_of_a_put_get_400() {
    let mut gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    let path = format!("/_rig/v1/connection/sse/{}/subscriptions", client.token);
    let put = || Request::new("PUT", &path).body(r#"{"subscriptions":[]}"#);
    for content_type in ["", "nonsense", "*/*", "application/json, text/plain", "text/html"] {
        assert_eq!(gateway.call(put().header("content-type", content_type)).status, 400, "{content_type:?}");
    }
    assert_eq!(gateway.call(put()).status, 400, "no content type");
    let doubled = put().header("content-type", "application/json").header("content-type", "text/plain");
    assert_eq!(gateway.call(doubled).status, 400, "two content types");
    gateway.assert_alive();
}

#[test]
fn an_odd_accept_header_does_not_matter_on_the_put() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    for accept in ["", "nonsense", "image/png", ";;;", "text/html;q=x"] {
        let request = crate::support::clients::put_request("sse", &client.token, &json!([])).header("accept", accept);
        assert_eq!(gateway.call(request).status, 204, "{accept:?}");
    }
}

#[test]
fn subscriptions_that_are_no_list_get_400_and_short_tokens_too() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    for subscriptions in [json!("x"), json!(5), json!({ "eventType": "a" }), Value::Null, json!(true)] {
        assert_eq!(client.put(Transport::Sse, &subscriptions).status, 400, "{subscriptions}");
    }
    for token in ["QQ==", "QQ", "g2gC", "_", "%20"] {
        let response = gateway.call(crate::support::clients::put_request("sse", token, &json!([])));
        assert_eq!((response.status, response.text()), (400, "Invalid connection token."), "{token}");
    }
}

#[test]
fn an_escaped_byte_that_is_not_utf_8_gets_400_with_a_reason_of_its_own() {
    let mut gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    let put = format!("/_rig/v1/connection/sse/{}/subscriptions?x=%FF", client.token);
    for request in [
        Request::get("/_rig/v1/connection/longpolling?subscriptions=%FF"),
        Request::get("/_rig/v1/connection/sse?subscriptions=%FF"),
        Request::new("PUT", &put).json(&json!({ "subscriptions": 5 })),
    ] {
        let response = gateway.call(request.clone());
        assert_eq!(response.status, 400, "{request:?}: {response:?}");
        assert!(!response.text().contains("501"), "{response:?}");
    }
    gateway.assert_alive();
}

#[test]
fn error_texts_show_no_internals() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    for response in [
        gateway.call(structured("{")),
        gateway.call(structured("{}")),
        gateway.call(Request::get("/_rig/v1/connection/sse?subscriptions=%5B")),
        client.put(Transport::Sse, &json!([{}])),
        client.put(Transport::Sse, &json!(5)),
    ] {
        assert_eq!(response.status, 400);
        for internal in ["src/", ".rs", "panicked", "unwrap", "Error(", "{ "] {
            assert!(!response.text().contains(internal), "{internal:?} in {:?}", response.text());
        }
    }
}

#[test]
fn thirty_odd_events_in_a_row_leave_the_node_healthy() {
    let mut gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::LongPolling, "a");
    for id in [json!(0), json!(-1), json!(1.5), json!("✓"), json!("\u{0}"), json!("x".repeat(4_000))] {
        let odd = json!({ "specversion": "0.2", "type": "a", "source": "/t", "id": id });
        publish(&gateway, &odd);
        assert_eq!(client.next()["id"], id);
    }
    for id in [json!(null), json!([]), json!({}), json!(true), json!("")] {
        let odd = json!({ "specversion": "0.2", "type": "a", "source": "/t", "id": id }).to_string();
        assert_eq!(gateway.call(structured(&odd)).status, 400, "id {id}");
    }
    gateway.assert_alive();
}
