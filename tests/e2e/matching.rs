//! What matches what: contract, section 2.

use serde_json::json;

use crate::support::clients::{Client, Transport};
use crate::support::events::{accepted, binary, publish_text};
use crate::support::gateway::Gateway;

const EXTRACTORS: &str = r#"{"order":{
    "value":{"stable_field_index":1,"event":{"json_pointer":"/data/value"}},
    "second":{"stable_field_index":2,"event":{"json_pointer":"/data/second"}},
    "source":{"stable_field_index":3,"event":{"json_pointer":"/source"}},
    "whole":{"stable_field_index":4,"event":{"json_pointer":"/data"}},
    "escaped":{"stable_field_index":5,"event":{"json_pointer":"/data/a~1b~0c"}},
    "element":{"stable_field_index":6,"event":{"json_pointer":"/data/list/1"}},
    "empty":{"stable_field_index":7,"event":{"json_pointer":"/data/"}},
    "extension":{"stable_field_index":8,"event":{"json_pointer":"/myext"}},
    "deep":{"stable_field_index":9,"event":{"json_pointer":"/data/value/inner"}}
}}"#;

fn gateway() -> Gateway {
    Gateway::with(&[("EXTRACTORS", EXTRACTORS)])
}

/// Asserts for each case (constraint object, `data` as text) whether the event reaches the subscriber.
fn assert_matches(cases: &[(&str, &str, bool)]) {
    let gateway = gateway();
    for (case, (constraint, data, expected)) in cases.iter().enumerate() {
        let constraint: serde_json::Value = serde_json::from_str(constraint).expect("the case is JSON");
        let subscriptions = json!([{ "eventType": "order", "oneOf": [constraint] }, { "eventType": "end" }]);
        let mut client = Client::subscribe(&gateway, Transport::Sse, &subscriptions);
        let envelope = r#""specversion":"0.2","source":"/test","myext":{"a":1}"#;
        let (it, end) = (format!("it {case}"), format!("end {case}"));
        publish_text(&gateway, &format!(r#"{{{envelope},"type":"order","id":"{it}","data":{data}}}"#));
        publish_text(&gateway, &format!(r#"{{{envelope},"type":"end","id":"{end}"}}"#));
        // The end of the case before may still be on its way when this client's subscriptions come into force.
        let first = std::iter::repeat_with(|| client.next_id()).find(|id| *id == it || *id == end);
        let matched = first == Some(it);
        assert_eq!(matched, *expected, "constraint {constraint} against data {data}");
    }
}

#[test]
fn values_are_compared_by_their_json_value() {
    assert_matches(&[
        (r#"{"value":"John"}"#, r#"{"value":"John"}"#, true),
        (r#"{"value":"John"}"#, r#"{"value":"john"}"#, false),
        (r#"{"value":"John"}"#, r#"{"value":"\u004aohn"}"#, true),
        (r#"{"value":"a\"\\\/b"}"#, r#"{"value":"a\"\\/b"}"#, true),
        (r#"{"value":1}"#, r#"{"value":1.0}"#, true),
        (r#"{"value":100}"#, r#"{"value":1e2}"#, true),
        (r#"{"value":1.5}"#, r#"{"value":15e-1}"#, true),
        (r#"{"value":0}"#, r#"{"value":-0.0}"#, true),
        (r#"{"value":1}"#, r#"{"value":"1"}"#, false),
        (r#"{"value":"1"}"#, r#"{"value":1}"#, false),
        (r#"{"value":true}"#, r#"{"value":true}"#, true),
        (r#"{"value":true}"#, r#"{"value":"true"}"#, false),
        (r#"{"value":true}"#, r#"{"value":1}"#, false),
        (r#"{"value":false}"#, r#"{"value":false}"#, true),
        (r#"{"value":""}"#, r#"{"value":""}"#, true),
        (r#"{"value":{"a":1,"b":[2]}}"#, r#"{"value":{"b":[2.0],"a":1}}"#, true),
        (r#"{"value":{"a":1}}"#, r#"{"value":{"a":1,"b":2}}"#, false),
    ]);
}

#[test]
fn integers_of_any_length_are_compared_exactly() {
    assert_matches(&[
        (r#"{"value":12345678901234567890123}"#, r#"{"value":12345678901234567890123}"#, true),
        (r#"{"value":12345678901234567890123}"#, r#"{"value":12345678901234567890124}"#, false),
        (r#"{"value":9007199254740993}"#, r#"{"value":9007199254740992}"#, false),
        (r#"{"value":9007199254740993}"#, r#"{"value":9007199254740993.0}"#, true),
    ]);
}

#[test]
fn a_list_in_the_event_matches_by_membership() {
    assert_matches(&[
        (r#"{"value":"b"}"#, r#"{"value":["a","b"]}"#, true),
        (r#"{"value":"c"}"#, r#"{"value":["a","b"]}"#, false),
        (r#"{"value":"c"}"#, r#"{"value":[]}"#, false),
        (r#"{"value":2}"#, r#"{"value":[1,2.0]}"#, true),
        (r#"{"value":["a","b"]}"#, r#"{"value":["a","b"]}"#, true),
        (r#"{"value":"a"}"#, r#"{"value":["a","a"]}"#, true),
    ]);
}

#[test]
fn null_in_a_constraint_matches_anything() {
    assert_matches(&[
        (r#"{"value":null}"#, r#"{"value":"x"}"#, true),
        (r#"{"value":null}"#, r#"{"value":null}"#, true),
        (r#"{"value":null,"second":1}"#, r#"{"value":5,"second":1}"#, true),
        (r#"{"value":null,"second":1}"#, r#"{"value":5,"second":2}"#, false),
    ]);
}

#[test]
fn a_constraint_whose_field_is_absent_does_not_match() {
    assert_matches(&[
        (r#"{"value":"x"}"#, "{}", false),
        (r#"{"value":"x"}"#, "null", false),
        (r#"{"value":"x"}"#, r#"{"value":null}"#, false),
        (r#"{"deep":"x"}"#, r#"{"value":"x"}"#, false),
    ]);
}

#[test]
fn all_fields_of_an_object_must_hold() {
    assert_matches(&[
        (r#"{"value":1,"second":2}"#, r#"{"value":1,"second":2}"#, true),
        (r#"{"value":1,"second":2}"#, r#"{"value":1,"second":3}"#, false),
        (r#"{"value":1,"second":2}"#, r#"{"value":1}"#, false),
        (r#"{"value":1,"second":2,"source":"/test"}"#, r#"{"value":[0,1],"second":2}"#, true),
        ("{}", r#"{"value":1}"#, true),
    ]);
}

#[test]
fn one_object_of_several_is_enough() {
    let gateway = gateway();
    let subscriptions = json!([{ "eventType": "order", "oneOf": [{ "value": 1 }, { "value": 2, "second": 2 }] }]);
    let mut client = Client::subscribe(&gateway, Transport::WebSocket, &subscriptions);
    for (id, data) in
        [("a", r#"{"value":1}"#), ("b", r#"{"value":2}"#), ("c", r#"{"value":2,"second":2}"#), ("d", r#"{"value":1}"#)]
    {
        publish_text(
            &gateway,
            &format!(r#"{{"specversion":"0.2","type":"order","source":"/t","id":"{id}","data":{data}}}"#),
        );
    }
    client.expect_ids(&["a", "c", "d"]);
}

#[test]
fn pointers_reach_envelope_escapes_elements_and_data_itself() {
    assert_matches(&[
        (r#"{"source":"/test"}"#, "{}", true),
        (r#"{"source":"/other"}"#, "{}", false),
        (r#"{"whole":"text"}"#, r#""text""#, true),
        (r#"{"whole":5}"#, "5", true),
        (r#"{"escaped":1}"#, r#"{"a/b~c":1}"#, true),
        (r#"{"element":"second"}"#, r#"{"list":["first","second"]}"#, true),
        (r#"{"element":"first"}"#, r#"{"list":["first","second"]}"#, false),
        (r#"{"element":"x"}"#, r#"{"list":["only"]}"#, false),
        (r#"{"empty":1}"#, r#"{"":1}"#, true),
        (r#"{"extension":{"a":1}}"#, "{}", true),
    ]);
}

#[test]
fn the_first_of_duplicate_keys_counts() {
    assert_matches(&[
        (r#"{"value":1}"#, r#"{"value":1,"value":2}"#, true),
        (r#"{"value":2}"#, r#"{"value":1,"value":2}"#, false),
    ]);
}

#[test]
fn types_are_compared_exactly() {
    let gateway = Gateway::start();
    let subscriptions = json!([{ "eventType": "order" }, { "eventType": "end" }]);
    let mut client = Client::subscribe(&gateway, Transport::Sse, &subscriptions);
    for other in ["Order", "order ", "orders", "orde", "order.*", "*"] {
        let text = json!({ "specversion": "0.2", "type": other, "source": "/t", "id": other }).to_string();
        publish_text(&gateway, &text);
    }
    publish_text(&gateway, r#"{"specversion":"0.2","type":"end","source":"/t","id":"end"}"#);
    client.expect_ids(&["end"]);
}

#[test]
fn a_wildcard_is_an_ordinary_type() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "*");
    publish_text(&gateway, r#"{"specversion":"0.2","type":"order","source":"/t","id":"1"}"#);
    publish_text(&gateway, r#"{"specversion":"0.2","type":"*","source":"/t","id":"2"}"#);
    client.expect_ids(&["2"]);
}

#[test]
fn a_constraint_without_extractor_is_accepted_echoed_ignored_and_counted() {
    let gateway = gateway();
    let subscriptions = json!([{ "eventType": "order", "oneOf": [{ "unknown": 1 }] }]);
    let mut client = Client::subscribe(&gateway, Transport::Sse, &subscriptions);
    assert_eq!(client.subscriptions, subscriptions, "echoed");
    publish_text(&gateway, r#"{"specversion":"0.2","type":"order","source":"/t","id":"1","data":{"unknown":2}}"#);
    client.expect_ids(&["1"]);

    let set = client.replace(&json!([{ "eventType": "order", "oneOf": [{ "unknown": 1, "value": "x" }] }]));
    assert_eq!(set[0]["oneOf"], json!([{ "unknown": 1, "value": "x" }]));
    publish_text(&gateway, r#"{"specversion":"0.2","type":"order","source":"/t","id":"2","data":{"value":"y"}}"#);
    publish_text(&gateway, r#"{"specversion":"0.2","type":"order","source":"/t","id":"3","data":{"value":"x"}}"#);
    client.expect_ids(&["3"]);
    gateway.wait_for_metric("tidegate_constraints_ignored_total", 2.0);
}

#[test]
fn strict_constraints_refuse_fields_without_extractor() {
    let gateway = Gateway::with(&[("EXTRACTORS", EXTRACTORS), ("STRICT_CONSTRAINTS", "true")]);
    let unknown = json!([{ "eventType": "order", "oneOf": [{ "unknown": 1 }] }]);
    let client = Client::of_type(&gateway, Transport::Sse, "order");
    let response = client.put(Transport::Sse, &unknown);
    assert_eq!(response.status, 400);
    assert!(response.text().contains("unknown"), "the field is named: {:?}", response.text());
    let known = json!([{ "eventType": "order", "oneOf": [{ "value": 1 }] }]);
    assert_eq!(client.put(Transport::Sse, &known).status, 204);
}

#[test]
fn binary_events_are_matched_like_structured_ones() {
    let gateway = gateway();
    let subscriptions = json!([{ "eventType": "order", "oneOf": [{ "value": "x" }] }]);
    let mut client = Client::subscribe(&gateway, Transport::Sse, &subscriptions);
    accepted(&gateway, binary("order", "1", "application/json", r#"{"value":"y"}"#));
    accepted(&gateway, binary("order", "2", "application/json", r#"{"value":"x"}"#));
    accepted(&gateway, binary("order", "3", "text/plain", r#"{"value":"x"}"#));
    accepted(&gateway, binary("order", "4", "application/json", r#"{"value":["x"]}"#));
    client.expect_ids(&["2", "4"]);
}
