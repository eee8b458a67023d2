//! CORS: contract, section 1, and the preflights of rig-observed.

use serde_json::json;

use crate::support::clients::{Client, Transport, put_request, to_type};
use crate::support::events::structured;
use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::service::{definitions_to, endpoint, with};

fn preflight(gateway: &Gateway, target: &str, method: &str) -> Response {
    let request = Request::new("OPTIONS", target)
        .header("origin", "https://shop.example")
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "content-type");
    gateway.call(request)
}

/// Asserts what all preflights have in common, and the two lists.
fn assert_preflight(response: &Response, methods: &str, headers: &str) {
    assert_eq!((response.status, response.text()), (204, ""), "{response:?}");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-methods"), Some(methods));
    assert_eq!(response.header("access-control-allow-headers"), Some(headers));
    assert_eq!(response.header("content-type"), None);
    assert_eq!(response.header("access-control-max-age"), None);
}

#[test]
fn the_preflight_of_the_put_allows_put_with_content_type_and_authorization() {
    let gateway = Gateway::start();
    for transport in ["sse", "ws", "longpolling"] {
        let target = format!("/_rig/v1/connection/{transport}/any-token/subscriptions");
        assert_preflight(&preflight(&gateway, &target, "PUT"), "PUT", "content-type,authorization");
    }
}

#[test]
fn the_preflight_of_publishing_allows_post_with_content_type() {
    let gateway = Gateway::start();
    assert_preflight(&preflight(&gateway, "/_rig/v1/events", "POST"), "POST", "content-type");
}

#[test]
fn the_preflight_of_long_polling_allows_credentials() {
    let gateway = Gateway::start();
    let response = preflight(&gateway, "/_rig/v1/connection/longpolling", "GET");
    assert_preflight(&response, "GET", "*");
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
}

#[test]
fn the_other_connection_calls_answer_a_preflight_too() {
    let gateway = Gateway::start();
    for transport in ["sse", "ws"] {
        let response = preflight(&gateway, &format!("/_rig/v1/connection/{transport}"), "GET");
        assert_eq!((response.status, response.text()), (204, ""), "{transport}: {response:?}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{transport}");
    }
}

#[test]
fn the_configured_origin_is_on_every_answer_of_tidegates_own() {
    let origin = "https://shop.example";
    let gateway = Gateway::with(&[("CORS", origin)]);
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for (what, response) in [
        ("PUT", client.put(Transport::Sse, &to_type("greeting"))),
        ("refused PUT", gateway.call(put_request("sse", "nonsense", &to_type("greeting")))),
        ("long polling", gateway.call(Request::get("/_rig/v1/connection/longpolling"))),
        ("refused event stream", gateway.call(Request::get("/_rig/v1/connection/sse?subscriptions=%5B"))),
        ("refused long polling", gateway.call(Request::get("/_rig/v1/connection/longpolling?subscriptions=%5B"))),
        ("event", gateway.call(structured(r#"{"specversion":"0.2","type":"a","source":"/t","id":"1"}"#))),
        ("refused event", gateway.call(structured("{}"))),
        ("preflight", preflight(&gateway, "/_rig/v1/events", "POST")),
    ] {
        assert_eq!(response.header("access-control-allow-origin"), Some(origin), "{what}: {response:?}");
    }
    let stream = crate::support::sse::EventStream::open(&gateway, "");
    assert_eq!(stream.head.header("access-control-allow-origin"), Some(origin));
}

#[test]
fn the_configured_origin_is_on_the_proxys_own_answers_too() {
    let origin = "https://shop.example";
    let config = definitions_to(
        1,
        &[
            json!({ "id": "dead", "method": "GET", "path_regex": "/dead" }),
            endpoint("kafka", "/kafka", "requests"),
            with(endpoint("preflight", "/kafka", "requests"), "method", "OPTIONS"),
        ],
    );
    let gateway = Gateway::with(&[("CORS", origin), ("PROXY_CONFIG_FILE", &config)]);
    for (what, request, status) in [
        ("no endpoint", Request::get("/nowhere"), 404),
        ("no backend", Request::get("/dead"), 502),
        ("no Kafka", Request::new("POST", "/kafka").body("{}"), 503),
        ("preflight", Request::new("OPTIONS", "/kafka"), 204),
    ] {
        let response = gateway.call(request);
        assert_eq!(response.status, status, "{what}");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin), "{what}");
    }
}
