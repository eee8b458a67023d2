use serde_json::json;

use super::*;
use crate::proxy::endpoint::{Backend, ResponseFrom, Target, TokenPlace};

fn environment(name: &str) -> Option<String> {
    match name {
        "SHOP_HOST" => Some("https://shop.example".to_owned()),
        "BROKEN" => Some("a b".to_owned()),
        _ => None,
    }
}

fn parse(value: &Value) -> Result<Definition, DefinitionErrors> {
    Definition::parse(value, &Surroundings { environment: &environment, avro: false })
}

fn errors(value: &Value) -> Value {
    parse(value).expect_err("it is wrong").to_json()
}

/// A definition with one endpoint, and these members in place of its own.
fn api(endpoint: &Value) -> Value {
    let mut whole = json!({ "id": "e", "method": "GET", "path_regex": "/x" });
    for (name, value) in endpoint.as_object().expect("members") {
        whole[name] = value.clone();
    }
    json!({
        "id": "v", "name": "v", "proxy": { "target_url": "localhost", "port": 80 },
        "version_data": { "default": { "endpoints": [whole] } },
    })
}

fn endpoint(value: &Value) -> Route {
    parse(value).expect("it is valid").routes.remove(0)
}

#[test]
fn the_errors_have_rigs_shape_and_texts() {
    assert_eq!(
        errors(&json!({ "id": "x" })).to_string(),
        r#"{"api":[{"name":"must be string"},{"name":"must have a length of at least 1"},{"proxy":"must be present"},{"version_data":"must be present"}]}"#
    );
}

#[test]
fn a_definition_without_anything_is_told_all_that_it_lacks_its_id_first() {
    let (text, length, present) = ("must be string", "must have a length of at least 1", "must be present");
    assert_eq!(
        errors(&json!({})),
        json!({ "api": [
            { "id": text }, { "id": length }, { "name": text }, { "name": length }, { "proxy": present },
            { "version_data": present },
        ] })
    );
}

#[test]
fn every_error_is_listed_at_its_place() {
    let definition = json!({
        "id": "v", "name": 5, "auth_type": "none", "auth": { "use_header": true, "use_query": true, "query_name": "" },
        "proxy": { "target_url": "", "port": "80" },
        "version_data": { "default": { "endpoints": [
            { "method": "GET", "path_regex": "/a" },
            { "id": "k", "method": "get", "path_regex": "/(", "secured": true, "target": "kafka" },
        ] } },
    });
    assert_eq!(
        errors(&definition),
        json!({
            "api": [
                { "name": "must be string" },
                { "target_url": "must have a length of at least 1" },
                { "port": "must be integer" },
            ],
            "v": [
                { "header_name": "must be present" },
                { "query_name": "must be present" },
                { "auth_type": "must be one of [\"jwt\"]" },
            ],
            "v/": [{ "id": "must be string" }, { "id": "must have a length of at least 1" }],
            "v/k": [
                { "path_regex": "must be a regular expression (unclosed group)" },
                { "method": format!("must be one of {}", json!([
                    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ACL", "COPY", "LINK", "LOCK", "MKCALENDAR",
                    "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "QUERY", "REPORT", "SEARCH", "UNLOCK"
                ]).to_string().replace(',', ", ")) },
                { "auth_type": "must be one of [\"jwt\"]" },
                { "topic": "must be present" },
            ],
        })
    );
}

