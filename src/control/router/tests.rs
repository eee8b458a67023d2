use std::sync::Mutex;

use axum::http::request::Builder;
use futures_channel::oneshot;
use tidegate_shards::submit::{Submission, SubmitAnswer};

use tidegate_reactive::correlation::CorrelationKey;
use tidegate_shards::node::Answers;

use super::*;
use crate::proxy::apis::ApiSources;
use crate::replies::{Correlator, ReplyMetrics};
use crate::sessions::BlacklistSources;

/// Keeps what it gets, and answers as told.
struct Keeper {
    kept: Mutex<Vec<Submission>>,
    answer: Result<(), SubmitError>,
}

impl EventSink for Keeper {
    fn submit(&self, events: Vec<Submission>) -> SubmitAnswer {
        self.kept.lock().expect("no panic").extend(events);
        let (sender, receiver) = oneshot::channel();
        sender.send(self.answer.clone()).expect("the receiver is there");
        receiver
    }
}

fn call(request: Builder, body: &'static str, answer: Result<(), SubmitError>) -> (Response, Vec<Submission>) {
    let keeper = Arc::new(Keeper { kept: Mutex::default(), answer });
    let api = Api {
        access: Access::default(),
        health: Health { ping: Arc::new(|_| oneshot::channel().1), shards: 0, kafka: None, draining: Arc::default() },
        metrics: None,
        apis: apis_in_memory(),
        blacklist: Blacklist::open(&BlacklistSources { kafka: None, state_dir: None }).expect("nothing to read"),
        sink: Arc::clone(&keeper) as Arc<dyn EventSink>,
        desk: AnswerDesk {
            correlator: Correlator::new(CorrelationKey::derive_from(b"secret"), 1 << 16, 0),
            answers: Answers::default(),
            metrics: Arc::new(ReplyMetrics::new(&[])),
            nodes: None,
        },
        limits: EventLimits { max_depth: 128, max_body_bytes: 1_000 },
    };
    let request = request.body(Body::from(body)).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let response = runtime.block_on(dispatch(State(Arc::new(api)), request));
    let kept = std::mem::take(&mut *keeper.kept.lock().expect("no panic"));
    (response, kept)
}

fn apis_in_memory() -> Arc<Apis> {
    let sources =
        ApiSources { definitions: &[], kafka: None, state_dir: None, avro: false, node_name: "node", shards: 1 };
    Apis::open(&sources).expect("nothing to read")
}

fn text(response: Response) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let bytes = runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path)
}

const EVENT: &str = r#"{"specversion":"0.2","type":"t","id":"1","source":"/"}"#;

#[test]
fn publishing_answers_with_the_events_text_as_a_json_string() {
    for path in ["/v3/messages", "/v2/messages", "/v3/messages/"] {
        let request = request(Method::POST, path).header("content-type", "application/cloudevents+json");
        let (response, kept) = call(request, EVENT, Ok(()));
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{path}");
        assert_eq!(kept.len(), 1);
        assert_eq!(text(response), serde_json::to_string(EVENT).expect("JSON"));
    }
}

#[test]
fn unknown_paths_and_wrong_methods_are_not_found() {
    for (method, path) in [(Method::GET, "/v3/messages"), (Method::GET, "/v1/messages"), (Method::OPTIONS, "/health")] {
        let (response, _) = call(request(method, path), "", Ok(()));
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(text(response), r#"{"errors":{"detail":"Not found"}}"#);
    }
}

#[test]
fn health_is_plain_text_with_any_number_of_slashes() {
    for path in ["/health", "/health/", "//health"] {
        let (response, _) = call(request(Method::GET, path), "", Ok(()));
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(text(response), "OK");
    }
}

#[test]
fn bad_bodies_get_rigs_error_object() {
    let json = || request(Method::POST, "/v3/messages").header("content-type", "application/json");
    let large: &'static str = Box::leak(format!("{{\"a\":\"{}\"}}", "x".repeat(2_000)).into_boxed_str());
    let plain = request(Method::POST, "/v3/messages").header("content-type", "text/plain");
    for (request, body, status) in [
        (json(), "{", StatusCode::BAD_REQUEST),
        (json(), large, StatusCode::PAYLOAD_TOO_LARGE),
        (plain, EVENT, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let (response, kept) = call(request, body, Ok(()));
        assert_eq!((response.status(), kept.len()), (status, 0));
        assert_eq!(text(response), r#"{"errors":{"detail":"Bad request"}}"#);
    }
}

#[test]
fn a_hub_that_takes_nothing_says_whether_a_retry_helps() {
    let json = || request(Method::POST, "/v3/messages").header("content-type", "application/json");
    let (response, _) = call(json(), EVENT, Err(SubmitError::Unreachable("no broker".to_owned())));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let (response, _) = call(json(), EVENT, Err(SubmitError::Refused("too large".to_owned())));
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!response.headers().contains_key("retry-after"));
}
