//! The thread that looks checkpoints up in their topic: one read for all shards that ask for the same one, tried again for ever
//! while the brokers don't answer.

use std::collections::VecDeque;
use std::io;
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
/// Checkpoints that are looked up at a time; for more than these, clients are told that they are gone.
const MAX_WAITING: usize = 1_024;
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
    wanted: Vec<Wanted>,
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
            wanted: Vec::new(),
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
            for wanted in std::mem::take(&mut self.wanted) {
                self.serve(wanted);
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
        } else if self.wanted.len() >= MAX_WAITING {
            tracing::warn!("too many checkpoints are looked up at a time");
            self.tell(shard, &Found { reference, checkpoint: None });
        } else {
            let settled_ms = clock::now_ms() + SETTLE_MS;
            self.wanted.push(Wanted { reference, shards: vec![shard], settled_ms });
        }
    }

    fn serve(&mut self, wanted: Wanted) {
        let reference = wanted.reference;
        let look = if self.stopped() { Look::Unknown } else { self.look(reference) };
        let checkpoint = match look {
            Look::Found(checkpoint) => {
                let checkpoint = Arc::new(checkpoint);
                if self.known.len() >= MAX_KNOWN {
                    self.known.pop_front();
                }
                self.known.push_back(Arc::clone(&checkpoint));
                Some(checkpoint)
            }
            Look::Short if clock::now_ms() < wanted.settled_ms => return self.wanted.push(wanted),
            Look::Unknown => return self.wanted.push(wanted),
            Look::Gone | Look::Short => {
                tracing::info!(topic = self.topic, offset = reference.offset, "a checkpoint is kept no more");
                None
            }
        };
        let count = if checkpoint.is_some() { &self.counts.found } else { &self.counts.gone };
        count.fetch_add(1, Ordering::Relaxed);
        for shard in wanted.shards {
            self.tell(shard, &Found { reference, checkpoint: checkpoint.clone() });
        }
    }

    fn tell(&self, shard: usize, found: &Found) {
        while self.finders.tell(shard, found.clone()).is_err() && !self.stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn look(&mut self, reference: Reference) -> Look {
        match self.try_look(reference) {
            Ok(look) => look,
            Err(error) => {
                tracing::info!(topic = self.topic, %error, "a checkpoint can't be looked up yet");
                Look::Unknown
            }
        }
    }

    fn try_look(&mut self, reference: Reference) -> KafkaResult<Look> {
        if self.clients.is_none() {
            self.clients = Some(self.connect()?);
        }
        let Some((consumer, asker)) = &mut self.clients else { return Ok(Look::Unknown) };
        let metadata = asker.fetch_metadata(Some(&self.topic), ANSWER_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        if found.is_none_or(|found| found.partitions().is_empty()) {
            return Ok(Look::Short);
        }
        let (low, high) = asker.fetch_watermarks(&self.topic, PARTITION.cast_signed(), ANSWER_TIMEOUT)?;
        let unsigned = |offset: i64| u64::try_from(offset).unwrap_or(0);
        if reference.offset < unsigned(low) {
            return Ok(Look::Gone);
        }
        if reference.offset >= unsigned(high) {
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
