//! CloudEvents to publish, and the calls that publish them.

use serde_json::{Value, json};

use super::gateway::Gateway;
use super::http::{Request, Response};

const EVENTS: &str = "/_rig/v1/events";

/// A CloudEvent 0.2 with this type, id and data.
pub(crate) fn event(event_type: &str, id: &str, data: &Value) -> Value {
    json!({ "specversion": "0.2", "type": event_type, "source": "/test", "id": id, "data": data })
}

/// The request that publishes this text in structured mode.
pub(crate) fn structured(body: impl AsRef<[u8]>) -> Request {
    Request::new("POST", EVENTS).header("content-type", "application/cloudevents+json").body(body)
}

/// The request that publishes in binary mode, with 0.2 attributes; more headers may be added.
pub(crate) fn binary(event_type: &str, id: &str, content_type: &str, body: impl AsRef<[u8]>) -> Request {
    Request::new("POST", EVENTS)
        .header("content-type", content_type)
        .header("ce-specversion", "0.2")
        .header("ce-type", event_type)
        .header("ce-source", "/test")
        .header("ce-id", id)
        .body(body)
}

/// The request that publishes a batch.
pub(crate) fn batch(body: impl AsRef<[u8]>) -> Request {
    Request::new("POST", EVENTS).header("content-type", "application/cloudevents-batch+json").body(body)
}

/// Publishes an event and fails the test unless it was accepted.
pub(crate) fn publish(gateway: &Gateway, event: &Value) -> Response {
    publish_text(gateway, &event.to_string())
}

/// Publishes this text, unchanged, in structured mode.
pub(crate) fn publish_text(gateway: &Gateway, text: &str) -> Response {
    accepted(gateway, structured(text))
}

/// Makes a publishing call and fails the test unless it was accepted.
pub(crate) fn accepted(gateway: &Gateway, request: Request) -> Response {
    let response = gateway.call(request);
    assert_eq!(response.status, 202, "the event is accepted: {:?}", String::from_utf8_lossy(&response.body));
    response
}
