//! The broker that the tests get: it starts, survives a crash with its data, and leaves nothing behind.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use xtask::kafka::{Error, Kafka, Listener, Options, ensure_jars};

fn own() -> Options {
    Options { own: true, ..Options::default() }
}

fn produce(brokers: &str, topic: &str, text: &str) {
    let mut producer = ensure_jars()
        .unwrap()
        .tool("org.apache.kafka.tools.ConsoleProducer")
        .args(["--bootstrap-server", brokers, "--topic", topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    producer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(producer.wait().unwrap().success());
}

fn consume(brokers: &str, topic: &str, messages: usize) -> String {
    let output = ensure_jars()
        .unwrap()
        .tool("org.apache.kafka.tools.consumer.ConsoleConsumer")
        .args(["--bootstrap-server", brokers, "--topic", topic, "--from-beginning"])
        .args(["--max-messages", &messages.to_string(), "--timeout-ms", "60000"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_killed_broker_comes_back_on_its_port_with_its_data_and_leaves_nothing_when_dropped() {
    let Some(mut kafka) = Kafka::start_or_skip("a killed broker comes back", own()) else { return };
    let brokers = kafka.brokers().to_owned();
    let pid = kafka.pid().unwrap();
    produce(&brokers, "letters", "alpha\nbeta\n");

    kafka.kill().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process is gone");
    assert!(TcpStream::connect(&brokers).is_err(), "its port is closed");

    kafka.restart().unwrap();
    assert_eq!(kafka.brokers(), brokers);
    produce(&brokers, "letters", "gamma\n");
    assert_eq!(consume(&brokers, "letters", 3), "alpha\nbeta\ngamma\n");

    let pid = kafka.pid().unwrap();
    let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let settings =
        command_line.split('\0').find(|argument| argument.ends_with("server.properties")).unwrap().to_owned();
    drop(kafka);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process is gone");
    assert!(!Path::new(&settings).exists(), "the data is gone");
}

#[test]
fn a_broker_with_a_sasl_listener_takes_only_clients_that_know_the_password() {
    let jaas = |options: &str| format!("org.apache.kafka.common.security.plain.PlainLoginModule required {options};");
    let listener = Listener {
        name: "CLIENT".to_owned(),
        protocol: "SASL_PLAINTEXT".to_owned(),
        properties: vec![
            ("sasl.enabled.mechanisms".to_owned(), "PLAIN".to_owned()),
            ("plain.sasl.jaas.config".to_owned(), jaas("user_alice=\"wonderland\"")),
        ],
    };
    let options = Options { listeners: vec![listener], ..own() };
    let Some(kafka) = Kafka::start_or_skip("a broker with a SASL listener", options) else { return };
    let address = kafka.listener("CLIENT").unwrap();
    assert_eq!(kafka.listener("OTHER"), None);
    let list_topics = |password: &str| {
        let config = tempfile::NamedTempFile::new().unwrap();
        let login = jaas(&format!("username=\"alice\" password=\"{password}\""));
        let text = format!("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={login}\n");
        fs::write(config.path(), text).unwrap();
        let mut tool = ensure_jars().unwrap().tool("org.apache.kafka.tools.TopicCommand");
        tool.args(["--bootstrap-server", &address, "--list", "--command-config"]).arg(config.path());
        tool.output().unwrap().status.success()
    };
    assert!(list_topics("wonderland"));
    assert!(!list_topics("looking-glass"));
}

#[test]
fn a_setting_that_kafka_refuses_is_reported_with_kafkas_own_words() {
    let properties = vec![("num.partitions".to_owned(), "none".to_owned())];
    match Kafka::start(Options { properties, ..own() }) {
        Err(Error::Format(text)) => assert!(text.contains("num.partitions"), "{text}"),
        Err(Error::Unavailable(reason)) => xtask::skip::announce("a setting that Kafka refuses", &reason),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
