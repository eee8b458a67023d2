//! Events from and to a real Kafka.

use std::time::Duration;

use serde_json::json;

use crate::support::clients::{Client, TRANSPORTS, Transport, query, to_type};
use crate::support::events::{accepted, event, publish, structured};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::kafka::{
    KAFKA_DEADLINE, Producer, Record, gateway_on, key_and_value, own_broker, shared_brokers, topic_name,
};
use crate::support::sse::EventStream;
use crate::support::{wait_for, wait_up_to};

/// Clients on all transports, enough to meet both shards.
fn audience<'a>(gateway: &'a Gateway, event_type: &str) -> Vec<Client<'a>> {
    (0..12).map(|number| Client::of_type(gateway, TRANSPORTS[number % 3], event_type)).collect()
}

/// The event with this number, in structured or, if odd, in binary mode.
fn numbered(number: usize) -> Record {
    let id = number.to_string();
    match number % 2 {
        0 => Record::structured(&event("greeting", &id, &json!({ "number": number }))),
        _ => Record::binary("greeting", &id, "application/json", format!(r#"{{"number":{number}}}"#)),
    }
}

/// Asserts that each client receives the events with these numbers, each once, in order.
fn assert_received(clients: &mut [Client<'_>], numbers: std::ops::Range<usize>) {
    for client in clients {
        client.set_read_timeout(KAFKA_DEADLINE);
        for number in numbers.clone() {
            let received = client.next();
            assert_eq!(received["id"], number.to_string());
            assert_eq!(received["data"]["number"], number);
        }
    }
}

#[test]
fn events_in_structured_and_binary_mode_reach_three_transports_on_two_shards_in_order() {
    let Some(brokers) = shared_brokers("events from Kafka") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("modes"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    let mut clients = audience(&gateway, "greeting");
    for number in 0..150 {
        producer.queue(&topic, &numbered(number));
    }
    producer.flush();
    assert_received(&mut clients, 0..150);
}

#[test]
fn events_of_each_partition_keep_their_order() {
    let Some(brokers) = shared_brokers("order within partitions") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("partitions"));
    producer.create_topic(&topic, 4);
    let gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 4);
    let mut client = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    for number in 0..200 {
        let partition = number % 4;
        let id = format!("{partition}-{}", number / 4);
        producer.queue(&topic, &Record::structured(&event("greeting", &id, &json!(null))).for_partition(partition));
    }
    producer.flush();
    let mut next = [0; 4];
    for _ in 0..200 {
        let id = client.next_id();
        let (partition, number) = id.split_once('-').expect("partition and number");
        let partition: usize = partition.parse().expect("a number");
        assert_eq!(number, next[partition].to_string(), "partition {partition}");
        next[partition] += 1;
    }
}

#[test]
fn structured_events_from_kafka_go_out_byte_for_byte() {
    let Some(brokers) = shared_brokers("bytes from Kafka") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("bytes"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    let mut clients = audience(&gateway, "greeting");
    let text =
        r#"{ "id":"1" ,"specversion":"1.0","type":"greeting","source":"/t","unknown":null,"data":[1.50,1e3,"\u2713"]}"#;
    producer.send(&topic, &Record { value: Some(text.into()), ..Record::default() });
    let traced = r#"{"specversion":"1.0","type":"greeting","source":"/t","id":"2","tracestate":"a=b"}"#;
    producer.send(&topic, &Record { value: Some(traced.into()), ..Record::default() });
    for client in &mut clients {
        assert_eq!(client.next_text(), text);
        assert!(!client.next_text().contains("tracestate"));
    }
}

#[test]
fn a_partition_that_appears_later_is_picked_up_from_its_beginning() {
    let Some(brokers) = shared_brokers("new partitions") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("growing"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    producer.add_partitions(&topic, 2);
    for number in 0..20 {
        producer.queue(&topic, &numbered(number).for_partition(1));
    }
    producer.flush();
    assert_received(std::slice::from_mut(&mut client), 0..20);
}

#[test]
fn a_topic_that_appears_later_is_picked_up_from_its_beginning() {
    let Some(brokers) = shared_brokers("new topics") else { return };
    let (producer, first, later) = (Producer::new(brokers), topic_name("first"), topic_name("later"));
    producer.create_topic(&first, 1);
    let gateway = gateway_on(brokers, &format!("{first},{later}"), &[]);
    producer.wait_until_read(&gateway, &first, 1);
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    producer.create_topic(&later, 1);
    for number in 0..20 {
        producer.queue(&later, &numbered(number));
    }
    producer.flush();
    assert_received(std::slice::from_mut(&mut client), 0..20);
}

#[test]
fn an_event_published_by_http_goes_to_kafka_with_its_subject_as_key() {
    let Some(brokers) = shared_brokers("publishing to Kafka") else { return };
    let (producer, topic, second) = (Producer::new(brokers), topic_name("published"), topic_name("unused"));
    producer.create_topic(&topic, 1);
    producer.create_topic(&second, 1);
    let gateway = gateway_on(brokers, &format!("{topic},{second}"), &[]);
    let with_subject =
        r#"{"specversion":"1.0","type":"greeting","source":"/t","id":"1","subject":"order-7","x": 1.50}"#;
    let without = r#"{"specversion":"1.0","type":"greeting","source":"/t","id":"2"}"#;
    let inbound = accepted(&gateway, structured(with_subject));
    assert_eq!(inbound.json(), with_subject);
    let internal = Request::new("POST", "/v3/messages").header("content-type", "application/json").body(without);
    assert_eq!(gateway.call_internal(internal).status, 202);
    let messages: Vec<_> = producer.read(&topic, 2).iter().map(key_and_value).collect();
    assert_eq!(messages, [(Some("order-7".to_owned()), with_subject.to_owned()), (None, without.to_owned())]);
    assert_eq!(
        gateway.metrics().sum_where("rig_produced_events_total", &[("target", "kafka"), ("topic", &topic)]),
        2.0
    );
}

#[test]
fn an_event_published_on_one_node_reaches_the_clients_of_another() {
    let Some(brokers) = shared_brokers("two nodes") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("nodes"));
    producer.create_topic(&topic, 1);
    let nodes = [gateway_on(brokers, &topic, &[]), gateway_on(brokers, &topic, &[])];
    let mut clients = Vec::new();
    for node in &nodes {
        producer.wait_until_read(node, &topic, 1);
        clients.push(Client::of_type(node, Transport::Sse, "greeting"));
    }
    for (number, node) in [(0, &nodes[0]), (1, &nodes[1]), (2, &nodes[0])] {
        publish(node, &event("greeting", &number.to_string(), &json!({ "number": number })));
    }
    assert_received(&mut clients, 0..3);
}

#[test]
fn a_broker_killed_and_restarted_loses_and_doubles_nothing() {
    let Some(mut kafka) = own_broker("a broker that is killed", None) else { return };
    let (producer, topic) = (Producer::new(kafka.brokers()), topic_name("killed"));
    producer.create_topic(&topic, 1);
    let mut gateway = gateway_on(kafka.brokers(), &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    {
        let mut clients = audience(&gateway, "greeting");
        for number in 0..60 {
            producer.queue(&topic, &numbered(number));
        }
        producer.flush();
        kafka.kill().expect("the broker can be killed");
        for number in 60..120 {
            producer.queue(&topic, &numbered(number));
        }
        kafka.restart().expect("the broker starts again");
        producer.flush();
        for number in 120..180 {
            producer.queue(&topic, &numbered(number));
        }
        producer.flush();
        assert_received(&mut clients, 0..180);
    }
    wait_up_to(KAFKA_DEADLINE, "health to recover", || {
        (gateway.call_internal(Request::get("/health")).status == 200).then_some(())
    });
    gateway.assert_alive();
}

#[test]
fn publishing_while_kafka_is_out_of_reach_is_not_acknowledged() {
    let Some(mut kafka) = own_broker("publishing without a broker", None) else { return };
    let (producer, topic) = (Producer::new(kafka.brokers()), topic_name("away"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(kafka.brokers(), &topic, &[]);
    publish(&gateway, &event("greeting", "before", &json!(null)));
    kafka.kill().expect("the broker can be killed");
    let mut connection = Connection::open(gateway.inbound());
    connection.set_read_timeout(KAFKA_DEADLINE);
    let response = connection.request(&structured(event("greeting", "during", &json!(null)).to_string()));
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("retry-after").is_some(), "{response:?}");
}

#[test]
fn tombstones_garbage_and_huge_messages_are_counted_logged_and_skipped() {
    let Some(brokers) = shared_brokers("bad messages") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("bad"));
    producer.create_topic(&topic, 1);
    let mut gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");

    let value = |bytes: &[u8]| Record { value: Some(bytes.to_owned()), ..Record::default() };
    let huge = event("greeting", "huge", &json!("x".repeat(10 * 1024 * 1024)));
    let truncated = r#"{"specversion":"0.2","type":"greeting","id":"x","source":"/t""#;
    let mut without_content_type = Record::binary("greeting", "x", "application/json", "{}");
    without_content_type.headers.retain(|(name, _)| name != "content-type");
    let mut not_utf_8 = Record::binary("greeting", "x", "application/json", "{}");
    not_utf_8.headers.push(("ce_extension".to_owned(), vec![0xff]));
    let bad = [
        Record { key: Some(b"key".to_vec()), ..Record::default() },
        Record::default(),
        value(b""),
        value(b"garbage"),
        value(&[0xff; 64]),
        value(b"[]"),
        value(b"null"),
        value(truncated.as_bytes()),
        value(&[truncated.as_bytes(), b",\"data\":\"\xff\"}"].concat()),
        value(format!("{truncated},\"data\":{}}}", "[".repeat(100_000)).as_bytes()),
        Record::structured(&huge),
        without_content_type,
        not_utf_8,
        Record::binary("greeting", "x", "application/json", "{broken"),
    ];
    for record in &bad {
        producer.queue(&topic, record);
    }
    producer.send(&topic, &Record::structured(&event("greeting", "good", &json!(null))));
    client.set_read_timeout(KAFKA_DEADLINE);
    client.expect_ids(&["good"]);

    let labels = [("source", "kafka"), ("topic", topic.as_str())];
    wait_for("the failures to be counted", || {
        let failed = gateway.metrics().sum_where("rig_consumed_events_failed_total", &labels);
        // Garbage whose type nobody wants, or can be found, may be dropped before it is looked at.
        (failed >= 5.0).then_some(())
    });
    assert!(gateway.metrics().sum_where("rig_consumed_events_total", &labels) >= 15.0);
    for text in [topic.as_str(), "partition", "offset"] {
        gateway.wait_for_log(text);
    }
    gateway.assert_alive();
}

#[test]
fn an_event_over_the_limit_of_events_is_skipped_and_the_next_one_comes() {
    let Some(brokers) = shared_brokers("events over the limit") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("limit"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(brokers, &topic, &[("MAX_EVENT_BYTES", "10000")]);
    producer.wait_until_read(&gateway, &topic, 1);
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    producer.send(&topic, &Record::structured(&event("greeting", "large", &json!("x".repeat(20_000)))));
    producer.send(&topic, &Record::structured(&event("greeting", "small", &json!("x".repeat(5_000)))));
    client.expect_ids(&["small"]);
}

#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for_and_health_says_so() {
    let port = xtask::kafka::free_ports(2).expect("ports are free");
    let (brokers, topic) = (format!("127.0.0.1:{port}"), topic_name("late"));
    let gateway = gateway_on(&brokers, &topic, &[("KAFKA_UNREACHABLE_SECONDS", "1")]);
    let unhealthy = wait_for("health to say that Kafka is away", || {
        let response = gateway.call_internal(Request::get("/health"));
        (response.status == 503).then_some(response)
    });
    assert!(unhealthy.text().contains("Kafka"), "{:?}", unhealthy.text());
    let mut client = EventStream::open(&gateway, &query(&to_type("greeting")));
    assert_eq!(client.next_event().name, "rig.connection.create");

    let Some(kafka) = own_broker("a broker that comes late", Some(port)) else { return };
    let producer = Producer::new(kafka.brokers());
    producer.create_topic(&topic, 1);
    wait_up_to(KAFKA_DEADLINE, "health to recover", || {
        (gateway.call_internal(Request::get("/health")).status == 200).then_some(())
    });
    client.set_read_timeout(KAFKA_DEADLINE);
    assert_eq!(client.next_event().name, "rig.subscriptions_set", "only now is it known from where on events come");
    producer.send(&topic, &Record::structured(&event("greeting", "1", &json!(null))));
    assert_eq!(client.next_event().name, "greeting");
}

#[test]
fn what_nobody_wants_is_counted_and_dropped() {
    let Some(brokers) = shared_brokers("unwanted events") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("unwanted"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    let before = gateway.metrics().sum_where("rig_consumed_events_total", &[("topic", &topic)]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    for number in 0..500 {
        producer.queue(&topic, &Record::structured(&event("unwanted", &number.to_string(), &json!(null))));
    }
    producer.send(&topic, &Record::structured(&event("greeting", "wanted", &json!(null))));
    client.expect_ids(&["wanted"]);
    wait_for("all events to be counted", || {
        let metrics = gateway.metrics();
        let consumed = metrics.sum_where("rig_consumed_events_total", &[("source", "kafka"), ("topic", &topic)]);
        (consumed >= before + 501.0).then_some(())
    });
    let forwarded = gateway.metrics().sum_where("rig_consumed_events_forwarded_total", &[("type", "unwanted")]);
    assert_eq!(forwarded, 0.0);
}

#[test]
fn a_subscription_that_comes_and_goes_while_events_flow_sees_a_whole_run() {
    let Some(brokers) = shared_brokers("subscribing amid events") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("amid"));
    producer.create_topic(&topic, 1);
    let gateway = gateway_on(brokers, &topic, &[]);
    producer.wait_until_read(&gateway, &topic, 1);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::sync::atomic::Ordering::Relaxed;
            while !stop.load(Relaxed) {
                producer.queue(&topic, &numbered(next.fetch_add(1, Relaxed)));
                producer.flush();
            }
        });
        for round in 0..12 {
            let mut client = Client::of_type(&gateway, TRANSPORTS[round % 2], "greeting");
            client.set_read_timeout(Duration::from_secs(30));
            let first: usize = client.next_id().parse().expect("a number");
            for number in first + 1..first + 20 {
                assert_eq!(client.next_id(), number.to_string(), "no gap and no duplicate");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn events_that_cut_streams_or_silence_their_type_in_rig_do_neither() {
    let Some(brokers) = shared_brokers("events that break RIG") else { return };
    let (producer, topic) = (Producer::new(brokers), topic_name("breaking"));
    producer.create_topic(&topic, 1);
    let extractors = r#"{"order":{"f":{"stable_field_index":1,"event":{"json_pointer":"/data/f"}}}}"#;
    let gateway = gateway_on(brokers, &topic, &[("EXTRACTORS", extractors)]);
    producer.wait_until_read(&gateway, &topic, 1);
    let all = json!([{ "eventType": "order" }, { "eventType": "two\nlines" }]);
    let mut unconstrained = TRANSPORTS.map(|transport| Client::subscribe(&gateway, transport, &all));
    let wanted = json!([{ "eventType": "order", "oneOf": [{ "f": "wanted" }] }]);
    let mut constrained = Client::subscribe(&gateway, Transport::Sse, &wanted);
    let subscriptions = gateway.metrics().sum("rig_subscriptions_total");
    for record in [
        Record::structured(&event("two\nlines", "1", &json!(null))),
        Record::binary("two\nlines", "2", "application/json", "{}"),
        Record::binary("order", "not UTF-8", "text/plain", b"\xff\xfe"),
        Record::structured(&event("order", "3", &json!("text"))),
        Record::binary("order", "4", "text/plain", "text"),
        Record::structured(&event("order", "5", &json!({ "f": "wanted" }))),
    ] {
        producer.queue(&topic, &record);
    }
    producer.flush();
    for client in &mut unconstrained {
        client.set_read_timeout(KAFKA_DEADLINE);
        client.expect_ids(&["1", "2", "3", "4", "5"]);
    }
    constrained.expect_ids(&["5"]);
    assert_eq!(gateway.metrics().sum("rig_subscriptions_total"), subscriptions);
}
