//! Events whose data are in Avro, on their way from Kafka to clients (contract, section 3).

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, query, to_type};
use crate::support::events::event;
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::kafka::{Producer, Record, gateway_on, shared_brokers, topic_name};
use crate::support::registry::{Registry, framed, record};
use crate::support::sse::EventStream;
use crate::support::wait_for;

struct Stage {
    registry: Registry,
    producer: Producer,
    topic: String,
    brokers: &'static str,
    id: u32,
}

fn seat_schema() -> Value {
    json!({ "type": "record", "name": "seat", "namespace": "shop", "fields": [
        { "name": "row", "type": "int" },
        { "name": "price", "type": ["null", "double"], "default": null },
        { "name": "state", "type": { "type": "enum", "name": "state", "symbols": ["FREE", "SOLD"] } },
        { "name": "tags", "type": { "type": "array", "items": "string" } },
    ] })
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        let brokers = shared_brokers(test)?;
        let (registry, producer, topic) = (Registry::start(), Producer::new(brokers), topic_name("avro"));
        producer.create_topic(&topic, 1);
        let id = registry.register("seats-value", &seat_schema());
        Some(Self { registry, producer, topic, brokers, id })
    }

    fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        let address = self.registry.address();
        let own = [("KAFKA_SCHEMA_REGISTRY_HOST", address.as_str())];
        let gateway = gateway_on(self.brokers, &self.topic, &[&own, settings].concat());
        self.producer.wait_until_read(&gateway, &self.topic, 1);
        gateway
    }

    fn value(&self, row: i32) -> Vec<u8> {
        let (price, state) = (Avro::Union(1, Box::new(Avro::Double(12.5))), Avro::Enum(1, "SOLD".to_owned()));
        let tags = Avro::Array(vec![Avro::String("aisle".to_owned())]);
        let fields = [("row", Avro::Int(row)), ("price", price), ("state", state), ("tags", tags)];
        framed(self.id, &seat_schema(), record(&fields))
    }

    /// Writes a seat in binary mode; its id is its row.
    fn send_seat(&self, row: i32) {
        self.send(&Record::binary("seat", &row.to_string(), "avro/binary", self.value(row)));
    }

    fn send(&self, record: &Record) {
        self.producer.send(&self.topic, record);
    }
}

fn seat(row: i32) -> Value {
    json!({ "row": row, "price": 12.5, "state": "SOLD", "tags": ["aisle"] })
}

