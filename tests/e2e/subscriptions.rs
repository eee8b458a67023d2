//! Subscriptions by query and by PUT: contract, sections 1 and 2.

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, put_request, query, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::wait_for;

fn target(token: &str) -> String {
    format!("/_rig/v1/connection/sse/{token}/subscriptions")
}

/// A PUT with this content type and body.
fn put(gateway: &Gateway, token: &str, content_type: &str, body: &str) -> crate::support::http::Response {
    gateway.call(Request::new("PUT", &target(token)).header("content-type", content_type).body(body))
}

#[test]
fn a_put_replaces_the_subscriptions_of_each_transport() {
    let gateway = Gateway::start();
    for transport in TRANSPORTS {
        let mut client = Client::of_type(&gateway, transport, "before");
        let set = client.replace(&to_type("after"));
        assert_eq!(set, json!([{ "eventType": "after", "oneOf": [] }]), "{transport:?}");
        publish(&gateway, &event("before", "1", &json!(null)));
        publish(&gateway, &event("after", "2", &json!(null)));
        client.expect_ids(&["2"]);
    }
}

#[test]
fn any_of_the_three_paths_works_for_any_token() {
    let gateway = Gateway::start();
    for transport in TRANSPORTS {
        let mut client = Client::of_type(&gateway, transport, "greeting");
        for path in TRANSPORTS {
            assert_eq!(client.put(path, &to_type("greeting")).status, 204, "{transport:?} through {path:?}");
            assert_eq!(client.next()["type"], "rig.subscriptions_set");
        }
    }
}

#[test]
fn a_put_reaches_the_connection_on_whichever_shard_it_lives() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    // Each connection lands on a shard by its port, and so does each PUT: enough of both to meet every pair.
    let mut clients: Vec<_> =
        (0..24).map(|number| Client::of_type(&gateway, TRANSPORTS[number % 3], "before")).collect();
    let shards = gateway.metrics().label_values("tidegate_", "shard").len();
    assert_eq!(shards, 2, "both shards report");
    for client in &mut clients {
        client.replace(&to_type("after"));
    }
    publish(&gateway, &event("before", "1", &json!(null)));
    publish(&gateway, &event("after", "2", &json!(null)));
    for client in &mut clients {
        client.expect_ids(&["2"]);
    }
}

#[test]
fn a_successful_put_answers_204_without_a_body() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let response = client.put(Transport::Sse, &to_type("greeting"));
    assert_eq!((response.status, response.text()), (204, ""));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("content-type"), None);
}

#[test]
fn a_put_may_send_other_content_types_for_json_only() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let body = r#"{"subscriptions":[]}"#;
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(put(&gateway, &client.token, content_type, body).status, 204, "{content_type}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense", "*/*", ""] {
        assert_eq!(put(&gateway, &client.token, content_type, body).status, 400, "{content_type:?}");
    }
    let without = Request::new("PUT", &target(&client.token)).body(body);
    assert_eq!(gateway.call(without).status, 400, "no content type");
}

#[test]
fn a_failed_put_changes_nothing() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for body in ["", "nonsense", "[]", "{}", r#"{"subscriptions":5}"#, r#"{"subscriptions":[{}]}"#] {
        assert_eq!(put(&gateway, &client.token, "application/json", body).status, 400, "{body}");
    }
    let one_bad = json!([{ "eventType": "other" }, { "eventType": 5 }]);
    assert_eq!(client.put(Transport::Sse, &one_bad).status, 400);
    publish(&gateway, &event("other", "1", &json!(null)));
    publish(&gateway, &event("greeting", "2", &json!(null)));
    client.expect_ids(&["2"]);
}

#[test]
fn the_put_names_its_errors_in_the_order_of_the_contract() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let bad_bearer = |token: &str, body: &str| {
        let request = Request::new("PUT", &target(token)).header("content-type", "application/json");
        gateway.call(request.header("authorization", "Bearer nonsense").body(body))
    };
    let gone = {
        let short_lived = Client::of_type(&gateway, Transport::Sse, "greeting");
        short_lived.token.clone()
    };
    wait_for("the connection to be gone", || {
        (gateway.call(put_request("sse", &gone, &json!([]))).status == 410).then_some(())
    });
    let bad_list = r#"{"subscriptions":[{}]}"#;

    let body_before_token = bad_bearer("malformed", "nonsense");
    assert_eq!(body_before_token.status, 400);
    assert_ne!(body_before_token.text(), "Invalid connection token.", "the body is looked at first");

    let token_before_list = bad_bearer("malformed", bad_list);
    assert_eq!((token_before_list.status, token_before_list.text()), (400, "Invalid connection token."));

    let gone_before_list = bad_bearer(&gone, bad_list);
    assert_eq!((gone_before_list.status, gone_before_list.text()), (410, "Connection no longer exists."));

    assert_eq!(bad_bearer(&client.token, r#"{"subscriptions":[]}"#).status, 400, "a bad Bearer token");
    assert_eq!(put(&gateway, &client.token, "application/json", bad_list).status, 400, "a bad list");
}

#[test]
fn tokens_that_are_malformed_cut_short_or_foreign_are_refused() {
    let gateway = Gateway::start();
    let other = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let foreign = Client::of_type(&other, Transport::Sse, "greeting");
    let own = &client.token;
    let mut altered = own.clone().into_bytes();
    altered[20] = if altered[20] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).expect("ASCII");
    for token in
        ["nonsense", "AAAA", "g2", &"A".repeat(84), &own[..83], &own[..40], &altered, "%FF%FF", &"A".repeat(4000)]
    {
        let response = gateway.call(put_request("sse", token, &json!([])));
        assert_eq!((response.status, response.text()), (400, "Invalid connection token."), "{token}");
    }
    let response = gateway.call(put_request("sse", &foreign.token, &json!([])));
    assert!(matches!(response.status, 400 | 410), "a token of another node: {response:?}");
    drop(foreign);
}

