//! The three transports behind one face, for tests of what they have in common.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::gateway::Gateway;
use super::http::{Request, Response, percent_encode};
use super::longpolling::LongPolling;
use super::sse::EventStream;
use super::websocket::WebSocketClient;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Sse,
    WebSocket,
    LongPolling,
}

/// All three.
pub(crate) const TRANSPORTS: [Transport; 3] = [Transport::Sse, Transport::WebSocket, Transport::LongPolling];

impl Transport {
    /// Its name in paths.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::WebSocket => "ws",
            Self::LongPolling => "longpolling",
        }
    }
}

/// A connected client that has received its two first events.
pub(crate) struct Client<'a> {
    gateway: &'a Gateway,
    stream: Stream,
    /// Data of `rig.connection.create`: the connection token.
    pub(crate) token: String,
    /// Data of the first `rig.subscriptions_set`.
    pub(crate) subscriptions: Value,
}

enum Stream {
    Sse(Box<EventStream>),
    WebSocket(Box<WebSocketClient>),
    LongPolling(LongPolling, VecDeque<String>),
}

/// The query string that asks for these subscriptions.
pub(crate) fn query(subscriptions: &Value) -> String {
    format!("subscriptions={}", percent_encode(&subscriptions.to_string()))
}

/// A list with one subscription to every event of a type.
pub(crate) fn to_type(event_type: &str) -> Value {
    json!([{ "eventType": event_type }])
}

/// The request that replaces the subscriptions of a connection.
pub(crate) fn put_request(path: &str, token: &str, subscriptions: &Value) -> Request {
    Request::new("PUT", &format!("/_rig/v1/connection/{path}/{token}/subscriptions"))
        .json(&json!({ "subscriptions": subscriptions }))
}

impl<'a> Client<'a> {
    /// Connects with these subscriptions.
    pub(crate) fn subscribe(gateway: &'a Gateway, transport: Transport, subscriptions: &Value) -> Self {
        Self::with_query(gateway, transport, &query(subscriptions))
    }

    /// Connects with a subscription to every event of a type.
    pub(crate) fn of_type(gateway: &'a Gateway, transport: Transport, event_type: &str) -> Self {
        Self::subscribe(gateway, transport, &to_type(event_type))
    }

    /// Connects with this query string.
    pub(crate) fn with_query(gateway: &'a Gateway, transport: Transport, query: &str) -> Self {
        let stream = match transport {
            Transport::Sse => Stream::Sse(Box::new(EventStream::open(gateway, query))),
            Transport::WebSocket => Stream::WebSocket(Box::new(WebSocketClient::open(gateway, query))),
            Transport::LongPolling => Stream::LongPolling(LongPolling::open(gateway, query), VecDeque::new()),
        };
        let mut client = Self { gateway, stream, token: String::new(), subscriptions: Value::Null };
        let created = client.next();
        assert_eq!(created["type"], "rig.connection.create", "the first event: {created}");
        client.token = created["data"]["connection_token"].as_str().expect("a token is text").to_owned();
        let set = client.next();
        assert_eq!(set["type"], "rig.subscriptions_set", "the second event: {set}");
        client.subscriptions = set["data"].clone();
        client
    }

    /// The next event, exactly as text; pings, heartbeats and empty polls are skipped.
    pub(crate) fn next_text(&mut self) -> String {
        match &mut self.stream {
            Stream::Sse(stream) => stream.next_event().data,
            Stream::WebSocket(socket) => socket.next_text(),
            Stream::LongPolling(session, waiting) => loop {
                if let Some(event) = waiting.pop_front() {
                    return event;
                }
                let batch = session.poll_for_events(self.gateway);
                waiting.extend(raw_events(&batch.text));
            },
        }
    }

    /// The next event, parsed.
    pub(crate) fn next(&mut self) -> Value {
        let text = self.next_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("an event is JSON ({error}): {text:?}"))
    }

    /// The `id` of the next event.
    pub(crate) fn next_id(&mut self) -> String {
        let event = self.next();
        event["id"].as_str().unwrap_or_else(|| panic!("an event with an id: {event}")).to_owned()
    }

    /// The `id` of the next event that isn't one of Tidegate's own.
    pub(crate) fn next_published_id(&mut self) -> String {
        loop {
            let event = self.next();
            if event["source"] != "rig" {
                return event["id"].as_str().expect("an id is text").to_owned();
            }
        }
    }

    /// Fails the test unless the next events have these ids, in order.
    pub(crate) fn expect_ids(&mut self, ids: &[&str]) {
        for id in ids {
            assert_eq!(self.next_id(), *id, "next event of the client");
        }
    }

    /// How long one read may take.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        match &self.stream {
            Stream::Sse(stream) => stream.set_read_timeout(timeout),
            Stream::WebSocket(socket) => socket.set_read_timeout(timeout),
            Stream::LongPolling(..) => {}
        }
    }

    /// Replaces the subscriptions through the path of `path`, whatever the answer.
    pub(crate) fn put(&self, path: Transport, subscriptions: &Value) -> Response {
        self.gateway.call(put_request(path.path(), &self.token, subscriptions))
    }

    /// Replaces the subscriptions, and reads the notice that they are in force.
    pub(crate) fn replace(&mut self, subscriptions: &Value) -> Value {
        let response = self.put(Transport::Sse, subscriptions);
        assert_eq!(response.status, 204, "the subscriptions are replaced: {response:?}");
        let set = self.next();
        assert_eq!(set["type"], "rig.subscriptions_set", "the notice of the new list: {set}");
        set["data"].clone()
    }
}

/// The texts of the events in a poll's body, untouched.
fn raw_events(body: &str) -> Vec<String> {
    let body: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_str(body).expect("a poll's body is JSON");
    let events: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(body["events"].get()).expect("events are a list");
    events.into_iter().map(|event| event.get().to_owned()).collect()
}
