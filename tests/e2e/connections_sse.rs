//! Event streams: contract, section 1.

use serde_json::{Value, json};

use crate::sessions_api::blacklist;
use crate::support::clients::{Client, Transport, query, to_type};
use crate::support::events::{event, publish, publish_text};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;
use crate::support::jwt;
use crate::support::sse::EventStream;

const PATH: &str = "/_rig/v1/connection/sse";

/// Checks one of the two first events: its members in order, and the form of their values.
pub(crate) fn assert_own_event(text: &str, event_type: &str) -> Value {
    let event: Value = serde_json::from_str(text).expect("JSON");
    let keys: Vec<_> = event.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["data", "id", "source", "specversion", "time", "type"], "members of {text}");
    assert_eq!(event["type"], event_type);
    assert_eq!(event["source"], "rig");
    assert_eq!(event["specversion"], "0.2");
    assert!(is_uuid_v4(event["id"].as_str().expect("text")), "a UUID of version 4: {text}");
    assert!(is_timestamp(event["time"].as_str().expect("text")), "RFC 3339 with microseconds: {text}");
    event["data"].clone()
}

fn is_uuid_v4(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12]
        && text.as_bytes()[14] == b'4'
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// `2026-01-31T12:00:00.123456+00:00`
fn is_timestamp(text: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddddd+00:00";
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            form => byte == form,
        })
}

#[test]
fn an_event_stream_answers_with_the_heads_of_the_contract() {
    let gateway = Gateway::start();
    let stream = EventStream::open(&gateway, "");
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(stream.head.header("cache-control"), Some("no-cache"));
    assert_eq!(stream.head.header("access-control-allow-origin"), Some("*"));
    assert_eq!(stream.head.header("content-length"), None);
}

#[test]
fn a_new_event_stream_receives_its_token_then_its_subscriptions() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&json!([{ "eventType": "greeting" }])));

    let created = stream.next_event();
    assert_eq!(created.name, "rig.connection.create");
    let data = assert_own_event(&created.data, "rig.connection.create");
    assert_eq!(data["errors"], json!([]));
    let token = data["connection_token"].as_str().expect("text");
    assert_eq!(token.len(), 84, "URL-safe base64 of 63 bytes: {token}");
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)), "URL-safe: {token}");

    let set = stream.next_event();
    assert_eq!(set.name, "rig.subscriptions_set");
    let data = assert_own_event(&set.data, "rig.subscriptions_set");
    assert_eq!(data, json!([{ "eventType": "greeting", "oneOf": [] }]));
}

#[test]
fn the_event_line_comes_before_the_data_line() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    publish(&gateway, &event("greeting", "1", &json!("hello")));
    let received = stream.next_event();
    assert_eq!(received.name, "greeting");
    let named: Vec<_> = received.fields.iter().filter(|field| *field != "id").collect();
    assert_eq!(named, ["event", "data"]);
}

#[test]
fn line_feeds_in_an_events_text_become_several_data_lines() {
    let gateway = Gateway::start();
    let mut stream = EventStream::open(&gateway, &query(&to_type("greeting")));
    stream.next_event();
    stream.next_event();
    let text =
        "{\n  \"specversion\": \"0.2\",\n  \"type\": \"greeting\",\n  \"source\": \"/test\",\n  \"id\": \"1\"\n}\n";
    publish_text(&gateway, text);
    let received = stream.next_event();
    assert_eq!(received.data, text, "the lines joined again are the event");
    assert_eq!(received.fields.iter().filter(|field| *field == "data").count(), 7);
}

#[test]
fn heartbeats_are_comments_and_start_with_the_stream() {
    let gateway = Gateway::with(&[("HEARTBEAT_MS", "200")]);
    let mut stream = EventStream::open(&gateway, "");
    for _ in 0..3 {
        assert_eq!(stream.next_comment(), "heartbeat");
    }
}

#[test]
fn an_event_stream_whose_request_has_a_body_lasts_longer_than_a_head_may_and_frees_its_connection_at_its_end() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "500"), jwt::SETTING]);
    let target = format!("{PATH}?{}&jwt={}", query(&to_type("greeting")), jwt::of_session("me"));
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get(&target).header("transfer-encoding", "chunked").body("0\r\n\r\n").to_bytes());
    assert_eq!(connection.head().status, 200);
    gateway.outlast_header_timeout();
    publish(&gateway, &event("greeting", "1", &json!("hello")));
    let mut text = String::new();
    while !text.contains("hello") {
        text.push_str(&String::from_utf8(connection.chunk().expect("the stream goes on")).expect("UTF-8"));
    }
    blacklist(&gateway, "me", 600);
    while connection.chunk().is_some() {}
    connection.assert_closed();
}

#[test]
fn an_event_stream_whose_request_has_a_length_of_nothing_is_as_any_other() {
    let gateway = Gateway::start();
    let names = |request: Request| {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(request.to_bytes());
        let head = connection.head();
        assert_eq!(head.status, 200);
        head.headers.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(Request::get(PATH).header("content-length", "0")), names(Request::get(PATH)));
}

