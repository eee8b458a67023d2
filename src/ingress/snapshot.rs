//! Gives snapshots: one thread that looks through the caches of the newest events for the shards. On Kafka it follows the topics
//! itself, with a consumer of its own; the local hub's ingress puts each event in before shards hear of it.

mod follow;
pub mod metrics;
mod serve;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam::queue::SegQueue;
use tidegate_shards::bell::Bell;
use tidegate_shards::snapshot::reading::Caches;
use tidegate_shards::snapshot::{SnapshotLane, SnapshotRequest, SnapshotSource};

use self::follow::Follower;
use self::metrics::SnapshotMetrics;
use self::serve::Server;
use super::{Decoder, Stop, sleep};
use crate::config::{KafkaSettings, SnapshotSettings};

/// Longest sleep without anything to do, in milliseconds.
const IDLE_SLEEP_MS: u16 = 500;
/// Types of events in topics that aren't cached that are remembered; with more, no snapshot counts as complete.
const MAX_TYPES_ELSEWHERE: usize = 10_000;

/// The caches, and where shards leave their requests.
#[derive(Debug)]
pub struct Snapshots {
    waiting: SegQueue<SnapshotRequest>,
    caches: Mutex<Caches>,
    /// By source, whether it is cached.
    cached: Vec<bool>,
    /// Types that were seen in topics that aren't cached.
    elsewhere: Mutex<HashSet<Box<str>>>,
    metrics: Arc<SnapshotMetrics>,
    bell: Bell,
    stop: Stop,
}

impl Snapshots {
    /// For a node's sources; `None` where none of them is cached. Ends when `stop` is requested and [`Self::wake`] was called.
    ///
    /// # Errors
    /// The operating system refused an eventfd.
    pub fn new(settings: &SnapshotSettings, sources: &[String], stop: Stop) -> io::Result<Option<Arc<Self>>> {
        let cached: Vec<bool> = sources.iter().map(|source| settings.topics.contains(source)).collect();
        if !cached.contains(&true) {
            return Ok(None);
        }
        let limits_bytes = cached.iter().map(|cached| cached.then_some(settings.max_bytes));
        let names = sources.iter().zip(&cached).filter(|(_, cached)| **cached).map(|(name, _)| name.clone());
        Ok(Some(Arc::new(Self {
            waiting: SegQueue::new(),
            caches: Mutex::new(Caches::new(limits_bytes)),
            elsewhere: Mutex::default(),
            metrics: Arc::new(SnapshotMetrics::new(names)),
            cached,
            bell: Bell::new()?,
            stop,
        })))
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<SnapshotMetrics> {
        &self.metrics
    }

    /// The local hub's next event. To be called before any shard can hear of it.
    pub(super) fn put_local(&self, offset: u64, subject: Option<&str>, event_type: &str, body: &[u8]) {
        let mut caches = self.caches();
        let Some(cache) = caches.get_mut(0) else { return };
        match subject {
            Some(subject) => cache.put(0, offset, subject.as_bytes(), event_type, body),
            None => cache.advance(0, offset + 1),
        }
        self.metrics.topics[0].set(cache.counts());
    }

    /// Is this source cached?
    pub(super) fn caches_source(&self, source: usize) -> bool {
        self.cached.get(source).copied().unwrap_or(false)
    }

    /// An event of this type came from a source that isn't cached.
    pub(super) fn note_elsewhere(&self, event_type: &str) {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if elsewhere.len() <= MAX_TYPES_ELSEWHERE && !elsewhere.contains(event_type) {
            elsewhere.insert(event_type.into());
        }
    }

    /// Did every event of these types that was seen come from a source that is cached?
    fn all_cached(&self, event_types: &[Box<str>]) -> bool {
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.len() <= MAX_TYPES_ELSEWHERE && !event_types.iter().any(|asked| elsewhere.contains(asked))
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the bell rings, unless `ready` finds work after all.
    fn sleep(&self, ready: impl FnOnce() -> bool) {
        self.bell.arm();
        if self.waiting.is_empty()
            && !self.stop.requested()
            && !ready()
            && let Err(error) = sleep::until_readable([self.bell.fd()], IDLE_SLEEP_MS)
        {
            tracing::error!(%error, "the snapshot thread can't sleep");
        }
        self.bell.disarm();
    }
}

impl SnapshotSource for Snapshots {
    fn request(&self, request: SnapshotRequest) {
        self.waiting.push(request);
        self.bell.ring();
    }
}

/// The running thread.
#[derive(Debug)]
pub struct SnapshotThread {
    snapshots: Arc<Snapshots>,
    thread: JoinHandle<()>,
}

impl SnapshotThread {
    /// Starts the thread for the shards behind `lanes`, in their order. With `kafka` it follows the topics itself.
    ///
    /// # Errors
    /// librdkafka refuses a setting, or the operating system a thread.
    pub fn start(
        snapshots: &Arc<Snapshots>,
        kafka: Option<&KafkaSettings>,
        decoder: &Decoder,
        lanes: Vec<SnapshotLane>,
    ) -> io::Result<Self> {
        let Decoder { extractors, limits, .. } = decoder;
        let mut server = Server::new(Arc::clone(snapshots), Arc::clone(extractors), *limits, lanes);
        let builder = thread::Builder::new().name("snapshot".to_owned());
        let thread = match kafka {
            Some(kafka) => {
                let follower = Follower::start(snapshots, kafka, decoder.clone())?;
                builder.spawn(move || follower.run(&mut server))?
            }
            None => builder.spawn(move || server.run())?,
        };
        Ok(Self { snapshots: Arc::clone(snapshots), thread })
    }

    /// Waits for its end; its stop must have been requested.
    pub fn join(self) {
        self.snapshots.bell.ring();
        if self.thread.join().is_err() {
            tracing::error!("the snapshot thread panicked");
        }
    }
}
