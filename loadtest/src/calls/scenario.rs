//! What to call, how often, and for how long.

use serde::{Deserialize, Serialize};

use crate::error::LoadError;
use crate::scenario::Observe;

/// Largest body of a request or an answer.
const MAX_BODY_BYTES: usize = 8 << 20;
const MAX_CONCURRENCY: u32 = 100_000;
const MAX_CLIENTS: u32 = 256;

/// A load of calls, each of which has one answer. [`run_calls`](crate::run_calls) carries it out.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CallScenario {
    /// Which way the calls go.
    pub path: CallPath,
    /// How many, how often, how long.
    pub load: CallLoad,
    /// What is observed and where the generator runs.
    pub observe: Observe,
    /// A call without an answer for so long counts as missing, in seconds.
    pub answer_timeout_s: f64,
}

/// Which way calls go.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum CallPath {
    /// Over HTTP.
    Http(HttpCalls),
    /// Through the bare `ReactiveClient`, over Kafka.
    Reactive(ReactiveCalls),
}

/// Calls through bare clients of the crate `tidegate-reactive`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ReactiveCalls {
    /// Bootstrap servers.
    pub brokers: String,
    /// Where the requests go: `kafka:topic/service`.
    pub destination: String,
    /// Topic of the answers, with a partition for each client if it has to be made.
    pub reply_topic: String,
    /// Size of each request.
    pub payload_bytes: usize,
    /// Clients that share the calls.
    pub clients: u32,
}

/// Calls over keep-alive connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HttpCalls {
    /// `http://` address; `{number}` in it becomes the number of the call.
    pub url: String,
    /// Method, in capitals.
    pub method: String,
    /// Further header lines of each request (`name: value`).
    pub headers: Vec<String>,
    /// Body of each request.
    pub body: RequestBody,
}

impl HttpCalls {
    /// GET requests without a body.
    pub fn get(url: &str) -> Self {
        Self { url: url.to_owned(), method: "GET".to_owned(), headers: Vec::new(), body: RequestBody::None }
    }

    /// CloudEvents of this size by POST, as endpoints of target kafka want them.
    pub fn events(url: &str, bytes: usize) -> Self {
        Self { method: "POST".to_owned(), body: RequestBody::CloudEvent { bytes }, ..Self::get(url) }
    }
}

/// Body of a request. It holds the number of the call too, and has at least the size that this takes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RequestBody {
    /// None.
    None,
    /// The number and a filler.
    Plain {
        /// Its size.
        bytes: usize,
    },
    /// A CloudEvent with the number as its id.
    CloudEvent {
        /// Its size.
        bytes: usize,
    },
}

impl RequestBody {
    fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Plain { bytes } | Self::CloudEvent { bytes } => bytes,
        }
    }
}

/// How many calls, how often, how long.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CallLoad {
    /// Calls at the same time at most; over HTTP also the connections.
    pub concurrency: u32,
    /// Calls a second. `None`: each answer is followed by the next call at once (closed loop); latency then counts from
    /// the real send time.
    pub rate_per_s: Option<f64>,
    /// How long at most, in seconds, warm-up included.
    pub duration_s: f64,
    /// A closed loop ends after so many calls, if its time isn't over before.
    pub total: Option<u64>,
    /// Part at the start that is audited, but not measured, in seconds.
    pub warmup_s: f64,
}

impl Default for CallLoad {
    fn default() -> Self {
        Self { concurrency: 50, rate_per_s: None, duration_s: 10.0, total: None, warmup_s: 1.0 }
    }
}

impl CallScenario {
    /// A scenario that waits ten seconds for an answer.
    pub fn new(path: CallPath, load: CallLoad) -> Self {
        Self { path, load, observe: Observe::default(), answer_timeout_s: 10.0 }
    }

