//! Requests and the request log that go to Kafka in Avro (contract, section 4, "target kafka").

use apache_avro::types::Value as Avro;
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use serde_json::{Value, json};

use crate::support::clients::{Client, Transport};
use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::kafka::{Producer, gateway_on, shared_brokers, topic_name};
use crate::support::registry::{Registry, record, unframed};
use crate::support::service::{RESPONSES, answer, definitions, endpoint, with};
use crate::support::wait_for;

struct Scene {
    gateway: Gateway,
    registry: Registry,
    producer: Producer,
    topic: String,
    id: u32,
}

const SUBJECT: &str = "orders/2024-value";

fn order_schema() -> Value {
    json!({ "type": "record", "name": "order", "fields": [
        { "name": "seat", "type": "int" },
        { "name": "note", "type": ["null", "string"], "default": null },
    ] })
}

impl Scene {
    /// Its requests go to a topic that it reads events from, too.
    fn new(test: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let brokers = shared_brokers(test)?;
        let (registry, producer, topic) = (Registry::start(), Producer::new(brokers), topic_name("orders"));
        producer.create_topic(&topic, 1);
        let id = registry.register("orders%2F2024-value", &order_schema());
        let avro = |id: &str, path: &str| with(endpoint(id, path, &topic), "schema", SUBJECT);
        let config = definitions(&[
            avro("avro", "/orders"),
            with(avro("unknown", "/unknown"), "schema", "no-such-subject"),
            with(avro("answered", "/answered"), "response_from", "kafka"),
            with(avro("wrapping", "/wrap"), "wrap", json!({ "type": "order", "source": "/shop" })),
            endpoint("json", "/json", &topic),
        ]);
        let address = registry.address();
        let own = [
            ("PROXY_CONFIG_FILE", config.as_str()),
            ("KAFKA_SERIALIZER", "avro"),
            ("KAFKA_SCHEMA_REGISTRY_HOST", &address),
        ];
        let gateway = gateway_on(brokers, &topic, &[&own, settings].concat());
        Some(Self { gateway, registry, producer, topic, id })
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.gateway.call(Request::new("POST", path).body(body.to_string()))
    }

    fn message(&self, count: usize) -> OwnedMessage {
        self.producer.read(&self.topic, count).pop().expect("that many messages")
    }
}

fn order(data: &Value) -> Value {
    json!({ "specversion": "0.2", "type": "order", "source": "/client", "id": "1", "contenttype": "avro/binary",
        "time": "2018-04-05T17:31:00Z", "count": 7, "none": null, "more": { "a": [1] }, "data": data })
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers().expect("headers");
    let value = headers.iter().find(|header| header.key == name)?.value.unwrap_or_default();
    Some(String::from_utf8(value.to_vec()).expect("a text"))
}

