//! Bodies, events and subscriptions that can't be used: issue, "Bad input".

use serde_json::{Value, json};

use crate::support::clients::{Client, Transport, put_request, query, to_type};
use crate::support::events::{accepted, batch, binary, event, publish, structured};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};

/// JSON text of lists in lists.
fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn a_body_over_the_limit_gets_413() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    let over = event("a", "1", &Value::from("x".repeat(1024 * 1024))).to_string();
    let mut connection = Connection::open(gateway.inbound());
    connection.try_send(structured(&over).to_bytes());
    assert_eq!(connection.response().status, 413);
    publish(&gateway, &event("a", "2", &Value::from("x".repeat(1024 * 1024 - 500))));
    client.expect_ids(&["2"]);
}

#[test]
fn a_chunked_body_over_the_limit_gets_413_too() {
    let gateway = Gateway::with(&[("MAX_BODY_BYTES", "1024")]);
    let mut connection = Connection::open(gateway.inbound());
    let head = "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 400, "x".repeat(400));
    connection.try_send(format!("{head}{}", chunk.repeat(5)));
    assert_eq!(connection.response().status, 413);
}

#[test]
fn a_put_over_the_limit_gets_413() {
    let gateway = Gateway::with(&[("MAX_BODY_BYTES", "1024")]);
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    let request = put_request("sse", &client.token, &to_type(&"x".repeat(2000)));
    assert_eq!(gateway.call(request).status, 413);
}

#[test]
fn events_that_are_not_json_or_not_utf_8_to_their_end_get_400_and_reach_nobody() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    let start = r#"{"specversion":"0.2","type":"a","source":"/t","id":"bad""#;
    for rest in [
        &b""[..],
        b"}}",
        b"} garbage",
        b",}",
        b",\"data\":}",
        b",\"data\":{\"v\":1}}garbage",
        b",\"data\":{\"v\":1",
        b",\"data\":01}",
        b",\"data\":+1}",
        b",\"data\":.5}",
        b",\"data\":NaN}",
        b",\"data\":'x'}",
        b",\"data\":\"\\x\"}",
        b",\"data\":\"\\ud800\"}",
        b",\"data\":\"line\nfeed\"}",
        b",\"data\":\"\xff\"}",
        b",\"data\":\"\xc0\x80\"}",
        b",\"data\":\"\xed\xa0\x80\"}",
        b",\"\xff\":1}",
        b",\"data\":1}\xff",
        b",\"data\":[1,2}",
        b",\"data\":tru}",
        b"}{",
        b"}\0",
    ] {
        let body = [start.as_bytes(), rest].concat();
        let response = gateway.call(structured(&body));
        assert_eq!(response.status, 400, "{:?}", String::from_utf8_lossy(&body));
    }
    publish(&gateway, &event("a", "good", &json!(null)));
    client.expect_ids(&["good"]);
    gateway.wait_for_metric("tidegate_events_refused_total", 24.0);
}

#[test]
fn a_byte_order_mark_is_not_json() {
    let gateway = Gateway::start();
    let text = format!("\u{feff}{}", event("a", "1", &json!(null)));
    assert_eq!(gateway.call(structured(text)).status, 400);
}

#[test]
fn json_nested_deeper_than_128_gets_400() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    let with_data = |data: &str| format!(r#"{{"specversion":"0.2","type":"a","source":"/t","id":"1","data":{data}}}"#);
    for depth in [129, 1_000, 100_000] {
        assert_eq!(gateway.call(structured(with_data(&nested(depth)))).status, 400, "{depth} levels");
        assert_eq!(gateway.call(structured(with_data(&"[".repeat(depth)))).status, 400, "{depth} unclosed levels");
        let request = binary("a", "1", "application/json", nested(depth));
        assert_eq!(gateway.call(request).status, 400, "{depth} levels in binary mode");
        let body = format!("[{}]", with_data(&nested(depth)));
        assert_eq!(gateway.call(batch(body)).status, 400, "{depth} levels in a batch");
    }
    accepted(&gateway, structured(with_data(&nested(120))));
    client.expect_ids(&["1"]);
}

