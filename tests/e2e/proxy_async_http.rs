//! Backends over HTTP that say 202 and send the answer later (contract, section 4, "target http" with `response_from`).

use std::sync::mpsc::Receiver;

use serde_json::{Value, json};

use crate::proxy_async::{call, question};
use crate::support::backend::{Backend, notes};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::kafka::{Producer, gateway_on, shared_brokers, topic_name};
use crate::support::service::{answer, definitions_to};
use crate::support::{DEADLINE, jwt, wait_for};

const LATER: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\nx-backend: 1\r\n\r\nlater";

fn endpoint(response_from: &str) -> Value {
    json!({ "id": "ask", "method": "POST", "path_regex": "/ask", "target": "http", "response_from": response_from })
}

/// A gateway without Kafka whose backend answers each request with this.
fn scene(reply: &'static [u8], settings: &[(&str, &str)]) -> (Gateway, Receiver<String>) {
    scene_with(reply, settings, |_| ())
}

/// [`scene`] with a change of the API's definition.
fn scene_with(
    reply: &'static [u8],
    settings: &[(&str, &str)],
    change: impl FnOnce(&mut Value),
) -> (Gateway, Receiver<String>) {
    let (note, seen) = notes();
    let backend = Backend::answering(move |request| {
        note(request.target.clone());
        reply.to_vec()
    });
    let config = definitions_to(backend.port(), &[endpoint("http_async")]);
    let mut definitions: Value = serde_json::from_str(&config).expect("JSON");
    change(&mut definitions[0]);
    let config = definitions.to_string();
    let base = [("PROXY_CONFIG_FILE", config.as_str()), ("SHARDS", "2")];
    (Gateway::with(&[&base, settings].concat()), seen)
}

fn next_correlation(targets: &Receiver<String>) -> String {
    correlation(&targets.recv_timeout(DEADLINE).expect("a request reaches the backend"))
}

fn correlation(target: &str) -> String {
    let query = target.split_once('?').expect("a query").1;
    let ids: Vec<_> = query.split('&').filter_map(|pair| pair.strip_prefix("correlation=")).collect();
    assert_eq!(ids.len(), 1, "one correlation, the gateway's: {query}");
    ids[0].to_owned()
}

fn post_answer(gateway: &Gateway, correlation: &str, body: &str) -> Response {
    let request = Request::new("POST", "/v3/responses").header("rig-correlation", correlation);
    gateway.call_internal(request.header("rig-response-code", "201").body(body))
}

#[test]
fn after_a_202_of_the_backend_the_call_waits_for_the_answer() {
    let (gateway, targets) = scene(LATER, &[]);
    let request = Request::new("POST", "/ask?a=1&correlation=forged&b=2").body("x");
    let waiting = call(gateway.inbound(), request);
    let target = targets.recv().expect("a request");
    assert!(target.contains("a=1") && target.contains("b=2") && !target.contains("forged"), "{target}");
    let correlation = correlation(&target);
    assert_eq!(post_answer(&gateway, &correlation, "the answer").status, 202);
    let response = waiting.join().expect("no panic");
    assert_eq!((response.status, response.text()), (201, "the answer"));
    assert_eq!(response.header("x-backend"), None);
    assert_eq!(post_answer(&gateway, &correlation, "again").status, 400);
}

#[test]
fn any_other_status_of_the_backend_is_the_answer() {
    for (reply, status) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnow"[..], 200),
        (b"HTTP/1.1 409 Conflict\r\ncontent-length: 3\r\n\r\nnow", 409),
    ] {
        let (gateway, targets) = scene(reply, &[]);
        let response = gateway.call(Request::new("POST", "/ask").body("x"));
        assert_eq!((response.status, response.text()), (status, "now"));
        let correlation = correlation(&targets.recv().expect("a request"));
        assert_eq!(post_answer(&gateway, &correlation, "late").status, 400);
        gateway.wait_until_nothing_is_pending();
    }
}

