//! Answers that come later (contract, section 4, "The correlated answer"): over Kafka and over `/v3/responses`.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::kafka::{Producer, Record, gateway_on, shared_brokers, topic_name};
use crate::support::service::{Echo, Message, RESPONSES, Requests, answer, definitions, endpoint, with};
use crate::support::wait_for;

/// A gateway whose requests wait for answers, and the service's side of Kafka.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) requests: Requests,
    pub(crate) producer: Producer,
    /// The topic that its answers come on; no other test writes there.
    responses: String,
}

impl Scene {
    pub(crate) fn new(what: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let brokers = shared_brokers(what)?;
        let (producer, topic) = (Producer::new(brokers), topic_name("requests"));
        producer.create_topic(&topic, 1);
        let (config, responses) = (config(&topic), topic_name("responses"));
        producer.create_topic(&responses, 1);
        let own = [("PROXY_CONFIG_FILE", config.as_str()), ("PROXY_KAFKA_RESPONSE_TOPICS", &responses)];
        let gateway = gateway_on(brokers, &topic_name("events"), &[&own, settings].concat());
        gateway.wait_for_metric("tidegate_answers_receivable", 1.0);
        Some(Self { gateway, requests: Requests::of(brokers, &topic, 1), producer, responses })
    }

    /// The service answers.
    pub(crate) fn send(&self, answer: &Record) {
        self.producer.send(&self.responses, answer);
    }

    /// Makes a call that waits for an answer, and gives it with the message that the service got.
    pub(crate) fn ask(&self) -> (JoinHandle<Response>, Message) {
        self.ask_with(Request::new("POST", "/ask").body(question("?")))
    }

    pub(crate) fn ask_with(&self, request: Request) -> (JoinHandle<Response>, Message) {
        let call = call(self.gateway.inbound(), request);
        (call, self.requests.next())
    }

    /// Asks, answers with these headers and this body, and gives what the client gets.
    fn exchange(&self, headers: &[(&str, &str)], body: &str) -> Response {
        let (call, request) = self.ask();
        self.send(&answer(request.correlation(), headers, body));
        call.join().expect("no panic")
    }

    fn post_answer(&self, correlation: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let request = Request::new("POST", "/v3/responses").header("rig-correlation", correlation);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        self.gateway.call_internal(request.body(body))
    }
}

fn config(topic: &str) -> String {
    definitions(&[
        with(endpoint("ask", "/ask", topic), "response_from", "kafka"),
        with(endpoint("ask-http", "/ask-http", topic), "response_from", "http_async"),
        endpoint("tell", "/tell", topic),
    ])
}

pub(crate) fn call(address: SocketAddr, request: Request) -> JoinHandle<Response> {
    std::thread::spawn(move || request.send_to(address))
}

pub(crate) fn question(data: impl Into<Value>) -> String {
    json!({ "specversion": "0.2", "type": "question", "source": "/", "id": "1", "data": data.into() }).to_string()
}

#[test]
fn an_answer_on_the_response_topic_goes_out_on_the_call_that_is_still_open() {
    let Some(scene) = Scene::new("correlated answers", &[]) else { return };
    let (call, request) = scene.ask();
    let correlation = request.correlation().to_owned();
    assert_eq!(request.header("rig-correlation"), Some(correlation.as_str()));
    assert!(request.header("rig-deadline").expect("a deadline").parse::<u64>().is_ok());
    assert_eq!(request.header("rig-service"), Some("ask"), "the id of the endpoint");
    let headers =
        [("Rig-Response-Code", "201"), ("Content-Type", "text/x"), ("X-Own", "1"), ("RIG-other", "1"), ("ce_id", "5")];
    scene.send(&answer(&correlation, &headers, "the answer"));
    let response = call.join().expect("no panic");
    assert_eq!((response.status, response.text()), (201, "the answer"));
    assert_eq!(response.header("content-type"), Some("text/x"));
    assert_eq!((response.header("x-own"), response.header("ce_id")), (Some("1"), Some("5")));
    assert_eq!((response.header("rig-other"), response.header("rig-correlation")), (None, None));
    let metrics = scene.gateway.metrics();
    assert_eq!(
        metrics.sum_where("rig_consumed_events_total", &[("source", "kafka"), ("topic", &scene.responses)]),
        1.0
    );
    let labels = [("target", "kafka"), ("response_from", "kafka"), ("status", "ok"), ("path", "/ask")];
    assert_eq!(metrics.sum_where("rig_proxy_requests_total", &labels), 1.0);
}

