//! Against librdkafka's own mock cluster.

use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::*;

const TOPIC: &str = "rig";
const PATIENCE: Duration = Duration::from_secs(30);

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic(TOPIC, 2, 1).expect("a topic");
    cluster
}

fn producer(cluster: &MockCluster<'_, DefaultProducerContext>) -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().expect("a producer")
}

fn consumer(cluster: &MockCluster<'_, DefaultProducerContext>, bell: &Bell) -> Consumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("auto.offset.reset", "error");
    Consumer::new(&config, &[TOPIC.to_owned()], bell).expect("a consumer")
}

/// Topic, partition, offset, payload and headers of a message, owned.
type Seen = (usize, u32, u64, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn read(consumer: &mut Consumer, bell: &Bell, count: usize) -> Vec<Seen> {
    let mut batch = Batch::with_capacity(2);
    let mut seen = Vec::new();
    let start = Instant::now();
    while seen.len() < count {
        assert!(start.elapsed() < PATIENCE, "only {} of {count} messages came", seen.len());
        consumer.consume(&mut batch);
        for message in batch.iter().filter(|message| message.error().is_none()) {
            let headers = message.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let topic = consumer.topic_index(&message).expect("a topic of this consumer");
            seen.push((topic, message.partition(), message.offset(), message.payload().map(<[u8]>::to_vec), headers));
        }
        if batch.is_empty() {
            crate::ingress::sleep::until_readable([bell.fd()], 1_000).expect("poll");
            bell.disarm();
        }
    }
    seen
}

#[test]
fn messages_come_with_their_place_their_payload_and_their_headers() {
    let (cluster, bell) = (cluster(), Bell::new().expect("an eventfd"));
    let producer = producer(&cluster);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce_type", value: Some("t") })
        .insert(Header { key: "empty", value: None::<&str> });
    let to = || BaseRecord::<(), [u8]>::to(TOPIC).partition(1);
    producer.send(to().payload(&b"first"[..]).headers(headers)).map_err(|(error, _)| error).expect("sent");
    producer.send(to()).map_err(|(error, _)| error).expect("sent");
    producer.send(to().payload(&b"third"[..])).map_err(|(error, _)| error).expect("sent");
    producer.flush(PATIENCE).expect("acknowledged");

    let mut consumer = consumer(&cluster, &bell);
    consumer.start(0, 1, 0).expect("started");
    let seen = read(&mut consumer, &bell, 3);
    let expected_headers = vec![("ce_type".to_owned(), b"t".to_vec()), ("empty".to_owned(), Vec::new())];
    assert_eq!(seen[0], (0, 1, 0, Some(b"first".to_vec()), expected_headers));
    assert_eq!(seen[1].2, 1);
    assert!(seen[1].3.as_deref().unwrap_or_default().is_empty(), "a tombstone has no bytes");
    assert_eq!(seen[2], (0, 1, 2, Some(b"third".to_vec()), Vec::new()));
}

#[test]
fn reading_starts_and_starts_again_at_the_given_offset() {
    let (cluster, bell) = (cluster(), Bell::new().expect("an eventfd"));
    let producer = producer(&cluster);
    for number in 0..5_u8 {
        let record = BaseRecord::<(), [u8]>::to(TOPIC).partition(0);
        producer.send(record.payload(&[number][..])).map_err(|(error, _)| error).expect("sent");
    }
    producer.flush(PATIENCE).expect("acknowledged");

    let mut consumer = consumer(&cluster, &bell);
    consumer.start(0, 0, 3).expect("started");
    let offsets = |seen: Vec<Seen>| seen.into_iter().map(|(_, _, offset, _, _)| offset).collect::<Vec<_>>();
    assert_eq!(offsets(read(&mut consumer, &bell, 2)), [3, 4]);
    consumer.start(0, 0, 1).expect("started again");
    assert_eq!(offsets(read(&mut consumer, &bell, 4)), [1, 2, 3, 4]);
}

#[test]
fn a_broker_that_is_away_is_no_error_and_the_consumer_can_be_dropped() {
    let bell = Bell::new().expect("an eventfd");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", "127.0.0.1:1");
    let mut consumer = Consumer::new(&config, &[TOPIC.to_owned()], &bell).expect("a consumer");
    consumer.start(0, 0, 0).expect("started");
    let mut batch = Batch::with_capacity(8);
    consumer.consume(&mut batch);
    consumer.serve();
    assert_eq!(batch.iter().filter(|message| message.error().is_none()).count(), 0);
}
