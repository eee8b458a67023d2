//! API definitions: contract, sections 4 and 5. What is changed over the internal API is in force when the call returns,
//! and outlives the process where there is a place for it.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::kafka::{KAFKA_DEADLINE, Producer, gateway_on, own_broker, shared_brokers, topic_name};
use crate::support::{wait_for, wait_up_to};

/// A definition with one secured endpoint for GET at this path: a match shows as 401, without a backend.
fn secured(id: &str, path_regex: &str) -> Value {
    json!({
        "id": id, "name": id, "auth_type": "jwt", "proxy": { "target_url": "localhost", "port": 1 },
        "version_data": { "default": { "endpoints": [
            { "id": "e", "method": "GET", "path_regex": path_regex, "secured": true }
        ] } },
    })
}

fn post(gateway: &Gateway, definition: &Value) -> Response {
    gateway.call_internal(Request::new("POST", "/v3/apis").json(definition))
}

fn put(gateway: &Gateway, id: &str, definition: &Value) -> Response {
    gateway.call_internal(Request::new("PUT", &format!("/v3/apis/{id}")).json(definition))
}

fn delete(gateway: &Gateway, id: &str) -> Response {
    gateway.call_internal(Request::new("DELETE", &format!("/v3/apis/{id}")))
}

fn detail(gateway: &Gateway, id: &str) -> Response {
    gateway.call_internal(Request::get(&format!("/v3/apis/{id}")))
}

/// Status of a GET on the inbound port.
fn status(gateway: &Gateway, path: &str) -> u16 {
    gateway.call(Request::get(path)).status
}

fn listed(gateway: &Gateway) -> Vec<String> {
    let list = gateway.call_internal(Request::get("/v3/apis")).json();
    list.as_array().expect("a list").iter().map(|api| api["id"].as_str().expect("an id").to_owned()).collect()
}

