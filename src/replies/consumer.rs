//! The thread that reads answers.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tidegate_shards::node::Answers;
use tidegate_shards::proxy::answer;
use tidegate_shards::proxy::outbound::ReplyAddress;

use super::{Correlator, ReplyMetrics, ReplyState, Unresolved, topic};
use crate::config::KafkaSettings;
use crate::ingress::Stop;
use crate::ingress::kafka::consumer_config;
use crate::ingress::limiter::Limiter;
use crate::ingress::native::{Batch, Consumer, Message};
use crate::ingress::sleep;
use crate::ingress::watch::{Assignment, Partitions, Request, StartFrom, Watch, Watched};
use crate::kafka::Reachability;

/// Messages taken from librdkafka at once.
const BATCH_MESSAGES: usize = 1_000;
/// Longest sleep without a message.
const IDLE_SLEEP_MS: u16 = 500;
/// Pause while the shard that an answer is for has no room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// What is read.
#[derive(Clone, Debug)]
pub struct ReplyTopics {
    /// Topics that carry answers for all nodes.
    pub shared: Vec<String>,
    /// Topic of which each node reads one partition.
    pub own: String,
}

impl ReplyTopics {
    /// All of them, the own one last unless it is a shared one.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.shared.clone();
        if !names.contains(&self.own) {
            names.push(self.own.clone());
        }
        names
    }
}

/// The running threads.
#[derive(Debug)]
pub struct Replies {
    thread: JoinHandle<()>,
    stop: Stop,
}

impl Replies {
    /// Starts to read; Kafka may be out of reach.
    ///
    /// # Errors
    /// librdkafka refuses a setting, or a thread can't be started.
    pub fn start(
        settings: &KafkaSettings,
        topics: &ReplyTopics,
        node: u64,
        correlator: Correlator,
        answers: Answers,
        state: Arc<ReplyState>,
        metrics: Arc<ReplyMetrics>,
    ) -> io::Result<Self> {
        let bell = Bell::new()?;
        let stop = Stop::new(bell.clone());
        let names = topics.names();
        let consumer = Consumer::new(&consumer_config(settings), &names, &bell).map_err(io::Error::other)?;
        let (assignments_to_us, assignments) = channel();
        let (requests, requests_to_watcher) = channel();
        let own = names.iter().position(|name| *name == topics.own && !topics.shared.contains(name));
        let watch = Watch {
            topics: watched(settings, topics, node),
            start: StartFrom::End,
            settings: settings.clone(),
            reachability: Arc::new(Reachability::new(clock::now_ms())),
            on_lost: Box::new(|lost| tracing::debug!(lost, "answers were deleted before they were read")),
            assignments: assignments_to_us,
            requests: requests_to_watcher,
            bell: bell.clone(),
            identify: false,
            ids: Vec::new(),
            refusals: Vec::new(),
        };
        let watcher = thread::Builder::new().name("replies-watch".to_owned()).spawn(move || {
            if let Err(error) = watch.run() {
                tracing::error!(%error, "librdkafka refuses the settings");
            }
        })?;
        let router =
            Router { correlator, answers, metrics, limiter: Limiter::new(clock::now_ms()), stop: stop.clone() };
        let reader = Reader {
            consumer,
            names,
            own,
            next_offsets: HashMap::new(),
            assignments,
            requests,
            state,
            router,
            bell,
            stop: stop.clone(),
        };
        let thread = thread::Builder::new().name("replies".to_owned()).spawn(move || {
            reader.run();
            if watcher.join().is_err() {
                tracing::error!("the watcher of the response topics panicked");
            }
        })?;
        Ok(Self { thread, stop })
    }

    /// Reads no more, and waits for the threads to end.
    pub fn stop(self) {
        self.stop.request();
        if self.thread.join().is_err() {
            tracing::error!("the thread that reads answers panicked");
        }
    }
}

fn watched(settings: &KafkaSettings, topics: &ReplyTopics, node: u64) -> Vec<Watched> {
    let of_name = |name: String| {
        if topics.shared.contains(&name) {
            return Watched { name, partitions: Partitions::All, when_missing: None };
        }
        let (settings, topic) = (settings.clone(), name.clone());
        let refused_before = Cell::new(false);
        let make = Box::new(move || topic::make(&settings, &topic, &refused_before));
        Watched { name, partitions: Partitions::One { of: node, chosen: None }, when_missing: Some(make) }
    };
    topics.names().into_iter().map(of_name).collect()
}

struct Reader {
    consumer: Consumer,
    names: Vec<String>,
    /// Index of the topic of which one partition is this node's.
    own: Option<usize>,
    next_offsets: HashMap<(usize, u32), u64>,
    assignments: Receiver<Assignment>,
    requests: Sender<Request>,
    state: Arc<ReplyState>,
    router: Router,
    bell: Bell,
    stop: Stop,
}

