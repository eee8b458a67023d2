//! A long-polling client: a cookie jar and a call at a time, each on a connection of its own.

use serde_json::Value;

use super::gateway::Gateway;
use super::http::{Request, Response};

const PATH: &str = "/_rig/v1/connection/longpolling";

/// A session as its client knows it: the cookies of the last answer.
#[derive(Clone, Debug)]
pub(crate) struct LongPolling {
    pub(crate) connection_token: String,
    pub(crate) last_event_id: String,
}

/// What one poll brought.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) last_event_id: String,
    pub(crate) events: Vec<Value>,
    /// The body as it came.
    pub(crate) text: String,
}

impl Batch {
    /// The `type` of each event.
    pub(crate) fn types(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["type"].as_str().unwrap_or_default()).collect()
    }

    /// The `id` of each event that isn't Tidegate's own.
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.events.iter().filter(|event| event["source"] != "rig").filter_map(|event| event["id"].as_str()).collect()
    }
}

impl LongPolling {
    /// Opens a session with this query string (without `?`).
    pub(crate) fn open(gateway: &Gateway, query: &str) -> Self {
        let response = Self::opening_call(gateway, query);
        assert_eq!((response.status, response.text()), (200, "\"ok\""), "a session opens: {response:?}");
        Self::from_response(&response)
    }

    /// The call that opens a session, whatever its answer.
    pub(crate) fn opening_call(gateway: &Gateway, query: &str) -> Response {
        gateway.call(Request::get(&format!("{PATH}?{query}")))
    }

    /// The session that an answer's cookies describe.
    pub(crate) fn from_response(response: &Response) -> Self {
        Self {
            connection_token: cookie(response, "connection_token"),
            last_event_id: cookie(response, "last_event_id"),
        }
    }

    /// The next poll's request.
    pub(crate) fn request(&self) -> Request {
        let cookies = format!("connection_token={}; last_event_id={}", self.connection_token, self.last_event_id);
        Request::get(PATH).header("cookie", cookies)
    }

    /// One poll; the cookies move on.
    pub(crate) fn poll(&mut self, gateway: &Gateway) -> Batch {
        let response = gateway.call(self.request());
        let batch = Self::batch(&response);
        *self = Self::from_response(&response);
        batch
    }

    /// Polls until a poll brings something.
    pub(crate) fn poll_for_events(&mut self, gateway: &Gateway) -> Batch {
        super::wait_for("a poll that brings events", || {
            let batch = self.poll(gateway);
            (!batch.events.is_empty()).then_some(batch)
        })
    }

    /// Polls until this many events of the test's own have come, in as many polls as it takes.
    pub(crate) fn poll_for(&mut self, gateway: &Gateway, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        super::wait_for("a long-polling client's events", || {
            events.extend(self.poll(gateway).events.into_iter().filter(|event| event["source"] != "rig"));
            (events.len() >= count).then_some(())
        });
        events
    }

    /// The body of a poll's answer.
    pub(crate) fn batch(response: &Response) -> Batch {
        assert_eq!(response.status, 200, "a poll is answered: {response:?}");
        let body = response.json();
        let keys: Vec<_> = body.as_object().expect("a poll's body is an object").keys().cloned().collect();
        assert_eq!(keys, ["last_event_id", "events"], "members of a poll's body, in order");
        Batch {
            last_event_id: body["last_event_id"].as_str().expect("last_event_id is text").to_owned(),
            events: body["events"].as_array().expect("events are a list").clone(),
            text: response.text().to_owned(),
        }
    }
}

/// Value of a cookie that this answer sets once, with the attributes of the contract.
pub(crate) fn cookie(response: &Response, name: &str) -> String {
    let prefix = format!("{name}=");
    let values: Vec<_> =
        response.headers_named("set-cookie").into_iter().filter_map(|value| value.strip_prefix(&prefix)).collect();
    let &[value] = values.as_slice() else { panic!("{name} is set once: {response:?}") };
    value.strip_suffix("; path=/; HttpOnly").unwrap_or_else(|| panic!("attributes of {name}: {value:?}")).to_owned()
}
