//! Follows the topics that are cached, from their beginning on. Kafka may be out of reach; who waits for a snapshot then waits.

use std::io;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use tidegate_shards::clock;
use tidegate_shards::snapshot::reading::Caches;

use super::Snapshots;
use super::serve::{Server, Stopped};
use crate::config::KafkaSettings;
use crate::ingress::Decoder;
use crate::ingress::decoder::MessageError;
use crate::ingress::kafka::consumer_config;
use crate::ingress::native::{Batch, Consumer, Message};
use crate::ingress::progress::{Progress, Verdict};
use crate::ingress::watch::{Assignment, Partitions, Request, StartFrom, Watch, Watched};
use crate::kafka::Reachability;

/// Messages taken from librdkafka at once.
const BATCH_MESSAGES: usize = 1_000;
/// Pause while the schema of a message is asked for.
const SCHEMA_PAUSE: Duration = Duration::from_millis(20);

/// The consumer, and the watcher of its topics.
#[derive(Debug)]
pub(super) struct Follower {
    snapshots: Arc<Snapshots>,
    decoder: Decoder,
    consumer: Consumer,
    /// The source that each topic of the consumer is.
    sources: Vec<usize>,
    topics: Vec<String>,
    progress: Progress,
    assignments: Receiver<Assignment>,
    requests: Sender<Request>,
    watcher: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(snapshots: &Arc<Snapshots>, settings: &KafkaSettings, decoder: Decoder) -> io::Result<Self> {
        let cached = settings.source_topics.iter().enumerate().filter(|(source, _)| snapshots.caches_source(*source));
        let (sources, topics): (Vec<_>, Vec<_>) = cached.map(|(source, topic)| (source, topic.clone())).unzip();
        let mut config = consumer_config(settings);
        config
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "8192");
        let consumer = Consumer::new(&config, &topics, &snapshots.bell).map_err(io::Error::other)?;
        let (assignments_to_us, assignments) = channel();
        let (requests, requests_to_watcher) = channel();
        let all = |name: &String| Watched { name: name.clone(), partitions: Partitions::All, when_missing: None };
        let watch = Watch {
            settings: settings.clone(),
            topics: topics.iter().map(all).collect(),
            start: StartFrom::Beginning,
            reachability: Arc::new(Reachability::new(clock::now_ms())),
            on_lost: Box::new(|_| {}),
            assignments: assignments_to_us,
            requests: requests_to_watcher,
            bell: snapshots.bell.clone(),
            identify: true,
            ids: Vec::new(),
            refusals: Vec::new(),
        };
        let watcher = thread::Builder::new().name("snapshot-watch".to_owned()).spawn(move || {
            if let Err(error) = watch.run() {
                tracing::error!(%error, "librdkafka refuses the settings");
            }
        })?;
        let progress = Progress::new(topics.len());
        let snapshots = Arc::clone(snapshots);
        Ok(Self { snapshots, decoder, consumer, sources, topics, progress, assignments, requests, watcher })
    }

    /// Follows and serves until the gateway stops.
    pub(super) fn run(mut self, server: &mut Server) {
        let mut batch = Batch::with_capacity(BATCH_MESSAGES);
        while !self.snapshots.stop.requested() {
            while let Ok(assignment) = self.assignments.try_recv() {
                self.apply(assignment);
            }
            self.consumer.consume(&mut batch);
            if self.take_batch(&batch, server).is_err() || server.serve().is_err() {
                break;
            }
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
        let snapshots = Arc::clone(&self.snapshots);
        snapshots.sleep(|| {
            late = self.assignments.try_recv().ok();
            late.is_some()
        });
        if let Some(assignment) = late {
            self.apply(assignment);
        }
    }

    fn apply(&mut self, assignment: Assignment) {
        match assignment {
            Assignment::Start { topic, partition, offset } => self.start_partition(topic, partition, offset),
            Assignment::Stop { topic, partition } => {
                self.consumer.stop(topic, partition);
                self.progress.stop(topic, partition);
                if let Some(cache) = self.snapshots.caches().get_mut(self.sources[topic]) {
                    cache.forget(partition);
                }
            }
            Assignment::Topic { topic, id } => {
                if let Some(cache) = self.snapshots.caches().get_mut(self.sources[topic]) {
                    cache.identify(id);
                }
            }
            Assignment::Complete => {}
        }
    }

    /// A partition is read from its beginning, or goes on. Where something of it is gone, what was cached may be too: it is read
    /// anew.
    fn start_partition(&mut self, topic: usize, partition: u32, offset: u64) {
        let before = self.progress.next_offset(topic, partition);
        let from = if before.is_some_and(|before| offset < before) { 0 } else { offset };
        if before != Some(from)
            && let Some(cache) = self.snapshots.caches().get_mut(self.sources[topic])
        {
            cache.forget(partition);
            cache.advance(partition, from);
        }
        self.progress.start(topic, partition, from);
        if let Err(error) = self.consumer.start(topic, partition, from) {
            let topic = &self.topics[topic];
            tracing::error!(topic, partition, from, %error, "reading for snapshots can't start");
        }
    }

    fn take_batch(&mut self, batch: &Batch, server: &mut Server) -> Result<(), Stopped> {
        let mut messages = batch.iter().peekable();
        while let Some(message) = messages.peek() {
            self.wait_for_schema(message, server)?;
            self.take_known(&mut messages);
        }
        Ok(())
    }

    /// Until the message's schema is known, or known to be unusable, the caches stay as they are.
    fn wait_for_schema(&self, message: &Message<'_>, server: &mut Server) -> Result<(), Stopped> {
        while message.error().is_none() && self.decoder.waits_for_schema(message) {
            server.serve()?;
            thread::sleep(SCHEMA_PAUSE);
            if self.snapshots.stop.requested() {
                return Err(Stopped);
            }
        }
        Ok(())
    }

    /// Takes messages up to the first whose schema is not known.
    fn take_known<'m>(&mut self, messages: &mut Peekable<impl Iterator<Item = Message<'m>>>) {
        let snapshots = Arc::clone(&self.snapshots);
        let mut caches = snapshots.caches();
        while let Some(message) = messages.peek() {
            if let Some(topic) = self.consumer.topic_index(message) {
                match message.error() {
                    None if self.take(topic, message, &mut caches).is_break() => break,
                    None => {}
                    Some(error) => self.take_error(topic, message, error, &mut caches),
                }
            }
            messages.next();
        }
        for (metrics, source) in snapshots.metrics.topics.iter().zip(&self.sources) {
            if let Some(cache) = caches.get(*source) {
                metrics.set(cache.counts());
            }
        }
    }

    /// Puts a message into its cache, or breaks off where its schema must be asked for first.
    fn take(&mut self, topic: usize, message: &Message<'_>, caches: &mut Caches) -> ControlFlow<()> {
        let (partition, offset) = (message.partition(), message.offset());
        if !matches!(self.progress.judge(topic, partition, offset), Verdict::New { .. }) {
            return ControlFlow::Continue(());
        }
        let event = match self.decoder.decode(message, |_| true) {
            Err(MessageError::SchemaAsked) => return ControlFlow::Break(()),
            event => event,
        };
        self.progress.done(topic, partition, offset);
        let Some(cache) = caches.get_mut(self.sources[topic]) else { return ControlFlow::Continue(()) };
        match (event, message.key()) {
            (Ok(Some(event)), Some(key)) => cache.put(partition, offset, key, &event.event_type, &event.body),
            (Ok(Some(event)), None) => match &event.subject {
                Some(subject) => cache.put(partition, offset, subject.as_bytes(), &event.event_type, &event.body),
                None => cache.advance(partition, offset + 1),
            },
            (Err(MessageError::Tombstone), Some(key)) => cache.delete(partition, offset, key),
            // What is no event was counted and logged by ingress.
            _ => cache.advance(partition, offset + 1),
        }
        ControlFlow::Continue(())
    }

    fn take_error(&mut self, topic: usize, message: &Message<'_>, error: RDKafkaErrorCode, caches: &mut Caches) {
        let partition = message.partition();
        match error {
            RDKafkaErrorCode::PartitionEOF => {
                if self.progress.next_offset(topic, partition).is_some()
                    && let Some(cache) = caches.get_mut(self.sources[topic])
                {
                    cache.advance(partition, message.offset());
                }
            }
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation => {
                let Some(next_offset) = self.progress.next_offset(topic, partition) else { return };
                // The watcher only ends after this thread.
                let _ = self.requests.send(Request::OutOfRange { topic, partition, next_offset });
            }
            error => {
                tracing::debug!(topic = self.topics[topic], partition, %error, "Kafka reports an error to snapshots");
            }
        }
    }
}
