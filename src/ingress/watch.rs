//! The watcher of topics: a thread that asks Kafka every few seconds which partitions there are, finds out where to
//! start each, and knows whether Kafka can be reached. It never gives up, and who reads never waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tidegate_shards::bell::Bell;
use tidegate_shards::clock;

pub(crate) use super::discovery::StartFrom;
use super::discovery::{Discovery, Listing, Resume};
use crate::config::KafkaSettings;
use crate::kafka::{LogContext, Reachability, client_config};

impl ConsumerContext for LogContext {}

/// Between two looks at the topics, in milliseconds.
const REFRESH_MS: u64 = 2_000;
/// The same while Kafka is out of reach or a start isn't known yet.
const RETRY_MS: u64 = 250;
/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a partition that can't be asked for its end, such as one without a leader, keeps the node from opening, in
/// milliseconds since Kafka first answered.
const PATIENCE_MS: u64 = 30_000;

/// From the watcher to the reader. Topics are named by their index in [`Watch::topics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// Read this partition from this offset on.
    Start { topic: usize, partition: u32, offset: u64 },
    /// The topic has this id (0 where the brokers don't say); said before its first start and whenever it changes.
    Topic { topic: usize, id: u128 },
    /// The partition is gone.
    Stop { topic: usize, partition: u32 },
    /// Everything that was there at the first look has been assigned by now, or could not be for long; said once.
    Complete,
}

/// What a look at all topics has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Kafka doesn't answer.
    OutOfReach,
    /// The start of some partition isn't known.
    Incomplete,
    /// Everything there is is being read.
    Complete,
}

/// From the reader to the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The broker doesn't have the next offset of this partition.
    OutOfRange { topic: usize, partition: u32, next_offset: u64 },
}

/// A topic to watch.
pub(crate) struct Watched {
    /// Its name.
    pub(crate) name: String,
    /// Which of its partitions are read.
    pub(crate) partitions: Partitions,
    /// Makes it when it doesn't exist; says whether it did.
    pub(crate) when_missing: Option<Box<dyn Fn() -> bool + Send>>,
}

/// Which partitions of a topic are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Partitions {
    /// All.
    All,
    /// One, chosen when the topic is first seen: this number modulo their count.
    One {
        /// The number, any.
        of: u64,
        /// The choice.
        chosen: Option<u32>,
    },
}

impl Partitions {
    fn listing(&mut self, count: u32) -> Listing {
        match self {
            Self::All => Listing::Partitions(count),
            Self::One { of, chosen } => {
                let any = || u32::try_from(*of % u64::from(count.max(1))).unwrap_or_default();
                Listing::One(*chosen.get_or_insert_with(any))
            }
        }
    }
}

/// What the watcher works with.
pub(crate) struct Watch {
    pub(crate) settings: KafkaSettings,
    pub(crate) topics: Vec<Watched>,
    /// Where reading begins in what is there at the first look.
    pub(crate) start: StartFrom,
    pub(crate) reachability: Arc<Reachability>,
    /// Told how many messages Kafka deleted before they were read.
    pub(crate) on_lost: Box<dyn Fn(u64) + Send>,
    pub(crate) assignments: Sender<Assignment>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) bell: Bell,
    /// Whether the reader wants to know the topics' ids.
    pub(crate) identify: bool,
    /// The topics' ids, as they were told to the reader.
    pub(crate) ids: Vec<Option<u128>>,
    /// Why Kafka refuses the topics that it refuses.
    pub(crate) refusals: Vec<Option<RDKafkaErrorCode>>,
}

