//! The hub in Kafka: one topic for pages (which the gateway reads), one for the services alone, one for requests.

use std::time::Duration;

use http::StatusCode;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::courier::Fate;
use super::outbox::Letter;
use super::{Feed, Heard};
use crate::config::KafkaSettings;
use crate::demo::event::{Event, FOR_PAGES, PURCHASE_REQUESTED};
use crate::demo::service::{Caller, Delivery, ReplyPartition};
use crate::kafka::{LogContext, PolledProducer, client_config};

/// Topic of the requests that the gateway makes events of.
pub(in crate::demo) const REQUESTS: &str = "tidegate-tickets-requests";
/// Topic of what the services tell each other; the gateway doesn't read it.
const SERVICES: &str = "tidegate-tickets-services";
/// Partitions of the topic of requests: the gateway spreads them by seat.
const REQUEST_PARTITIONS: i32 = 4;

/// Time for one answer of Kafka.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts, and between two looks whether anybody still listens.
const PAUSE: Duration = Duration::from_millis(250);
/// Time until a message that Kafka didn't acknowledge is tried anew, in milliseconds.
const DELIVERY_TIMEOUT_MS: &str = "5000";

/// Topics, and a producer for all services.
pub(in crate::demo) struct KafkaHub {
    config: ClientConfig,
    producer: PolledProducer<Deliveries>,
    /// What the gateway reads for its subscribers.
    for_pages: String,
    /// Where answers go that name no partition.
    responses: String,
}

impl std::fmt::Debug for KafkaHub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KafkaHub").field("for_pages", &self.for_pages).finish_non_exhaustive()
    }
}

