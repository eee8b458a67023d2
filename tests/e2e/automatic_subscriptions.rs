//! What a token's claims subscribe its bearer to: contract, section 2.

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, put_request, query, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::http2::Http2Connection;
use crate::support::jwt::{self, token};
use crate::support::sse::EventStream;

const EXTRACTORS: &str = r#"{
  "message": {
    "user": {"stable_field_index": 1, "jwt": {"json_pointer": "/user"}, "event": {"json_pointer": "/data/user"}},
    "room": {"stable_field_index": 2, "event": {"json_pointer": "/data/room"}}},
  "alert": {"team": {"stable_field_index": 1, "jwt": {"json_pointer": "/teams"}, "event": {"json_pointer": "/data/team"}}}}"#;

fn with_extractors(settings: &[(&str, &str)]) -> Gateway {
    Gateway::with(&[&[jwt::SETTING, ("EXTRACTORS", EXTRACTORS)], settings].concat())
}

fn connect<'a>(gateway: &'a Gateway, transport: Transport, claims: &Value, manual: &Value) -> Client<'a> {
    Client::with_query(gateway, transport, &format!("jwt={}&{}", token(claims), query(manual)))
}

fn message(gateway: &Gateway, id: &str, data: &Value) {
    publish(gateway, &event("message", id, data));
}

#[test]
fn claims_subscribe_on_every_transport_before_the_manual_ones() {
    let gateway = with_extractors(&[]);
    for transport in TRANSPORTS {
        let mut client = connect(&gateway, transport, &json!({ "user": "u1", "teams": "t" }), &to_type("other"));
        let expected = json!([
            { "eventType": "alert", "oneOf": [{ "team": "t" }] },
            { "eventType": "message", "oneOf": [{ "user": "u1" }] },
            { "eventType": "other", "oneOf": [] },
        ]);
        assert_eq!(client.subscriptions, expected, "{transport:?}");
        message(&gateway, "theirs", &json!({ "user": "u2" }));
        message(&gateway, "mine", &json!({ "user": "u1" }));
        client.expect_ids(&["mine"]);
    }
}

