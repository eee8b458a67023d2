//! Settings: contract, section 7. An unusable one stops the start, with all errors listed.

use crate::support::gateway::Gateway;
use crate::support::http::Request;

/// Asserts exit code 2 and that the text names each of these.
fn assert_refused(settings: &[(&str, &str)], named: &[&str]) {
    let refusal = Gateway::refused(settings);
    assert_eq!(refusal.status.code(), Some(2), "{settings:?}: {}", refusal.text);
    for name in named {
        assert!(refusal.text.contains(name), "{name} is named: {}", refusal.text);
    }
}

#[test]
fn all_bad_settings_are_listed_and_the_exit_code_is_2() {
    let bad = [
        ("INBOUND_PORT", "70000"),
        ("API_HTTP_PORT", "abc"),
        ("SHARDS", "0"),
        ("MAX_CONNECTIONS_PER_MINUTE", "abc"),
        ("PROXY_RECV_TIMEOUT", "abc"),
        ("LOG_FMT", "foo"),
        ("PROMETHEUS_METRICS_ENABLED", "x"),
        ("JWT_ALG", "FOO"),
        ("HEARTBEAT_MS", "-1"),
        ("KAFKA_SASL", "plain"),
        ("REQUEST_LOG", "foo"),
        ("EXTRACTORS", "{"),
    ];
    let names: Vec<_> = bad.iter().map(|(name, _)| *name).collect();
    assert_refused(&bad, &names);
}

#[test]
fn every_error_of_the_extractors_is_listed() {
    let extractors = r#"{
        "a": {"first": {"event": {"json_pointer": "/x"}}},
        "b": {"second": {"stable_field_index": 1, "event": {"json_pointer": "no-slash"}},
              "third": {"stable_field_index": 1, "event": {"json_pointer": "/x"}}}
    }"#;
    assert_refused(&[("EXTRACTORS", extractors)], &["first", "second", "third"]);
}

#[test]
fn unusable_extractors_refuse_the_start() {
    for extractors in ["/no/such/file.json", "[]", "5", r#"{"a":[]}"#, r#"{"a":{"f":{"stable_field_index":"1"}}}"#] {
        assert_refused(&[("EXTRACTORS", extractors)], &["EXTRACTORS"]);
    }
}

#[test]
fn extractors_may_come_from_a_file() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("extractors.json");
    let text = r#"{"order":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"}}}}"#;
    std::fs::write(&path, text).expect("a file can be written");
    let gateway = Gateway::with(&[("EXTRACTORS", path.to_str().expect("UTF-8")), ("STRICT_CONSTRAINTS", "true")]);
    let subscriptions = serde_json::json!([{ "eventType": "order", "oneOf": [{ "name": "x" }] }]);
    let client =
        crate::support::clients::Client::subscribe(&gateway, crate::support::clients::Transport::Sse, &subscriptions);
    assert_eq!(client.subscriptions, subscriptions);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let refusal = Gateway::refused(&[("API_HTTP_PORT", &port)]);
    assert!(!refusal.status.success());
    assert!(refusal.text.contains(&port), "the port is named: {}", refusal.text);
}

#[test]
fn settings_that_only_erlang_had_are_accepted_with_a_warning() {
    let gateway = Gateway::with(&[
        ("NODE_HOST", "rig@somewhere"),
        ("DISCOVERY_TYPE", "dns"),
        ("DNS_NAME", "x"),
        ("LOG_LEVEL", "warn"),
    ]);
    for name in ["NODE_HOST", "DISCOVERY_TYPE", "DNS_NAME"] {
        gateway.wait_for_log(name);
    }
}

#[test]
fn secrets_are_not_shown() {
    let secret = "very-secret-value";
    let refusal =
        Gateway::refused(&[("KAFKA_SASL", &format!("md5:user:{secret}")), ("NODE_COOKIE", secret), ("SHARDS", "x")]);
    assert_eq!(refusal.status.code(), Some(2));
    assert!(!refusal.text.contains(secret), "{}", refusal.text);
}

#[test]
fn a_flag_wins_over_its_environment_variable() {
    let gateway = Gateway::with_arguments(&["--cors", "https://flag.example"], &[("CORS", "https://variable.example")]);
    let response = gateway.call(Request::get("/_rig/v1/connection/longpolling"));
    assert_eq!(response.header("access-control-allow-origin"), Some("https://flag.example"));
}

#[test]
fn an_unknown_flag_is_refused() {
    let refusal = Gateway::refused_with_arguments(&["--no-such-flag"], &[]);
    assert_eq!(refusal.status.code(), Some(2));
    assert!(refusal.text.contains("--no-such-flag"), "{}", refusal.text);
}

#[test]
fn a_log_in_json_has_one_object_a_line() {
    let gateway = Gateway::with(&[("LOG_FMT", "JSON"), ("LOG_LEVEL", "warn"), ("NODE_HOST", "x")]);
    gateway.wait_for_log("NODE_HOST");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("NODE_HOST")).unwrap_or_else(|| panic!("a warning: {log}"));
    let entry: serde_json::Value = serde_json::from_str(line).expect("a log line is JSON");
    for key in ["time", "severity", "message"] {
        assert!(entry.get(key).is_some(), "{key} in {line}");
    }
}

#[test]
fn the_start_is_summed_up() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    gateway.wait_for_log(env!("CARGO_PKG_VERSION"));
    gateway.wait_for_log(&gateway.inbound().port().to_string());
    gateway.wait_for_log(&gateway.internal().port().to_string());
}

#[test]
fn by_default_clients_reach_the_inbound_port_over_ipv4() {
    // An empty value counts as unset.
    let gateway = Gateway::with(&[("INBOUND_HOST", "")]);
    assert_eq!(gateway.call(Request::get("/_rig/health")).text(), "OK");
}