#[test]
fn without_an_answer_in_time_it_is_an_empty_504() {
    let (gateway, _targets) = scene(LATER, &[("PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "200")]);
    let response = gateway.call(Request::new("POST", "/ask").body("x"));
    assert_eq!((response.status, response.body.len()), (504, 0));
}

#[test]
fn the_answer_may_take_longer_than_a_head_may() {
    let settings = [("SHARDS", "1"), ("HEADER_TIMEOUT_MS", "500"), ("PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "600000")];
    let (gateway, targets) = scene(LATER, &settings);
    let requests =
        [Request::new("POST", "/ask"), Request::new("POST", "/ask").header("prefer", "respond-async, wait=60")];
    let mut waiting = requests.map(|request| {
        let mut client = Connection::open(gateway.inbound());
        client.send(request.body("x").to_bytes());
        (next_correlation(&targets), client)
    });
    gateway.outlast_header_timeout();
    for (correlation, client) in &mut waiting {
        assert_eq!(post_answer(&gateway, correlation, "at last").status, 202);
        let response = client.response();
        assert_eq!((response.status, response.text()), (201, "at last"));
        // Nothing is under way any more: now the time for the next head counts.
        client.assert_closed();
    }
}

#[test]
fn an_upload_may_take_longer_than_all_that_comes_after_it() {
    let (note, targets) = notes();
    let backend = Backend::scripted(move |peer| {
        while let Some(head) = peer.head() {
            note(head.target.clone());
            let length = head.header("content-length").map_or(0, |length| length.parse().expect("a number"));
            if peer.exactly(length).is_none() || !peer.try_send(LATER) {
                break;
            }
        }
    });
    let config = definitions_to(backend.port(), &[endpoint("http_async")]);
    let gateway = Gateway::with(&[
        ("PROXY_CONFIG_FILE", &config),
        ("PROXY_CONNECT_TIMEOUT", "500"),
        ("PROXY_RECV_TIMEOUT", "2000"),
        ("PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "200"),
    ]);
    let mut client = Connection::open(gateway.inbound());
    client.send("POST /ask HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx");
    let slow = next_correlation(&targets);
    // Each of these waits for all the time that an answer has, so that together they outlast all times of the first one.
    for _ in 0..15 {
        assert_eq!(gateway.call(Request::new("POST", "/ask").body("x")).status, 504);
    }
    assert_eq!(post_answer(&gateway, &slow, "in time").status, 202);
    client.send("y");
    assert_eq!(client.response().text(), "in time");
}

#[test]
fn a_client_that_hangs_up_frees_its_place_at_once() {
    let (gateway, targets) = scene(LATER, &[("PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "60000")]);
    let mut client = Connection::open(gateway.inbound());
    client.send(Request::new("POST", "/ask").body("x").to_bytes());
    let correlation = correlation(&targets.recv().expect("a request"));
    gateway.wait_for_metric("tidegate_pending_requests", 1.0);
    drop(client);
    gateway.wait_until_nothing_is_pending();
    assert_eq!(post_answer(&gateway, &correlation, "x").status, 400);
}

#[test]
fn a_backend_out_of_reach_frees_the_place_too() {
    let config = definitions_to(1, &[endpoint("http_async")]);
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &config)]);
    assert_eq!(gateway.call(Request::new("POST", "/ask").body("x")).status, 502);
    gateway.wait_until_nothing_is_pending();
}

#[test]
fn a_caller_that_does_not_wait_fetches_the_answer_without_kafka_too() {
    let (gateway, targets) = scene(LATER, &[]);
    let first = gateway.call(Request::new("POST", "/ask").header("prefer", "respond-async").body("x"));
    assert_eq!(first.status, 202);
    let location = first.header("location").expect("a location").to_owned();
    assert_eq!(gateway.call(Request::get(&location)).status, 202);
    assert_eq!(post_answer(&gateway, &correlation(&targets.recv().expect("a request")), "kept").status, 202);
    let kept = wait_for("the answer", || {
        let response = gateway.call(Request::get(&location));
        (response.status == 201).then_some(response)
    });
    assert_eq!(kept.text(), "kept");
}

#[test]
fn the_answer_may_come_over_kafka() {
    let Some(brokers) = shared_brokers("answers over Kafka") else { return };
    let (targets, seen) = std::sync::mpsc::channel();
    let targets = std::sync::Mutex::new(targets);
    let backend = Backend::answering(move |request| {
        targets.lock().expect("no panic").send(request.target.clone()).expect("the test is there");
        LATER.to_vec()
    });
    let config = definitions_to(backend.port(), &[endpoint("kafka")]);
    let (producer, responses) = (Producer::new(brokers), topic_name("responses"));
    producer.create_topic(&responses, 1);
    let settings = [("PROXY_CONFIG_FILE", config.as_str()), ("PROXY_KAFKA_RESPONSE_TOPICS", &responses)];
    let gateway = gateway_on(brokers, &topic_name("events"), &settings);
    let waiting = call(gateway.inbound(), Request::new("POST", "/ask").body(question("?")));
    let correlation = correlation(&seen.recv().expect("a request"));
    producer.send(&responses, &answer(&correlation, &[], "by Kafka"));
    assert_eq!(waiting.join().expect("no panic").text(), "by Kafka");
}

#[test]
fn without_kafka_an_answer_over_kafka_is_not_waited_for() {
    let backend = Backend::saying(LATER);
    let config = definitions_to(backend.port(), &[endpoint("kafka")]);
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &config)]);
    let response = gateway.call(Request::new("POST", "/ask").body("x"));
    assert_eq!(response.status, 503);
    assert!(response.text().contains("KAFKA_BROKERS"));
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_request_repeated_with_its_key_reaches_the_backend_once_and_gets_the_later_answer() {
    let (gateway, targets) = scene(LATER, &[]);
    let keyed = |body: &str| Request::new("POST", "/ask").header("idempotency-key", "k").body(body);
    let first = call(gateway.inbound(), keyed("x"));
    let correlation = correlation(&targets.recv().expect("a request"));
    let second = call(gateway.inbound(), keyed("x"));
    assert_eq!(gateway.call(keyed("another")).status, 422);
    assert_eq!(post_answer(&gateway, &correlation, "once").status, 202);
    for waiting in [first, second] {
        let response = waiting.join().expect("no panic");
        assert_eq!((response.status, response.text()), (201, "once"));
    }
    assert_eq!((gateway.call(keyed("x")).text(), targets.try_recv().is_err()), ("once", true));
}

#[test]
fn a_key_is_its_callers_own_wherever_the_token_is() {
    let places: [fn(&str) -> Request; 4] = [
        |token| Request::new("POST", "/ask").header("x-token", token),
        |token| Request::new("POST", &format!("/ask?token={token}")),
        |token| {
            let request = Request::new("POST", "/ask").header("authorization", "Basic c2hhcmVk");
            request.header("authorization", format!("Bearer {token}"))
        },
        |token| {
            let shared = format!("Bearer {}", jwt::token(&json!({ "sub": "shared", "exp": 4_000_000_000_u64 })));
            let request = Request::new("POST", "/ask").header("authorization", shared);
            request.header("cookie", format!("other=1; token={token}"))
        },
    ];
    let settings = [jwt::SETTING, ("JWT_COOKIE", "token")];
    let (gateway, targets) = scene_with(LATER, &settings, |api| {
        api["auth_type"] = json!("jwt");
        api["auth"] = json!({ "use_header": true, "header_name": "X-Token", "use_query": true, "query_name": "token" });
        api["version_data"]["default"]["endpoints"][0]["secured"] = json!(true);
    });
    let tokens = ["me", "you"].map(|session| (session, jwt::of_session(session)));
    for (number, place) in places.into_iter().enumerate() {
        let keyed = |token: &str| place(token).header("idempotency-key", number.to_string()).body("x");
        for (whose, token) in &tokens {
            let waiting = call(gateway.inbound(), keyed(token));
            let correlation = next_correlation(&targets);
            assert_eq!(post_answer(&gateway, &correlation, whose).status, 202);
            assert_eq!(waiting.join().expect("no panic").text(), *whose, "place {number}");
        }
        for (whose, token) in &tokens {
            assert_eq!(gateway.call(keyed(token)).text(), *whose, "place {number}");
        }
        assert!(targets.try_recv().is_err(), "repetitions don't reach the backend");
    }
}

#[test]
fn the_backends_own_answer_is_kept_for_its_key_unless_it_failed() {
    for (reply, requests) in [
        (&b"HTTP/1.1 200 OK\r\nx-backend: 1\r\ncontent-length: 3\r\n\r\nnow"[..], 1),
        (b"HTTP/1.1 200 OK\r\nx-backend: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nnow\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 409 Conflict\r\nx-backend: 1\r\ncontent-length: 3\r\n\r\nnow", 1),
        (b"HTTP/1.1 500 Oops\r\nx-backend: 1\r\ncontent-length: 3\r\n\r\nnow", 3),
    ] {
        let (gateway, targets) = scene(reply, &[]);
        for _ in 0..3 {
            let response = gateway.call(Request::new("POST", "/ask").header("idempotency-key", "k").body("x"));
            assert_eq!((response.text(), response.header("x-backend")), ("now", Some("1")));
        }
        assert_eq!(targets.try_iter().count(), requests, "{}", String::from_utf8_lossy(reply));
        gateway.wait_until_nothing_is_pending();
    }
}

#[test]
fn a_request_with_a_key_goes_on_although_its_client_has_gone() {
    let (gateway, targets) = scene(LATER, &[]);
    let keyed = || Request::new("POST", "/ask").header("idempotency-key", "k").body("x");
    let mut client = Connection::open(gateway.inbound());
    client.send(keyed().to_bytes());
    let correlation = correlation(&targets.recv().expect("a request"));
    drop(client);
    assert_eq!(post_answer(&gateway, &correlation, "kept").status, 202);
    assert_eq!(gateway.call(keyed()).text(), "kept");
}

#[test]
fn a_backend_out_of_reach_may_be_asked_again_with_the_same_key() {
    let config = definitions_to(1, &[endpoint("http_async")]);
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &config)]);
    for _ in 0..2 {
        let request = Request::new("POST", "/ask").header("idempotency-key", "k").body("x");
        assert_eq!(gateway.call(request).status, 502);
    }
    gateway.wait_until_nothing_is_pending();
}
