//! The thread that looks checkpoints up in their topic: one read for all shards that ask for the same one, tried again for ever
//! while the brokers don't answer. How many are looked up at a time is bounded by the shards, see
//! [`MAX_LOOKUPS`](tidegate_shards::checkpoints::MAX_LOOKUPS): none is refused here, since its client would lose what Kafka
//! has.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode;
use tidegate_shards::bell::Bell;
use tidegate_shards::checkpoints::{Found, Lookup};
use tidegate_shards::clock;
use tidegate_shards::cursor::{Checkpoint, Reference};
use tidegate_shards::node::Finders;

use super::{PARTITION, PositionCounts, Question};
use crate::config::KafkaSettings;
use crate::ingress::kafka::consumer_config;
use crate::ingress::native::{Batch, Consumer};
use crate::ingress::sleep;
use crate::kafka::{LogContext, client_config};

/// Checkpoints that are remembered.
const MAX_KNOWN: usize = 64;
/// Time for one answer of Kafka.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(250);
/// How long a log may seem shorter than it is, or not to be there, in milliseconds: a broker that has just come back.
const SETTLE_MS: u64 = 10_000;
/// Longest wait for one record, in milliseconds.
const RECORD_MS: u64 = 5_000;

/// A checkpoint that somebody waits for.
#[derive(Debug)]
struct Wanted {
    reference: Reference,
    shards: Vec<usize>,
    /// When a log that doesn't reach it is believed.
    settled_ms: u64,
}

/// What one look came to.
#[derive(Debug)]
enum Look {
    Found(Checkpoint),
    Gone,
    /// The log doesn't reach it, which may pass.
    Short,
    /// The brokers don't answer.
    Unknown,
}

/// The thread's state.
pub(super) struct Reader {
    settings: KafkaSettings,
    topic: String,
    finders: Finders,
    stop: Arc<AtomicBool>,
    counts: Arc<PositionCounts>,
    bell: Bell,
    known: VecDeque<Arc<Checkpoint>>,
    /// The one that is looked for next is the first.
    wanted: VecDeque<Wanted>,
    clients: Option<(Consumer, BaseConsumer<LogContext>)>,
}

impl Reader {
    pub(super) fn new(
        settings: &KafkaSettings,
        topic: &str,
        finders: Finders,
        stop: &Arc<AtomicBool>,
        counts: &Arc<PositionCounts>,
    ) -> io::Result<Self> {
        Ok(Self {
            settings: settings.clone(),
            topic: topic.to_owned(),
            finders,
            stop: Arc::clone(stop),
            counts: Arc::clone(counts),
            bell: Bell::new()?,
            known: VecDeque::new(),
            wanted: VecDeque::new(),
            clients: None,
        })
    }