    /// The scenario's name on the command line.
    pub fn name(&self) -> &'static str {
        match &self.path {
            CallPath::Http(HttpCalls { body: RequestBody::CloudEvent { .. }, .. }) | CallPath::Reactive(_) => "request",
            CallPath::Http(_) => "proxy",
        }
    }

    /// Where the calls go.
    pub fn destination(&self) -> &str {
        match &self.path {
            CallPath::Http(calls) => &calls.url,
            CallPath::Reactive(calls) => &calls.destination,
        }
    }

    /// Refuses what can't be run, with the reason.
    pub(crate) fn validate(&self) -> Result<(), LoadError> {
        let refuse = |reason: &str| Err(LoadError::Scenario(reason.to_owned()));
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let load = &self.load;
        if load.concurrency == 0 || load.concurrency > MAX_CONCURRENCY {
            return refuse("between 1 and 100,000 calls can be under way at the same time");
        }
        if !positive(load.duration_s) || load.rate_per_s.is_some_and(|rate| !positive(rate)) {
            return refuse("rate and duration must be positive");
        }
        if load.total.is_some_and(|total| total == 0 || load.rate_per_s.is_some()) {
            return refuse("a number of calls is for closed loops, and at least 1");
        }
        if !(load.warmup_s >= 0.0 && load.warmup_s < load.duration_s) {
            return refuse("the warm-up must be shorter than the duration");
        }
        if !positive(self.answer_timeout_s) {
            return refuse("the time to wait for an answer must be positive");
        }
        match &self.path {
            CallPath::Http(calls) => {
                if calls.method.is_empty() || !calls.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
                    return refuse("the method must be written in capitals");
                }
                if matches!(calls.method.as_str(), "CONNECT" | "TRACE") {
                    return refuse("CONNECT and TRACE have no answers that could be audited");
                }
                if calls.headers.iter().any(|line| !line.contains(':') || line.contains(['\r', '\n'])) {
                    return refuse("a header must read `name: value`");
                }
                if calls.body.bytes() > MAX_BODY_BYTES {
                    return refuse("bodies are at most 8 MiB");
                }
            }
            CallPath::Reactive(calls) => {
                if calls.clients == 0 || calls.clients > MAX_CLIENTS {
                    return refuse("between 1 and 256 clients can share the calls");
                }
                if load.rate_per_s.is_some() {
                    return refuse("calls through the bare client are a closed loop, without a rate");
                }
                if calls.payload_bytes > MAX_BODY_BYTES {
                    return refuse("bodies are at most 8 MiB");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut CallScenario, &mut HttpCalls)) -> String {
        let mut calls = HttpCalls::get("http://127.0.0.1:1/");
        let mut scenario = CallScenario::new(CallPath::Http(calls.clone()), CallLoad::default());
        change(&mut scenario, &mut calls);
        scenario.path = CallPath::Http(calls);
        scenario.validate().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_can_not_be_run_is_refused_with_the_reason() {
        assert_eq!(refusal(|_, _| {}), "");
        assert!(refusal(|scenario, _| scenario.load.concurrency = 0).contains("between 1 and"));
        assert!(refusal(|scenario, _| scenario.load.rate_per_s = Some(f64::NAN)).contains("positive"));
        assert!(refusal(|scenario, _| scenario.load.total = Some(0)).contains("closed loops"));
        assert!(refusal(|scenario, _| scenario.load.warmup_s = f64::NAN).contains("warm-up"));
        assert!(refusal(|scenario, _| scenario.load.warmup_s = 10.0).contains("warm-up"));
        assert!(refusal(|scenario, _| scenario.answer_timeout_s = 0.0).contains("answer"));
        assert!(refusal(|_, calls| calls.method = "get".to_owned()).contains("capitals"));
        assert!(refusal(|_, calls| calls.method = "CONNECT".to_owned()).contains("CONNECT"));
        assert!(refusal(|_, calls| calls.headers.push("a: b\r\nc: d".to_owned())).contains("name: value"));
        assert!(refusal(|_, calls| calls.body = RequestBody::Plain { bytes: usize::MAX }).contains("8 MiB"));
    }

    #[test]
    fn a_scenario_survives_json_and_is_named_by_what_it_sends() {
        let scenario = CallScenario::new(CallPath::Http(HttpCalls::events("http://h/", 300)), CallLoad::default());
        let back: CallScenario = serde_json::from_str(&serde_json::to_string(&scenario).unwrap()).unwrap();
        assert_eq!((back.name(), back.destination()), ("request", "http://h/"));
        assert_eq!(back.load, CallLoad::default());
    }
}
