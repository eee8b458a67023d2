//! Requests into Kafka topics (contract, section 4, "target kafka"), without answers.

use rdkafka::message::{Headers as _, Message as _};
use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::kafka::{Producer, gateway_on, own_broker, shared_brokers, topic_name};
use crate::support::service::{Requests, definitions, endpoint, with};

/// A gateway with a plain, a rewriting, a wrapping, a keyed and further endpoints on a new topic of three partitions.
struct Scene {
    gateway: Gateway,
    requests: Requests,
    topic: String,
}

const PARTITIONS: i32 = 3;

impl Scene {
    fn new(what: &str) -> Option<Self> {
        let brokers = shared_brokers(what)?;
        let (producer, topic) = (Producer::new(brokers), topic_name("requests"));
        producer.create_topic(&topic, PARTITIONS as usize);
        let rewriting = with(endpoint("rewriting", "/shop/(.*)", &topic), "path_replacement", r"/seats/\1");
        let wrap = json!({ "type": "com.shop.order", "source": "/shop" });
        let config = definitions(&[
            endpoint("plain", "/orders", &topic),
            with(rewriting, "transform_request_headers", true),
            with(endpoint("wrapping", "/wrap", &topic), "wrap", wrap),
            with(endpoint("keyed", "/seats/([^/]+)/([^/]+)", &topic), "key", r"\1-${x-tenant}"),
            with(endpoint("preflight", "/orders", &topic), "method", "OPTIONS"),
            with(endpoint("at-once", "/at-once", &topic), "response_from", "http"),
            with(endpoint("schema", "/schema", &topic), "schema", "order-v1"),
        ]);
        let gateway = gateway_on(brokers, &topic_name("events"), &[("PROXY_CONFIG_FILE", &config)]);
        Some(Self { gateway, requests: Requests::of(brokers, &topic, PARTITIONS), topic })
    }

    fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.gateway.call(Request::new("POST", path).body(body))
    }

    fn accepted(&self, path: &str, body: &str) {
        let response = self.post(path, body);
        assert_eq!((response.status, response.text()), (202, "Accepted."));
    }
}

fn order() -> Value {
    json!({ "specversion": "0.2", "type": "order", "source": "/client", "id": "1", "data": { "seat": 7 } })
}

#[test]
fn a_request_is_202_once_kafka_has_it() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let response = scene.post("/orders", order().to_string());
    assert_eq!((response.status, response.text()), (202, "Accepted."));
    assert_eq!(response.header("content-type"), None);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let message = scene.requests.next();
    assert_eq!(message.value["data"], json!({ "seat": 7 }));
    assert_eq!(message.key, None);
    assert!(message.headers.is_empty(), "{:?}", message.headers);
    let labels = [("target", "kafka"), ("topic", scene.topic.as_str())];
    assert_eq!(scene.gateway.metrics().sum_where("rig_produced_events_total", &labels), 1.0);
}

#[test]
fn the_message_tells_everything_of_the_request() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let mut event = order();
    event["rig"] = json!({ "target_partition": "seat-7", "correlation": "forged", "remoteip": "1.1.1.1" });
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::new("POST", "/shop/17?a=1&b=%20")
        .header("Host", "shop.example:8081")
        .header("X-Own", "1")
        .header("X-Added", "by-client")
        .header("traceparent", parent)
        .header("tracestate", "vendor=1")
        .body(event.to_string());
    assert_eq!(scene.gateway.call(request).status, 202);
    let message = scene.requests.next();
    let rig = &message.value["rig"];
    assert_eq!(rig["method"], "POST");
    assert_eq!(rig["path"], "/seats/17");
    assert_eq!(rig["query"], "a=1&b=%20");
    assert_eq!(rig["host"], "shop.example");
    assert_eq!(rig["port"], 8081);
    assert_eq!(rig["scheme"], "http");
    assert_eq!(rig["remoteip"], "127.0.0.1");
    assert_ne!(rig["correlation"], "forged");
    let names: Vec<_> = rig.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = ["correlation", "headers", "host", "method", "path", "port", "query", "remoteip", "scheme"];
    assert_eq!(names, expected);
    let headers = rig["headers"].as_array().expect("a list");
    assert!(headers.is_sorted_by_key(|pair| pair[0].as_str().map(str::to_owned)), "{headers:?}");
    for pair in [["host", "shop.example:8081"], ["x-own", "1"], ["x-added", "by-gateway"]] {
        assert!(headers.contains(&json!(pair)), "{pair:?} in {headers:?}");
    }
    assert_eq!(message.value["traceparent"].as_str().expect("a text")[..36], parent[..36]);
    assert_eq!(message.value["tracestate"], "vendor=1");
    assert_eq!(message.key.as_deref(), Some(&b"seat-7"[..]));
}

