//! A service behind the gateway: reads requests from its topic and answers over Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::kafka::{KAFKA_DEADLINE, Producer, Record};
use super::wait_up_to;

/// The topic that services answer on which know nothing of reply partitions.
pub(crate) const RESPONSES: &str = "rig-proxy-response";

/// One request as the service gets it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Value,
    pub(crate) text: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Message {
    /// The id to send back with the answer, as RIG names it.
    pub(crate) fn correlation(&self) -> &str {
        self.value["rig"]["correlation"].as_str().expect("every request has a correlation id")
    }

    /// A header of the message.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the requests of a topic from its beginning.
pub(crate) struct Requests {
    consumer: BaseConsumer,
}

impl Requests {
    pub(crate) fn of(brokers: &str, topic: &str, partitions: i32) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "service")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .expect("a consumer can be made");
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).expect("partitions can be assigned");
        Self { consumer }
    }

    /// The next request, if one comes soon.
    pub(crate) fn poll(&self) -> Option<Message> {
        let message = self.consumer.poll(Duration::from_millis(50))?.ok()?;
        let text = String::from_utf8(message.payload().unwrap_or_default().to_vec()).expect("requests are text");
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect()
        });
        Some(Message {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: serde_json::from_str(&text).expect("requests are JSON"),
            text,
            headers,
        })
    }

    /// The next request, which must come.
    pub(crate) fn next(&self) -> Message {
        wait_up_to(KAFKA_DEADLINE, "a request in Kafka", || self.poll())
    }
}

/// An answer as RIG's services send it.
pub(crate) fn answer(correlation: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Record {
    let named = [("rig-correlation", correlation)];
    let headers = named.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    Record { value: Some(body.as_ref().to_vec()), headers: headers.collect(), ..Record::default() }
}

/// A service that answers every request with its own data, from a thread of its own; ends when dropped.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Answers on `to`; on `None`, where the request says that the gateway reads itself.
    pub(crate) fn start(brokers: &str, topic: &str, partitions: i32, to: Option<&str>) -> Self {
        let (requests, producer) = (Requests::of(brokers, topic, partitions), Producer::new(brokers));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, to) = (Arc::clone(&stop), to.map(str::to_owned));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(request) = requests.poll() else { continue };
                let body = json!({ "echo": request.value["data"] }).to_string();
                let mut record = answer(request.correlation(), &[("content-type", "application/json")], body);
                let topic = match &to {
                    Some(topic) => topic.as_str(),
                    None => {
                        let partition = request.header("rig-reply-partition").expect("a reply partition");
                        record = record.for_partition(partition.parse().expect("a number"));
                        request.header("rig-reply-topic").expect("a reply topic")
                    }
                };
                producer.queue(topic, &record);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `PROXY_CONFIG_FILE` with one API of these endpoints, which adds `x-added: by-gateway` where an endpoint asks for it.
pub(crate) fn definitions(endpoints: &[Value]) -> String {
    let api = json!({
        "id": "shop",
        "name": "shop",
        "auth_type": "none",
        "auth": { "use_header": false, "header_name": "", "use_query": false, "query_name": "" },
        "versioned": false,
        "version_data": {
            "default": {
                "endpoints": endpoints,
                "transform_request_headers": { "add_headers": { "x-added": "by-gateway" } }
            }
        },
        "proxy": { "use_env": false, "target_url": "localhost", "port": 3000 }
    });
    json!([api]).to_string()
}

/// An endpoint that produces what is posted to `path` to `topic`.
pub(crate) fn endpoint(id: &str, path: &str, topic: &str) -> Value {
    json!({ "id": id, "method": "POST", "path_regex": path, "target": "kafka", "topic": topic, "secured": false })
}

/// The endpoint with a further member.
pub(crate) fn with(mut endpoint: Value, name: &str, value: impl Into<Value>) -> Value {
    endpoint[name] = value.into();
    endpoint
}