fn assert_ok(response: &Response, status: u16) {
    assert_eq!((response.status, response.text()), (status, r#"{"message":"ok"}"#));
}

#[test]
fn an_api_is_created_shown_changed_and_deleted() {
    let gateway = Gateway::with(&[("SHARDS", "2")]);
    assert_eq!(gateway.call_internal(Request::get("/v3/apis")).json(), json!([]));
    assert_eq!(status(&gateway, "/first"), 404);

    assert_ok(&post(&gateway, &secured("x", "/first")), 201);
    for _ in 0..20 {
        assert_eq!(status(&gateway, "/first"), 401, "in force on every shard");
    }
    let shown = detail(&gateway, "x");
    assert_eq!(shown.status, 200);
    let shown = shown.json();
    assert_eq!((&shown["ref_number"], &shown["active"], &shown["versioned"]), (&json!(0), &json!(true), &json!(false)));
    assert_eq!(shown["auth"], json!({ "use_header": false, "header_name": "", "use_query": false, "query_name": "" }));
    assert!(shown["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')) && shown["node_name"].is_string());
    assert_eq!(listed(&gateway), ["x"]);

    assert_ok(&put(&gateway, "x", &secured("ignored", "/second")), 200);
    for _ in 0..20 {
        assert_eq!((status(&gateway, "/first"), status(&gateway, "/second")), (404, 401));
    }
    assert_eq!(detail(&gateway, "x").json()["ref_number"], 1);

    let deleted = delete(&gateway, "x");
    assert_eq!((deleted.status, deleted.text()), (204, ""));
    for _ in 0..20 {
        assert_eq!(status(&gateway, "/second"), 404);
    }
    assert_eq!(listed(&gateway), [""; 0]);
    for gone in [detail(&gateway, "x"), put(&gateway, "x", &secured("x", "/x")), delete(&gateway, "x")] {
        assert_eq!((gone.status, gone.text()), (404, r#"{"message":"API with id=x doesn't exists."}"#));
    }
    assert_ok(&post(&gateway, &secured("x", "/third")), 201);
    assert_eq!((status(&gateway, "/third"), detail(&gateway, "x").json()["ref_number"].clone()), (401, json!(3)));
}

#[test]
fn an_id_that_is_taken_is_a_conflict_and_the_list_is_in_order_of_ids() {
    let gateway = Gateway::start();
    for id in ["b", "a", "c"] {
        assert_ok(&post(&gateway, &secured(id, &format!("/{id}"))), 201);
    }
    let conflict = post(&gateway, &secured("a", "/other"));
    assert_eq!((conflict.status, conflict.text()), (409, r#"{"message":"API with id=a already exists."}"#));
    assert_eq!(status(&gateway, "/other"), 404);
    assert_eq!(listed(&gateway), ["a", "b", "c"]);
}

#[test]
fn an_inactive_api_is_created_and_hidden_and_a_versioned_one_never_matches() {
    let gateway = Gateway::start();
    let mut hidden = secured("x", "/x");
    hidden["active"] = json!(false);
    assert_ok(&post(&gateway, &hidden), 201);
    assert_eq!((detail(&gateway, "x").status, status(&gateway, "/x")), (404, 404));
    let mut versioned = secured("y", "/y");
    versioned["versioned"] = json!(true);
    assert_ok(&post(&gateway, &versioned), 201);
    assert_eq!((detail(&gateway, "y").status, status(&gateway, "/y")), (200, 404));
}

#[test]
fn unknown_fields_are_kept() {
    let gateway = Gateway::start();
    let mut definition = secured("x", "/x");
    definition["team"] = json!({ "name": "box office", "pager": 1.50 });
    definition["version_data"]["default"]["endpoints"][0]["note"] = json!("hello");
    assert_ok(&post(&gateway, &definition), 201);
    let shown = detail(&gateway, "x").json();
    assert_eq!(shown["team"], definition["team"]);
    assert_eq!(shown["version_data"], definition["version_data"]);
}

#[test]
fn v2_serves_the_same_calls_with_any_number_of_slashes() {
    let gateway = Gateway::start();
    assert_ok(&gateway.call_internal(Request::new("POST", "/v2/apis/").json(&secured("a b", "/x"))), 201);
    for path in ["/v2/apis/a%20b", "/v3/apis/a%20b/", "//v3//apis//a%20b"] {
        assert_eq!(gateway.call_internal(Request::get(path)).json()["id"], "a b", "{path}");
    }
    for (method, path) in [
        ("GET", "/v1/apis"),
        ("PATCH", "/v3/apis"),
        ("POST", "/v3/apis/x"),
        ("GET", "/v3/apis/a/b"),
        ("GET", "/v3/apisx"),
    ] {
        let miss = gateway.call_internal(Request::new(method, path));
        assert_eq!((miss.status, miss.text()), (404, r#"{"errors":{"detail":"Not found"}}"#), "{method} {path}");
    }
}

#[test]
fn a_definition_that_is_wrong_gets_400_with_everything_that_is_wrong() {
    let mut gateway = Gateway::start();
    let wrong = post(&gateway, &json!({ "id": "x" }));
    assert_eq!(wrong.status, 400);
    assert_eq!(
        wrong.text(),
        r#"{"api":[{"name":"must be string"},{"name":"must have a length of at least 1"},{"proxy":"must be present"},{"version_data":"must be present"}]}"#
    );
    gateway.wait_for_log("Wrong reverse proxy configuration: [");
    for body in [
        json!({}),
        json!(null),
        json!([]),
        json!([secured("x", "/x")]),
        json!("x"),
        json!(5),
        json!({ "id": 5, "name": [], "proxy": "x", "version_data": 7 }),
        secured("x", "/(["),
        secured("x", "/.*"),
        secured("x", "/_rig/v1/events"),
        secured("", "/x"),
    ] {
        let wrong = post(&gateway, &body);
        assert_eq!(wrong.status, 400, "{body}");
        assert!(wrong.json().as_object().is_some_and(|errors| !errors.is_empty()), "{body}");
    }
    assert_ok(&post(&gateway, &secured("x", "/x")), 201);
    for body in [json!({}), json!(null), json!([]), json!({ "name": "x" })] {
        assert_eq!(put(&gateway, "x", &body).status, 400, "{body}");
    }
    assert_eq!((status(&gateway, "/x"), detail(&gateway, "x").json()["ref_number"].clone()), (401, json!(0)));
    gateway.assert_alive();
}

#[test]
fn what_is_no_json_gets_the_internal_ports_errors() {
    let gateway = Gateway::with(&[("MAX_BODY_BYTES", "2000")]);
    let json = || Request::new("POST", "/v3/apis").header("content-type", "application/json");
    let text = Request::new("POST", "/v3/apis").header("content-type", "text/plain").body("{}");
    for (request, status) in [
        (json().body("{"), 400),
        (json().body(""), 400),
        (json().body(b"\xff"), 400),
        (json().body("x".repeat(3_000)), 413),
        (text, 415),
    ] {
        let response = gateway.call_internal(request);
        assert_eq!((response.status, response.text()), (status, r#"{"errors":{"detail":"Bad request"}}"#));
    }
}

#[test]
fn a_secured_endpoint_answers_401_with_cors_headers_and_the_operator_is_warned() {
    let mut kafka = secured("k", "/k");
    kafka["version_data"]["default"]["endpoints"][0]["target"] = json!("kafka");
    kafka["version_data"]["default"]["endpoints"][0]["topic"] = json!("t");
    let definitions = json!([secured("x", "/x"), kafka]).to_string();
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &definitions), ("CORS", "https://shop.example")]);
    gateway.wait_for_log("there is no key");
    for (path, headers) in [("/x", "content-type"), ("/k", "content-type,authorization")] {
        let refused = gateway.call(Request::get(path).header("authorization", "Bearer a.b.c"));
        assert_eq!((refused.status, refused.text()), (401, "Authentication failed."), "{path}");
        assert_eq!(refused.header("access-control-allow-origin"), Some("https://shop.example"));
        assert_eq!(refused.header("access-control-allow-methods"), Some("*"));
        assert_eq!(refused.header("access-control-allow-headers"), Some(headers));
        assert_eq!(refused.header("content-type"), None);
    }
}

#[test]
fn what_no_endpoint_takes_gets_404_without_a_content_type() {
    let definitions = json!([secured("x", "/x")]).to_string();
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &definitions)]);
    for request in [Request::get("/y"), Request::new("POST", "/x"), Request::get("/x/y"), Request::get("/_rig/x")] {
        let miss = gateway.call(request);
        assert_eq!((miss.status, miss.text()), (404, r#"{"message":"Not Found"}"#));
        assert_eq!(miss.header("content-type"), None);
    }
    assert_eq!(gateway.call(Request::new("HEAD", "/x")).status, 401, "HEAD matches GET");
}

#[test]
fn nobody_walks_round_a_secured_endpoint() {
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &json!([secured("x", "/admin(/.*)?")]).to_string())]);
    for path in ["/admin", "//admin//x", "/a/../admin", "/%61dmin/x", "/a/%2e%2e/ADMIN", "/./admin/.", "/..//admin/x"] {
        assert_eq!(status(&gateway, path), 401, "{path}");
    }
    for path in ["/a/..%2fadmin", "/a/..%5cadmin", "/a/..;/admin"] {
        assert_eq!(status(&gateway, path), 404, "{path}");
    }
}

#[test]
fn requests_are_counted_by_endpoint_and_outcome_also_across_a_change() {
    let gateway =
        Gateway::with(&[("PROXY_CONFIG_FILE", &json!([secured("x", "/x/\\d+")]).to_string()), ("SHARDS", "2")]);
    let name = "rig_proxy_requests_total";
    for number in 0..6 {
        assert_eq!(status(&gateway, &format!("/x/{number}")), 401);
    }
    assert_ok(&put(&gateway, "x", &secured("x", "/x/\\d+")), 200);
    assert_eq!(status(&gateway, "/x/7"), 401);
    assert_eq!((status(&gateway, "/nowhere"), status(&gateway, "/else")), (404, 404));
    let metrics = gateway.metrics();
    assert!(metrics.has_type(name, "counter"));
    let matched = [("method", "GET"), ("target", "http"), ("response_from", "http"), ("status", "bad_request")];
    assert_eq!(metrics.sum_where(name, &matched), 7.0);
    assert_eq!(metrics.label_values(name, "path"), ["/x/\\\\d+", "N/A"], "the regex, as the text format escapes it");
    let unmatched = [("method", "GET"), ("target", "N/A"), ("response_from", "N/A"), ("status", "not_found")];
    assert_eq!(metrics.sum_where(name, &unmatched), 2.0);
}

#[test]
fn several_endpoints_that_match_are_logged_now_and_then() {
    let definitions = json!([secured("a", "/x"), secured("b", "/[x-z]")]).to_string();
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &definitions)]);
    for _ in 0..10 {
        assert_eq!(status(&gateway, "/x"), 401);
    }
    gateway.wait_for_log("several endpoints match");
    assert_eq!(gateway.log().matches("several endpoints match").count(), 1, "{}", gateway.log());
}

#[test]
fn a_config_file_written_for_rig_is_served_unchanged() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rig-proxy-config.json");
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", path)]);
    gateway.wait_for_log("6 endpoints");
    assert_eq!(listed(&gateway), ["box-office"]);
    assert_eq!((status(&gateway, "/profile"), status(&gateway, "/nothing")), (401, 404));
    assert_ne!(status(&gateway, "/halls/7/seats"), 404, "the endpoint is there, its backend is not");
}

#[test]
fn a_config_file_with_errors_refuses_the_start_with_all_of_them() {
    let definitions = json!([
        { "id": "first" },
        secured("second", "/(["),
        { "id": "third", "name": "third", "proxy": { "target_url": "x", "port": "80" },
          "version_data": { "default": { "endpoints": [{ "id": "k", "method": "GET", "path_regex": "/k", "target": "kafka" }] } } },
        secured("fourth", "/.*"),
    ]);
    let refusal = Gateway::refused(&[("PROXY_CONFIG_FILE", &definitions.to_string()), ("SHARDS", "0")]);
    assert_eq!(refusal.status.code(), Some(2), "{}", refusal.text);
    for part in [
        "PROXY_CONFIG_FILE",
        "definition 1: api: name must be string",
        "definition 1: api: version_data must be present",
        "second/e: path_regex must be a regular expression",
        "definition 3: api: port must be integer",
        "third/k: topic must be present",
        "fourth/e: path_regex must not match paths of /_rig",
        "SHARDS",
    ] {
        assert!(refusal.text.contains(part), "{part} is listed: {}", refusal.text);
    }
    for text in ["/no/such/file.json", "{}", "[", "[5]"] {
        let refusal = Gateway::refused(&[("PROXY_CONFIG_FILE", text)]);
        assert_eq!(refusal.status.code(), Some(2), "{text}: {}", refusal.text);
    }
}

#[test]
fn changes_outlive_a_restart_in_the_state_file_and_win_over_the_config_file() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let state = folder.path().join("state");
    let definitions = json!([secured("file", "/file"), secured("both", "/old")]).to_string();
    let settings = [("PROXY_CONFIG_FILE", definitions.as_str()), ("STATE_DIR", state.to_str().expect("UTF-8"))];
    {
        let gateway = Gateway::with(&settings);
        assert_ok(&post(&gateway, &secured("new", "/new")), 201);
        assert_ok(&put(&gateway, "both", &secured("both", "/changed")), 200);
        assert_eq!(delete(&gateway, "file").status, 204);
    }
    let gateway = Gateway::with(&settings);
    assert_eq!(listed(&gateway), ["both", "new"]);
    let statuses = ["/file", "/old", "/changed", "/new"].map(|path| status(&gateway, path));
    assert_eq!(statuses, [404, 404, 401, 401]);
    assert_eq!(detail(&gateway, "both").json()["ref_number"], 1);
}

