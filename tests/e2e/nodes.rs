//! Several nodes on one Kafka: what reaches the wrong one is passed to the right one.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidegate_shards::peers::CallKey;

use crate::proxy_async::{call, question};
use crate::support::backend::Backend;
use crate::support::clients::{Client, TRANSPORTS, Transport, put_request, query, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::kafka::{
    KAFKA_DEADLINE, Producer, Record, gateway_on, key_and_value, own_broker, shared_brokers, topic_name,
};
use crate::support::longpolling::LongPolling;
use crate::support::service::definitions_to;
use crate::support::{wait_for, wait_up_to};

const COOKIE: &str = "one secret for both";

/// Two nodes that know each other.
fn pair(brokers: &str, topic: &str, settings: &[(&str, &str)]) -> [Gateway; 2] {
    let nodes_topic = format!("nodes-of-{topic}");
    let base = [("NODE_COOKIE", COOKIE), ("NODES_TOPIC", nodes_topic.as_str())];
    let producer = Producer::new(brokers);
    producer.create_topic(topic, 1);
    let nodes = [0, 1].map(|_| gateway_on(brokers, topic, &[&base, settings].concat()));
    for node in &nodes {
        producer.wait_until_read(node, topic, 1);
        wait_until_others_are(node, 1.0);
    }
    nodes
}

fn wait_until_others_are(node: &Gateway, count: f64) {
    wait_up_to(KAFKA_DEADLINE, "the nodes to know each other", || {
        let others = node.metrics().sum("tidegate_nodes");
        ((others - count).abs() < 0.5).then_some(())
    });
}

#[test]
fn subscriptions_can_be_replaced_on_any_node() {
    let Some(brokers) = shared_brokers("a PUT on another node") else { return };
    let [here, there] = pair(brokers, &topic_name("put"), &[]);
    for transport in TRANSPORTS {
        let mut client = Client::of_type(&here, transport, "before");
        let list = json!([{ "eventType": "after", "oneOf": [{ "name": "J\"ö" }] }]);
        let response = there.call(put_request(transport.path(), &client.token, &list));
        assert_eq!((response.status, response.text()), (204, ""), "{transport:?}");
        let set = client.next();
        assert_eq!((&set["type"], &set["data"]), (&json!("rig.subscriptions_set"), &list));
        let refused = there.call(put_request("sse", &client.token, &json!([{ "eventType": 5 }])));
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    assert!(there.metrics().sum_where("tidegate_node_calls_total", &[("outcome", "answered")]) >= 3.0);
}

#[test]
fn a_long_polling_session_can_be_polled_on_any_node() {
    let Some(brokers) = shared_brokers("polls on another node") else { return };
    let nodes = pair(brokers, &topic_name("polls"), &[]);
    let mut session = LongPolling::open(&nodes[0], &query(&to_type("greeting")));
    let token = session.connection_token.clone();
    assert_eq!(session.poll_for_events(&nodes[1]).types(), ["rig.connection.create", "rig.subscriptions_set"]);
    for number in 0..6 {
        let id = number.to_string();
        publish(&nodes[number % 2], &event("greeting", &id, &json!(null)));
        let batch = session.poll_for_events(&nodes[(number / 2) % 2]);
        assert_eq!(batch.ids(), [id.as_str()]);
        assert_eq!(batch.last_event_id, id);
    }
    assert!(session.poll(&nodes[1]).events.is_empty(), "a wait that is over is answered, too");
    assert_eq!(session.connection_token, token, "it is one session all the time");
}

#[test]
fn answers_of_services_can_be_sent_to_any_node() {
    let Some(brokers) = shared_brokers("answers at another node") else { return };
    let (told, targets) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = Backend::answering(move |request| {
        let _ = told.lock().expect("no panic").send(request.target.clone());
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()
    });
    let endpoint = json!({
        "id": "ask", "method": "POST", "path_regex": "/ask", "target": "http", "response_from": "http_async"
    });
    let config = definitions_to(backend.port(), &[endpoint]);
    let [here, there] = pair(brokers, &topic_name("answers"), &[("PROXY_CONFIG_FILE", config.as_str())]);
    for path in ["/v3/responses", "/v2/responses"] {
        let waiting = call(here.inbound(), Request::new("POST", "/ask").body(question(1)));
        let target = targets.recv().expect("a request");
        let correlation = target.split_once("correlation=").expect("an id").1.to_owned();
        let post = |correlation: &str| {
            let request = Request::new("POST", path).header("rig-correlation", correlation).header("x-own", "1");
            there.call_internal(request.header("rig-response-code", "418").body("the answer"))
        };
        let posted = post(&correlation);
        assert_eq!((posted.status, posted.text()), (202, "message sent to correlated reverse proxy request"));
        let response = waiting.join().expect("no panic");
        assert_eq!((response.status, response.text(), response.header("x-own")), (418, "the answer", Some("1")));
        let again = post(&correlation);
        assert_eq!(again.status, 400, "{again:?}");
        assert!(again.text().contains("No request waits"), "{again:?}");
    }
}

#[test]
fn a_node_that_has_ended_is_gone_and_its_connections_with_it() {
    let Some(brokers) = shared_brokers("a node that ends") else { return };
    let [mut ends, stays] = pair(brokers, &topic_name("ends"), &[("DRAIN_SECONDS", "0")]);
    let stream = Client::of_type(&ends, Transport::Sse, "greeting");
    let mut session = LongPolling::open(&ends, &query(&to_type("greeting")));
    let (token, old) = (stream.token.clone(), session.connection_token.clone());
    drop(stream);
    ends.signal("TERM");
    assert!(ends.wait_for_end().success());
    wait_until_others_are(&stays, 0.0);
    let response = stays.call(put_request("sse", &token, &to_type("greeting")));
    assert_eq!((response.status, response.text()), (410, "Connection no longer exists."));
    let response = stays.call(session.request());
    assert_eq!((response.status, response.text()), (200, "\"ok\""), "a new session");
    session = LongPolling::from_response(&response);
    assert_ne!(session.connection_token, old);
}

#[test]
fn a_node_that_does_not_answer_in_time_is_out_of_reach() {
    let Some(brokers) = shared_brokers("a node that hangs") else { return };
    let [hangs, stays] = pair(brokers, &topic_name("hangs"), &[]);
    let client = Client::of_type(&hangs, Transport::Sse, "greeting");
    hangs.freeze();
    let response = stays.call(put_request("sse", &client.token, &to_type("greeting")));
    hangs.signal("CONT");
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(response.header("retry-after"), Some("1"));
    wait_up_to(KAFKA_DEADLINE, "the node to answer again", || {
        (stays.call(put_request("sse", &client.token, &to_type("greeting"))).status == 204).then_some(())
    });
}

#[test]
fn only_nodes_may_make_the_calls_of_nodes() {
    let Some(brokers) = shared_brokers("calls of strangers") else { return };
    let topic = topic_name("strangers");
    let _nodes = pair(brokers, &topic, &[]);
    let heartbeat = Producer::new(brokers).read(&format!("nodes-of-{topic}"), 1).remove(0);
    let (id, value) = key_and_value(&heartbeat);
    let id = id.expect("a key");
    let value: serde_json::Value = serde_json::from_str(&value).expect("JSON");
    let port = value["address"].as_str().expect("an address").parse().expect("an address");
    let path = format!("/_tidegate/node/{id}/subscriptions");
    let at = json!({ "shard": 0, "slot": 0, "generation": 1 });
    let body = json!({ "at": at, "subscriptions": [], "sessions": [], "expires_at_s": null });
    let tag = "A".repeat(43);
    for proof in ["", "0.AAAA", &format!("9999999999.{tag}"), &format!("9999999999.{tag}.{tag}")] {
        let response = Request::new("POST", &path).header("x-tidegate-proof", proof).json(&body).send_to(port);
        assert_eq!(response.status, 404, "{response:?}");
    }
    assert_eq!(Request::new("POST", &path).json(&body).send_to(port).status, 404);
    assert_eq!(Request::get("/health").send_to(port).status, 404);

    // Of a body nothing is read before it is known that a node calls, and no more than a node may send.
    let answer = |proof: &str, bytes: usize| {
        let mut connection = Connection::open(port);
        connection.set_read_timeout(KAFKA_DEADLINE);
        connection.send(format!(
            "POST {path} HTTP/1.1\r\nhost: node\r\nx-tidegate-proof: {proof}\r\ncontent-length: {bytes}\r\n\r\n"
        ));
        connection.response().status
    };
    assert_eq!(answer(&format!("9999999999.{tag}.{tag}"), 1 << 29), 404);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
    let proof = CallKey::derive_from(COOKIE).sign(&path, b"never sent", now_s);
    assert_eq!(answer(&proof, 1 << 29), 413);
    assert_eq!(answer(&proof, 10), 408, "the body does not come");
}

#[test]
fn a_node_that_is_cut_off_from_kafka_says_so_keeps_its_clients_and_catches_up() {
    let Some(mut kafka) = own_broker("nodes that are cut off", None) else { return };
    let topic = topic_name("cut-off");
    let nodes = pair(kafka.brokers(), &topic, &[("KAFKA_UNREACHABLE_SECONDS", "1")]);
    let producer = Producer::new(kafka.brokers());
    let mut clients: Vec<_> = nodes.iter().map(|node| Client::of_type(node, Transport::Sse, "greeting")).collect();
    let send = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            producer.queue(&topic, &Record::structured(&event("greeting", &number.to_string(), &json!(null))));
        }
    };
    send(0..10);
    producer.flush();
    kafka.kill().expect("the broker can be killed");
    for node in &nodes {
        wait_up_to(KAFKA_DEADLINE, "the node to say that it is cut off", || {
            let health = node.call_internal(Request::get("/health"));
            (health.status == 503 && health.text().contains("Kafka has been out of reach")).then_some(())
        });
        assert!(node.metrics().sum("tidegate_kafka_connected") < 0.5);
        assert!((node.metrics().sum("tidegate_nodes") - 1.0).abs() < 0.5, "nobody else is gone");
    }
    // The nodes still pass calls to each other.
    let list = to_type("greeting");
    let response = nodes[1].call(put_request("sse", &clients[0].token, &list));
    assert_eq!(response.status, 204, "{response:?}");
    send(10..20);
    kafka.restart().expect("the broker starts again");
    producer.flush();
    for client in &mut clients {
        client.set_read_timeout(KAFKA_DEADLINE);
        for number in 0..20 {
            assert_eq!(client.next_published_id(), number.to_string());
        }
    }
    for node in &nodes {
        wait_for("health to recover", || (node.call_internal(Request::get("/health")).status == 200).then_some(()));
    }
}
