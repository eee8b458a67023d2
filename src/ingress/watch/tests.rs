//! Against librdkafka's own mock cluster.

use std::sync::mpsc::channel;
use std::thread;

use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaRespErr;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(brokers: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: brokers.split(',').map(str::to_owned).collect(),
        source_topics: Vec::new(),
        sasl: None,
        tls: None,
        unreachable_seconds: 60,
        reconnect_max_ms: 1_000,
    }
}

#[test]
fn a_topic_that_kafka_refuses_keeps_no_other_one_from_being_read() {
    let cluster = MockCluster::new(1).expect("a cluster");
    for topic in ["refused", "read"] {
        cluster.create_topic(topic, 1, 1).expect("a topic");
    }
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.topic_error("refused", refusal).expect("the topic is there");
    let reachability = Arc::new(Reachability::new(clock::now_ms()));
    let (assignments_to_us, assignments) = channel();
    let (requests, requests_to_watcher) = channel();
    let all = |name: &str| Watched { name: name.to_owned(), partitions: Partitions::All, when_missing: None };
    let watch = Watch {
        settings: settings(&cluster.bootstrap_servers()),
        topics: ["refused", "read"].map(all).into(),
        start: StartFrom::End,
        reachability: Arc::clone(&reachability),
        on_lost: Box::new(|_| {}),
        assignments: assignments_to_us,
        requests: requests_to_watcher,
        bell: Bell::new().expect("an eventfd"),
        identify: false,
        ids: Vec::new(),
        refusals: Vec::new(),
    };
    let watcher = thread::spawn(move || watch.run());
    let next = || assignments.recv_timeout(PATIENCE).expect("the watcher goes on");
    assert_eq!(next(), Assignment::Topic { topic: 1, id: 0 });
    assert_eq!(next(), Assignment::Start { topic: 1, partition: 0, offset: 0 });
    assert_eq!(next(), Assignment::Complete);
    cluster.topic_error("refused", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).expect("the topic is there");
    assert_eq!(next(), Assignment::Topic { topic: 0, id: 0 });
    assert_eq!(next(), Assignment::Start { topic: 0, partition: 0, offset: 0 });
    drop(requests);
    watcher.join().expect("the watcher ends").expect("librdkafka takes the settings");
}