impl KafkaHub {
    /// A hub on these brokers, which may be out of reach; `responses` are the topics that the gateway takes answers from.
    ///
    /// # Errors
    /// librdkafka refuses a setting.
    pub(in crate::demo) fn new(settings: &KafkaSettings, responses: &[String]) -> KafkaResult<Self> {
        let config = client_config(settings);
        let mut producer = config.clone();
        producer
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MS);
        let producer: BaseProducer<_> = producer.create_with_context(Deliveries)?;
        let producer =
            PolledProducer::start(producer).map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let for_pages = settings.source_topics.first().cloned().unwrap_or_default();
        Ok(Self { config, producer, for_pages, responses: responses.first().cloned().unwrap_or_default() })
    }

    /// Creates the topics that aren't there. Tries until Kafka answers.
    pub(in crate::demo) async fn create_topics(&self) {
        let new = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        let topics = [new(REQUESTS, REQUEST_PARTITIONS), new(SERVICES, 1), new(&self.for_pages, -1)];
        loop {
            let created = match self.config.create_with_context::<_, AdminClient<_>>(LogContext) {
                Ok(admin) => admin.create_topics(&topics, &AdminOptions::new()).await,
                Err(error) => Err(error),
            };
            let refusals = match created {
                Ok(results) => results.into_iter().filter_map(Result::err).collect(),
                Err(error) => vec![(String::new(), error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))],
            };
            let problem = refusals.into_iter().find(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists);
            let Some((topic, code)) = problem else { return };
            tracing::warn!(topic, %code, "the ticket shop cannot create its topics; it keeps trying");
            tokio::time::sleep(ANSWER_TIMEOUT).await;
        }
    }

    /// Reads the topics of these types from their ends, for as long as anybody wants their events.
    pub(super) fn read(&self, feed: &Feed) {
        while !feed.deliveries.is_closed() {
            match self.consumer(feed.types) {
                Ok(consumer) => {
                    feed.live.send_replace(true);
                    if feed.deliveries.blocking_send(Heard::Subscribed).is_err() {
                        return;
                    }
                    consume(&consumer, feed);
                }
                Err(error) => {
                    tracing::debug!(%error, "a service of the ticket shop cannot read its topics; it keeps trying");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// A consumer of all partitions, without a group, whose start is settled before anything is asked.
    fn consumer(&self, types: &[&str]) -> KafkaResult<BaseConsumer<LogContext>> {
        let mut config = self.config.clone();
        config
            .set("group.id", "tidegate-tickets")
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer<LogContext> = config.create_with_context(LogContext)?;
        let mut partitions = TopicPartitionList::new();
        for topic in self.topics(types) {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
            let listed = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id());
            let listed: Vec<i32> = listed.collect();
            if listed.is_empty() {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            for partition in listed {
                let (_, end) = consumer.fetch_watermarks(topic, partition, ANSWER_TIMEOUT)?;
                partitions.add_partition_offset(topic, partition, Offset::Offset(end))?;
            }
        }
        consumer.assign(&partitions)?;
        Ok(consumer)
    }

    fn topics(&self, types: &[&str]) -> Vec<&str> {
        let wants = |wanted: fn(&str) -> bool| types.iter().any(|event_type| wanted(event_type));
        let topics = [
            (wants(|event_type| event_type == PURCHASE_REQUESTED), REQUESTS),
            (wants(|event_type| FOR_PAGES.contains(&event_type)), self.for_pages.as_str()),
            (wants(|event_type| event_type != PURCHASE_REQUESTED && !FOR_PAGES.contains(&event_type)), SERVICES),
        ];
        topics.into_iter().filter_map(|(is_wanted, topic)| is_wanted.then_some(topic)).collect()
    }

    /// Writes a letter and waits for Kafka's acknowledgement.
    pub(super) async fn produce(&self, letter: &Letter) -> Fate {
        let (sender, outcome) = oneshot::channel();
        let opaque = Box::new(sender);
        let sent = match letter {
            Letter::Event { for_pages, subject, body } => {
                let topic = if *for_pages { self.for_pages.as_str() } else { SERVICES };
                let headers = OwnedHeaders::new()
                    .insert(Header { key: "content-type", value: Some("application/cloudevents+json") });
                let record = BaseRecord::with_opaque_to(topic, opaque).key(subject.as_str()).payload(&body[..]);
                self.producer.send(record.headers(headers))
            }
            Letter::Answer { to, status, body } => {
                let (topic, partition) = self.address(to);
                let record = BaseRecord::<str, [u8], _>::with_opaque_to(topic, opaque).payload(&body[..]);
                let record = record.headers(answer_headers(to, *status));
                self.producer.send(match partition {
                    Some(partition) => record.partition(partition),
                    None => record,
                })
            }
        };
        let result = match sent {
            Ok(()) => outcome.await.unwrap_or(Err(KafkaError::Canceled)),
            Err((error, _)) => Err(error),
        };
        match (result, letter) {
            (Ok(()), _) => Fate::Arrived,
            // Who waited for an answer has given up by now.
            (Err(error), Letter::Answer { .. }) => Fate::Refused(error.to_string()),
            (Err(error), Letter::Event { .. }) => Fate::Retry(error.to_string()),
        }
    }

    fn address<'a>(&'a self, caller: &'a Caller) -> (&'a str, Option<i32>) {
        match &caller.reply {
            Some(ReplyPartition { topic, partition }) => (topic, Some(*partition)),
            None => (&self.responses, None),
        }
    }
}

fn answer_headers(to: &Caller, status: StatusCode) -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "rig-correlation", value: Some(&to.correlation) })
        .insert(Header { key: "rig-response-code", value: Some(status.as_str()) })
        .insert(Header { key: "content-type", value: Some("application/json") })
}

/// Hands events on until nobody wants them any more, or the consumer fails for good.
fn consume(consumer: &BaseConsumer<LogContext>, feed: &Feed) {
    while !feed.deliveries.is_closed() {
        match consumer.poll(PAUSE) {
            None => {}
            Some(Ok(message)) => {
                let delivery = delivery(&message).filter(|it| feed.types.contains(&it.event.event_type.as_str()));
                if let Some(delivery) = delivery
                    && feed.deliveries.blocking_send(Heard::Event(delivery)).is_err()
                {
                    return;
                }
            }
            Some(Err(error)) => tracing::debug!(%error, "librdkafka recovers by itself"),
        }
    }
}

fn delivery(message: &BorrowedMessage<'_>) -> Option<Delivery> {
    let event = Event::read(message.payload()?).ok()?;
    let header = |name: &str| {
        let mut headers = message.headers()?.iter();
        let value = headers.find(|header| header.key.eq_ignore_ascii_case(name))?.value?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    let partition = header("rig-reply-partition").and_then(|number| number.parse().ok());
    let reply = header("rig-reply-topic").zip(partition);
    Some(Delivery { event, reply: reply.map(|(topic, partition)| ReplyPartition { topic, partition }) })
}

/// Tells the courier what became of its letter, on the producer's thread.
#[derive(Debug)]
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LogContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<KafkaResult<()>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, courier: Self::DeliveryOpaque) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // The courier has gone where the shop closed meanwhile.
        let _ = courier.send(result);
    }
}
