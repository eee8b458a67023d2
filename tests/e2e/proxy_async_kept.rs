//! Answers that are kept: for callers that don't wait (`prefer: respond-async`), and for repeated requests
//! (`idempotency-key`). Every call has a connection of its own, so that they end up on different shards.

use crate::proxy_async::{Scene, call, question};
use crate::support::http::{Connection, Request, Response};
use crate::support::service::answer;
use crate::support::wait_for;

fn ask(data: &str) -> Request {
    Request::new("POST", "/ask").body(question(data))
}

fn keyed(key: &str, data: &str) -> Request {
    ask(data).header("idempotency-key", key)
}

fn location(response: &Response) -> String {
    assert_eq!(response.status, 202, "{}", response.text());
    assert_eq!(response.header("preference-applied"), Some("respond-async"));
    let location = response.header("location").expect("a location");
    assert!(location.starts_with("/_rig/v1/responses/"), "{location}");
    location.to_owned()
}

#[test]
fn a_caller_that_does_not_wait_fetches_its_answer_as_often_as_it_likes() {
    let Some(scene) = Scene::new("respond-async", &[]) else { return };
    let location = location(&scene.gateway.call(ask("?").header("prefer", "respond-async")));
    let request = scene.requests.next();
    for _ in 0..5 {
        assert_eq!(scene.gateway.call(Request::get(&location)).status, 202, "it isn't there yet");
    }
    scene.send(&answer(request.correlation(), &[("rig-response-code", "404"), ("x-own", "1")], "kept"));
    wait_for("the answer", || (scene.gateway.call(Request::get(&location)).status == 404).then_some(()));
    for _ in 0..5 {
        let response = scene.gateway.call(Request::get(&location));
        assert_eq!((response.status, response.text(), response.header("x-own")), (404, "kept", Some("1")));
    }
}

#[test]
fn an_answer_that_comes_within_the_preferred_wait_goes_out_at_once() {
    let Some(scene) = Scene::new("respond-async", &[]) else { return };
    let (call, request) = scene.ask_with(ask("?").header("prefer", "respond-async, wait=15"));
    scene.send(&answer(request.correlation(), &[], "soon"));
    let response = call.join().expect("no panic");
    assert_eq!((response.status, response.text()), (200, "soon"));
}

#[test]
fn fetching_may_wait_for_the_answer_too() {
    let Some(scene) = Scene::new("respond-async", &[]) else { return };
    let location = location(&scene.gateway.call(ask("?").header("prefer", "respond-async, wait=0")));
    let request = scene.requests.next();
    let fetches: Vec<_> =
        (0..4).map(|_| call(scene.gateway.inbound(), Request::get(&location).header("prefer", "wait=15"))).collect();
    scene.send(&answer(request.correlation(), &[], "awaited"));
    for fetch in fetches {
        assert_eq!(fetch.join().expect("no panic").text(), "awaited");
    }
    let fetched = scene.gateway.call(Request::new("HEAD", &location));
    assert_eq!((fetched.status, fetched.body.len()), (200, 0));
}

#[test]
fn what_was_never_asked_for_is_404() {
    let Some(scene) = Scene::new("respond-async", &[]) else { return };
    let (waiting, request) = scene.ask();
    let foreign = "A".repeat(43);
    for id in ["", "x", foreign.as_str(), request.correlation(), "%FF", "a/b"] {
        let response = scene.gateway.call(Request::get(&format!("/_rig/v1/responses/{id}")));
        assert_eq!(response.status, 404, "{id:?}");
    }
    scene.send(&answer(request.correlation(), &[], "x"));
    assert_eq!(waiting.join().expect("no panic").status, 200);
}

#[test]
fn an_answer_is_kept_for_its_time_and_no_longer() {
    let Some(scene) = Scene::new("respond-async", &[("PROXY_STORED_SECONDS", "1")]) else { return };
    let location = location(&scene.gateway.call(ask("?").header("prefer", "respond-async")));
    scene.send(&answer(scene.requests.next().correlation(), &[], "short"));
    wait_for("the answer to be forgotten", || {
        (scene.gateway.call(Request::get(&location)).status == 404).then_some(())
    });
    wait_for("its memory", || (scene.gateway.metrics().sum("tidegate_stored_answer_bytes") == 0.0).then_some(()));
}

#[test]
fn a_repeated_request_gets_the_answer_of_the_first() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    let (first, request) = scene.ask_with(keyed("k1", "?"));
    scene.send(&answer(request.correlation(), &[("rig-response-code", "201")], "once"));
    assert_eq!(first.join().expect("no panic").text(), "once");
    for _ in 0..8 {
        let repeated = scene.gateway.call(keyed("k1", "?"));
        assert_eq!((repeated.status, repeated.text()), (201, "once"));
    }
    let (other, request) = scene.ask_with(keyed("k2", "?"));
    assert_eq!(request.value["data"], "?", "the only other request the service gets is of another key");
    scene.send(&answer(request.correlation(), &[], "twice"));
    assert_eq!(other.join().expect("no panic").text(), "twice");
}

