//! The source Kafka: every partition of the source topics, from ingress's own offsets.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use tidegate_shards::clock;
use tidegate_shards::cursor::{Loss, Reason};
use tidegate_shards::event::{Event, EventError};
use tidegate_shards::publisher::Position;

use super::decoder::{Decoder, MessageError};
use super::limiter::Limiter;
use super::metrics::{IngressMetrics, TypeIndex};
use super::native::{Batch, Consumer, Message};
use super::outlet::{Outlet, Stopped};
use super::progress::{Progress, Verdict};
use super::snapshot::Snapshots;
use super::watch::{Assignment, Partitions, Request, StartFrom, Watch, Watched};
use crate::config::KafkaSettings;
use crate::kafka::{Reachability, client_config};

/// Types that snapshots are told of at most; they count none as complete with fewer.
const MAX_TYPES_TOLD: usize = 20_000;
/// Messages taken from librdkafka at once.
const BATCH_MESSAGES: usize = 1_000;

/// The thread that reads Kafka's messages, and the one that watches topics for it.
#[derive(Debug)]
pub struct KafkaIngress {
    consumer: Consumer,
    state: State,
    assignments: Receiver<Assignment>,
    requests: Sender<Request>,
    watcher: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    topics: Vec<String>,
    outlet: Outlet,
    metrics: Arc<IngressMetrics>,
    decoder: Decoder,
    progress: Progress,
    types: TypeIndex,
    limiter: Limiter,
    /// Messages of the batch at hand that nobody wants, by topic: most are, so they are counted together.
    dropped: Vec<u64>,
    /// Must know which types come from topics that it doesn't cache.
    snapshots: Option<Arc<Snapshots>>,
    /// The types that it was told of.
    told: HashSet<Box<str>>,
}

impl KafkaIngress {
    /// Creates the clients and starts the watcher; reading begins with [`Self::run`]. Kafka may be out of reach.
    ///
    /// # Errors
    /// librdkafka refuses a setting, such as an unreadable certificate; or a thread can't be started.
    pub fn start(
        settings: &KafkaSettings,
        outlet: Outlet,
        decoder: Decoder,
        reachability: Arc<Reachability>,
        snapshots: Option<Arc<Snapshots>>,
    ) -> io::Result<Self> {
        let config = consumer_config(settings);
        let consumer = Consumer::new(&config, &settings.source_topics, outlet.bell()).map_err(io::Error::other)?;
        let (assignments_to_us, assignments) = channel();
        let (requests, requests_to_watcher) = channel();
        let all = |name: &String| Watched { name: name.clone(), partitions: Partitions::All, when_missing: None };
        let metrics = Arc::clone(outlet.metrics());
        let watch = Watch {
            settings: settings.clone(),
            topics: settings.source_topics.iter().map(all).collect(),
            start: StartFrom::End,
            reachability,
            on_lost: Box::new(move |lost| metrics.lost.add(lost)),
            assignments: assignments_to_us,
            requests: requests_to_watcher,
            bell: outlet.bell().clone(),
            identify: true,
            ids: Vec::new(),
            refusals: Vec::new(),
        };
        let watcher = thread::Builder::new().name("kafka-watch".to_owned()).spawn(move || {
            if let Err(error) = watch.run() {
                tracing::error!(%error, "librdkafka refuses the settings");
            }
        })?;
        let mut outlet = outlet;
        if let Some(schemas) = &decoder.schemas {
            schemas.wake(outlet.bell());
        }
        outlet.positions().opening();
        for (topic, name) in settings.source_topics.iter().enumerate() {
            outlet.positions().name_source(topic, name, 0);
        }
        let state = State {
            progress: Progress::new(settings.source_topics.len()),
            topics: settings.source_topics.clone(),
            metrics: Arc::clone(outlet.metrics()),
            outlet,
            decoder,
            types: TypeIndex::default(),
            limiter: Limiter::new(clock::now_ms()),
            dropped: vec![0; settings.source_topics.len()],
            snapshots,
            told: HashSet::new(),
        };
        Ok(Self { consumer, state, assignments, requests, watcher })
    }

    /// Reads until asked to stop.
    pub fn run(mut self) {
        let mut batch = Batch::with_capacity(BATCH_MESSAGES);
        while !self.state.outlet.stop_requested() {
            self.state.outlet.apply_interest();
            while let Ok(assignment) = self.assignments.try_recv() {
                self.apply(assignment);
            }
            self.consumer.consume(&mut batch);
            if self.take_batch(&batch) == Err(Stopped) {
                break;
            }
            self.state.outlet.flush();
            self.state.outlet.checkpoint();
            if batch.is_empty() {
                self.idle();
            }
        }
        drop(batch);
        drop(self.requests);
        drop(self.consumer);
        if self.watcher.join().is_err() {
            tracing::error!("the watcher of topics panicked");
        }
    }

    fn idle(&mut self) {
        self.consumer.serve();
        let mut late = None;
        self.state.outlet.idle(|| {
            late = self.assignments.try_recv().ok();
            late.is_some()
        });
        if let Some(assignment) = late {
            self.apply(assignment);
        }
    }

