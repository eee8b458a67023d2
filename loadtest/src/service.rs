//! The bundled service: reads requests from a Kafka topic and answers each with the payload that belongs to its number.
//!
//! It speaks what a service behind RIG speaks: the request is a CloudEvent with a `rig` member, the answer a message whose
//! headers say which request it answers and with what status. A request that names a reply topic and partition is answered
//! there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;

use crate::calls::number::CallNumber;
use crate::error::LoadError;
use crate::reactive_service;
use crate::sys::PinnedToCpu;

/// Headers that requests of Tidegate carry, and answers of any service.
const CORRELATION: &str = "rig-correlation";
const REPLY_TOPIC: &str = "rig-reply-topic";
const REPLY_PARTITION: &str = "rig-reply-partition";
const RESPONSE_CODE: &str = "rig-response-code";
const CONTENT_TYPE: &str = "content-type";

const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the topic to have partitions, and at the end for the last acknowledgements.
const PATIENCE: Duration = Duration::from_secs(30);
/// The flag that ends it is looked at this often.
const WAIT: Duration = Duration::from_millis(50);

/// What the service reads and where its answers go.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Bootstrap servers.
    pub brokers: String,
    /// Topic of the requests.
    pub topic: String,
    /// Topic for answers to requests that name none.
    pub response_topic: String,
    /// Look away where a request names a reply topic and partition, as a service made for RIG does.
    pub ignores_reply_address: bool,
    /// Size of each answer's body; at least what the number takes (21).
    pub answer_bytes: usize,
    /// Serve this id with a `ReactiveServer` instead, for calls through the bare client.
    pub reactive: Option<String>,
    /// CPU that its threads are bound to.
    pub cpu: Option<usize>,
}

/// What the service has done so far.
#[derive(Debug, Default)]
pub struct ServiceCounts {
    /// Requests answered.
    pub answered: AtomicU64,
    /// Messages that are no request of the load generator.
    pub unreadable: AtomicU64,
}

/// Serves until `stop` is set; calls `ready` once every request from then on will be read.
///
/// # Errors
/// Kafka is out of reach, or the topic has no partitions within 30 seconds.
pub fn serve(
    options: &ServiceOptions,
    counts: &ServiceCounts,
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<(), LoadError> {
    let pin = |cpu| PinnedToCpu::pin(cpu).map_err(LoadError::system(format!("binding to CPU {cpu}")));
    let _pinned = options.cpu.map(pin).transpose()?;
    if let Some(id) = &options.reactive {
        return reactive_service::serve(options, id, stop, ready);
    }
    let failed = |error: KafkaError| LoadError::Service { topic: options.topic.clone(), reason: error.to_string() };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers).set("client.id", "tidegate-load-service");
    let mut reading = config.clone();
    reading
        .set("group.id", "tidegate-load-service")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "true")
        .set("fetch.wait.max.ms", "100");
    let consumer: BaseConsumer = reading.create().map_err(failed)?;
    let mut writing = config;
    writing.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
    let producer: BaseProducer = writing.create().map_err(failed)?;
    consumer.assign(&ends(&consumer, &options.topic)?).map_err(failed)?;
    ready();
    let mut body = Vec::with_capacity(options.answer_bytes);
    while !stop.load(Relaxed) {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => {
                if answer(&message, options, &producer, &mut body).map_err(failed)? {
                    counts.answered.fetch_add(1, Relaxed);
                } else {
                    counts.unreadable.fetch_add(1, Relaxed);
                }
            }
            // librdkafka goes on by itself; only what it can't get over ends the service.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => {
                return Err(failed(error));
            }
            Some(Err(_)) | None => {}
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).map_err(failed)
}