#[test]
fn a_broken_state_file_refuses_the_start_and_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("apis.json");
    std::fs::write(&path, "{").expect("it can be written");
    let refusal = Gateway::refused(&[("STATE_DIR", folder.path().to_str().expect("UTF-8"))]);
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.text);
    assert!(refusal.text.contains("apis.json"), "{}", refusal.text);
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "{");
}

#[test]
fn without_a_place_for_changes_the_first_one_warns() {
    let gateway = Gateway::start();
    assert!(!gateway.log().contains("STATE_DIR"), "{}", gateway.log());
    assert_ok(&post(&gateway, &secured("x", "/x")), 201);
    gateway.wait_for_log("STATE_DIR");
}

#[test]
fn nodes_on_one_kafka_share_their_definitions_and_changes_outlive_them_all() {
    let Some(brokers) = shared_brokers("shared API definitions") else { return };
    let topic = topic_name("apis");
    let file = json!([secured("file", "/file")]).to_string();
    let settings = [("PROXY_APIS_TOPIC", topic.as_str()), ("PROXY_CONFIG_FILE", &file)];
    let reach = |gateway: &Gateway, path: &str, expected: u16| {
        wait_up_to(KAFKA_DEADLINE, &format!("{expected} on {path}"), || {
            (status(gateway, path) == expected).then_some(())
        });
    };
    {
        let (first, second) = (gateway_on(brokers, "none", &settings), gateway_on(brokers, "none", &settings));
        assert_ok(&post(&first, &secured("x", "/first")), 201);
        assert_eq!(status(&first, "/first"), 401, "at once where it was made");
        reach(&second, "/first", 401);
        assert_ok(&put(&second, "x", &secured("x", "/second")), 200);
        assert_eq!((status(&second, "/first"), status(&second, "/second")), (404, 401));
        reach(&first, "/second", 401);
        assert_eq!(delete(&first, "file").status, 204);
        reach(&second, "/file", 404);
        assert_eq!(post(&second, &secured("x", "/third")).status, 409);
    }
    let again = gateway_on(brokers, "none", &settings);
    assert_eq!(listed(&again), ["x"], "read back before the port opens");
    assert_eq!((status(&again, "/second"), status(&again, "/file")), (401, 404));
    assert_eq!(detail(&again, "x").json()["ref_number"], 1);
}