#[test]
fn a_request_with_a_schema_is_in_binary_mode_and_its_data_in_avro() {
    let Some(scene) = Scene::new("Avro into Kafka", &[]) else { return };
    let response = scene.post("/orders", &order(&json!({ "seat": 7, "unknown": true })));
    assert_eq!((response.status, response.text()), (202, "Accepted."));
    let message = scene.message(1);
    let (id, value) = unframed(&order_schema(), message.payload().expect("a value"));
    let nothing = Avro::Union(0, Box::new(Avro::Null));
    assert_eq!((id, value), (scene.id, record(&[("seat", Avro::Int(7)), ("note", nothing)])));
    for (name, value) in [
        ("ce_specversion", "0.2"),
        ("ce_type", "order"),
        ("ce_source", "/client"),
        ("ce_id", "1"),
        ("ce_time", "2018-04-05T17:31:00Z"),
        ("ce_contenttype", "avro/binary"),
        ("ce_count", "7"),
        ("ce_more", r#"{"a":[1]}"#),
        ("content-type", "avro/binary"),
    ] {
        assert_eq!(header(&message, name).as_deref(), Some(value), "{name}");
    }
    let rig: Value = serde_json::from_str(&header(&message, "ce_rig").expect("ce_rig")).expect("JSON");
    assert_eq!((&rig["method"], &rig["path"]), (&json!("POST"), &json!("/orders")));
    assert!(header(&message, "ce_traceparent").is_some_and(|text| text.len() == 55));
    for name in ["ce_data", "ce_none", "rig-correlation"] {
        assert_eq!(header(&message, name), None, "{name}");
    }
    let labels = [("target", "kafka"), ("topic", scene.topic.as_str())];
    assert!(scene.gateway.metrics().sum_where("rig_produced_events_total", &labels) > 0.5);
    assert_eq!(scene.post("/orders", &order(&json!({ "seat": 8 }))).status, 202);
    assert_eq!(scene.registry.asked(), ["/subjects/orders%2F2024-value/versions/latest"], "it is asked once");
}

#[test]
fn what_was_written_in_avro_is_read_again() {
    let Some(scene) = Scene::new("Avro there and back", &[]) else { return };
    scene.producer.wait_until_read(&scene.gateway, &scene.topic, 1);
    let mut client = Client::of_type(&scene.gateway, Transport::Sse, "order");
    assert_eq!(scene.post("/orders", &order(&json!({ "seat": 7, "note": "aisle" }))).status, 202);
    let event = client.next();
    assert_eq!(event["data"], json!({ "seat": 7, "note": "aisle" }));
    assert_eq!(
        (&event["rig"]["path"], &event["more"], &event["count"]),
        (&json!("/orders"), &json!({"a":[1]}), &json!(7))
    );
}

#[test]
fn what_does_not_fit_the_schema_gets_400_and_its_name() {
    let Some(scene) = Scene::new("Avro that doesn't fit", &[]) else { return };
    for (data, text) in [
        (json!({ "seat": "7" }), "data.seat must be int, not a text"),
        (json!({ "note": "x" }), "data.seat is missing"),
        (json!({ "seat": 1, "note": 2 }), "data.note must be null or string, not a number"),
        (json!("text"), "data must be record (an object), not a text"),
    ] {
        let response = scene.post("/orders", &order(&data));
        let expected = format!("Bad request: {text}, says the Avro schema {SUBJECT}.");
        assert_eq!((response.status, response.text()), (400, expected.as_str()));
    }
    let mut without = order(&json!(null));
    without.as_object_mut().expect("an object").remove("data");
    assert_eq!(scene.post("/orders", &without).status, 400, "no data are {{}}");
    let mut bytes = without.clone();
    bytes["data_base64"] = json!("AA==");
    assert!(scene.post("/orders", &bytes).text().contains("data_base64"));
    without["data"] = json!({ "seat": 1 });
    without["a\u{0}b"] = json!("x");
    assert!(scene.post("/orders", &without).text().contains("a member's name"));
    // Four and more of them end RIG.
    let labels = [("path", "/orders"), ("status", "bad_request")];
    assert!(scene.gateway.metrics().sum_where("rig_proxy_requests_total", &labels) > 6.5);
    assert_eq!(scene.post("/orders", &order(&json!({ "seat": 1 }))).status, 202);
    let (_, value) = unframed(&order_schema(), scene.message(1).payload().expect("a value"));
    assert!(matches!(value, Avro::Record(_)), "only what fits is in Kafka");
}

#[test]
fn a_subject_that_the_registry_does_not_have_is_502_and_no_registry_503() {
    let Some(scene) = Scene::new("no schema for a request", &[]) else { return };
    let response = scene.post("/unknown", &order(&json!({})));
    let text = "The request can't be written in Avro: the schema no-such-subject is not in the registry.";
    assert_eq!((response.status, response.text()), (502, text));
    scene.registry.set_away(true);
    let response = scene.post("/orders", &order(&json!({ "seat": 1 })));
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!(response.text().starts_with("The schema registry can't be reached: "), "{}", response.text());
    assert_eq!(scene.post("/json", &order(&json!({}))).status, 202, "what needs no schema goes on");
    scene.registry.set_away(false);
    wait_for("the registry's schema", || {
        (scene.post("/orders", &order(&json!({ "seat": 1 }))).status == 202).then_some(())
    });
    scene.registry.set_away(true);
    assert_eq!(scene.post("/orders", &order(&json!({ "seat": 1 }))).status, 202, "what is known stays known");
}

#[test]
fn a_request_in_avro_is_answered_by_its_correlation_id() {
    let Some(scene) = Scene::new("answers to Avro", &[]) else { return };
    std::thread::scope(|scope| {
        let call = scope.spawn(|| scene.post("/answered", &order(&json!({ "seat": 3 }))));
        let request = scene.message(1);
        let correlation = header(&request, "rig-correlation").expect("an id");
        let rig: Value = serde_json::from_str(&header(&request, "ce_rig").expect("ce_rig")).expect("JSON");
        assert_eq!(rig["correlation"], correlation.as_str());
        let (topic, partition) = (header(&request, "rig-reply-topic"), header(&request, "rig-reply-partition"));
        let reply = answer(&correlation, &[("rig-response-code", "201")], "done");
        match topic.zip(partition) {
            Some((topic, partition)) => {
                scene.producer.send(&topic, &reply.for_partition(partition.parse().expect("a number")));
            }
            None => scene.producer.send(RESPONSES, &reply),
        }
        let response = call.join().expect("the call ends");
        assert_eq!((response.status, response.text()), (201, "done"));
    });
}

#[test]
fn a_wrapped_body_is_the_data() {
    let Some(scene) = Scene::new("wrapped Avro", &[]) else { return };
    assert_eq!(scene.post("/wrap", &json!({ "seat": 5 })).status, 202);
    let message = scene.message(1);
    let (_, value) = unframed(&order_schema(), message.payload().expect("a value"));
    assert!(matches!(value, Avro::Record(fields) if fields[0].1 == Avro::Int(5)));
    assert_eq!(header(&message, "ce_type").as_deref(), Some("order"));
    assert_eq!(header(&message, "ce_specversion").as_deref(), Some("1.0"));
}

#[test]
fn without_the_serializer_a_schema_changes_nothing() {
    let Some(scene) = Scene::new("a schema without serializer", &[("KAFKA_SERIALIZER", "")]) else { return };
    assert_eq!(scene.post("/orders", &order(&json!({ "any": "thing" }))).status, 202);
    let message = scene.message(1);
    let event: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
    assert_eq!(event["data"], json!({ "any": "thing" }));
    assert!(scene.registry.asked().is_empty());
}

#[test]
fn the_request_log_is_in_avro_where_it_has_a_schema() {
    let log = topic_name("log");
    let settings = [("REQUEST_LOG", "kafka"), ("KAFKA_LOG_TOPIC", log.as_str()), ("KAFKA_LOG_SCHEMA", "log-value")];
    let Some(scene) = Scene::new("the request log in Avro", &settings) else { return };
    scene.producer.create_topic(&log, 1);
    let text = |name: &str| json!({ "name": name, "type": "string" });
    let schema = json!({ "type": "record", "name": "call", "fields": [
        { "name": "endpoint", "type": { "type": "record", "name": "endpoint", "fields": [text("id"), text("path_regex")] } },
        text("request_path"),
        text("remote_ip"),
    ] });
    assert_eq!(scene.post("/orders", &order(&json!({ "seat": 1 }))).status, 202);
    // Its first event found no schema, which is said with the next one, and once.
    scene.gateway.wait_for_metric("tidegate_schema_requests_total", 2.0);
    let id = scene.registry.register("log-value", &schema);
    let failed = [("topic", log.as_str())];
    wait_for("a call in the log", || {
        assert_eq!(scene.post("/orders", &order(&json!({ "seat": 2 }))).status, 202);
        (scene.gateway.metrics().sum_where("rig_produced_events_total", &failed) > 0.5).then_some(())
    });
    assert!(scene.gateway.metrics().sum_where("rig_produced_events_failed_total", &failed) > 0.5);
    scene.gateway.wait_for_log("a call is missing in the request log");
    let message = scene.producer.read(&log, 1).remove(0);
    let (written, value) = unframed(&schema, message.payload().expect("a value"));
    let string = |text: &str| Avro::String(text.to_owned());
    let endpoint = record(&[("id", string("avro")), ("path_regex", string("/orders"))]);
    let call = [("endpoint", endpoint), ("request_path", string("/orders")), ("remote_ip", string("127.0.0.1"))];
    assert_eq!((written, value), (id, record(&call)));
    for (name, value) in [
        ("ce_type", "com.rig.proxy.api.call"),
        ("ce_source", "/rig"),
        ("ce_contenttype", "avro/binary"),
        ("content-type", "avro/binary"),
    ] {
        assert_eq!(header(&message, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(message.key(), Some(&b"partition"[..]));
}
