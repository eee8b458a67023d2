//! Paths, heads and their limits: rig-observed, "Heads" and "Paths".

use serde_json::json;

use crate::support::clients::{Client, Transport, put_request};
use crate::support::events::structured;
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};

const EVENT: &str = r#"{"specversion":"0.2","type":"a","source":"/t","id":"1"}"#;

#[test]
fn health_says_ok_as_plain_text() {
    let gateway = Gateway::start();
    let response = gateway.call(Request::get("/_rig/health"));
    assert_eq!((response.status, response.text()), (200, "OK"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn a_trailing_slash_a_doubled_slash_and_escapes_match_as_the_plain_path() {
    let gateway = Gateway::start();
    for path in
        ["/_rig/health/", "//_rig/health", "/_rig//health", "/_rig/%68ealth", "/%5Frig/health", "/_rig/health?a=b"]
    {
        assert_eq!(gateway.call(Request::get(path)).text(), "OK", "{path}");
    }
    for path in ["/_rig/v1/connection/sse/", "/_rig/v1//connection/sse", "/_rig/v1/connection/%73se"] {
        let mut stream = crate::support::sse::EventStream::with_request(&gateway, &Request::get(path));
        assert_eq!(stream.next_event().name, "rig.connection.create", "{path}");
    }
    for path in ["/_rig/v1/connection/longpolling/", "/_rig/v1/connection//longpolling"] {
        assert_eq!(gateway.call(Request::get(path)).text(), "\"ok\"", "{path}");
    }
    for path in ["/_rig/v1/events/", "/_rig/v1//events", "/_rig/v1/%65vents"] {
        let request = Request::new("POST", path).header("content-type", "application/json").body(EVENT);
        assert_eq!(gateway.call(request).status, 202, "{path}");
    }
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let path = format!("//_rig/v1/connection/sse/{}/subscriptions/", client.token);
    let request = Request::new("PUT", &path).json(&json!({ "subscriptions": [] }));
    assert_eq!(gateway.call(request).status, 204);
}

#[test]
fn paths_are_case_sensitive_and_misses_get_404() {
    let gateway = Gateway::start();
    for path in [
        "/",
        "/_rig",
        "/_rig/Health",
        "/_RIG/health",
        "/_rig/v1/connection",
        "/_rig/v1/connection/SSE",
        "/_rig/v2/connection/sse",
        "/_rig/v1/connection/sse/token/subscription",
        "/_rig/healthy",
        "/health",
        "/metrics",
        "/v3/messages",
    ] {
        let response = gateway.call(Request::get(path));
        assert_eq!((response.status, response.text()), (404, r#"{"message":"Not Found"}"#), "{path}");
        assert_eq!(response.header("content-type"), None, "{path}");
    }
}

#[test]
fn a_wrong_method_is_a_miss() {
    let gateway = Gateway::start();
    for (method, path) in [
        ("GET", "/_rig/v1/events"),
        ("PUT", "/_rig/v1/events"),
        ("DELETE", "/_rig/v1/connection/longpolling"),
        ("POST", "/_rig/v1/connection/sse"),
        ("HEAD", "/_rig/v1/connection/sse"),
        ("POST", "/_rig/v1/connection/ws"),
        ("POST", "/_rig/health"),
        ("GET", "/_rig/v1/connection/sse/token/subscriptions"),
        ("PATCH", "/_rig/v1/connection/ws/token/subscriptions"),
    ] {
        let response = gateway.call(Request::new(method, path));
        assert_eq!(response.status, 404, "{method} {path}: {response:?}");
    }
}

#[test]
fn a_method_override_has_no_effect() {
    let gateway = Gateway::start();
    let request = Request::new("POST", "/_rig/health?_method=GET").header("x-http-method-override", "GET").body("x");
    assert_eq!(gateway.call(request).status, 404);
}

#[test]
fn bad_percent_encoding_in_the_path_gets_an_empty_400() {
    let gateway = Gateway::start();
    for path in ["/_rig/%zz", "/%", "/_rig/health%4"] {
        let response = gateway.call(Request::get(path));
        assert_eq!((response.status, response.text()), (400, ""), "{path}");
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let gateway = Gateway::start();
    let response = gateway.call(Request::new("HEAD", "/_rig/health"));
    assert_eq!(response.status, 200);
}

/// Asserts the heads that short answers have in common.
fn assert_common_heads(what: &str, response: &Response) {
    let id = response.header("x-request-id").unwrap_or_else(|| panic!("{what}: x-request-id: {response:?}"));
    assert!((20..=200).contains(&id.len()), "{what}: {id}");
    let trace = response.header("traceparent").unwrap_or_else(|| panic!("{what}: traceparent: {response:?}"));
    assert_eq!(trace.len(), 55, "{what}: {trace}");
    assert!(response.header("date").is_some(), "{what}: date");
    assert!(response.header("cache-control").is_some(), "{what}: cache-control");
}

#[test]
fn short_answers_carry_cache_control_request_id_and_traceparent() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for (what, response) in [
        ("health", gateway.call(Request::get("/_rig/health"))),
        ("long polling", gateway.call(Request::get("/_rig/v1/connection/longpolling"))),
        ("events", gateway.call(structured(EVENT))),
        ("PUT", client.put(Transport::Sse, &json!([]))),
        ("miss", gateway.call(Request::get("/nothing"))),
    ] {
        assert_common_heads(what, &response);
        let expected = if what == "long polling" { "no-cache" } else { "max-age=0, private, must-revalidate" };
        assert_eq!(response.header("cache-control"), Some(expected), "{what}");
    }
}

#[test]
fn a_request_id_of_20_to_200_characters_is_echoed() {
    let gateway = Gateway::start();
    for (id, echoed) in
        [("x".repeat(19), false), ("x".repeat(20), true), ("x".repeat(200), true), ("x".repeat(201), false)]
    {
        let response = gateway.call(Request::get("/_rig/health").header("x-request-id", &id));
        assert_eq!(response.header("x-request-id") == Some(&id), echoed, "{} characters", id.len());
    }
}

#[test]
fn the_senders_trace_is_kept_with_a_new_span() {
    let gateway = Gateway::start();
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let response = gateway.call(Request::get("/_rig/health").header("traceparent", sent));
    let returned = response.header("traceparent").expect("traceparent");
    assert_eq!(returned[..36], sent[..36], "version and trace id");
    assert_ne!(returned, sent, "the span is new");
    for invalid in [
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        let response = gateway.call(Request::get("/_rig/health").header("traceparent", invalid));
        let returned = response.header("traceparent").expect("traceparent");
        assert_eq!(returned.len(), 55);
        assert!(!returned.contains("00000000000000000000000000000000"), "{returned}");
    }
}

/// Sends a head that must be refused and asserts the status, the empty body and the end of the connection.
fn assert_refused(gateway: &Gateway, what: &str, head: &[u8], status: u16) {
    let mut connection = Connection::open(gateway.inbound());
    connection.try_send(head);
    let response = connection.response();
    assert_eq!((response.status, response.text()), (status, ""), "{what}: {response:?}");
    assert_eq!(response.header("connection"), Some("close"), "{what}");
    connection.assert_closed();
}

#[test]
fn heads_over_the_limits_get_414_or_431_and_the_connection_ends() {
    let gateway = Gateway::start();
    let long_line = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(8 * 1024));
    assert_refused(&gateway, "a request line over 8 kB", long_line.as_bytes(), 414);
    let big_value = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(17 * 1024));
    assert_refused(&gateway, "a header value over 16 kB", big_value.as_bytes(), 431);
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_refused(&gateway, "more than 100 headers", many.as_bytes(), 431);
}

#[test]
fn a_hundred_headers_and_a_long_request_line_are_fine() {
    let gateway = Gateway::start();
    let mut request = Request::get(&format!("/_rig/health?{}", "x".repeat(7_500)));
    for number in 0..98 {
        request = request.header(&format!("x-{number}"), "y");
    }
    assert_eq!(gateway.call(request).text(), "OK");
}

#[test]
fn trace_gets_an_empty_501() {
    let gateway = Gateway::start();
    let response = gateway.call(Request::new("TRACE", "/_rig/health"));
    assert_eq!((response.status, response.text()), (501, ""));
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let gateway = Gateway::start();
    let mut connection = Connection::open(gateway.inbound());
    let pipelined =
        [Request::get("/_rig/health"), structured(EVENT), Request::get("/nothing"), Request::get("/_rig/health")];
    connection.send(pipelined.iter().flat_map(Request::to_bytes).collect::<Vec<_>>());
    let statuses: Vec<_> = pipelined.iter().map(|_| connection.response().status).collect();
    assert_eq!(statuses, [200, 202, 404, 200]);
}

#[test]
fn an_event_stream_may_follow_other_requests_on_its_connection() {
    let gateway = Gateway::start();
    let mut connection = Connection::open(gateway.inbound());
    assert_eq!(connection.request(&Request::get("/_rig/health")).status, 200);
    connection.send(Request::get("/_rig/v1/connection/sse").to_bytes());
    let mut stream = crate::support::sse::EventStream::on_connection(connection);
    assert_eq!(stream.next_event().name, "rig.connection.create");
}

#[test]
fn a_connection_that_says_close_ends_after_its_answer() {
    let gateway = Gateway::start();
    let mut connection = Connection::open(gateway.inbound());
    let response = connection.request(&Request::get("/_rig/health").header("connection", "close"));
    assert_eq!(response.status, 200);
    connection.assert_closed();
    assert_eq!(gateway.call(put_request("sse", "x", &json!([]))).status, 400, "others are served");
}