    fn apply(&mut self, assignment: Assignment) {
        match assignment {
            Assignment::Start { topic, partition, offset } => {
                let before = self.state.progress.next_offset(topic, partition);
                let slot = self.state.progress.start(topic, partition, offset);
                if let Some(slot) = slot {
                    self.state.outlet.positions().start(slot, topic, partition, offset);
                    if let Some(from) = before.filter(|before| *before != offset) {
                        let reason = if from < offset { Reason::Expired } else { Reason::Truncated };
                        self.state.outlet.lose(&Loss { reason, slot: Some(slot as usize), from, to: offset });
                    }
                }
                if let Err(error) = self.consumer.start(topic, partition, offset) {
                    tracing::error!(topic = self.state.topics[topic], partition, offset, %error, "reading can't start");
                }
            }
            Assignment::Stop { topic, partition } => {
                self.consumer.stop(topic, partition);
                if let Some(slot) = self.state.progress.stop(topic, partition) {
                    self.state.outlet.positions().stop(slot);
                }
            }
            Assignment::Topic { topic, id } => {
                let name = &self.state.topics[topic];
                self.state.outlet.positions().name_source(topic, name, id);
            }
            Assignment::Complete => self.state.outlet.positions().opened(),
        }
    }

    fn take_batch(&mut self, batch: &Batch) -> Result<(), Stopped> {
        let received_us = clock::now_us();
        self.state.dropped.iter_mut().for_each(|dropped| *dropped = 0);
        let taken = self.take_messages(batch, received_us);
        for (source, dropped) in self.state.metrics.sources.iter().zip(&self.state.dropped) {
            if *dropped > 0 {
                source.consumed.add(*dropped);
                source.processing_us.record(0, *dropped);
            }
        }
        taken
    }

    fn take_messages(&mut self, batch: &Batch, received_us: u64) -> Result<(), Stopped> {
        for message in batch.iter() {
            let Some(topic) = self.consumer.topic_index(&message) else { continue };
            match message.error() {
                None => self.state.take(topic, &message, received_us)?,
                Some(error) => self.take_error(topic, message.partition(), error),
            }
        }
        Ok(())
    }

    fn take_error(&mut self, topic: usize, partition: u32, error: RDKafkaErrorCode) {
        let name = &self.state.topics[topic];
        match error {
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation => {
                let Some(next_offset) = self.state.progress.next_offset(topic, partition) else { return };
                tracing::warn!(topic = name, partition, next_offset, "the broker doesn't have the next offset");
                // The watcher only ends after this thread.
                let _ = self.requests.send(Request::OutOfRange { topic, partition, next_offset });
            }
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition => {
                tracing::debug!(topic = name, partition, %error, "not there at the moment");
            }
            error => {
                if let Some(held_back) = self.state.limiter.permit(clock::now_ms()) {
                    tracing::warn!(topic = name, partition, %error, held_back, "Kafka reports an error");
                }
            }
        }
    }
}

impl State {
    fn take(&mut self, topic: usize, message: &Message<'_>, received_us: u64) -> Result<(), Stopped> {
        let (partition, offset) = (message.partition(), message.offset());
        let slot = match self.progress.judge(topic, partition, offset) {
            Verdict::New { slot } => slot,
            Verdict::Duplicate | Verdict::Unassigned => {
                self.metrics.duplicates.add(1);
                return Ok(());
            }
        };
        let wanted = loop {
            match self.wanted(message) {
                // Nothing else is taken meanwhile: Kafka keeps it.
                Err(MessageError::SchemaAsked) => self.outlet.wait()?,
                wanted => break wanted,
            }
        };
        match wanted {
            Ok(None) => self.dropped[topic] += 1,
            Ok(Some(event)) => {
                self.hand_on(topic, &event, Position { partition: slot, offset }, received_us)?;
            }
            Err(error) => self.skip(topic, message, &error),
        }
        self.progress.done(topic, partition, offset);
        self.outlet.positions().advance(slot, offset + 1);
        Ok(())
    }

    fn hand_on(&mut self, topic: usize, event: &Event<'_>, at: Position, received_us: u64) -> Result<(), Stopped> {
        self.note_type(topic, &event.event_type);
        let source = &self.metrics.sources[topic];
        source.consumed.add(1);
        self.outlet.publish(event, at, received_us)?;
        self.types.count(&self.metrics.forwarded, &event.event_type);
        source.processing_us.record(clock::now_us().saturating_sub(received_us), 1);
        Ok(())
    }

    fn skip(&mut self, topic: usize, message: &Message<'_>, error: &MessageError) {
        let source = &self.metrics.sources[topic];
        source.consumed.add(1);
        source.failed.add(1);
        match error {
            MessageError::Tombstone => self.metrics.tombstones.add(1),
            MessageError::Event(EventError::BodyTooLarge { .. }) => self.metrics.oversized.add(1),
            _ => {}
        }
        if let Some(held_back) = self.limiter.permit(clock::now_ms()) {
            let (topic, partition, offset) = (&self.topics[topic], message.partition(), message.offset());
            tracing::warn!(topic, partition, offset, %error, held_back, "skipped: not an event for clients");
        }
    }

    /// Lets snapshots of a type that also comes from a topic without cache not count as complete.
    fn note_type(&mut self, topic: usize, event_type: &str) {
        let Some(snapshots) = &self.snapshots else { return };
        if !snapshots.caches_source(topic) && self.told.len() <= MAX_TYPES_TOLD && !self.told.contains(event_type) {
            self.told.insert(event_type.into());
            snapshots.note_elsewhere(event_type);
        }
    }

    /// The decoded event, if anybody on this node wants it.
    fn wanted<'m>(&self, message: &Message<'m>) -> Result<Option<Event<'m>>, MessageError> {
        self.decoder.decode(message, |event_type| self.outlet.wants(event_type))
    }
}

/// Low latency before all: answers come as soon as there is a message, and a full local queue is looked at again soon.
pub(crate) fn consumer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = client_config(settings);
    config
        .set("allow.auto.create.topics", "false")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "false")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "52428800")
        .set("receive.message.max.bytes", "104857600")
        .set("queued.min.messages", "50000")
        .set("queued.max.messages.kbytes", "65536")
        .set("topic.metadata.refresh.interval.ms", "2000");
    config
}