#[test]
fn names_of_answer_headers_may_be_written_in_any_case() {
    let Some(scene) = Scene::new("correlated answers", &[]) else { return };
    let (call, request) = scene.ask();
    let mut record = answer(request.correlation(), &[("RIG-RESPONSE-CODE", "418")], "");
    record.headers[0].0 = "RIG-Correlation".to_owned();
    scene.send(&record);
    assert_eq!(call.join().expect("no panic").status, 418);
}

#[test]
fn a_service_that_knows_of_reply_partitions_answers_straight_to_the_node() {
    let Some(brokers) = shared_brokers("reply partitions") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("requests"));
    producer.create_topic(&topic, 1);
    let (config, replies) = (config(&topic), topic_name("replies"));
    let settings = [("PROXY_CONFIG_FILE", config.as_str()), ("PROXY_REPLY_TOPIC", replies.as_str())];
    let gateways = [0, 1].map(|_| gateway_on(brokers, &topic_name("events"), &settings));
    wait_until_answers_are_read(&gateways, &Requests::of(brokers, &topic, 1), &producer);
    let _service = Echo::start(brokers, &topic, 1, None);
    for gateway in &gateways {
        for number in 0..20 {
            let response = gateway.call(Request::new("POST", "/ask").body(question(number)));
            assert_eq!((response.status, response.json()), (200, json!({ "echo": number })));
        }
    }
}

/// Makes a request of each gateway until one names a partition for its answer.
fn wait_until_answers_are_read(gateways: &[Gateway], requests: &Requests, producer: &Producer) {
    for gateway in gateways {
        wait_for("a reply partition", || {
            let call = call(gateway.inbound(), Request::new("POST", "/ask").body(question("probe")));
            let request = requests.next();
            producer.send(RESPONSES, &answer(request.correlation(), &[], ""));
            assert_eq!(call.join().expect("no panic").status, 200);
            request.header("rig-reply-topic").map(|_| ())
        });
    }
}

#[test]
fn on_a_shared_response_topic_each_of_two_nodes_gets_its_own_answers() {
    let Some(brokers) = shared_brokers("two nodes") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("requests"));
    producer.create_topic(&topic, 1);
    let (config, responses) = (config(&topic), topic_name("responses"));
    producer.create_topic(&responses, 2);
    let settings = [
        ("PROXY_CONFIG_FILE", config.as_str()),
        ("NODE_COOKIE", "one secret for both"),
        ("PROXY_KAFKA_RESPONSE_TOPICS", &responses),
    ];
    let gateways = [0, 1].map(|_| gateway_on(brokers, &topic_name("events"), &settings));
    let _service = Echo::start(brokers, &topic, 1, Some(&responses));
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let inbound = gateways[number % 2].inbound();
            (number, call(inbound, Request::new("POST", "/ask").body(question(number))))
        })
        .collect();
    for (number, call) in calls {
        let response = call.join().expect("no panic");
        assert_eq!((response.status, response.json()), (200, json!({ "echo": number })));
    }
    for gateway in &gateways {
        gateway.wait_for_metric("tidegate_answers_foreign_total", 20.0);
        assert_eq!(gateway.metrics().sum("tidegate_answers_delivered_total"), 20.0);
    }
}

#[test]
fn a_response_topic_that_appears_later_is_read_from_its_beginning() {
    let topic = topic_name("late-responses");
    let Some(scene) = Scene::new("late topics", &[("PROXY_KAFKA_RESPONSE_TOPICS", &topic)]) else { return };
    let (call, request) = scene.ask();
    scene.producer.send(&topic, &answer(request.correlation(), &[], "late but there"));
    assert_eq!(call.join().expect("no panic").text(), "late but there");
}

