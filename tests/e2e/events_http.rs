//! Publishing by HTTP: contract, sections 1 and 3.

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, to_type};
use crate::support::events::{accepted, batch, binary, event, publish, publish_text, structured};
use crate::support::gateway::Gateway;
use crate::support::http::Request;

const NOT_A_CLOUD_EVENT: &str = "The request body does not look like a CloudEvent: ";
const BINARY_HINT: &str = "Your request looks like it's using the CloudEvents binary content mode";

/// Text of an event of type `greeting` with these further members.
fn greeting(id: &str, members: &str) -> String {
    format!(r#"{{"specversion":"0.2","type":"greeting","source":"/test","id":"{id}"{members}}}"#)
}

#[test]
fn an_accepted_event_is_echoed_as_a_json_string() {
    let gateway = Gateway::start();
    let text = greeting("1", r#","data":"quo\"te""#);
    let response = publish_text(&gateway, &text);
    assert_eq!(response.json(), Value::String(text));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert!(response.header("content-type").is_some_and(|value| value.starts_with("application/json")));
}

#[test]
fn structured_events_of_all_versions_reach_subscribers_byte_for_byte() {
    let gateway = Gateway::start();
    let mut clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
    for text in [
        r#"{"cloudEventsVersion":"0.1","eventType":"greeting","eventID":"1","source":"/t","contentType":"text/plain","data":"x"}"#,
        r#"{ "id" : "2", "type":"greeting" ,"source":"/t","specversion":"0.2", "data" : {"b":1,  "a":[1.50, 1e3, -0.0, 12345678901234567890123]} }"#,
        r#"{"specversion":"1.0","type":"greeting","source":"/t","id":"3","data_base64":"AAE=","unknown":null,"big":1E400}"#,
        r#"{"specversion":"0.2","type":"gr\u0065eting","source":"\/t","id":"4","data":"\ud834\udd1e ✓ \u0000"}"#,
        "{\t\"specversion\":\"0.2\",\"type\":\"greeting\",\"source\":\"/t\",\"id\":\"5\"}",
        r#"{"specversion":"0.2","type":"greeting","source":"/t","id":6,"data":{"a":1,"a":2}}"#,
    ] {
        publish_text(&gateway, text);
        for client in &mut clients {
            assert_eq!(client.next_text(), text);
        }
    }
}

#[test]
fn tracestate_never_reaches_a_frontend() {
    let gateway = Gateway::start();
    let mut clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
    for (members, left) in [
        (r#","tracestate":"a=b","data":1"#, r#","data":1"#),
        (r#","data":{"tracestate":"kept"},"tracestate":"a=b""#, r#","data":{"tracestate":"kept"}"#),
        (r#","traceparent":"00-x","tracestate":["odd",{"tracestate":1}]"#, r#","traceparent":"00-x""#),
        (r#","trac\u0065state":"hidden""#, ""),
    ] {
        publish_text(&gateway, &greeting("1", members));
        for client in &mut clients {
            let received = client.next_text();
            let received: Value = serde_json::from_str(&received).expect("valid JSON");
            let expected: Value = serde_json::from_str(&greeting("1", left)).expect("valid JSON");
            assert_eq!(received, expected, "{members}");
        }
    }
}

#[test]
fn application_json_without_ce_specversion_is_structured() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "application/cloudevents+json; charset=UTF-8",
        "APPLICATION/JSON",
    ] {
        let text = greeting("1", "");
        let request = Request::new("POST", "/_rig/v1/events").header("content-type", content_type).body(&text);
        accepted(&gateway, request);
        assert_eq!(client.next_text(), text, "{content_type}");
    }
}

#[test]
fn a_structured_content_type_beats_ce_headers() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let text = greeting("1", "");
    accepted(
        &gateway,
        structured(&text).header("ce-specversion", "0.2").header("ce-type", "other").header("ce-id", "x"),
    );
    assert_eq!(client.next_text(), text);
}

#[test]
fn binary_json_events_get_their_data_decoded() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
        accepted(&gateway, binary("greeting", "1", content_type, r#"{"a":1}"#));
        let received = client.next();
        assert_eq!(received["data"], json!({ "a": 1 }));
        assert_eq!(received.get("contenttype"), None, "no contenttype for JSON");
        let keys: Vec<_> = received.as_object().expect("an object").keys().map(String::as_str).collect();
        assert!(keys.is_sorted(), "sorted keys: {keys:?}");
    }
}

#[test]
fn binary_events_of_other_types_carry_text_and_contenttype() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for (content_type, body) in [
        ("text/plain; charset=utf-8", "hello ✓"),
        ("application/xml", "<a/>"),
        ("application/vnd.api+json", r#"{"a":1}"#),
        ("text/plain", ""),
    ] {
        accepted(&gateway, binary("greeting", "1", content_type, body));
        let received = client.next();
        assert_eq!(received["contenttype"], content_type);
        assert_eq!(received["data"].as_str().unwrap_or_default(), body, "{content_type}");
    }
}

#[test]
fn binary_extensions_are_json_where_they_parse_and_text_in_1_0() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let extended = |request: Request| {
        request.header("ce-number", "5").header("ce-object", r#"{"a":1}"#).header("ce-words", "two words")
    };
    accepted(&gateway, extended(binary("greeting", "1", "application/json", "{}")));
    let received = client.next();
    assert_eq!((&received["number"], &received["object"]), (&json!(5), &json!({ "a": 1 })));
    assert_eq!(received["words"], "two words");

    let request = Request::new("POST", "/_rig/v1/events")
        .header("content-type", "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-type", "greeting")
        .header("ce-source", "/test")
        .header("ce-id", "2")
        .body("{}");
    accepted(&gateway, extended(request));
    let received = client.next();
    assert_eq!((&received["number"], &received["object"]), (&json!("5"), &json!(r#"{"a":1}"#)));
    assert_eq!((&received["id"], &received["specversion"]), (&json!("2"), &json!("1.0")));
}

#[test]
fn binary_events_of_version_0_1_are_taken() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let request = Request::new("POST", "/_rig/v1/events")
        .header("content-type", "application/json")
        .header("ce-cloudeventsversion", "0.1")
        .header("ce-specversion", "0.1")
        .header("ce-eventtype", "greeting")
        .header("ce-eventid", "1")
        .header("ce-source", "/test")
        .body(r#"{"a":1}"#);
    let response = gateway.call(request);
    assert_eq!(response.status, 202, "{:?}", response.text());
    assert_eq!(client.next()["data"], json!({ "a": 1 }));
}

#[test]
fn a_batch_is_delivered_in_its_order() {
    let gateway = Gateway::start();
    let mut clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
    let texts: Vec<_> = (0..20).map(|number| greeting(&number.to_string(), r#", "data": 1.50"#)).collect();
    let body = format!("[{},{}]", event("other", "x", &json!(null)), texts.join(" ,\n"));
    accepted(&gateway, batch(&body));
    for client in &mut clients {
        for text in &texts {
            assert_eq!(&client.next_text(), text);
        }
    }
}

#[test]
fn a_batch_with_one_bad_event_publishes_nothing() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for bad in ["{}", "5", "null", r#"{"specversion":"0.2"}"#] {
        let response = gateway.call(batch(format!("[{},{bad}]", greeting("1", ""))));
        assert_eq!(response.status, 400, "{bad}");
    }
    for body in ["", "{}", "[", "null", &greeting("1", "")] {
        assert_eq!(gateway.call(batch(body)).status, 400, "{body}");
    }
    publish_text(&gateway, &greeting("2", ""));
    client.expect_ids(&["2"]);
}

#[test]
fn an_empty_batch_is_accepted() {
    let gateway = Gateway::start();
    accepted(&gateway, batch("[]"));
}

#[test]
fn what_is_not_a_cloud_event_gets_400_with_rigs_text() {
    let gateway = Gateway::start();
    for body in [
        "{}",
        r#"{"specversion":"0.2"}"#,
        r#"{"specversion":"0.2","type":"a"}"#,
        r#"{"specversion":"0.2","id":"1"}"#,
        r#"{"type":"a","id":"1","source":"/t"}"#,
        r#"{"specversion":"0.2","type":"","id":"1","source":"/t"}"#,
        r#"{"specversion":"0.2","type":5,"id":"1","source":"/t"}"#,
        r#"{"specversion":"0.2","type":null,"id":"1","source":"/t"}"#,
        r#"{"specversion":"0.2","type":["a"],"id":"1","source":"/t"}"#,
        r#"{"specversion":"0.2","type":"a","id":null,"source":"/t"}"#,
        r#"{"specversion":"0.2","type":"a","id":"","source":"/t"}"#,
        r#"{"specversion":"9.9","type":"a","id":"1","source":"/t"}"#,
        r#"{"specversion":"1.0","type":"a","id":"1"}"#,
        r#"{"cloudEventsVersion":"0.1","type":"a","id":"1"}"#,
    ] {
        let response = gateway.call(structured(body));
        assert_eq!(response.status, 400, "{body}: {:?}", response.text());
        assert!(response.text().starts_with(NOT_A_CLOUD_EVENT), "{body}: {:?}", response.text());
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    }
}

#[test]
fn a_numeric_id_is_taken_as_it_is() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let text = r#"{"specversion":"0.2","type":"greeting","source":"/t","id":5}"#;
    publish_text(&gateway, text);
    assert_eq!(client.next_text(), text);
}

#[test]
fn attributes_of_0_2_win_over_those_of_0_1() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "new");
    let text = r#"{"specversion":"0.2","type":"new","id":"1","source":"/t","eventType":"old","eventID":"9"}"#;
    publish_text(&gateway, text);
    assert_eq!(client.next_text(), text);
}

#[test]
fn ce_headers_without_specversion_get_400_with_a_hint() {
    let gateway = Gateway::start();
    for content_type in ["text/plain", "application/xml"] {
        let request = Request::new("POST", "/_rig/v1/events")
            .header("content-type", content_type)
            .header("ce-type", "greeting")
            .header("ce-id", "1")
            .body("x");
        let response = gateway.call(request);
        assert_eq!(response.status, 400);
        assert!(response.text().starts_with(BINARY_HINT), "{:?}", response.text());
    }
}

#[test]
fn another_cloud_events_format_gets_415() {
    let gateway = Gateway::start();
    for content_type in
        ["application/cloudevents+xml", "application/cloudevents+avro", "application/cloudevents+protobuf; a=b"]
    {
        let request = Request::new("POST", "/_rig/v1/events").header("content-type", content_type).body("x");
        assert_eq!(gateway.call(request).status, 415, "{content_type}");
    }
}

#[test]
fn expect_100_continue_is_answered() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let body = greeting("1", "");
    let mut connection = crate::support::http::Connection::open(gateway.inbound());
    connection.send(format!(
        "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(connection.head().status, 100);
    connection.send(&body);
    assert_eq!(connection.response().status, 202);
    client.expect_ids(&["1"]);
}

#[test]
fn a_chunked_body_and_keep_alive_work() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let mut connection = crate::support::http::Connection::open(gateway.inbound());
    for id in ["1", "2", "3"] {
        let body = greeting(id, "");
        let (first, second) = body.split_at(10);
        connection.send(format!(
            "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{first}\r\n{:x};ext=1\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        ));
        assert_eq!(connection.response().status, 202);
    }
    client.expect_ids(&["1", "2", "3"]);
}

#[test]
fn events_of_one_publisher_keep_their_order_on_both_shards() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    let mut clients: Vec<_> =
        (0..12).map(|number| Client::subscribe(&gateway, TRANSPORTS[number % 3], &to_type("greeting"))).collect();
    let ids: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    for id in &ids {
        publish(&gateway, &event("greeting", id, &json!(null)));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    for client in &mut clients {
        client.expect_ids(&ids);
    }
}