#[test]
fn the_same_key_with_another_request_is_422() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    let (first, request) = scene.ask_with(keyed("k1", "?"));
    scene.send(&answer(request.correlation(), &[], "once"));
    assert_eq!(first.join().expect("no panic").status, 200);
    let with_query = Request::new("POST", "/ask?x=1").body(question("?")).header("idempotency-key", "k1");
    for different in [keyed("k1", "!"), with_query] {
        assert_eq!(scene.gateway.call(different).status, 422);
    }
    let another_user = keyed("k1", "!").header("authorization", "Bearer another");
    let (call, request) = scene.ask_with(another_user);
    scene.send(&answer(request.correlation(), &[], "for another"));
    assert_eq!(call.join().expect("no panic").text(), "for another", "keys of different users don't meet");
}

#[test]
fn a_key_that_is_none_is_400() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    for key in ["", &"k".repeat(256), "\u{e4}"] {
        assert_eq!(scene.gateway.call(keyed(key, "?")).status, 400, "{key:?}");
    }
    assert_eq!(scene.gateway.call(keyed("a", "?").header("idempotency-key", "b")).status, 400);
}

#[test]
fn simultaneous_repetitions_wait_for_the_first() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    let calls: Vec<_> = (0..10).map(|_| call(scene.gateway.inbound(), keyed("k1", "?"))).collect();
    let request = scene.requests.next();
    scene.send(&answer(request.correlation(), &[], "for all"));
    for call in calls {
        assert_eq!(call.join().expect("no panic").text(), "for all");
    }
    // The next request in the topic is the next one made, so none of the ten was produced twice.
    let (last, request) = scene.ask_with(keyed("k2", "last"));
    assert_eq!(request.value["data"], "last");
    scene.send(&answer(request.correlation(), &[], "x"));
    assert_eq!(last.join().expect("no panic").status, 200);
}

#[test]
fn the_answer_reaches_the_repetition_of_a_client_that_hung_up() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    let mut client = Connection::open(scene.gateway.inbound());
    client.send(keyed("k1", "?").to_bytes());
    let request = scene.requests.next();
    client.reset();
    scene.send(&answer(request.correlation(), &[], "still there"));
    assert_eq!(scene.gateway.call(keyed("k1", "?")).text(), "still there");
}

#[test]
fn a_late_answer_reaches_the_repetition_of_a_call_that_timed_out() {
    let Some(scene) = Scene::new("idempotency", &[("PROXY_KAFKA_RESPONSE_TIMEOUT", "300")]) else { return };
    let (first, request) = scene.ask_with(keyed("k1", "?"));
    assert_eq!(first.join().expect("no panic").status, 504);
    scene.send(&answer(request.correlation(), &[], "late"));
    let late = wait_for("the answer", || {
        let response = scene.gateway.call(keyed("k1", "?"));
        (response.status == 200).then_some(response)
    });
    assert_eq!(late.text(), "late");
}

#[test]
fn a_request_without_answer_is_produced_once_per_key() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    let tell = |key: &str, data: &str| {
        let request = Request::new("POST", "/tell").header("idempotency-key", key).body(question(data));
        let response = scene.gateway.call(request);
        assert_eq!((response.status, response.text()), (202, "Accepted."));
    };
    for _ in 0..5 {
        tell("k1", "first");
    }
    tell("k2", "second");
    assert_eq!(scene.requests.next().value["data"], "first");
    assert_eq!(scene.requests.next().value["data"], "second");
}

#[test]
fn a_body_that_is_no_event_claims_no_key() {
    let Some(scene) = Scene::new("idempotency", &[]) else { return };
    let bad = Request::new("POST", "/tell").header("idempotency-key", "k1").body("nonsense");
    assert_eq!(scene.gateway.call(bad).status, 400);
    let good = Request::new("POST", "/tell").header("idempotency-key", "k1").body(question("?"));
    assert_eq!(scene.gateway.call(good).status, 202);
}

#[test]
fn without_room_for_answers_a_call_that_needs_it_is_503_and_others_go_on() {
    let settings = [("PROXY_STORED_BYTES", "300"), ("SHARDS", "1")];
    let Some(scene) = Scene::new("bounds", &settings) else { return };
    location(&scene.gateway.call(ask("?").header("prefer", "respond-async")));
    let refused = scene.gateway.call(ask("?").header("prefer", "respond-async"));
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("PROXY_STORED_BYTES"), "{}", refused.text());
    assert_eq!(scene.requests.next().value["data"], "?");
    let (call, request) = scene.ask();
    scene.send(&answer(request.correlation(), &[], "as ever"));
    assert_eq!(call.join().expect("no panic").text(), "as ever");
}