impl Reader {
    fn run(mut self) {
        let mut batch = Batch::with_capacity(BATCH_MESSAGES);
        while !self.stop.requested() {
            self.assign();
            self.consumer.consume(&mut batch);
            for message in batch.iter() {
                self.take(&message);
            }
            if batch.is_empty() {
                self.idle();
            }
        }
        drop(batch);
    }

    fn idle(&mut self) {
        self.consumer.serve();
        self.bell.arm();
        let assigned = self.assign();
        if !assigned
            && !self.stop.requested()
            && let Err(error) = sleep::until_readable([self.bell.fd()], IDLE_SLEEP_MS)
        {
            tracing::error!(%error, "the thread that reads answers can't sleep");
        }
        self.bell.disarm();
    }

    fn assign(&mut self) -> bool {
        let mut any = false;
        while let Ok(assignment) = self.assignments.try_recv() {
            any = true;
            match assignment {
                Assignment::Start { topic, partition, offset } => self.start(topic, partition, offset),
                Assignment::Stop { topic, partition } => {
                    self.consumer.stop(topic, partition);
                    if self.own == Some(topic) {
                        self.state.reads_no_longer();
                    }
                }
                Assignment::Topic { .. } => {}
                Assignment::Complete => self.state.set_ready(),
            }
        }
        any
    }

    fn start(&mut self, topic: usize, partition: u32, offset: u64) {
        let name = &self.names[topic];
        self.next_offsets.insert((topic, partition), offset);
        if let Err(error) = self.consumer.start(topic, partition, offset) {
            tracing::error!(topic = name, partition, offset, %error, "answers can't be read");
        } else if self.own == Some(topic) {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            self.state.reads(ReplyAddress { topic: name.as_str().into(), partition });
        }
    }

    fn take(&mut self, message: &Message<'_>) {
        let Some(topic) = self.consumer.topic_index(message) else { return };
        let place = (topic, message.partition());
        match message.error() {
            None => {
                self.next_offsets.insert(place, message.offset() + 1);
                self.router.take(topic, message);
            }
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
            ) => {
                let Some(next_offset) = self.next_offsets.get(&place).copied() else { return };
                let (topic, partition) = place;
                // The watcher only ends after this thread.
                let _ = self.requests.send(Request::OutOfRange { topic, partition, next_offset });
            }
            Some(error) => tracing::debug!(topic = self.names[topic], %error, "Kafka reports an error"),
        }
    }
}

struct Router {
    correlator: Correlator,
    answers: Answers,
    metrics: Arc<ReplyMetrics>,
    limiter: Limiter,
    stop: Stop,
}

impl Router {
    fn take(&mut self, topic: usize, message: &Message<'_>) {
        let counts = &self.metrics.topics[topic];
        let (id, shard) = match answer::correlation(message.headers()).map(|text| self.correlator.resolve(text)) {
            Some(Ok(resolved)) => resolved,
            Some(Err(Unresolved::Foreign)) => {
                self.metrics.foreign.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Some(Err(error @ Unresolved::Forged)) => {
                counts.consumed.fetch_add(1, Ordering::Relaxed);
                counts.failed.fetch_add(1, Ordering::Relaxed);
                self.metrics.forged.fetch_add(1, Ordering::Relaxed);
                return self.tell(topic, message, &error.to_string());
            }
            None => {
                counts.consumed.fetch_add(1, Ordering::Relaxed);
                counts.failed.fetch_add(1, Ordering::Relaxed);
                self.metrics.malformed.fetch_add(1, Ordering::Relaxed);
                return self.tell(topic, message, &answer::AnswerError::NoCorrelation.to_string());
            }
        };
        counts.consumed.fetch_add(1, Ordering::Relaxed);
        match answer::from_message(message.headers(), message.payload().unwrap_or_default()) {
            Ok(answer) => {
                while !self.answers.has_room(shard) && !self.stop.requested() {
                    thread::sleep(FULL_PAUSE);
                }
                if self.answers.send(shard, id, answer, None).is_err() {
                    tracing::warn!(shard, "an answer found no room: the shard is far behind");
                }
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                self.metrics.malformed.fetch_add(1, Ordering::Relaxed);
                self.tell(topic, message, &error.to_string());
            }
        }
    }

    fn tell(&mut self, topic: usize, message: &Message<'_>, reason: &str) {
        if let Some(held_back) = self.limiter.permit(clock::now_ms()) {
            let topic = &self.metrics.topics[topic].topic;
            let (partition, offset) = (message.partition(), message.offset());
            tracing::warn!(topic, partition, offset, reason, held_back, "an answer was dropped");
        }
    }
}