#[test]
fn a_change_counts_though_the_topic_was_deleted_and_made_anew() {
    let Some(brokers) = shared_brokers("a topic of API definitions that is made anew") else { return };
    let topic = topic_name("apis");
    let settings = [("PROXY_APIS_TOPIC", topic.as_str())];
    let (first, second) = (gateway_on(brokers, "none", &settings), gateway_on(brokers, "none", &settings));
    let reach = |path: &str| {
        wait_up_to(KAFKA_DEADLINE, path, || (status(&second, path) == 401).then_some(()));
    };
    assert_ok(&post(&first, &secured("x", "/0")), 201);
    for number in 1..=5 {
        assert_ok(&put(&first, "x", &secured("x", &format!("/{number}"))), 200);
    }
    reach("/5");
    Producer::new(brokers).recreate_topic(&topic, 1);
    let anew = secured("x", "/anew");
    wait_up_to(KAFKA_DEADLINE, "the change to be taken", || (put(&first, "x", &anew).status == 200).then_some(()));
    assert_eq!((status(&first, "/5"), status(&first, "/anew")), (404, 401), "at once where it was made");
    reach("/anew");
    assert_eq!(status(&second, "/5"), 404);
}

#[test]
fn a_kafka_that_is_away_at_the_start_refuses_changes_until_it_comes() {
    let port = xtask::kafka::free_ports(2).expect("ports are free");
    let brokers = format!("127.0.0.1:{port}");
    let file = json!([secured("file", "/file")]).to_string();
    let gateway = gateway_on(&brokers, "none", &[("PROXY_CONFIG_FILE", &file)]);
    gateway.wait_for_log("did not hand out the stored API definitions yet");
    assert_eq!(status(&gateway, "/file"), 401, "what is in the file is served meanwhile");
    let refused = post(&gateway, &secured("x", "/x"));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    assert_eq!((status(&gateway, "/x"), detail(&gateway, "x").status), (404, 404), "not stored, not in force");

    let Some(_kafka) = own_broker("API definitions and a broker that comes late", Some(port)) else { return };
    wait_up_to(KAFKA_DEADLINE, "the change to be taken", || {
        matches!(post(&gateway, &secured("x", "/x")).status, 201 | 409).then_some(())
    });
    assert_eq!(status(&gateway, "/x"), 401);
    let second = gateway_on(&brokers, "none", &[]);
    assert_eq!(listed(&second), ["x"], "read back before the port opens");
}

#[test]
fn calls_go_on_while_definitions_change_a_hundred_times() {
    let gateway =
        Gateway::with(&[("SHARDS", "2"), ("PROXY_CONFIG_FILE", &json!([secured("still", "/still")]).to_string())]);
    std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..200).all(|_| status(&gateway, "/still") == 401))).collect();
        for number in 0..100 {
            let path = format!("/moving/{number}");
            let answer = if number == 0 {
                post(&gateway, &secured("m", &path))
            } else {
                put(&gateway, "m", &secured("m", &path))
            };
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
            assert_eq!(status(&gateway, &path), 401, "in force when the call returns");
        }
        assert!(callers.into_iter().all(|caller| caller.join().expect("a caller")));
    });
    wait_for("the last change", || (status(&gateway, "/moving/99") == 401).then_some(()));
}