#[test]
fn response_from_http_means_202_at_once_and_events_of_version_0_1_count_too() {
    let Some(scene) = Scene::new("kafka target") else { return };
    scene.accepted("/at-once", r#"{"cloudEventsVersion":"0.1","eventType":"order","eventID":"1","source":"/"}"#);
    let message = scene.requests.next();
    assert_eq!(message.value["eventType"], "order");
    assert!(message.headers.is_empty(), "no answer is expected: {:?}", message.headers);
}

#[test]
fn the_query_is_told_as_it_was_sent_even_if_it_is_not_utf_8() {
    let Some(scene) = Scene::new("kafka target") else { return };
    for (target, query) in [("/orders", ""), ("/orders?", ""), ("/orders?a=%FF&%zz=%", "a=%FF&%zz=%")] {
        scene.accepted(target, &order().to_string());
        assert_eq!(scene.requests.next().value["rig"]["query"], query, "{target}");
    }
}

#[test]
fn without_avro_what_would_not_fit_a_schema_is_sent_as_json_and_harms_nobody() {
    let Some(mut scene) = Scene::new("kafka target") else { return };
    for (name, value) in [
        ("data", json!("no seat")),
        ("data", json!([])),
        ("time", json!(5)),
        ("subject", json!(null)),
        ("extension", json!({ "a": [1] })),
    ] {
        let mut event = order();
        event[name] = value.clone();
        scene.accepted("/schema", &event.to_string());
        assert_eq!(scene.requests.next().value[name], value, "{name}");
    }
    scene.gateway.assert_alive();
}

#[test]
fn what_the_client_wrote_stays_as_it_is_with_sorted_members() {
    let Some(scene) = Scene::new("kafka target") else { return };
    scene.accepted(
        "/orders",
        r#"{"z":1e2,"specversion":"0.2","contenttype":"application/json","data":{"b":1.50,"a":"\u00e4"}}"#,
    );
    let message = scene.requests.next();
    assert!(message.text.starts_with(r#"{"contenttype":"application/json","data":{"b":1.50,"a":"\u00e4"},"rig":{"#));
    assert!(message.text.ends_with(r#","z":1e2}"#), "{}", message.text);
    assert_eq!(message.headers, [("ce_contenttype".to_owned(), "application/json".to_owned())]);
}

#[test]
fn a_target_partition_is_the_key_and_murmur3_of_it_the_partition() {
    let Some(scene) = Scene::new("kafka target") else { return };
    // MurmurHash3_x86_32 with seed 0, modulo 3, by the reference implementation's published vectors.
    for (key, hash) in [("test", 0xba6b_d213_u32), ("Hello, world!", 0xc036_3e43)] {
        let mut event = order();
        event["rig"] = json!({ "target_partition": key });
        scene.accepted("/orders", &event.to_string());
        let message = scene.requests.next();
        assert_eq!(message.key.as_deref(), Some(key.as_bytes()));
        assert_eq!(u32::try_from(message.partition), Ok(hash % 3), "{key}");
    }
    let mut event = order();
    event["rig"] = json!({ "target_partition": "" });
    scene.accepted("/orders", &event.to_string());
    assert_eq!(scene.requests.next().key, None);
}

#[test]
fn a_target_partition_that_is_no_text_is_refused_and_harms_nobody() {
    let Some(mut scene) = Scene::new("kafka target") else { return };
    for _ in 0..5 {
        for partition in [json!(7), json!(true), json!({}), json!(["a"])] {
            let mut event = order();
            event["rig"] = json!({ "target_partition": partition });
            let response = scene.post("/orders", event.to_string());
            assert_eq!(response.status, 400, "{partition}");
            assert!(response.text().contains("target_partition"), "{}", response.text());
        }
    }
    scene.gateway.assert_alive();
    scene.accepted("/orders", &order().to_string());
}

#[test]
fn bodies_that_are_no_events_get_rigs_usage_text() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let not_json: [&[u8]; 5] = [b"", b"{", b"\xff\xfe", b"{\"specversion\":\"\xff\"}", b"{\"specversion\":\"1.0\"} x"];
    for body in not_json {
        let response = scene.post("/orders", body);
        assert_eq!(response.status, 400);
        assert_eq!(response.header("content-type"), None);
        let lines: Vec<_> = response.text().lines().take(3).collect();
        assert_eq!(lines, ["Bad request: expected a JSON encoded request body.", "", "# Usage"]);
    }
    for body in ["{}", "[]", "null", "5", "\"text\"", r#"{"type":"order"}"#] {
        let response = scene.post("/orders", body);
        assert_eq!(response.status, 400);
        let lines: Vec<_> = response.text().lines().take(3).collect();
        assert_eq!(lines, ["Bad request: the body does not look like a CloudEvent.", "", "# Usage"], "{body}");
    }
}

#[test]
fn a_body_beyond_the_limit_is_413() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let body = format!(r#"{{"specversion":"0.2","data":"{}"}}"#, "x".repeat(2 << 20));
    assert_eq!(scene.post("/orders", body).status, 413);
}

#[test]
fn an_endpoint_that_wraps_makes_an_event_of_any_body() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let post = |content_type: &str, body: &[u8]| {
        let request = Request::new("POST", "/wrap").header("content-type", content_type).body(body);
        assert_eq!(scene.gateway.call(request).status, 202);
        scene.requests.next().value
    };
    let event = post("application/json", br#"{"seat":7}"#);
    assert_eq!((&event["type"], &event["source"]), (&json!("com.shop.order"), &json!("/shop")));
    assert_eq!((&event["specversion"], &event["data"]), (&json!("1.0"), &json!({ "seat": 7 })));
    assert_eq!(post("text/plain", b"hello")["data"], "hello");
    assert_eq!(post("image/png", b"\x89\xff")["data_base64"], "if8=");
    let own = post("application/json", order().to_string().as_bytes());
    assert_eq!(own["type"], "order", "an event is left as it is");
}

#[test]
fn a_key_can_come_from_the_path_and_from_a_header() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let request = Request::new("POST", "/seats/a%20b/x").header("x-tenant", "t1").body(order().to_string());
    assert_eq!(scene.gateway.call(request).status, 202);
    assert_eq!(scene.requests.next().key.as_deref(), Some(&b"a b-t1"[..]));
}

#[test]
fn an_options_endpoint_answers_preflight_requests_itself() {
    let Some(scene) = Scene::new("kafka target") else { return };
    let response = scene.gateway.call(Request::new("OPTIONS", "/orders"));
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-methods"), Some("*"));
    assert_eq!(response.header("access-control-allow-headers"), Some("content-type,authorization"));
}

#[test]
fn without_kafka_a_kafka_endpoint_says_so() {
    let config = definitions(&[endpoint("plain", "/orders", "requests")]);
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &config)]);
    let response = gateway.call(Request::new("POST", "/orders").body(order().to_string()));
    assert_eq!(response.status, 503);
    assert!(response.text().contains("KAFKA_BROKERS"), "{}", response.text());
}