#[test]
fn answers_over_http_and_over_kafka_serve_either_kind_of_call() {
    let Some(scene) = Scene::new("answers over HTTP", &[]) else { return };
    for path in ["/ask", "/ask-http"] {
        let (call, request) = scene.ask_with(Request::new("POST", path).body(question("?")));
        let headers =
            [("rig-response-code", "202"), ("content-type", "a/b"), ("authorization", "Bearer x"), ("x-own", "1")];
        let posted = scene.post_answer(request.correlation(), &headers, "by HTTP");
        assert_eq!((posted.status, posted.text()), (202, "message sent to correlated reverse proxy request"));
        assert_eq!(posted.header("content-type"), None);
        let response = call.join().expect("no panic");
        assert_eq!((response.status, response.text()), (202, "by HTTP"));
        assert_eq!(response.header("content-type"), Some("a/b"));
        assert_eq!(response.header("x-own"), Some("1"));
        for own in ["authorization", "host", "user-agent", "accept", "cookie"] {
            assert_eq!(response.header(own), None, "{own}");
        }
    }
    let (call, request) = scene.ask_with(Request::new("POST", "/ask-http").body(question("?")));
    scene.send(&answer(request.correlation(), &[], "by Kafka"));
    assert_eq!(call.join().expect("no panic").text(), "by Kafka");
}

#[test]
fn an_answer_over_http_may_carry_its_id_in_a_structured_event() {
    let Some(scene) = Scene::new("answers over HTTP", &[]) else { return };
    let (call, request) = scene.ask();
    let event = json!({ "specversion": "0.2", "rig": { "correlation": request.correlation() }, "data": 5 }).to_string();
    let posted = scene.gateway.call_internal(Request::new("POST", "/v2/responses").body(&event));
    assert_eq!(posted.status, 202, "{}", posted.text());
    assert_eq!(call.join().expect("no panic").text(), event);
}

#[test]
fn the_v2_call_takes_the_id_in_a_header_too_and_the_v3_call_there_alone() {
    let Some(scene) = Scene::new("ids in headers", &[]) else { return };
    let (call, request) = scene.ask();
    let event = json!({ "specversion": "0.2", "rig": { "correlation": request.correlation() } }).to_string();
    let refused = scene.gateway.call_internal(Request::new("POST", "/v3/responses").body(&event));
    assert_eq!(refused.status, 400, "{}", refused.text());
    let posted = Request::new("POST", "/v2/responses").header("rig-correlation", request.correlation());
    assert_eq!(scene.gateway.call_internal(posted.body("by header")).status, 202);
    assert_eq!(call.join().expect("no panic").text(), "by header");
}

#[test]
fn bad_answers_over_http_are_400_and_the_call_goes_on_waiting() {
    let Some(mut scene) = Scene::new("bad answers", &[]) else { return };
    let (call, request) = scene.ask();
    let correlation = request.correlation().to_owned();
    for code in ["99", "0", "-1", "600", "100", "abc", ""] {
        let response = scene.post_answer(&correlation, &[("rig-response-code", code)], "");
        assert_eq!(response.status, 400, "{code:?}");
        assert!(response.text().contains("rig-response-code"), "{}", response.text());
    }
    for forged in ["", "x", "short", &correlation[..42], &correlation.to_lowercase(), &"A".repeat(43)] {
        assert_eq!(scene.post_answer(forged, &[], "").status, 400, "{forged:?}");
    }
    for body in ["", "[]", "5", r#"{"rig":5}"#, r#"{"rig":{"correlation":7}}"#, "\u{0}"] {
        for path in ["/v2/responses", "/v3/responses"] {
            let response = scene.gateway.call_internal(Request::new("POST", path).body(body));
            assert_eq!(response.status, 400, "{path} {body:?}");
        }
    }
    assert_eq!(scene.post_answer(&correlation, &[("rig-response-code", "599")], "fine").status, 202);
    let response = call.join().expect("no panic");
    assert_eq!((response.status, response.text()), (599, "fine"));
    assert_eq!(scene.post_answer(&correlation, &[], "replayed").status, 400);
    scene.gateway.assert_alive();
}

