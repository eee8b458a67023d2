//! Topics: made if they are missing, and how many partitions they have.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use super::{Connection, explain};
use crate::error::{Error, Kind};

/// Between two looks whether a topic has its leaders.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A topic that is needed.
#[derive(Clone, Debug)]
pub(crate) struct TopicNeed<'a> {
    pub(crate) name: &'a str,
    /// Partitions if it has to be made.
    pub(crate) partitions: u32,
    /// Replicas of each if it has to be made; -1 for the broker's default.
    pub(crate) replication: i32,
}

/// Makes the topic if it is missing, waits until each of its partitions has a leader, and gives their number.
pub(crate) fn ensure<C: ClientContext>(
    connection: &Connection,
    client: &Client<C>,
    topic: &TopicNeed<'_>,
    deadline: Instant,
) -> Result<u32, Error> {
    create(connection, topic, deadline)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.fetch_metadata(Some(topic.name), left.clamp(LOOK_INTERVAL, ANSWER_TIMEOUT)) {
            Ok(metadata) => {
                let found = metadata.topics().iter().find(|found| found.name() == topic.name);
                match found.map(|found| (found.error(), found.partitions())) {
                    Some((None, partitions))
                        if partitions.iter().all(|one| one.leader() >= 0) && !partitions.is_empty() =>
                    {
                        return Ok(u32::try_from(partitions.len()).unwrap_or(u32::MAX));
                    }
                    Some((Some(error), _)) if !is_passing(error) => {
                        let text = format!("the topic {} can't be used", topic.name);
                        return Err(Error::new(Kind::Refused, text).because(Code::from(error)));
                    }
                    _ => {}
                }
            }
            Err(error) if left.is_zero() => {
                return Err(explain(
                    &format!("can't ask {} about the topic {}", connection.brokers, topic.name),
                    error,
                ));
            }
            Err(_) => {}
        }
        if left.is_zero() {
            return Err(Error::new(Kind::Unreachable, format!("the topic {} has no leader", topic.name)));
        }
        thread::sleep(LOOK_INTERVAL.min(left));
    }
}

fn is_passing(error: RDKafkaRespErr) -> bool {
    matches!(
        error,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
    )
}

fn create(connection: &Connection, topic: &TopicNeed<'_>, deadline: Instant) -> Result<(), Error> {
    let text = || format!("the topic {} can't be created", topic.name);
    let admin: AdminClient<DefaultClientContext> =
        connection.admin().create().map_err(|error| explain("librdkafka refuses a setting", error))?;
    let partitions = i32::try_from(topic.partitions.max(1)).unwrap_or(i32::MAX);
    let new = NewTopic::new(topic.name, partitions, TopicReplication::Fixed(topic.replication));
    let left = deadline.saturating_duration_since(Instant::now());
    let options = AdminOptions::new().request_timeout(Some(left)).operation_timeout(Some(left));
    let results = block_on(admin.create_topics([&new], &options)).map_err(|error| explain(&text(), error))?;
    match results.into_iter().next() {
        None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))) => {
            // Somebody else makes the topics here; whether it is there shows next.
            tracing::debug!(target: "tidegate::reactive", topic = topic.name, "no permission to create topics");
            Ok(())
        }
        Some(Err((_, code))) => Err(Error::new(super::kind_of(code), text()).because(code)),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on a thread of our own.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