    pub(super) fn run(mut self, questions: &Receiver<Question>) {
        while !self.stopped() {
            let pause = if self.wanted.is_empty() { Duration::from_secs(3_600) } else { RETRY };
            match questions.recv_timeout(pause) {
                Ok(Question::Lookup(lookup)) => self.ask(lookup),
                Ok(Question::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(Question::Lookup(lookup)) = questions.try_recv() {
                self.ask(lookup);
            }
            if !self.wanted.is_empty()
                && let Err(error) = self.serve()
            {
                tracing::info!(topic = self.topic, %error, "checkpoints can't be looked up yet");
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn ask(&mut self, lookup: Lookup) {
        let Lookup { shard, reference } = lookup;
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.reference == reference) {
            wanted.shards.push(shard);
        } else if let Some(known) = self.known.iter().find(|known| known.reference() == reference) {
            let checkpoint = Some(Arc::clone(known));
            self.tell(shard, &Found { reference, checkpoint });
        } else {
            let settled_ms = clock::now_ms() + SETTLE_MS;
            self.wanted.push_back(Wanted { reference, shards: vec![shard], settled_ms });
        }
    }

    /// Looks for all that are wanted. While the brokers don't answer, they wait.
    fn serve(&mut self) -> KafkaResult<()> {
        let kept = self.kept()?;
        for _ in 0..self.wanted.len() {
            let Some(wanted) = self.wanted.pop_front() else { break };
            match self.look(wanted.reference, &kept) {
                Ok(Look::Found(checkpoint)) => {
                    let checkpoint = Arc::new(checkpoint);
                    if self.known.len() >= MAX_KNOWN {
                        self.known.pop_front();
                    }
                    self.known.push_back(Arc::clone(&checkpoint));
                    self.conclude(wanted, Some(checkpoint));
                }
                Ok(Look::Short) if clock::now_ms() < wanted.settled_ms => self.wanted.push_back(wanted),
                Ok(Look::Gone | Look::Short) => {
                    tracing::info!(
                        topic = self.topic,
                        offset = wanted.reference.offset,
                        "a checkpoint is kept no more"
                    );
                    self.conclude(wanted, None);
                }
                Ok(Look::Unknown) => {
                    self.wanted.push_back(wanted);
                    break;
                }
                Err(error) => {
                    self.wanted.push_back(wanted);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn conclude(&self, Wanted { reference, shards, .. }: Wanted, checkpoint: Option<Arc<Checkpoint>>) {
        let count = if checkpoint.is_some() { &self.counts.found } else { &self.counts.gone };
        count.fetch_add(1, Ordering::Relaxed);
        for shard in shards {
            self.tell(shard, &Found { reference, checkpoint: checkpoint.clone() });
        }
    }

    fn tell(&self, shard: usize, found: &Found) {
        while self.finders.tell(shard, found.clone()).is_err() && !self.stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The offsets that are kept; none where there is no topic.
    fn kept(&mut self) -> KafkaResult<Range<u64>> {
        if self.clients.is_none() {
            self.clients = Some(self.connect()?);
        }
        let Some((_, asker)) = &self.clients else { return Ok(0..0) };
        let metadata = asker.fetch_metadata(Some(&self.topic), ANSWER_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        if found.is_none_or(|found| found.partitions().is_empty()) {
            return Ok(0..0);
        }
        let (low, high) = asker.fetch_watermarks(&self.topic, PARTITION.cast_signed(), ANSWER_TIMEOUT)?;
        let unsigned = |offset: i64| u64::try_from(offset).unwrap_or(0);
        Ok(unsigned(low)..unsigned(high))
    }

    fn look(&mut self, reference: Reference, kept: &Range<u64>) -> KafkaResult<Look> {
        if reference.offset < kept.start {
            return Ok(Look::Gone);
        }
        let Some((consumer, _)) = self.clients.as_mut().filter(|_| !self.stop.load(Ordering::Relaxed)) else {
            return Ok(Look::Unknown);
        };
        if reference.offset >= kept.end {
            return Ok(Look::Short);
        }
        consumer.start(0, PARTITION, reference.offset)?;
        let look = read(consumer, &self.bell, reference, &self.stop);
        consumer.stop(0, PARTITION);
        Ok(look)
    }

    fn connect(&self) -> KafkaResult<(Consumer, BaseConsumer<LogContext>)> {
        let mut config = consumer_config(&self.settings);
        // One record is wanted of each place.
        config
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", "65536");
        let consumer = Consumer::new(&config, std::slice::from_ref(&self.topic), &self.bell)?;
        let mut config = client_config(&self.settings);
        config.set("allow.auto.create.topics", "false").set("topic.metadata.refresh.interval.ms", "-1");
        Ok((consumer, config.create_with_context(LogContext)?))
    }
}

/// Reads the record, from where the consumer has begun.
fn read(consumer: &mut Consumer, bell: &Bell, reference: Reference, stop: &AtomicBool) -> Look {
    let until_ms = clock::now_ms() + RECORD_MS;
    let mut batch = Batch::with_capacity(1);
    while clock::now_ms() < until_ms && !stop.load(Ordering::Relaxed) {
        consumer.consume(&mut batch);
        for message in batch.iter() {
            match message.error() {
                None if message.offset() < reference.offset => {}
                None => {
                    let record = message.payload().filter(|_| message.offset() == reference.offset);
                    let checkpoint = record.and_then(|record| Checkpoint::read(reference.offset, record).ok());
                    let checkpoint = checkpoint.filter(|checkpoint| checkpoint.reference() == reference);
                    return checkpoint.map_or(Look::Gone, Look::Found);
                }
                Some(
                    RDKafkaErrorCode::PartitionEOF
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::LogTruncation,
                ) => return Look::Short,
                Some(error) => {
                    tracing::debug!(%error, "Kafka reports an error while a checkpoint is looked up");
                }
            }
        }
        if batch.is_empty() {
            consumer.serve();
            bell.arm();
            if let Err(error) = sleep::until_readable([bell.fd()], 5) {
                tracing::error!(%error, "the reader of checkpoints can't sleep");
            }
            bell.disarm();
        }
    }
    Look::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::values::Values;

    #[test]
    fn none_is_refused_however_many_are_looked_up_at_a_time() {
        let config =
            Config::validate(&Values::default().with("KAFKA_BROKERS", "localhost:1")).expect("usable settings");
        let kafka = config.kafka.expect("Kafka");
        let (stop, counts) = (Arc::default(), Arc::default());
        let mut reader = Reader::new(&kafka, "positions", Finders::default(), &stop, &counts).expect("an eventfd");
        for offset in 0..5_000 {
            for shard in 0..2 {
                reader.ask(Lookup { shard, reference: Reference { offset, print: 0 } });
            }
        }
        assert_eq!(reader.wanted.len(), 5_000, "each is looked for, once");
        assert!(reader.wanted.iter().all(|wanted| wanted.shards == [0, 1]));
    }
}