#[test]
fn claims_subscribe_on_http2_too() {
    let gateway = with_extractors(&[]);
    let connection = Http2Connection::open(&gateway);
    let (_, mut stream) = connection.event_stream(&format!("jwt={}", token(&json!({ "user": "u1" }))));
    stream.next_event();
    assert!(stream.next_event().data.contains(r#"[{"eventType":"message","oneOf":[{"user":"u1"}]}]"#));
}

#[test]
fn a_valid_header_counts_where_there_is_no_parameter_and_a_bad_one_refuses_nothing() {
    let gateway = with_extractors(&[]);
    let open = |authorization: &str, query: &str| {
        let request = Request::get(&format!("/_rig/v1/connection/sse?{query}")).header("authorization", authorization);
        let mut stream = EventStream::with_request(&gateway, &request);
        stream.next_event();
        let set: Value = serde_json::from_str(&stream.next_event().data).expect("JSON");
        set["data"].clone()
    };
    let bearer = |user: &str| format!("Bearer {}", token(&json!({ "user": user })));
    assert_eq!(open(&bearer("u1"), ""), json!([{ "eventType": "message", "oneOf": [{ "user": "u1" }] }]));
    let parameter = format!("jwt={}", token(&json!({ "user": "u2" })));
    assert_eq!(open(&bearer("u1"), &parameter), json!([{ "eventType": "message", "oneOf": [{ "user": "u2" }] }]));
    for bad in ["Bearer x.y.z", "Bearer ", "Basic dTpw", &format!("{}x", bearer("u1"))] {
        assert_eq!(open(bad, ""), json!([]), "{bad}");
    }
}

#[test]
fn a_list_in_a_claim_stands_for_any_of_its_elements() {
    let gateway = with_extractors(&[]);
    let mut client = connect(&gateway, Transport::Sse, &json!({ "teams": ["a", null, "b"] }), &json!([]));
    assert_eq!(client.subscriptions, json!([{ "eventType": "alert", "oneOf": [{ "team": "a" }, { "team": "b" }] }]));
    for (id, team) in [("1", "a"), ("2", "c"), ("3", "b")] {
        publish(&gateway, &event("alert", id, &json!({ "team": team })));
    }
    client.expect_ids(&["1", "3"]);
}

#[test]
fn a_null_claim_gets_nobodys_events() {
    let gateway = with_extractors(&[]);
    for transport in TRANSPORTS {
        for user in [json!(null), json!([]), json!([null])] {
            let mut client = connect(&gateway, transport, &json!({ "user": user }), &to_type("end"));
            assert_eq!(client.subscriptions, to_echo("end"), "{user} on {transport:?}");
            message(&gateway, "somebody's", &json!({ "user": "u1" }));
            message(&gateway, "nobody's", &json!({ "user": null }));
            publish(&gateway, &event("end", "end", &json!(null)));
            client.expect_ids(&["end"]);
        }
    }
}

fn to_echo(event_type: &str) -> Value {
    json!([{ "eventType": event_type, "oneOf": [] }])
}

#[test]
fn scalars_and_odd_shapes_under_a_pointer_break_nothing() {
    let gateway = with_extractors(&[]);
    for user in [json!(7), json!(true), json!(1.50), json!({ "a": 1 }), json!("ü\n\"")] {
        for transport in TRANSPORTS {
            let client = connect(&gateway, transport, &json!({ "user": user }), &json!([]));
            assert_eq!(client.subscriptions, json!([{ "eventType": "message", "oneOf": [{ "user": user }] }]));
        }
    }
}

#[test]
fn a_put_takes_them_from_its_own_header_and_they_vanish_without() {
    let gateway = with_extractors(&[]);
    for transport in TRANSPORTS {
        let mut client = connect(&gateway, transport, &json!({ "user": "u1" }), &json!([]));
        let put = |client: &Client<'_>, authorization: Option<String>| {
            let request = put_request(transport.path(), &client.token, &to_type("other"));
            let request =
                authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
            gateway.call(request).status
        };
        let bearer = format!("Bearer {}", token(&json!({ "user": "u2" })));
        assert_eq!(put(&client, Some(bearer)), 204, "{transport:?}");
        let own =
            json!([{ "eventType": "message", "oneOf": [{ "user": "u2" }] }, { "eventType": "other", "oneOf": [] }]);
        assert_eq!(client.next()["data"], own);
        assert_eq!(put(&client, Some("Bearer x.y.z".to_owned())), 400, "and nothing changes");
        message(&gateway, "still", &json!({ "user": "u2" }));
        client.expect_ids(&["still"]);
        assert_eq!(put(&client, None), 204);
        assert_eq!(client.next()["data"], to_echo("other"));
        message(&gateway, "gone", &json!({ "user": "u2" }));
        publish(&gateway, &event("other", "other", &json!(null)));
        client.expect_ids(&["other"]);
    }
}

#[test]
fn the_claims_of_several_tokens_on_a_put_are_united_and_the_first_wins() {
    let gateway = with_extractors(&[]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    let bearer = |claims: Value| format!("Bearer {}", token(&claims));
    let (first, second) = (bearer(json!({ "user": "u1" })), bearer(json!({ "user": "u2", "teams": "t" })));
    let expected = json!([
        { "eventType": "alert", "oneOf": [{ "team": "t" }] },
        { "eventType": "message", "oneOf": [{ "user": "u1" }] },
    ]);
    let put = || put_request("sse", &client.token, &json!([]));
    let twice = put().header("authorization", &first).header("authorization", &second);
    let joined = put().header("authorization", format!("{first}, {second}"));
    for request in [twice, joined] {
        assert_eq!(gateway.call(request).status, 204);
        assert_eq!(client.next()["data"], expected);
    }
}

#[test]
fn restricted_manual_subscriptions_only_narrow_what_the_token_gives() {
    let gateway = with_extractors(&[("AUTO_SUBSCRIPTIONS", "restrict")]);
    for transport in TRANSPORTS {
        let claims = json!({ "user": "u1", "teams": ["a", "b"] });
        let manual = json!([
            { "eventType": "message", "oneOf": [{ "room": 5 }, { "user": "u2" }] },
            { "eventType": "other" },
        ]);
        let mut client = connect(&gateway, transport, &claims, &manual);
        let expected = json!([
            { "eventType": "alert", "oneOf": [{ "team": "a" }, { "team": "b" }] },
            { "eventType": "message", "oneOf": [{ "room": 5, "user": "u1" }] },
        ]);
        assert_eq!(client.subscriptions, expected, "{transport:?}");
        publish(&gateway, &event("other", "other", &json!(null)));
        message(&gateway, "foreign", &json!({ "user": "u2", "room": 5 }));
        message(&gateway, "elsewhere", &json!({ "user": "u1", "room": 6 }));
        message(&gateway, "mine", &json!({ "user": "u1", "room": 5 }));
        client.expect_ids(&["mine"]);
        let anonymous = Client::subscribe(&gateway, transport, &manual);
        assert_eq!(anonymous.subscriptions, json!([]), "without a token there is nothing to narrow");
    }
}