#[test]
fn data_in_avro_reach_clients_on_every_transport_as_json() {
    let Some(stage) = Stage::new("Avro from Kafka") else { return };
    let gateway = stage.gateway(&[]);
    let mut clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "seat"));
    let mut record = Record::binary("seat", "1", "avro/binary", stage.value(1));
    record.headers.push(("ce_rig".to_owned(), br#"{"correlation":"x","port":80}"#.to_vec()));
    record.headers.push(("ce_note".to_owned(), b"no JSON".to_vec()));
    stage.send(&record);
    stage.send_seat(2);
    for client in &mut clients {
        let first = client.next();
        assert_eq!((&first["data"], &first["id"], &first["source"]), (&seat(1), &json!("1"), &json!("/test")));
        assert_eq!((&first["rig"]["port"], &first["note"]), (&json!(80), &json!("no JSON")), "{first}");
        assert_eq!(client.next()["data"], seat(2));
    }
    assert_eq!(stage.registry.asked(), [format!("/schemas/ids/{}", stage.id)], "what an id stands for is asked once");
}

#[test]
fn avro_is_known_by_its_first_byte_where_there_is_no_content_type() {
    let Some(stage) = Stage::new("Avro without content type") else { return };
    let gateway = stage.gateway(&[]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "seat");
    let mut binary = Record::binary("seat", "1", "", stage.value(1));
    binary.headers.retain(|(name, _)| name != "content-type");
    stage.send(&binary);
    assert_eq!(client.next()["data"], seat(1));
    let text = |name: &str| json!({ "name": name, "type": "string" });
    let whole = json!({ "type": "record", "name": "event", "fields": [
        text("specversion"), text("type"), text("source"), text("id"),
        { "name": "data", "type": { "type": "map", "values": "long" } },
    ] });
    let id = stage.registry.register("events-value", &whole);
    let member = |text: &str| Avro::String(text.to_owned());
    let event = record(&[
        ("specversion", member("0.2")),
        ("type", member("seat")),
        ("source", member("/whole")),
        ("id", member("2")),
        ("data", Avro::Map([("row".to_owned(), Avro::Long(i64::MAX))].into())),
    ]);
    stage.send(&Record { value: Some(framed(id, &whole, event)), ..Record::default() });
    let whole = client.next();
    assert_eq!((&whole["source"], &whole["data"]["row"]), (&json!("/whole"), &json!(i64::MAX)));
}

#[test]
fn events_can_be_matched_by_what_is_in_their_avro() {
    let Some(stage) = Stage::new("extractors and Avro") else { return };
    let extractors =
        json!({ "seat": { "row": { "stable_field_index": 1, "event": { "json_pointer": "/data/row" } } } });
    let gateway = stage.gateway(&[("EXTRACTORS", &extractors.to_string())]);
    let wanted = json!([{ "eventType": "seat", "oneOf": [{ "row": 2 }] }]);
    let mut client = Client::subscribe(&gateway, Transport::WebSocket, &wanted);
    (1..=3).for_each(|row| stage.send_seat(row));
    assert_eq!(client.next()["data"]["row"], 2);
}

#[test]
fn avro_that_cannot_be_read_is_counted_logged_and_skipped() {
    let Some(stage) = Stage::new("broken Avro") else { return };
    let node = json!({ "type": "record", "name": "node", "fields": [{ "name": "next", "type": ["null", "node"] }] });
    let list = stage.registry.register("nodes-value", &node);
    let nulls = stage.registry.register("nulls-value", &json!({ "type": "array", "items": "null" }));
    let gateway = stage.gateway(&[]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "seat");
    let failed = |gateway: &Gateway| gateway.metrics().sum("rig_consumed_events_failed_total");
    let before = failed(&gateway);
    let head = |id: u32| [&[0][..], &id.to_be_bytes()].concat();
    let most = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let whole = stage.value(1);
    let broken = [
        b"{}".to_vec(),
        Vec::new(),
        head(2_000_000_000),
        head(4_000_000_000),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"x"].concat(),
        [&head(stage.id)[..], b"\x02\x02\0\0\0\0\0\0\0\0\x02", most].concat(),
        [&head(nulls)[..], most].concat(),
        [head(list), vec![2; 500_000]].concat(),
    ];
    for body in &broken {
        stage.producer.queue(&stage.topic, &Record::binary("seat", "0", "avro/binary", body));
    }
    stage.producer.flush();
    stage.send_seat(7);
    assert_eq!(client.next()["data"], seat(7));
    assert!((failed(&gateway) - before - broken.len() as f64).abs() < 0.5, "{before} {}", failed(&gateway));
    let topic = &stage.topic;
    wait_for("a line for each of them", || {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("not an event") && line.contains(topic.as_str()));
        (lines.filter(|line| line.contains("offset=") && line.contains("partition=")).count() == broken.len())
            .then_some(())
    });
    for text in [
        "is not in the registry",
        "no schema can have the id 4000000000",
        "zero byte",
        "ends early",
        "more follows",
        "levels deep",
        "bytes as JSON",
    ] {
        assert!(gateway.log().contains(text), "{text}");
    }
}

#[test]
fn while_the_registry_is_away_events_wait_and_clients_are_served() {
    let Some(stage) = Stage::new("a registry that is away") else { return };
    let gateway = stage.gateway(&[]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "seat");
    stage.registry.set_away(true);
    stage.send_seat(1);
    stage.send(&Record::structured(&event("seat", "2", &json!({ "row": 2 }))));
    let reachable = || gateway.metrics().sum("tidegate_schema_registry_reachable");
    wait_for("the registry to be missed", || (reachable() == 0.0).then_some(()));
    gateway.wait_for_log("the schema registry can't be reached");
    // Its subscription comes into force although ingress waits.
    let mut later = Client::of_type(&gateway, Transport::WebSocket, "seat");
    stage.registry.set_away(false);
    for client in [&mut client, &mut later] {
        assert_eq!(client.next()["data"], seat(1));
        assert_eq!(client.next()["id"], "2");
    }
    assert!(reachable() > 0.5);
    gateway.wait_for_log("the schema registry answers again");
    assert_eq!(gateway.log().matches("the schema registry can't be reached").count(), 1, "it is said once");
    let labels = [("source", "kafka"), ("topic", stage.topic.as_str())];
    assert!(gateway.metrics().sum_where("rig_consumed_events_failed_total", &labels) < 0.5);
}

