//! `/v3/session-blacklist`: contract, section 5. What is listed, where it is kept, and how nodes share it.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response, percent_encode};
use crate::support::kafka::{KAFKA_DEADLINE, Producer, Record, gateway_on, own_broker, shared_brokers, topic_name};
use crate::support::{wait_for, wait_up_to};

const CALL: &str = "/v3/session-blacklist";

fn post(gateway: &Gateway, body: &Value) -> Response {
    gateway.call_internal(Request::new("POST", CALL).json(body))
}

/// Blacklists a session and fails the test unless that worked.
pub(crate) fn blacklist(gateway: &Gateway, session: &str, seconds: u64) {
    let response = post(gateway, &json!({ "sessionId": session, "validityInSeconds": seconds }));
    assert_eq!((response.status, response.text()), (201, "{}"), "{session} is blacklisted");
}

/// Whether the gateway says that a session is blacklisted.
pub(crate) fn is_listed(gateway: &Gateway, session: &str) -> bool {
    let response = gateway.call_internal(Request::get(&format!("{CALL}/{}", percent_encode(session))));
    match response.status {
        200 => {
            assert_eq!(response.text(), "{}");
            true
        }
        404 => {
            assert_eq!(response.text(), "Not found.");
            false
        }
        _ => panic!("{response:?}"),
    }
}

#[test]
fn a_session_is_listed_until_its_time_is_over() {
    let gateway = Gateway::start();
    assert!(!is_listed(&gateway, "s"));
    blacklist(&gateway, "s", 2);
    assert!(is_listed(&gateway, "s"));
    wait_for("the end of the entry", || (!is_listed(&gateway, "s")).then_some(()));
    let items = || {
        let metrics = gateway.metrics();
        let labels = [("name", "Elixir.SessionBlacklist")];
        ["rig_distributed_set_items_total", "rig_distributed_set_items_current"]
            .map(|name| metrics.sum_where(name, &labels))
    };
    wait_for("the entry to leave", || (items() == [0.0, 0.0]).then_some(()));
    blacklist(&gateway, "s", 60);
    assert_eq!(items(), [1.0, 1.0]);
    assert!(gateway.metrics().has_type("rig_distributed_set_items_total", "gauge"));
    assert!(gateway.metrics().has_type("rig_distributed_set_items_current", "gauge"));
}

#[test]
fn both_versions_of_the_call_answer_alike_and_name_the_entry() {
    let gateway = Gateway::start();
    for version in ["/v3", "/v2"] {
        let call = format!("{version}/session-blacklist");
        let request = Request::new("POST", &call).json(&json!({ "sessionId": "a b", "validityInSeconds": "60" }));
        let response = gateway.call_internal(request);
        assert_eq!((response.status, response.text()), (201, "{}"));
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        let location = response.header("location").expect("it says where").to_owned();
        assert_eq!(location, format!("{call}/a%20b"));
        assert_eq!(gateway.call_internal(Request::get(&location)).status, 200);
        assert_eq!(gateway.call_internal(Request::new("HEAD", &location)).status, 200);
    }
}

#[test]
fn a_session_may_have_any_name() {
    let gateway = Gateway::start();
    let long = "x".repeat(5_000);
    for session in ["a/b", "line\nfeed", "%2F", "ä 🎫", "..", "?a=b#c", "\"", &long] {
        let response = post(&gateway, &json!({ "sessionId": session, "validityInSeconds": 60 }));
        assert_eq!(response.status, 201, "{session:?}: {response:?}");
        let location = response.header("location").expect("it says where").to_owned();
        if location.len() < 4_000 {
            assert_eq!(gateway.call_internal(Request::get(&location)).status, 200, "{session:?} at {location}");
        }
        assert!(!is_listed(&gateway, &format!("{session}x")[..session.len().min(20) + 1]));
    }
}