#[test]
fn each_shown_token_differs_and_all_stay_valid() {
    let gateway = Gateway::start();
    let clients: Vec<_> = (0..4).map(|_| Client::of_type(&gateway, Transport::Sse, "greeting")).collect();
    for (index, client) in clients.iter().enumerate() {
        assert!(clients[..index].iter().all(|other| other.token != client.token));
        for _ in 0..2 {
            assert_eq!(client.put(Transport::Sse, &json!([])).status, 204);
        }
        let escaped = client.token.replace('=', "%3D");
        assert_eq!(gateway.call(put_request("ws", &escaped, &json!([]))).status, 204, "with %3D for =");
    }
}

#[test]
fn query_parameters_of_a_put_are_ignored() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let target = format!("{}?{}&jwt=nonsense", target(&client.token), query(&to_type("other")));
    let request = Request::new("PUT", &target).json(&json!({ "subscriptions": to_type("third") }));
    assert_eq!(gateway.call(request).status, 204);
    assert_eq!(client.next()["data"][0]["eventType"], "third");
}

#[test]
fn all_spellings_are_accepted_and_the_winners_are_as_in_rig() {
    let gateway = Gateway::start();
    for (given, echoed) in [
        (json!({ "eventType": "a" }), json!({ "eventType": "a", "oneOf": [] })),
        (json!({ "event_type": "a", "eventType": "b" }), json!({ "eventType": "a", "oneOf": [] })),
        (json!({ "eventType": "a", "oneOf": [{}] }), json!({ "eventType": "a", "oneOf": [{}] })),
        (json!({ "eventType": "a", "one_of": [{ "x": 1 }] }), json!({ "eventType": "a", "oneOf": [{ "x": 1 }] })),
        (
            json!({ "eventType": "a", "oneOf": [{ "x": 1 }], "one_of": [{ "x": 2 }] }),
            json!({ "eventType": "a", "oneOf": [{ "x": 2 }] }),
        ),
        (
            json!({ "eventType": "a", "oneOf": [{ "x": 1 }], "one_of": [{ "x": 2 }], "constraints": [{ "x": 3 }] }),
            json!({ "eventType": "a", "oneOf": [{ "x": 3 }] }),
        ),
        (json!({ "eventType": "a", "unknown": true }), json!({ "eventType": "a", "oneOf": [] })),
    ] {
        let mut client = Client::subscribe(&gateway, Transport::Sse, &json!([given]));
        assert_eq!(client.subscriptions, json!([echoed]), "{given} on connect");
        assert_eq!(client.replace(&json!([given])), json!([echoed]), "{given} on the PUT");
    }
}

#[test]
fn the_echo_keeps_the_order_sent_and_sorts_nested_keys() {
    let gateway = Gateway::start();
    let subscriptions = json!([
        { "eventType": "z" },
        { "eventType": "a", "oneOf": [{ "b": 2, "a": { "d": 123_456_789_012_345_678_u64, "c": null } }] },
    ]);
    let client = Client::subscribe(&gateway, Transport::Sse, &subscriptions);
    let types: Vec<_> = client.subscriptions.as_array().expect("a list").iter().map(|s| &s["eventType"]).collect();
    assert_eq!(types, ["z", "a"]);
    assert_eq!(client.subscriptions[1]["oneOf"].to_string(), r#"[{"a":{"c":null,"d":123456789012345678},"b":2}]"#);
}

#[test]
fn exact_duplicates_are_dropped_on_connect() {
    let gateway = Gateway::start();
    let twice = json!([{ "eventType": "a" }, { "eventType": "a", "oneOf": [] }, { "eventType": "a" }]);
    let client = Client::subscribe(&gateway, Transport::Sse, &twice);
    assert_eq!(client.subscriptions, json!([{ "eventType": "a", "oneOf": [] }]));
}

#[test]
fn an_empty_list_is_a_valid_put() {
    let gateway = Gateway::start();
    let mut client = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    assert_eq!(client.replace(&json!([])), json!([]));
    publish(&gateway, &event("greeting", "1", &json!(null)));
    client.replace(&to_type("greeting"));
    publish(&gateway, &event("greeting", "2", &json!(null)));
    client.expect_ids(&["2"]);
}

#[test]
fn a_null_or_missing_list_is_refused() {
    let gateway = Gateway::start();
    let client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for subscriptions in [Value::Null, json!("x"), json!({}), json!([null]), json!(["greeting"]), json!([[]])] {
        assert_eq!(client.put(Transport::Sse, &subscriptions).status, 400, "{subscriptions}");
    }
}

#[test]
fn the_subscriptions_gauge_follows_connects_puts_and_disconnects() {
    let gateway = Gateway::start();
    let total = |gateway: &Gateway| gateway.metrics().sum("rig_subscriptions_total");
    let wait_for_total = |gateway: &Gateway, expected: f64| {
        wait_for(&format!("{expected} subscriptions"), || (total(gateway) == expected).then_some(()));
    };
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    wait_for_total(&gateway, 1.0);
    client.replace(&json!([{ "eventType": "a" }, { "eventType": "b" }, { "eventType": "c" }]));
    wait_for_total(&gateway, 3.0);
    drop(client);
    wait_for_total(&gateway, 0.0);
}