#[test]
fn a_gateway_stops_although_it_waits_for_a_schema() {
    let Some(stage) = Stage::new("a stop while the registry is away") else { return };
    let mut gateway = stage.gateway(&[]);
    let client = Client::of_type(&gateway, Transport::Sse, "seat");
    stage.registry.set_away(true);
    stage.send_seat(1);
    gateway.wait_for_log("the schema registry can't be reached");
    drop(client);
    gateway.signal("TERM");
    assert!(gateway.wait_for_end().success());
}

#[test]
fn avro_that_nobody_wants_asks_no_registry() {
    let Some(stage) = Stage::new("unwanted Avro") else { return };
    let gateway = stage.gateway(&[]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "end");
    stage.send_seat(1);
    stage.send(&Record::structured(&event("end", "2", &json!(null))));
    assert_eq!(client.next()["id"], "2");
    assert!(stage.registry.asked().is_empty(), "{:?}", stage.registry.asked());
}

#[test]
fn without_a_registry_avro_is_counted_and_skipped() {
    let Some(stage) = Stage::new("Avro without a registry") else { return };
    let gateway = gateway_on(stage.brokers, &stage.topic, &[]);
    stage.producer.wait_until_read(&gateway, &stage.topic, 1);
    let mut client = Client::of_type(&gateway, Transport::Sse, "seat");
    stage.send_seat(1);
    stage.send(&Record::structured(&event("seat", "2", &json!(null))));
    assert_eq!(client.next()["id"], "2");
    gateway.wait_for_log("KAFKA_SCHEMA_REGISTRY_HOST");
}

#[test]
fn a_client_that_comes_back_gets_the_avro_it_has_missed_from_kafka() {
    let Some(stage) = Stage::new("replay of Avro") else { return };
    let gateway = stage.gateway(&[("HISTORY_BYTES", "0")]);
    let mut first = EventStream::open(&gateway, &query(&to_type("seat")));
    stage.send_seat(1);
    let cursor = wait_for("the first seat", || {
        let event = first.next_event();
        event.data.contains("SOLD").then_some(event.id).flatten()
    });
    drop(first);
    drop(gateway);
    (2..5).for_each(|row| stage.send_seat(row));
    // A new node: it has nothing in memory, and knows no schema.
    let gateway = stage.gateway(&[("HISTORY_BYTES", "0")]);
    let path = format!("/_rig/v1/connection/sse?{}", query(&to_type("seat")));
    let mut again = EventStream::with_request(&gateway, &Request::get(&path).header("last-event-id", &cursor));
    let mut rows = Vec::new();
    while rows.len() < 3 {
        let event: Value = serde_json::from_str(&again.next_event().data).expect("an event is JSON");
        rows.extend(event["data"]["row"].as_i64());
    }
    assert_eq!(rows, [2, 3, 4]);
}

#[test]
fn snapshots_have_avro_events_too() {
    let Some(stage) = Stage::new("snapshots of Avro") else { return };
    for row in [1, 2] {
        let record = Record::binary("seat", &row.to_string(), "avro/binary", stage.value(row));
        stage.send(&Record { key: Some(b"seat".to_vec()), ..record });
    }
    let gateway = stage.gateway(&[("SNAPSHOT_TOPICS", &stage.topic)]);
    let mut client = EventStream::open(&gateway, &query(&json!([{ "eventType": "seat", "snapshot": true }])));
    let newest = wait_for("the newest seat", || {
        let event: Value = serde_json::from_str(&client.next_event().data).expect("an event is JSON");
        (event["type"] == "seat").then_some(event)
    });
    assert_eq!(newest["data"], seat(2));
}
