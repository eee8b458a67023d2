//! The internal port: contract, sections 5 and 6, as far as this version has it.

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, query, to_type};
use crate::support::events::{event, publish, structured};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::wait_for;

fn messages(body: impl AsRef<[u8]>) -> Request {
    Request::new("POST", "/v3/messages").header("content-type", "application/cloudevents+json").body(body)
}

#[test]
fn health_answers_ok_while_shards_and_hub_work() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    for path in ["/health", "/health/"] {
        let response = gateway.call_internal(Request::get(path));
        assert_eq!((response.status, response.text()), (200, "OK"), "{path}");
        assert!(response.header("content-type").is_some_and(|value| value.starts_with("text/plain")));
    }
}

#[test]
fn misses_and_wrong_methods_get_404_with_errors() {
    let gateway = Gateway::start();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/v1/messages"),
        ("GET", "/v3/messages"),
        ("OPTIONS", "/v3/messages"),
        ("POST", "/health"),
        ("GET", "/_rig/v1/connection/sse"),
    ] {
        let response = gateway.call_internal(Request::new(method, path));
        assert_eq!(response.status, 404, "{method} {path}");
        assert_eq!(response.json(), json!({ "errors": { "detail": "Not found" } }), "{method} {path}");
    }
}

#[test]
fn messages_are_published_on_all_transports() {
    let gateway = Gateway::start();
    for path in ["/v3/messages", "/v2/messages"] {
        let mut clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
        let text = event("greeting", path, &json!("hello")).to_string();
        let request = Request::new("POST", path).header("content-type", "application/json").body(&text);
        let response = gateway.call_internal(request);
        assert_eq!((response.status, response.json()), (202, Value::String(text.clone())), "{path}");
        for client in &mut clients {
            assert_eq!(client.next_text(), text);
        }
    }
}

#[test]
fn a_binary_message_and_a_batch_are_taken_here_too() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let binary = Request::new("POST", "/v3/messages")
        .header("content-type", "application/json")
        .header("ce-specversion", "0.2")
        .header("ce-type", "greeting")
        .header("ce-source", "/t")
        .header("ce-id", "1")
        .body("{}");
    assert_eq!(gateway.call_internal(binary).status, 202);
    let batch = json!([event("greeting", "2", &json!(null)), event("greeting", "3", &json!(null))]).to_string();
    let request =
        Request::new("POST", "/v3/messages").header("content-type", "application/cloudevents-batch+json").body(batch);
    assert_eq!(gateway.call_internal(request).status, 202);
    client.expect_ids(&["1", "2", "3"]);
}

#[test]
fn messages_that_are_not_cloud_events_get_400() {
    let gateway = Gateway::start();
    for body in ["", "[]", "null", "5", "\"x\"", "{", "{}", r#"{"specversion":"0.2","type":"a"}"#] {
        assert_eq!(gateway.call_internal(messages(body)).status, 400, "{body}");
    }
    assert_eq!(gateway.call_internal(messages(b"\xff\xfe")).status, 400);
    let none = Request::new("POST", "/v3/messages").body("{}");
    assert!(matches!(gateway.call_internal(none).status, 400 | 415), "no content type");
    for content_type in ["", "nonsense", "a/b/c", "application/json, text/plain"] {
        let request = Request::new("POST", "/v3/messages").header("content-type", content_type).body("{}");
        assert!(matches!(gateway.call_internal(request).status, 400 | 415), "{content_type:?}");
    }
    for body in ["", "{", "nonsense", "{}{}"] {
        let binary = Request::new("POST", "/v3/messages")
            .header("content-type", "application/json")
            .header("ce-specversion", "0.2")
            .header("ce-type", "a")
            .header("ce-source", "/t")
            .header("ce-id", "1")
            .body(body);
        assert_eq!(gateway.call_internal(binary).status, 400, "binary mode: {body:?}");
    }
}

#[test]
fn a_message_over_the_limit_gets_413() {
    let gateway = Gateway::with(&[("MAX_BODY_BYTES", "1024")]);
    let response = gateway.call_internal(messages(event("a", "1", &json!("x".repeat(2000))).to_string()));
    assert_eq!(response.status, 413);
}