#[test]
fn an_event_stream_for_http_1_0_is_unchunked_and_ends_by_close() {
    let gateway = Gateway::start();
    let mut connection = Connection::open(gateway.inbound());
    let target = format!("{PATH}?{}", query(&to_type("greeting")));
    connection.send(format!("GET {target} HTTP/1.0\r\nhost: localhost\r\n\r\n"));
    let mut stream = EventStream::on_connection(connection);
    assert_eq!(stream.head.header("transfer-encoding"), None);
    assert_eq!(stream.next_event().name, "rig.connection.create");
    assert_eq!(stream.next_event().name, "rig.subscriptions_set");
    publish(&gateway, &event("greeting", "1", &json!(null)));
    assert_eq!(stream.next_event().name, "greeting");
}

#[test]
fn an_event_stream_over_http_2_carries_the_same_events() {
    let gateway = Gateway::with(&[("HEARTBEAT_MS", "200")]);
    let connection = Http2Connection::open(&gateway);
    let (head, mut stream) = connection.event_stream(&query(&to_type("greeting")));
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-type"], "text/event-stream; charset=utf-8");
    let created = stream.next_event();
    let data = assert_own_event(&created.data, "rig.connection.create");
    assert_eq!(stream.next_event().name, "rig.subscriptions_set");

    publish(&gateway, &event("greeting", "1", &json!("hello")));
    let received: Value = serde_json::from_str(&stream.next_event().data).expect("JSON");
    assert_eq!(received["data"], "hello");
    assert_eq!(stream.next_comment(), "heartbeat");

    let token = data["connection_token"].as_str().expect("text");
    let target = format!("/_rig/v1/connection/sse/{token}/subscriptions");
    let body = br#"{"subscriptions":[{"eventType":"farewell"}]}"#;
    let response = connection.call("PUT", &target, Some("application/json"), body);
    assert_eq!(response.status(), 204, "a PUT on the same HTTP/2 connection");
    assert_eq!(stream.next_event().name, "rig.subscriptions_set");
    let farewell = event("farewell", "2", &json!(null)).to_string();
    let response =
        connection.call("POST", "/_rig/v1/events", Some("application/cloudevents+json"), farewell.as_bytes());
    assert_eq!(response.status(), 202, "a POST on the same HTTP/2 connection");
    assert_eq!(stream.next_event().name, "farewell");
}

#[test]
fn two_event_streams_share_one_http_2_connection() {
    let gateway = Gateway::start();
    let connection = Http2Connection::open(&gateway);
    let (_, mut first) = connection.event_stream(&query(&to_type("first")));
    let (_, mut second) = connection.event_stream(&query(&to_type("second")));
    for stream in [&mut first, &mut second] {
        assert_eq!(stream.next_event().name, "rig.connection.create");
        assert_eq!(stream.next_event().name, "rig.subscriptions_set");
    }
    publish(&gateway, &event("second", "1", &json!(null)));
    publish(&gateway, &event("first", "2", &json!(null)));
    assert_eq!(first.next_event().name, "first");
    assert_eq!(second.next_event().name, "second");
}

#[test]
fn subscriptions_that_do_not_parse_get_400_with_the_reason() {
    let gateway = Gateway::start();
    for bad in
        ["[", "5", "{}", "[{}]", "[{\"eventType\":5}]", "[{\"eventType\":\"\"}]", "[{\"eventType\":\"a\",\"oneOf\":5}]"]
    {
        let encoded = crate::support::http::percent_encode(bad);
        let response = gateway.call(Request::get(&format!("{PATH}?subscriptions={encoded}")));
        assert_eq!(response.status, 400, "{bad}: {response:?}");
        assert!(!response.body.is_empty(), "{bad}: the reason is given");
        assert_eq!(response.header("content-type"), None, "{bad}: plain text without a content type");
    }
    let response = gateway.call(Request::get(&format!("{PATH}?subscriptions=%5B")));
    assert!(response.text().starts_with("could not parse subscriptions: "), "{:?}", response.text());
}

#[test]
fn an_invalid_authorization_header_never_refuses_a_connection() {
    let gateway = Gateway::start();
    for value in ["Bearer nonsense", "Basic dXNlcjpwYXNz", "", "Bearer a.b.c, Bearer d.e.f"] {
        let request = Request::get(&format!("{PATH}?{}", query(&to_type("greeting")))).header("authorization", value);
        let mut stream = EventStream::with_request(&gateway, &request);
        assert_eq!(stream.next_event().name, "rig.connection.create", "authorization: {value}");
    }
}