/// The ends of all partitions as they are now: what is written from here on will be read. A topic that has just been made
/// needs a moment until its partitions have leaders.
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<TopicPartitionList, LoadError> {
    let began = Instant::now();
    loop {
        let reason = match ends_now(consumer, topic) {
            Ok(list) if list.count() > 0 => return Ok(list),
            Ok(_) => "it has no partitions".to_owned(),
            Err(error) => error.to_string(),
        };
        if began.elapsed() > PATIENCE {
            return Err(LoadError::Service { topic: topic.to_owned(), reason });
        }
        std::thread::sleep(WAIT);
    }
}

fn ends_now(consumer: &BaseConsumer, topic: &str) -> Result<TopicPartitionList, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), METADATA_TIMEOUT)?;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
    }
    Ok(list)
}

/// Answers one message; false if it is no request of the load generator.
fn answer(
    message: &BorrowedMessage<'_>,
    options: &ServiceOptions,
    producer: &BaseProducer,
    body: &mut Vec<u8>,
) -> Result<bool, KafkaError> {
    let header = |name: &str| {
        let headers = message.headers()?;
        let found = headers.iter().find(|header| header.key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value?).ok()
    };
    let Some(request) = message.payload().and_then(|payload| Request::read(payload, header(CORRELATION))) else {
        return Ok(false);
    };
    let named = header(REPLY_TOPIC).filter(|_| !options.ignores_reply_address);
    let partition = header(REPLY_PARTITION).and_then(|partition| partition.parse::<i32>().ok());
    body.clear();
    request.number.append_payload(options.answer_bytes, body);
    let headers = OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: CORRELATION, value: Some(request.correlation.as_str()) })
        .insert(Header { key: RESPONSE_CODE, value: Some("200") })
        .insert(Header { key: CONTENT_TYPE, value: Some("text/plain") });
    let topic = named.unwrap_or(&options.response_topic);
    let mut record = BaseRecord::<(), [u8]>::to(topic).payload(body).headers(headers);
    record.partition = named.and(partition);
    while let Err((error, unsent)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error);
        }
        record = unsent;
        producer.poll(Duration::from_millis(1));
    }
    Ok(true)
}

/// What the service needs of a request.
#[derive(Debug, PartialEq)]
struct Request {
    number: CallNumber,
    correlation: String,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    rig: Option<Rig>,
}

#[derive(Deserialize)]
struct Rig {
    correlation: String,
}

impl Request {
    /// Reads an event with its `rig` member, or a bare payload whose correlation stands in a header.
    fn read(payload: &[u8], correlation: Option<&str>) -> Option<Self> {
        if let Some(number) = CallNumber::at_front(payload) {
            return Some(Self { number, correlation: correlation?.to_owned() });
        }
        let event: Event = serde_json::from_slice(payload).ok()?;
        let number = CallNumber::at_front(event.id.as_bytes())?;
        let correlation = event.rig.map(|rig| rig.correlation).or_else(|| correlation.map(str::to_owned))?;
        Some(Self { number, correlation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "0000000a-00000000000b";

    fn request(correlation: &str) -> Option<Request> {
        let number = CallNumber { run: 10, number: 11 };
        Some(Request { number, correlation: correlation.to_owned() })
    }

    #[test]
    fn the_correlation_of_an_event_stands_in_its_rig_member_and_that_of_a_payload_in_the_headers() {
        let event = format!(r#"{{"specversion":"1.0","id":"{NUMBER}","rig":{{"correlation":"c","port":4000}},"x":1}}"#);
        assert_eq!(Request::read(event.as_bytes(), Some("h")), request("c"));
        assert_eq!(Request::read(format!(r#"{{"id":"{NUMBER}"}}"#).as_bytes(), Some("h")), request("h"));
        assert_eq!(Request::read(format!("{NUMBER}lll").as_bytes(), Some("h")), request("h"));
    }

    #[test]
    fn what_others_wrote_into_the_topic_is_no_request() {
        for payload in [r#"{"id":"other","rig":{"correlation":"c"}}"#, "{", "", NUMBER] {
            assert_eq!(Request::read(payload.as_bytes(), None), None, "{payload}");
        }
    }
}