#[test]
fn bad_codes_over_kafka_are_dropped_and_counted_and_the_next_answer_counts() {
    let Some(mut scene) = Scene::new("bad answers", &[]) else { return };
    let (call, request) = scene.ask();
    for code in ["99", "0", "-1", "100", "600", "799", "abc", ""] {
        scene.send(&answer(request.correlation(), &[("rig-response-code", code)], "bad"));
    }
    scene.send(&answer(request.correlation(), &[("rig-response-code", "599")], "good"));
    let response = call.join().expect("no panic");
    assert_eq!((response.status, response.text()), (599, "good"));
    let metrics = scene.gateway.metrics();
    assert_eq!(metrics.sum("tidegate_answers_malformed_total"), 8.0);
    assert_eq!(metrics.sum_where("rig_consumed_events_failed_total", &[("topic", &scene.responses)]), 8.0);
    scene.gateway.assert_alive();
}

#[test]
fn an_answer_cannot_split_the_http_response() {
    let Some(scene) = Scene::new("response splitting", &[]) else { return };
    let (call, request) = scene.ask();
    for (name, value) in [("a", "1\r\nx-bad: 1"), ("a", "1\nx-bad: 1"), ("a: 1\r\nx-bad", "1"), ("a b", "1")] {
        scene.send(&answer(request.correlation(), &[(name, value)], "bad"));
    }
    scene.send(&answer(request.correlation(), &[], "good"));
    let response = call.join().expect("no panic");
    assert_eq!((response.status, response.text()), (200, "good"));
    assert_eq!(response.header("x-bad"), None);
    assert_eq!(scene.gateway.metrics().sum("tidegate_answers_malformed_total"), 4.0);
}

#[test]
fn framing_headers_of_an_answer_do_not_reach_the_client() {
    let Some(scene) = Scene::new("framing headers", &[]) else { return };
    let framing = [
        ("transfer-encoding", "chunked"),
        ("Content-Length", "5000"),
        ("connection", "close"),
        ("upgrade", "h2c"),
        ("keep-alive", "timeout=1"),
    ];
    let response = scene.exchange(&framing, "exact");
    assert_eq!((response.status, response.text()), (200, "exact"));
    assert_eq!(response.header("content-length"), Some("5"));
    for name in ["transfer-encoding", "connection", "upgrade", "keep-alive"] {
        assert_eq!(response.header(name), None, "{name}");
    }
}

#[test]
fn answers_that_have_no_body_get_none_and_the_connection_stays_usable() {
    let Some(scene) = Scene::new("bodiless answers", &[]) else { return };
    for code in ["204", "304"] {
        let mut connection = Connection::open(scene.gateway.inbound());
        connection.send(Request::new("POST", "/ask").body(question("?")).to_bytes());
        let request = scene.requests.next();
        let record = answer(request.correlation(), &[("rig-response-code", code)], "no body please");
        scene.send(&record);
        let response = connection.response();
        assert_eq!((response.status.to_string(), response.body.len()), (code.to_owned(), 0));
        let next = connection.request(&Request::get("/_rig/health"));
        assert_eq!((next.status, next.text()), (200, "OK"), "after {code}");
    }
}

#[test]
fn a_tombstone_and_an_empty_value_are_empty_bodies() {
    let Some(scene) = Scene::new("empty answers", &[]) else { return };
    for value in [None, Some(Vec::new())] {
        let (call, request) = scene.ask();
        scene.send(&Record { value, ..answer(request.correlation(), &[], "") });
        let response = call.join().expect("no panic");
        assert_eq!((response.status, response.body.len()), (200, 0));
        assert_eq!(response.header("content-type"), None);
    }
}