#[test]
fn what_is_wrong_with_a_call_is_said_in_rigs_words() {
    let mut gateway = Gateway::start();
    for (body, expected) in [
        (json!({}), r#"Missing value for "sessionId""#),
        (json!([]), r#"Missing value for "sessionId""#),
        (json!({ "sessionId": "" }), r#"Expected non-empty string, got """#),
        (json!({ "sessionId": "a" }), r#"Missing value for "validityInSeconds""#),
        (json!({ "sessionId": "a", "validityInSeconds": "x" }), r#"Expected a number, got "x""#),
        (json!({ "sessionId": "a", "validityInSeconds": 1.5 }), "Expected a number, got 1.5"),
        (json!({ "sessionId": "a", "validityInSeconds": -1 }), "Expected a positive number, got -1"),
    ] {
        let response = post(&gateway, &body);
        assert_eq!((response.status, response.text()), (400, expected), "{body}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert_eq!(response.header("content-type"), None);
    }
    let form = "sessionId=form&validityInSeconds=%2B60";
    let call = |content_type: &str, body: &str| {
        gateway.call_internal(Request::new("POST", CALL).header("content-type", content_type).body(body))
    };
    assert_eq!(call("application/x-www-form-urlencoded", form).status, 201);
    assert!(is_listed(&gateway, "form"));
    let detail = r#"{"errors":{"detail":"Bad request"}}"#;
    for (content_type, body, status) in
        [("application/json", "{", 400), ("text/plain", form, 415), ("application/json", &"9".repeat(100_000), 413)]
    {
        let response = call(content_type, body);
        assert_eq!((response.status, response.text()), (status, detail), "{content_type}");
    }
    for request in [
        Request::get(CALL),
        Request::new("DELETE", &format!("{CALL}/form")),
        Request::new("PUT", CALL),
        Request::new("POST", &format!("{CALL}/form")),
        Request::get(&format!("{CALL}/form/more")),
    ] {
        let response = gateway.call_internal(request);
        assert_eq!((response.status, response.text()), (404, r#"{"errors":{"detail":"Not found"}}"#));
    }
    gateway.assert_alive();
}

#[test]
fn the_longer_of_two_entries_wins() {
    let gateway = Gateway::start();
    blacklist(&gateway, "long then short", 600);
    blacklist(&gateway, "long then short", 1);
    blacklist(&gateway, "short then long", 1);
    blacklist(&gateway, "short then long", 600);
    blacklist(&gateway, "short", 1);
    wait_for("the short entry's end", || (!is_listed(&gateway, "short")).then_some(()));
    assert!(is_listed(&gateway, "long then short") && is_listed(&gateway, "short then long"));
}

#[test]
fn entries_outlive_a_restart_in_the_state_file() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let settings = [("STATE_DIR", folder.path().to_str().expect("UTF-8"))];
    {
        let mut gateway = Gateway::with(&settings);
        blacklist(&gateway, "kept", 600);
        blacklist(&gateway, "kept", 1);
        blacklist(&gateway, "short", 1);
        gateway.kill();
    }
    let gateway = Gateway::with(&settings);
    assert!(is_listed(&gateway, "kept"));
    wait_for("the short entry's end", || (!is_listed(&gateway, "short")).then_some(()));
}

#[test]
fn a_broken_state_file_of_sessions_refuses_the_start_and_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("sessions.log");
    std::fs::write(&path, "not an entry\n").expect("it can be written");
    let refusal = Gateway::refused(&[("STATE_DIR", folder.path().to_str().expect("UTF-8"))]);
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.text);
    assert!(refusal.text.contains("sessions.log"), "{}", refusal.text);
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "not an entry\n");
}

#[test]
fn without_a_place_for_entries_the_first_one_warns() {
    let gateway = Gateway::start();
    assert!(!gateway.log().contains("STATE_DIR"), "{}", gateway.log());
    blacklist(&gateway, "s", 60);
    gateway.wait_for_log("STATE_DIR");
}

#[test]
fn nodes_on_one_kafka_share_the_blacklist_and_it_outlives_them_all() {
    let Some(brokers) = shared_brokers("shared blacklist") else { return };
    let topic = topic_name("sessions");
    let settings = [("SESSIONS_TOPIC", topic.as_str())];
    let listed = |gateway: &Gateway, session: &str| {
        wait_up_to(KAFKA_DEADLINE, &format!("{session} on the other node"), || {
            is_listed(gateway, session).then_some(())
        });
    };
    {
        let (first, second) = (gateway_on(brokers, "none", &settings), gateway_on(brokers, "none", &settings));
        blacklist(&first, "by first", 600);
        assert!(is_listed(&first, "by first"), "at once where it was made");
        listed(&second, "by first");
        blacklist(&second, "by second", 600);
        blacklist(&second, "by first", 1);
        listed(&first, "by second");
    }
    let again = gateway_on(brokers, "none", &settings);
    assert!(is_listed(&again, "by first") && is_listed(&again, "by second"), "read back before the ports open");
}

#[test]
fn a_shorter_entry_or_a_tombstone_in_the_topic_does_not_free_a_session() {
    let Some(brokers) = shared_brokers("overtaken entries of the blacklist") else { return };
    let topic = topic_name("sessions");
    let settings = [("SESSIONS_TOPIC", topic.as_str())];
    let gateway = gateway_on(brokers, "none", &settings);
    for session in ["a", "b"] {
        blacklist(&gateway, session, 600);
    }
    let producer = Producer::new(brokers);
    let write = |session: &str, value: Option<&str>| {
        let key = tidegate_shards::sessions::Fingerprint::of(session).to_string().into_bytes();
        let value = value.map(|value| value.as_bytes().to_vec());
        producer.queue(&topic, &Record { partition: Some(0), key: Some(key), value, headers: Vec::new() });
        producer.flush();
    };
    // As a node would that heard of the entry too late.
    let soon = crate::support::jwt::now_s() * 1_000 + 5_000;
    write("a", Some(&format!(r#"{{"until_unix_ms":{soon}}}"#)));
    write("b", None);
    write("c", Some("not an entry"));
    gateway.wait_for_metric("tidegate_sessions_malformed_total", 1.0);
    // The node has written the longer ones again by the time that one that starts anew reads them back.
    wait_up_to(KAFKA_DEADLINE, "the entries to be mended", || {
        let second = gateway_on(brokers, "none", &settings);
        let past = crate::support::jwt::now_s() * 1_000 > soon;
        (past && is_listed(&second, "a") && is_listed(&second, "b")).then_some(())
    });
}

#[test]
fn a_kafka_that_is_away_at_the_start_refuses_entries_until_it_comes() {
    let port = xtask::kafka::free_ports(2).expect("ports are free");
    let brokers = format!("127.0.0.1:{port}");
    let gateway = gateway_on(&brokers, "none", &[]);
    gateway.wait_for_log("did not hand out the stored blacklist yet");
    let refused = post(&gateway, &json!({ "sessionId": "s", "validityInSeconds": 600 }));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    assert!(!is_listed(&gateway, "s"), "not stored, not in force");

    let Some(_kafka) = own_broker("the blacklist and a broker that comes late", Some(port)) else { return };
    wait_up_to(KAFKA_DEADLINE, "the entry to be taken", || {
        (post(&gateway, &json!({ "sessionId": "s", "validityInSeconds": 600 })).status == 201).then_some(())
    });
    let second = gateway_on(&brokers, "none", &[]);
    assert!(is_listed(&second, "s"), "read back before the ports open");
}
