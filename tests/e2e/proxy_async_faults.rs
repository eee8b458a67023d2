//! The broker dies with requests in flight: each ends once, answered or with a definite error.

use serde_json::json;

use crate::proxy_async::question;
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::kafka::{KAFKA_DEADLINE, Producer, gateway_on, own_broker, topic_name};
use crate::support::service::{Echo, definitions, endpoint, with};
use crate::support::wait_up_to;

/// Requests in flight.
const REQUESTS: usize = 2_000;

#[test]
fn a_broker_killed_among_2000_requests_leaves_none_hanging_and_answers_none_twice() {
    tidegate::limits::raise_open_files();
    let Some(mut broker) = own_broker("a killed broker", None) else { return };
    let (producer, topic, responses) =
        (Producer::new(broker.brokers()), topic_name("requests"), topic_name("responses"));
    producer.create_topic(&topic, 1);
    producer.create_topic(&responses, 1);
    let unread = topic_name("unread");
    producer.create_topic(&unread, 1);
    let config = definitions(&[
        with(endpoint("ask", "/ask", &topic), "response_from", "kafka"),
        with(endpoint("unanswered", "/unanswered", &unread), "response_from", "kafka"),
    ]);
    let settings = [
        ("PROXY_CONFIG_FILE", config.as_str()),
        ("PROXY_KAFKA_RESPONSE_TOPICS", &responses),
        ("HEADER_TIMEOUT_MS", "120000"),
    ];
    let gateway = gateway_on(broker.brokers(), &topic_name("events"), &settings);
    let _service = Echo::start(broker.brokers(), &topic, 1, Some(&responses));
    wait_until_answered(&gateway);

    let before = gateway.metrics().sum("tidegate_answers_delivered_total");
    let mut calls = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        if number == REQUESTS / 2 {
            gateway.wait_for_metric("tidegate_answers_delivered_total", before + 1.0);
            broker.kill().expect("the broker can be killed");
        }
        // One in four is for a service that never answers, so that there are always some in flight.
        let path = if number % 4 == 3 { "/unanswered" } else { "/ask" };
        let mut connection = Connection::open(gateway.inbound());
        connection.send(Request::new("POST", path).body(question(number)).to_bytes());
        calls.push((number, connection));
    }
    let mut answered = 0;
    for (number, connection) in &mut calls {
        let response = connection.response();
        match response.status {
            200 => {
                assert_eq!(response.json(), json!({ "echo": *number }), "everyone gets the answer to his own question");
                answered += 1;
            }
            502..=504 => {}
            status => panic!("{number} ended with {status}: {}", response.text()),
        }
    }
    assert!((1..REQUESTS).contains(&answered), "{answered} were answered");
    gateway.wait_until_nothing_is_pending();

    broker.restart().expect("the broker starts again");
    wait_until_answered(&gateway);
    for (number, mut connection) in calls.into_iter().step_by(20) {
        let health = connection.request(&Request::get("/_rig/health"));
        assert_eq!((health.status, health.text()), (200, "OK"), "nothing came after the answer to {number}");
    }
    gateway.wait_until_nothing_is_pending();
}

fn wait_until_answered(gateway: &Gateway) {
    wait_up_to(KAFKA_DEADLINE, "an answer through Kafka", || {
        (gateway.call(Request::new("POST", "/ask").body(question("?"))).status == 200).then_some(())
    });
}

#[test]
fn what_kafka_has_not_taken_may_be_repeated_with_its_key() {
    let Some(mut broker) = own_broker("a killed broker", None) else { return };
    let (producer, topic) = (Producer::new(broker.brokers()), topic_name("requests"));
    producer.create_topic(&topic, 1);
    let config = definitions(&[endpoint("tell", "/tell", &topic)]);
    let gateway = gateway_on(broker.brokers(), &topic_name("events"), &[("PROXY_CONFIG_FILE", &config)]);
    let tell = || gateway.call(Request::new("POST", "/tell").header("idempotency-key", "k").body(question("?")));
    broker.kill().expect("the broker can be killed");
    let failed = tell();
    assert_eq!(failed.status, 503, "{}", failed.text());
    assert!(failed.header("retry-after").is_some());
    broker.restart().expect("the broker starts again");
    wait_up_to(KAFKA_DEADLINE, "Kafka to take the repetition", || (tell().status == 202).then_some(()));
}