#[test]
fn bodies_pass_byte_for_byte_and_cookies_stay_apart() {
    let Some(scene) = Scene::new("bytes", &[]) else { return };
    let (call, request) = scene.ask();
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let cookies = [("set-cookie", "a=1"), ("set-cookie", "b=2")];
    scene.send(&answer(request.correlation(), &cookies, &body));
    let response = call.join().expect("no panic");
    assert_eq!(response.body, body);
    assert_eq!(response.headers_named("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn without_an_answer_in_time_the_call_is_an_empty_504_and_a_late_answer_is_counted() {
    let timeout = [("PROXY_KAFKA_RESPONSE_TIMEOUT", "300"), ("PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT", "300")];
    let Some(scene) = Scene::new("timeouts", &timeout) else { return };
    for path in ["/ask", "/ask-http"] {
        let (call, request) = scene.ask_with(Request::new("POST", path).body(question("?")));
        let response = call.join().expect("no panic");
        assert_eq!((response.status, response.body.len()), (504, 0));
        scene.send(&answer(request.correlation(), &[], "late"));
        assert_eq!(scene.post_answer(request.correlation(), &[], "late").status, 400);
    }
    scene.gateway.wait_for_metric("tidegate_answers_late_total", 4.0);
    scene.gateway.wait_until_nothing_is_pending();
    let late = [("status", "response_timeout")];
    assert_eq!(scene.gateway.metrics().sum_where("rig_proxy_requests_total", &late), 2.0);
}

#[test]
fn forged_unknown_and_replayed_ids_reach_nobody() {
    let Some(scene) = Scene::new("forged ids", &[]) else { return };
    let (call, request) = scene.ask();
    let correlation = request.correlation();
    let tampered = format!("{}{}", &correlation[..42], if correlation.ends_with('A') { 'B' } else { 'A' });
    let forged = format!("{}{}", &correlation[..8], "A".repeat(35));
    for bad in [tampered.as_str(), &forged, "nobody", ""] {
        scene.send(&answer(bad, &[], "forged"));
    }
    scene.send(&Record { headers: vec![], ..answer("", &[], "no id") });
    scene.send(&answer(correlation, &[], "first"));
    scene.send(&answer(correlation, &[], "second"));
    assert_eq!(call.join().expect("no panic").text(), "first");
    scene.gateway.wait_for_metric("tidegate_answers_late_total", 1.0);
    let metrics = scene.gateway.metrics();
    assert_eq!(metrics.sum("tidegate_answers_forged_total"), 2.0);
    assert_eq!(metrics.sum("tidegate_answers_foreign_total"), 2.0);
    assert_eq!(metrics.sum("tidegate_answers_malformed_total"), 1.0);
    assert_eq!(metrics.sum("tidegate_answers_delivered_total"), 1.0);
}

#[test]
fn a_client_that_hangs_up_frees_its_place_at_once() {
    let Some(scene) = Scene::new("hang-ups", &[("PROXY_KAFKA_RESPONSE_TIMEOUT", "60000")]) else { return };
    let clients: Vec<_> = (0..20)
        .map(|number| {
            let mut connection = Connection::open(scene.gateway.inbound());
            connection.send(Request::new("POST", "/ask").body(question(number)).to_bytes());
            connection
        })
        .collect();
    scene.gateway.wait_for_metric("tidegate_pending_requests", 20.0);
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 { client.reset() } else { drop(client) }
    }
    scene.gateway.wait_until_nothing_is_pending();
}

#[test]
fn beyond_the_bound_of_waiting_requests_there_is_503() {
    let settings = [("PROXY_MAX_PENDING", "2"), ("SHARDS", "1"), ("PROXY_KAFKA_RESPONSE_TIMEOUT", "60000")];
    let Some(scene) = Scene::new("bounds", &settings) else { return };
    let (first, one) = scene.ask();
    let (second, two) = scene.ask();
    let third = scene.gateway.call(Request::new("POST", "/ask").body(question(3)));
    assert_eq!(third.status, 503);
    assert!(third.header("retry-after").is_some());
    for (call, request) in [(first, one), (second, two)] {
        scene.send(&answer(request.correlation(), &[], "x"));
        assert_eq!(call.join().expect("no panic").status, 200);
    }
}