#[test]
fn wrong_types_at_the_top_are_named() {
    for (definition, expected) in [
        (json!([]), json!({ "api": [{ "definition": "must be map" }] })),
        (json!(null), json!({ "api": [{ "definition": "must be map" }] })),
        (
            json!({ "id": 5, "name": "", "proxy": [], "version_data": {} }),
            json!({ "api": [
                { "id": "must be string" },
                { "name": "must have a length of at least 1" },
                { "proxy": "must be map" },
                { "version_data": "must have at least one version, e.g. default" },
            ] }),
        ),
        (
            json!({ "id": "x", "name": "x", "proxy": { "target_url": 1, "port": 0.5, "http2": 1 }, "auth": 1,
                "versioned": "no", "active": 0, "auth_type": "basic", "version_data": { "default": { "endpoints": {} } } }),
            json!({ "api": [
                { "target_url": "must be string" },
                { "port": "must be integer" },
                { "http2": "must be boolean" },
                { "endpoints": "must be list" },
                { "versioned": "must be boolean" },
                { "active": "must be boolean" },
                { "auth_type": "must be one of [\"jwt\", \"none\"]" },
                { "auth": "must be map" },
            ] }),
        ),
        (
            json!({ "id": "x", "name": "x", "proxy": { "target_url": "x", "port": 70_000 },
                "version_data": { "default": 5, "v2": { "endpoints": [5] } } }),
            json!({ "api": [{ "port": "must be between 1 and 65535" }, { "default": "must be map" }] }),
        ),
        (
            json!({ "id": "x", "name": "x", "proxy": { "target_url": "x", "port": 1 },
                "version_data": { "default": { "endpoints": [5, "a", null] } } }),
            json!({ "x/": [{ "endpoint": "must be map" }, { "endpoint": "must be map" }, { "endpoint": "must be map" }] }),
        ),
    ] {
        assert_eq!(errors(&definition), expected, "{definition}");
    }
}