#[test]
fn a_broker_out_of_reach_is_503_and_one_that_refuses_502() {
    let Some(mut broker) = own_broker("kafka target", None) else { return };
    let producer = Producer::new(broker.brokers());
    let topic = topic_name("requests");
    producer.create_topic(&topic, 1);
    let config = definitions(&[endpoint("plain", "/orders", &topic)]);
    let limit =
        [("PROXY_CONFIG_FILE", config.as_str()), ("MAX_BODY_BYTES", "20000000"), ("MAX_QUEUE_BYTES", "20000000")];
    let gateway = gateway_on(broker.brokers(), &topic_name("events"), &limit);
    let body = format!(r#"{{"specversion":"0.2","data":"{}"}}"#, "x".repeat(13 << 20));
    let response = gateway.call(Request::new("POST", "/orders").body(body));
    assert_eq!(response.status, 502, "the broker takes 12 MiB: {}", response.text());
    broker.kill().expect("the broker can be killed");
    let response = gateway.call(Request::new("POST", "/orders").body(order().to_string()));
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.header("retry-after").is_some());
}

#[test]
fn the_request_log_tells_of_matched_calls_on_the_console_and_in_kafka() {
    let Some(brokers) = shared_brokers("request log") else { return };
    let (producer, topic, log_topic) = (Producer::new(brokers), topic_name("requests"), topic_name("calls"));
    producer.create_topic(&topic, 1);
    producer.create_topic(&log_topic, 1);
    let config = definitions(&[endpoint("plain", "/orders/([0-9]+)", &topic)]);
    let settings =
        [("PROXY_CONFIG_FILE", config.as_str()), ("REQUEST_LOG", "console,kafka"), ("KAFKA_LOG_TOPIC", &log_topic)];
    let gateway = gateway_on(brokers, &topic_name("events"), &settings);
    assert_eq!(gateway.call(Request::new("POST", "/nowhere").body("x")).status, 404);
    assert_eq!(gateway.call(Request::new("POST", "/orders/5").body(order().to_string())).status, 202);
    gateway.wait_for_log(&format!("CALL: [plain] POST /orders/([0-9]+) => kafka:{topic}"));
    let message = producer.read(&log_topic, 1).remove(0);
    assert_eq!(message.key(), Some(&b"partition"[..]));
    let header = message.headers().expect("headers").get(0);
    assert_eq!((header.key, header.value), ("ce_contenttype", Some(&b"application/json"[..])));
    let event: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
    assert_eq!(event["type"], "com.rig.proxy.api.call");
    assert_eq!((&event["source"], &event["specversion"]), (&json!("/rig"), &json!("0.2")));
    assert_eq!(event["contenttype"], "application/json");
    assert_eq!(event["data"]["endpoint"]["id"], "plain");
    assert_eq!(event["data"]["request_path"], "/orders/5");
    assert_eq!(event["data"]["remote_ip"], "127.0.0.1");
}