#[test]
fn subscriptions_nested_deeper_than_128_get_400() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    let path = format!("/_rig/v1/connection/sse/{}/subscriptions", client.token);
    for depth in [200, 100_000] {
        for value in [nested(depth), "[".repeat(depth)] {
            let body = format!(r#"{{"subscriptions":[{{"eventType":"a","oneOf":[{{"x":{value}}}]}}]}}"#);
            let request = Request::new("PUT", &path).header("content-type", "application/json").body(body);
            assert_eq!(gateway.call(request).status, 400, "{depth} levels");
        }
    }
}

#[test]
fn ten_thousand_subscriptions_in_one_call_are_refused() {
    let gateway = Gateway::start();
    let many =
        |count: usize| Value::from_iter((0..count).map(|number| json!({ "eventType": format!("type-{number}") })));
    let mut client = Client::of_type(&gateway, Transport::WebSocket, "a");
    let response = client.put(Transport::Sse, &many(10_000));
    assert_eq!(response.status, 400);
    assert!(response.text().contains("1000"), "the limit is named: {:?}", response.text());
    assert_eq!(client.put(Transport::Sse, &many(1_001)).status, 400);
    publish(&gateway, &event("a", "1", &json!(null)));
    client.expect_ids(&["1"]);

    let set = client.replace(&many(1_000));
    assert_eq!(set.as_array().map(Vec::len), Some(1_000));
    publish(&gateway, &event("type-999", "2", &json!(null)));
    client.expect_ids(&["2"]);
}

#[test]
fn the_limit_of_subscriptions_is_a_setting_and_holds_on_connect() {
    let gateway = Gateway::with(&[("MAX_SUBSCRIPTIONS", "2")]);
    let three = json!([{ "eventType": "a" }, { "eventType": "b" }, { "eventType": "c" }]);
    for transport in ["sse", "longpolling"] {
        let target = format!("/_rig/v1/connection/{transport}?{}", query(&three));
        assert_eq!(gateway.call(Request::get(&target)).status, 400, "{transport}");
    }
    let client = Client::subscribe(&gateway, Transport::Sse, &json!([{ "eventType": "a" }, { "eventType": "b" }]));
    assert_eq!(client.subscriptions.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_body_that_never_finishes_is_cut_off_in_time() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "300")]);
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    let put = format!("PUT /_rig/v1/connection/sse/{}/subscriptions", client.token);
    for start in ["POST /_rig/v1/events", &put] {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(format!(
            "{start} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
        ));
        let rest = connection.until_end();
        let refused = rest.is_empty() || rest.starts_with(b"HTTP/1.1 4");
        assert!(refused, "{start}: {:?}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn a_client_that_ends_its_body_early_gets_no_event_through() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    let body = event("a", "cut", &json!(null)).to_string();
    let mut connection = Connection::open(gateway.inbound());
    connection.send(format!(
        "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len() + 1
    ));
    connection.finish_sending();
    let rest = connection.until_end();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&rest));
    publish(&gateway, &event("a", "whole", &json!(null)));
    client.expect_ids(&["whole"]);
}

#[test]
fn constraints_of_odd_shapes_get_400() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "a");
    for one_of in [json!("x"), json!(5), json!({}), json!([5]), json!(["x"]), json!([[]]), json!([null])] {
        let list = json!([{ "eventType": "a", "oneOf": one_of }]);
        assert_eq!(client.put(Transport::Sse, &list).status, 400, "{list}");
    }
}

#[test]
fn a_header_that_is_not_utf_8_in_a_binary_event_gets_400() {
    let gateway = Gateway::start();
    for name in ["ce-type", "ce-myextension"] {
        let request = Request::new("POST", "/_rig/v1/events")
            .header("content-type", "application/json")
            .header("ce-specversion", "0.2")
            .header("ce-source", "/t")
            .header("ce-id", "1")
            .header(name, b"a\xff\xfe")
            .body("{}");
        assert_eq!(gateway.call(request).status, 400, "{name}");
    }
}

#[test]
fn http_2_frames_that_make_no_sense_end_that_connection_alone() {
    let mut gateway = Gateway::start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for rest in [&b""[..], b"\xff\xff\xff\x00\x00\x00\x00\x00\x00", b"garbage that is no frame at all, long enough"] {
        let mut connection = Connection::open(gateway.inbound());
        connection.try_send([preface, rest].concat());
        connection.finish_sending();
        connection.until_end();
    }
    gateway.assert_alive();
}
