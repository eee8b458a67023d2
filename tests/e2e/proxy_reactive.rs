//! A service written with `tidegate-reactive` answers calls of the gateway.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_reactive::{Json, ReactiveServer, Refusal, Request as Asked, ServerSettings, Service};

use crate::proxy_async::question;
use crate::support::http::Request;
use crate::support::kafka::{KAFKA_DEADLINE, Producer, gateway_on, shared_brokers, topic_name};
use crate::support::service::{definitions, endpoint, with};
use crate::support::wait_up_to;

#[test]
fn a_reactive_server_answers_the_gateways_calls_by_the_id_of_their_endpoint() {
    let Some(brokers) = shared_brokers("a reactive server behind the gateway") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("requests"));
    producer.create_topic(&topic, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let service =
        Service::sync("ask", |request: Asked<Json<Value>>| {
            Json(json!({ "echo": request.payload.0["data"], "path": request.payload.0["rig"]["path"] }))
        }) | Service::sync("refuse", |_: Asked<Json<Value>>| Err::<(), _>(Refusal::bad_request("not like this")));
    let settings = ServerSettings::new(brokers, &topic);
    let server = runtime.block_on(ReactiveServer::start(settings, service)).expect("the server starts");
    let config = definitions(&[
        with(endpoint("ask", "/ask", &topic), "response_from", "kafka"),
        with(endpoint("refuse", "/refuse", &topic), "response_from", "kafka"),
        with(endpoint("nobody", "/nobody", &topic), "response_from", "kafka"),
    ]);
    let gateway = gateway_on(brokers, &topic_name("events"), &[("PROXY_CONFIG_FILE", &config)]);
    let call = |path: &str| gateway.call(Request::new("POST", path).body(question(7)));

    let answered = wait_up_to(KAFKA_DEADLINE, "an answer of the server", || {
        Some(call("/ask")).filter(|response| response.status == 200)
    });
    assert_eq!(answered.json(), json!({ "echo": 7, "path": "/ask" }));
    assert_eq!(answered.header("content-type"), Some("application/json"));
    assert_eq!(call("/refuse").status, 400);
    assert_eq!(call("/nobody").status, 404, "the server has no such service");
    runtime.block_on(server.shutdown(Duration::from_secs(10)));
}