impl Watch {
    /// Runs until the reader has gone.
    ///
    /// # Errors
    /// librdkafka refuses a setting.
    pub(crate) fn run(mut self) -> KafkaResult<()> {
        let mut config = client_config(&self.settings);
        config.set("allow.auto.create.topics", "false").set("topic.metadata.refresh.interval.ms", "-1");
        let client: BaseConsumer<LogContext> = config.create_with_context(LogContext)?;
        let mut discovery = Discovery::new(self.topics.len(), self.start);
        self.ids = vec![None; self.topics.len()];
        self.refusals = vec![None; self.topics.len()];
        let began = Timestamp::now();
        let mut answered_ms = None;
        let mut late = None;
        loop {
            let look = self.look(&client, &mut discovery, late);
            if look != Look::OutOfReach && late.is_none() {
                let now_ms = clock::now_ms();
                let waited_ms = now_ms - *answered_ms.get_or_insert(now_ms);
                if look == Look::Complete || waited_ms >= PATIENCE_MS {
                    self.complain(&discovery);
                    late = Some(began);
                    self.assign(Assignment::Complete);
                }
            }
            let complete = look == Look::Complete;
            // Serves librdkafka's log; without a group there is nothing to consume.
            let _ = client.poll(Duration::ZERO);
            let pause = Duration::from_millis(if complete { REFRESH_MS } else { RETRY_MS });
            match self.requests.recv_timeout(pause) {
                Ok(Request::OutOfRange { topic, partition, next_offset }) => {
                    discovery.out_of_range(topic, partition, next_offset);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// One look at all topics. `late`: the node is open, and began at this time.
    fn look(&mut self, client: &BaseConsumer<LogContext>, discovery: &mut Discovery, late: Option<Timestamp>) -> Look {
        let (mut partitions, mut without_leader, mut complete) = (0, 0, true);
        for index in 0..self.topics.len() {
            let listed = match list(client, &self.topics[index].name) {
                Ok(listed) => listed,
                Err(error) => {
                    self.note_failure(&error);
                    return Look::OutOfReach;
                }
            };
            self.note_success();
            self.note_refusal(index, listed.as_ref().err().copied());
            let topic = &mut self.topics[index];
            let listing = match listed {
                Ok(Some((count, leaderless))) => {
                    partitions += u64::from(count);
                    without_leader += leaderless;
                    topic.partitions.listing(count)
                }
                Ok(None) => {
                    if topic.when_missing.as_ref().is_some_and(|make| make()) {
                        // It is new, whichever node was the first to make it: no other listing need say so.
                        complete = false;
                        self.leave(index, discovery.remade(index));
                    }
                    Listing::Missing
                }
                // The others are none the worse for it. What comes into it from now on is read once it can be.
                Err(error) => {
                    complete &= error != RDKafkaErrorCode::LeaderNotAvailable;
                    continue;
                }
            };
            self.take_listing(client, discovery, index, listing);
        }
        self.reachability.count_partitions(partitions, without_leader);
        if self.resolve(client, discovery, late) && complete { Look::Complete } else { Look::Incomplete }
    }

    fn take_listing(
        &mut self,
        client: &BaseConsumer<LogContext>,
        discovery: &mut Discovery,
        index: usize,
        listing: Listing,
    ) {
        let id = match listing {
            Listing::Missing => None,
            _ if !self.identify => None,
            _ => topic_id(client, &self.topics[index].name),
        };
        let (told, mut gone) = (self.ids[index], Vec::new());
        // An id that wasn't known before, for want of an answer, is no other one.
        if matches!((told, id), (Some(told), Some(now)) if told != 0 && told != now) {
            gone.extend(discovery.remade(index));
        }
        gone.extend(discovery.listed(index, listing, clock::now_ms()));
        self.leave(index, gone);
        let now = id.or(told).unwrap_or(0);
        if listing != Listing::Missing && told != Some(now) {
            self.ids[index] = Some(now);
            self.assign(Assignment::Topic { topic: index, id: now });
        }
    }

    fn leave(&self, index: usize, gone: Vec<u32>) {
        for partition in gone {
            let topic = &self.topics[index].name;
            tracing::warn!(topic, partition, "the topic was deleted; it is read again if it comes back");
            self.assign(Assignment::Stop { topic: index, partition });
        }
    }

    fn complain(&self, discovery: &Discovery) {
        for (index, partition, _) in discovery.unresolved() {
            let topic = &self.topics[index].name;
            tracing::error!(
                topic,
                partition,
                "the partition can't be asked for its end; the node opens without it and reads it from the time of its own start once it can"
            );
        }
    }

    fn resolve(&self, client: &BaseConsumer<LogContext>, discovery: &mut Discovery, late: Option<Timestamp>) -> bool {
        let unresolved = discovery.unresolved();
        let mut complete = true;
        for (index, partition, start) in unresolved {
            let topic = &self.topics[index].name;
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            match client.fetch_watermarks(topic, number, ANSWER_TIMEOUT) {
                Ok((low, high)) => {
                    let watermark = |offset: i64| u64::try_from(offset).unwrap_or(0);
                    let mut resume = Resume::decide(start, watermark(low), watermark(high));
                    if let (StartFrom::End, Some(began)) = (start, late) {
                        match first_since(client, topic, number, began) {
                            Ok(first) => resume = Resume::At(first.unwrap_or(watermark(high))),
                            Err(error) => {
                                tracing::info!(topic, partition, %error, "the partition can't be read yet");
                                complete = false;
                                continue;
                            }
                        }
                    }
                    self.tell(topic, partition, start, resume);
                    discovery.resolved(index, partition);
                    self.assign(Assignment::Start { topic: index, partition, offset: resume.offset() });
                }
                Err(error) => {
                    tracing::info!(topic, partition, %error, "the partition can't be read yet");
                    complete = false;
                }
            }
        }
        complete
    }

    fn tell(&self, topic: &str, partition: u32, start: StartFrom, resume: Resume) {
        match resume {
            Resume::At(offset) => tracing::info!(topic, partition, offset, ?start, "reading"),
            Resume::AfterLoss { offset, lost } => {
                (self.on_lost)(lost);
                tracing::error!(topic, partition, offset, lost, "messages were deleted before they were read");
            }
            Resume::Shortened(offset) => tracing::error!(
                topic,
                partition,
                offset,
                ?start,
                "the partition is shorter than what was read of it; going on at its new end"
            ),
        }
    }

    fn assign(&self, assignment: Assignment) {
        if self.assignments.send(assignment).is_ok() {
            self.bell.ring();
        }
    }

    fn note_success(&self) {
        if let Some(out_of_reach_ms) = self.reachability.answered(clock::now_ms()) {
            tracing::info!(out_of_reach_ms, "Kafka is in reach");
        }
    }

    /// Tells the operator once that a topic can't be read, and once that it can.
    fn note_refusal(&mut self, index: usize, error: Option<RDKafkaErrorCode>) {
        let topic = &self.topics[index].name;
        match (error, self.refusals[index]) {
            // A topic that is being made.
            (Some(RDKafkaErrorCode::LeaderNotAvailable), _) => {}
            (Some(error), before) if before != Some(error) => {
                tracing::error!(topic, %error, "Kafka refuses the topic: nothing new of it is read until it doesn't");
            }
            (None, Some(_)) => tracing::warn!(topic, "Kafka doesn't refuse the topic any more"),
            _ => {}
        }
        self.refusals[index] = error;
    }

    fn note_failure(&self, error: &KafkaError) {
        let text = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
        if self.reachability.failed(clock::now_ms(), &text) {
            tracing::warn!(error = text, brokers = ?self.settings.brokers, "Kafka is out of reach; trying again for ever");
        }
    }
}

/// The id by which Kafka tells a topic from one of the same name made later; `None` where the brokers don't say.
fn topic_id(client: &BaseConsumer<LogContext>, topic: &str) -> Option<u128> {
    super::native::topic_id(client.client().native_ptr(), topic, ANSWER_TIMEOUT)
}

/// The offset of the first message since a time, if there is one.
fn first_since(
    client: &BaseConsumer<LogContext>,
    topic: &str,
    partition: i32,
    time: Timestamp,
) -> KafkaResult<Option<u64>> {
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, partition, Offset::Offset(time.as_millisecond()))?;
    let found = client.offsets_for_times(times, ANSWER_TIMEOUT)?;
    Ok(match found.find_partition(topic, partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
        _ => None,
    })
}

/// How many partitions a topic has, and how many of them have no leader at the moment; `None` where there is no such topic,
/// an error where Kafka says nothing of this one topic.
type Listed = Result<Option<(u32, u64)>, RDKafkaErrorCode>;

fn list(client: &BaseConsumer<LogContext>, topic: &str) -> KafkaResult<Listed> {
    let metadata = client.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(Ok(None)) };
    let no_leader = |error| error == RDKafkaErrorCode::LeaderNotAvailable && !found.partitions().is_empty();
    Ok(match found.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
        Some(error) if !no_leader(error) => Err(error),
        _ => {
            let count = found.partitions().iter().map(|partition| partition.id() + 1).max().unwrap_or(0);
            let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0).count();
            Ok(Some((u32::try_from(count).unwrap_or(0), leaderless as u64)))
        }
    })
}

#[cfg(test)]
mod tests;