#[test]
fn what_an_endpoint_gets_wrong_is_named() {
    let later = "can't be served by this version, that comes with a later version";
    for (members, field, text) in [
        (json!({ "target": "KAFKA" }), "target", r#"must be one of ["http", "kafka", "kinesis", "nats"]"#.to_owned()),
        (json!({ "target": "kinesis", "topic": "t" }), "target", format!("kinesis {later}")),
        (json!({ "target": "nats", "topic": "t" }), "target", format!("nats {later}")),
        (json!({ "target": "kinesis" }), "topic", "must be present".to_owned()),
        (json!({ "target": "nats" }), "topic", "must be present".to_owned()),
        (json!({ "target": "kafka", "topic": "" }), "topic", "must be present".to_owned()),
        (json!({ "target": "kafka", "topic": 5 }), "topic", "must be string".to_owned()),
        (json!({ "response_from": "nats" }), "response_from", format!("nats {later}")),
        (
            json!({ "response_from": "KAFKA" }),
            "response_from",
            r#"must be one of ["http", "kafka", "http_async", "kinesis", "nats"]"#.to_owned(),
        ),
        (json!({ "method": "" }), "method", "must have a length of at least 1".to_owned()),
        (json!({ "schema": "" }), "schema", "must have a length of at least 1".to_owned()),
        (json!({ "schema": "s" }), "target", "must be present".to_owned()),
        (json!({ "path_regex": "" }), "path_regex", "must have a length of at least 1".to_owned()),
        (json!({ "path_replacement": 1 }), "path_replacement", "must be string".to_owned()),
        (json!({ "path_replacement": "/a#b" }), "path_replacement", "must be a path, which has no #".to_owned()),
        (
            json!({ "path_regex": ".*" }),
            "path_regex",
            "must not match paths of /_rig, which are the gateway's own".to_owned(),
        ),
        (json!({ "secured": "yes" }), "secured", "must be boolean".to_owned()),
        (
            json!({ "transform_request_headers": true }),
            "transform_request_headers",
            "must have add_headers in the transform_request_headers of its version".to_owned(),
        ),
        (
            json!({ "target": "kafka", "topic": "a b" }),
            "topic",
            "must have 1 to 249 letters, digits, dots, underscores and hyphens".to_owned(),
        ),
        (
            json!({ "target": "kafka", "topic": "t", "key": "\\1" }),
            "key",
            "must name groups of path_regex, which has no \\1".to_owned(),
        ),
        (
            json!({ "target": "kafka", "topic": "t", "wrap": { "type": "x", "source": 1 } }),
            "source",
            "must be string".to_owned(),
        ),
        (json!({ "target": "kafka", "topic": "t", "wrap": "x" }), "wrap", "must be map".to_owned()),
    ] {
        let found = errors(&api(&members));
        assert_eq!(found["v/e"][0][field], text, "{members}: {found}");
    }
}

#[test]
fn a_schema_counts_where_kafka_gets_avro() {
    let definition = api(&json!({ "target": "kafka", "topic": "t", "schema": "s" }));
    let schema = |avro: bool| {
        let parsed = Definition::parse(&definition, &Surroundings { environment: &environment, avro });
        match &parsed.expect("it is valid").routes[0].endpoint.target {
            Target::Kafka(target) => target.schema.clone(),
            Target::Http(_) => panic!("the target is Kafka"),
        }
    };
    assert_eq!(schema(true).as_deref(), Some("s"));
    assert_eq!(schema(false), None, "without the serializer, RIG sends JSON");
}

#[test]
fn a_pattern_cannot_break_out_of_its_anchors() {
    for pattern in ["a)|(b", "(?x)/a #", "/x)", "(?=x)", "\\1", "[a"] {
        let found = errors(&api(&json!({ "path_regex": pattern })));
        let text = found["v/e"][0]["path_regex"].as_str().unwrap_or_default().to_owned();
        assert!(text.starts_with("must be a regular expression ("), "{pattern}: {found}");
    }
    let regex = endpoint(&api(&json!({ "path_regex": "/a|/b" }))).regex;
    assert!(regex.is_match("/a") && regex.is_match("/B"));
    assert!(!regex.is_match("/ax") && !regex.is_match("x/b") && !regex.is_match("/a\n"));
}

#[test]
fn a_regex_that_needs_too_much_memory_is_refused() {
    let found = errors(&api(&json!({ "path_regex": "/(\\w{1000}){100}" })));
    assert!(found["v/e"][0]["path_regex"].is_string(), "{found}");
}

#[test]
fn backends_come_from_url_environment_and_port() {
    let backend = |proxy: Value| {
        let mut definition = api(&json!({}));
        definition["proxy"] = proxy;
        match endpoint(&definition).endpoint.target.clone() {
            Target::Http(backend) => backend,
            other => panic!("{other:?}"),
        }
    };
    let expected = |tls, host: &str, port, http2| Backend { tls, host: host.into(), port, http2 };
    assert_eq!(
        backend(json!({ "use_env": true, "target_url": "SHOP_HOST", "port": 443, "http2": true })),
        expected(true, "shop.example", 443, true)
    );
    assert_eq!(
        backend(json!({ "use_env": true, "target_url": "UNSET", "port": 8080 })),
        expected(false, "localhost", 8080, false)
    );
    assert_eq!(
        backend(json!({ "use_env": false, "target_url": "http://h:1/base", "port": 80 })),
        expected(false, "h", 80, false)
    );
    let mut broken = api(&json!({}));
    broken["proxy"] = json!({ "use_env": true, "target_url": "BROKEN", "port": 1 });
    let text = errors(&broken)["api"][0]["target_url"].to_string();
    assert!(text.contains("variable") && !text.contains("a b"), "{text}");
}

#[test]
fn headers_are_lower_case_unique_and_texts() {
    let with = |headers: Value| {
        let mut definition = api(&json!({ "transform_request_headers": true }));
        definition["version_data"]["default"]["transform_request_headers"] = json!({ "add_headers": headers });
        parse(&definition)
    };
    let definition = with(json!({ "Host": "x", "X-One": 5, "x-one": "six", "B": 1.5, "c": true })).expect("valid");
    let headers: Vec<_> = definition.routes[0]
        .endpoint
        .add_headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
        .collect();
    assert_eq!(headers, [("x-one", "six"), ("b", "1.5"), ("c", "true")]);
    for headers in [
        json!({ "a b": "x" }),
        json!({ "a": "x\r\nb: c" }),
        json!({ "a": null }),
        json!({ "a": ["x"] }),
        json!({ "Content-Length": 5 }),
        json!({ "transfer-encoding": "chunked" }),
        json!("x"),
    ] {
        let errors = with(headers.clone()).expect_err("it is wrong").to_json();
        assert!(errors["api"][0]["add_headers"].is_string(), "{headers}: {errors}");
    }
}

#[test]
fn a_secured_endpoint_knows_where_the_token_is() {
    let mut definition = api(&json!({ "secured": true }));
    definition["auth_type"] = json!("jwt");
    assert_eq!(endpoint(&definition).endpoint.secured, Some(TokenPlace::default()));
    definition["auth"] = json!({ "use_header": true, "header_name": "X-Token", "use_query": true, "query_name": "t" });
    let place = TokenPlace { header: Some(http::HeaderName::from_static("x-token")), query: Some("t".into()) };
    assert_eq!(endpoint(&definition).endpoint.secured, Some(place));
    definition["auth"]["header_name"] = json!("not a name");
    assert_eq!(errors(&definition), json!({ "v": [{ "header_name": "must be the name of a header" }] }));
}

#[test]
fn beyond_rig_a_kafka_endpoint_has_key_and_wrap() {
    let definition = api(&json!({
        "method": "POST", "path_regex": "/orders/(\\d+)", "target": "kafka", "topic": "orders", "key": "\\1-${x-shard}",
        "wrap": { "type": "order.placed", "source": "/shop" }, "response_from": "kafka",
    }));
    let route = endpoint(&definition);
    let Target::Kafka(target) = &route.endpoint.target else { panic!("{:?}", route.endpoint.target) };
    assert_eq!((&*target.topic, target.key.as_deref()), ("orders", Some("\\1-${x-shard}")));
    assert_eq!(target.wrap.as_ref().map(|wrap| (&*wrap.event_type, &*wrap.source)), Some(("order.placed", "/shop")));
    assert_eq!(route.endpoint.response_from, ResponseFrom::Kafka);
}

#[test]
fn unknown_fields_are_kept_and_versioned_or_inactive_apis_never_match() {
    let mut definition = api(&json!({ "note": { "a": [1.50] } }));
    definition["owner"] = json!("me");
    let parsed = parse(&definition).expect("valid");
    assert!(parsed.matches);
    assert_eq!(Value::Object(parsed.fields), definition);
    assert_eq!(parsed.routes[0].endpoint.definition["note"], json!({ "a": [1.50] }));
    for field in [("versioned", true), ("active", false)] {
        let mut hidden = definition.clone();
        hidden[field.0] = json!(field.1);
        assert!(!parse(&hidden).expect("valid").matches, "{field:?}");
    }
}

#[test]
fn a_config_file_written_for_rig_is_taken_unchanged() {
    let json = include_str!("../../../../tests/data/rig-proxy-config.json");
    let surroundings = Surroundings { environment: &environment, avro: false };
    let definitions = Definition::parse_list(json, &surroundings).expect("it is valid");
    let endpoints: Vec<_> = definitions
        .iter()
        .flat_map(|definition| &definition.routes)
        .map(|route| (&*route.endpoint.id, route.endpoint.target.name(), route.endpoint.response_from.name()))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("list-seats", "http", "http"),
            ("book-seat", "kafka", "kafka"),
            ("book-seat-preflight", "kafka", "http"),
            ("report", "http", "http_async"),
            ("invoice", "http", "kafka"),
            ("profile", "http", "http"),
        ]
    );
}

#[test]
fn a_config_file_with_errors_lists_them_all() {
    let surroundings = Surroundings { environment: &environment, avro: false };
    let list = json!([api(&json!({})), { "id": "x" }, api(&json!({})), 5]);
    let wrong = Definition::parse_list(&list.to_string(), &surroundings).expect_err("it is wrong");
    assert_eq!(wrong.len(), 6, "{wrong:#?}");
    assert!(wrong.contains(&"definition 2: api: proxy must be present".to_owned()), "{wrong:#?}");
    for (json, part) in [("{}", "must be a list"), ("[", "not JSON")] {
        let wrong = Definition::parse_list(json, &surroundings).expect_err("it is wrong");
        assert!(wrong[0].contains(part), "{wrong:?}");
    }
}