#[test]
fn empty_parameters_count_as_absent_and_the_last_of_several_wins() {
    let gateway = Gateway::start();
    let wanted = query(&to_type("wanted"));
    let other = query(&to_type("other"));
    for (parameters, types) in [
        ("subscriptions=&jwt=".to_owned(), vec![]),
        ("subscriptions&jwt".to_owned(), vec![]),
        (format!("{other}&{wanted}"), vec!["wanted"]),
        (format!("{wanted}&Subscriptions=%5B"), vec!["wanted"]),
        (format!("unknown=1&{wanted}&jwt="), vec!["wanted"]),
    ] {
        for transport in crate::support::clients::TRANSPORTS {
            let client = Client::with_query(&gateway, transport, &parameters);
            let set: Vec<_> =
                client.subscriptions.as_array().expect("a list").iter().map(|s| &s["eventType"]).collect();
            assert_eq!(set, types, "{transport:?} {parameters}");
        }
    }
}

#[test]
fn a_plus_in_the_query_is_a_space() {
    let gateway = Gateway::start();
    for transport in crate::support::clients::TRANSPORTS {
        let parameters = "subscriptions=%5B%7B%22eventType%22:+%22two+words%22%7D%5D";
        let client = Client::with_query(&gateway, transport, parameters);
        assert_eq!(client.subscriptions[0]["eventType"], "two words", "{transport:?}");
    }
}

#[test]
fn bad_percent_encoding_in_the_query_gets_400() {
    let gateway = Gateway::start();
    for query in ["subscriptions=%zz", "subscriptions=%5", "x=%"] {
        let response = gateway.call(Request::get(&format!("{PATH}?{query}")));
        assert_eq!(response.status, 400, "{query}");
    }
}

#[test]
fn last_event_id_of_a_browser_that_reconnects_is_accepted() {
    let gateway = Gateway::start();
    let request = Request::get(PATH).header("last-event-id", "anything at all").header("accept", "text/event-stream");
    let mut stream = EventStream::with_request(&gateway, &request);
    assert_eq!(stream.next_event().name, "rig.connection.create");
}

#[test]
fn accept_does_not_matter() {
    let gateway = Gateway::start();
    for accept in ["image/png", "", "nonsense", "*/*"] {
        let mut stream = EventStream::with_request(&gateway, &Request::get(PATH).header("accept", accept));
        assert_eq!(stream.next_event().name, "rig.connection.create", "accept: {accept:?}");
    }
}

#[test]
fn more_connections_a_minute_than_allowed_get_429() {
    // A window of a minute may end between two calls, so one refusal among a few more than allowed is looked for.
    let gateway = Gateway::with(&[("MAX_CONNECTIONS_PER_MINUTE", "2")]);
    let open = || gateway.call(Request::get("/_rig/v1/connection/longpolling"));
    let answers: Vec<_> = (0..5).map(|_| open()).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty(), "at least one of five is over the limit of two: {answers:?}");
    assert!(refused.iter().all(|answer| answer.text() == "Reached maximum number of connections"), "{refused:?}");

    let streams: Vec<_> = (0..3).map(|_| gateway_stream_status(&gateway)).collect();
    assert!(streams.contains(&429), "event streams count as well: {streams:?}");
}

fn gateway_stream_status(gateway: &Gateway) -> u16 {
    let mut connection = Connection::open(gateway.inbound());
    connection.send(Request::get(PATH).to_bytes());
    connection.head().status
}

#[test]
fn an_event_arrives_once_however_many_subscriptions_match() {
    let extractors = r#"{"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"}}}}"#;
    let gateway = Gateway::with(&[("EXTRACTORS", extractors)]);
    let subscriptions = json!([
        { "eventType": "greeting" },
        { "eventType": "greeting", "oneOf": [{ "name": "John" }, { "name": "John" }] },
        { "eventType": "greeting", "oneOf": [{ "name": "John" }] },
    ]);
    for transport in crate::support::clients::TRANSPORTS {
        let mut client = Client::subscribe(&gateway, transport, &subscriptions);
        publish(&gateway, &event("greeting", "1", &json!({ "name": "John" })));
        publish(&gateway, &event("greeting", "2", &json!({ "name": "John" })));
        client.expect_ids(&["1", "2"]);
    }
}

#[test]
fn each_transport_receives_the_same_events_in_the_same_order() {
    let gateway = Gateway::start();
    let mut clients = crate::support::clients::TRANSPORTS.map(|t| Client::of_type(&gateway, t, "greeting"));
    let ids: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    for id in &ids {
        publish(&gateway, &event("greeting", id, &json!(null)));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    for client in &mut clients {
        client.expect_ids(&ids);
    }
}

#[test]
fn a_subscription_is_in_force_once_its_notice_has_been_sent() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    for round in 0..20_u32 {
        let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
        publish(&gateway, &event("greeting", &round.to_string(), &json!(null)));
        // The other shard may still have an event of before in its mailbox; this one must come, whatever comes before it.
        while client.next_id().parse::<u32>().expect("ids are rounds") < round {}
    }
}