#[test]
fn metrics_are_prometheus_text_with_the_contracts_names() {
    let gateway = Gateway::start();
    let response = gateway.call_internal(Request::get("/metrics"));
    assert_eq!(response.status, 200);
    assert!(
        response.header("content-type").is_some_and(|value| value.starts_with("text/plain; version=")),
        "{response:?}"
    );
    let metrics = gateway.metrics();
    for (name, kind) in [
        ("rig_subscriptions_total", "gauge"),
        ("rig_consumed_events_total", "counter"),
        ("rig_consumed_events_failed_total", "counter"),
        ("rig_consumed_events_forwarded_total", "counter"),
        ("rig_consumed_event_processing_duration_milliseconds", "histogram"),
        ("tidegate_queue_bytes", "gauge"),
        ("tidegate_mailbox_depth", "gauge"),
        ("tidegate_batch_events", "histogram"),
        ("tidegate_fan_out_milliseconds", "histogram"),
    ] {
        assert!(metrics.has_type(name, kind), "{name} is a {kind}: {}", response.text());
    }
}

#[test]
fn connections_are_counted_by_transport_and_shard() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    let clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
    wait_for("three connections", || (gateway.metrics().sum("tidegate_connections") >= 3.0).then_some(()));
    let metrics = gateway.metrics();
    for transport in ["sse", "ws", "longpolling"] {
        assert_eq!(metrics.sum_where("tidegate_connections", &[("transport", transport)]), 1.0, "{transport}");
    }
    assert_eq!(metrics.label_values("tidegate_", "shard"), ["0", "1"]);
    drop(clients);
    wait_for("streams to be gone", || {
        let metrics = gateway.metrics();
        let open = ["sse", "ws"].map(|t| metrics.sum_where("tidegate_connections", &[("transport", t)]));
        (open == [0.0, 0.0]).then_some(())
    });
}

#[test]
fn forwarded_events_are_counted_by_type() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for id in ["1", "2", "3"] {
        publish(&gateway, &event("greeting", id, &json!(null)));
    }
    client.expect_ids(&["1", "2", "3"]);
    wait_for("three forwarded events", || {
        let count = gateway.metrics().sum_where("rig_consumed_events_forwarded_total", &[("type", "greeting")]);
        (count == 3.0).then_some(())
    });
}

#[test]
fn labels_from_event_types_are_bounded_in_number() {
    let gateway = Gateway::start();
    let types: Vec<_> = (0..900).map(|number| json!({ "eventType": format!("type-{number}") })).collect();
    let mut client = Client::of_type(&gateway, Transport::Sse, "end");
    let mut all = types.clone();
    all.push(to_type("end")[0].clone());
    client.replace(&json!(all));
    for number in 0..900 {
        publish(&gateway, &event(&format!("type-{number}"), &number.to_string(), &json!(null)));
    }
    publish(&gateway, &event("end", "end", &json!(null)));
    let _: Vec<_> = (0..901).map(|_| client.next_id()).collect();
    let metrics = gateway.metrics();
    let labels = metrics.label_values("rig_consumed_events_forwarded_total", "type").len();
    assert!((1..900).contains(&labels), "{labels} distinct types in the metrics");
}

#[test]
fn metrics_can_be_switched_off() {
    let gateway = Gateway::with(&[("PROMETHEUS_METRICS_ENABLED", "false")]);
    assert_eq!(gateway.call_internal(Request::get("/metrics")).status, 404);
}

#[test]
fn the_internal_port_does_not_serve_clients_nor_the_inbound_port_operators() {
    let gateway = Gateway::start();
    let stream = format!("/_rig/v1/connection/sse?{}", query(&to_type("a")));
    assert_eq!(gateway.call_internal(Request::get(&stream)).status, 404);
    assert_eq!(gateway.call(Request::new("POST", "/v3/messages").json(&json!({}))).status, 404);
    let response = gateway.call(structured(event("a", "1", &json!(null)).to_string()));
    assert_eq!(response.status, 202);
}
