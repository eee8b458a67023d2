//! The topic of checkpoints: vectors of next offsets that cursors refer to where they would be too long by themselves (see
//! [`tidegate_shards::cursor::checkpoint`]). Nothing of it is made, read or written before a cursor needs it.

mod reader;
mod topic;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crossbeam::queue::SegQueue;
use tidegate_shards::bell::Bell;
use tidegate_shards::checkpoints::{CheckpointSource, Lookup};
use tidegate_shards::node::Finders;

use crate::config::KafkaSettings;

/// The one partition.
const PARTITION: u32 = 0;

/// From ingress to the thread that writes.
#[derive(Debug)]
enum Draft {
    Record(Arc<[u8]>),
    Stop,
}

/// From shards to the thread that looks checkpoints up.
#[derive(Debug)]
enum Question {
    Lookup(Lookup),
    Stop,
}

/// Counters of checkpoints.
#[derive(Debug, Default)]
pub struct PositionCounts {
    /// Checkpoints that Kafka has acknowledged.
    pub written: AtomicU64,
    /// Checkpoints that could not be written.
    pub refused: AtomicU64,
    /// Checkpoints that were looked up.
    pub found: AtomicU64,
    /// Checkpoints that were looked for and are gone.
    pub gone: AtomicU64,
}

/// Where ingress leaves what must be written, and shards what they look for.
#[derive(Debug)]
pub struct PositionLog {
    max_plain_chars: usize,
    drafts: Sender<Draft>,
    questions: Sender<Question>,
    written: Arc<SegQueue<Option<u64>>>,
    counts: Arc<PositionCounts>,
}

/// The ends that the threads take.
#[derive(Debug)]
pub struct Waiting {
    drafts: Receiver<Draft>,
    questions: Receiver<Question>,
}

impl PositionLog {
    /// For cursors beyond this length, in characters.
    #[must_use]
    pub fn new(max_plain_chars: usize) -> (Arc<Self>, Waiting) {
        let (drafts, waiting_drafts) = channel();
        let (questions, waiting_questions) = channel();
        let positions = Self { max_plain_chars, drafts, questions, written: Arc::default(), counts: Arc::default() };
        (Arc::new(positions), Waiting { drafts: waiting_drafts, questions: waiting_questions })
    }

    /// The length from which on cursors refer to checkpoints.
    #[must_use]
    pub fn max_plain_chars(&self) -> usize {
        self.max_plain_chars
    }

    /// The counters.
    #[must_use]
    pub fn counts(&self) -> &Arc<PositionCounts> {
        &self.counts
    }

    /// Hands a record over to be written; never blocks. [`Self::written`] says what became of it.
    pub fn write(&self, record: Arc<[u8]>) {
        if self.drafts.send(Draft::Record(record)).is_err() {
            self.written.push(None);
        }
    }

    /// What became of the next record: its offset once Kafka has acknowledged it, or nothing where it was refused.
    #[must_use]
    pub fn written(&self) -> Option<Option<u64>> {
        let outcome = self.written.pop()?;
        let count = if outcome.is_some() { &self.counts.written } else { &self.counts.refused };
        count.fetch_add(1, Ordering::Relaxed);
        Some(outcome)
    }
}

impl CheckpointSource for PositionLog {
    fn find(&self, lookup: Lookup) {
        // The thread ends only after the shards.
        let _ = self.questions.send(Question::Lookup(lookup));
    }
}

/// The running threads.
#[derive(Debug)]
pub struct PositionThreads {
    positions: Arc<PositionLog>,
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
}

impl PositionThreads {
    /// Starts them. `bell` is rung when a record is written, `finders` bring the shards what they look for.
    ///
    /// # Errors
    /// The operating system refused a thread or an eventfd.
    pub fn start(
        positions: &Arc<PositionLog>,
        waiting: Waiting,
        settings: &KafkaSettings,
        topic: &str,
        bell: &Bell,
        finders: Finders,
    ) -> io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let Waiting { drafts, questions } = waiting;
        let reader = reader::Reader::new(settings, topic, finders, &stop, positions.counts())?;
        let writer = writer::Writer::new(settings, topic, &positions.written, bell);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writes = thread("positions-write").spawn(move || writer.run(&drafts))?;
        let reads = thread("positions-read").spawn(move || reader.run(&questions))?;
        Ok(Self { positions: Arc::clone(positions), stop, threads: [writes, reads] })
    }

    /// Ends them; clients that wait for a checkpoint go on waiting.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that has ended already takes nothing.
        let _ = self.positions.drafts.send(Draft::Stop);
        let _ = self.positions.questions.send(Question::Stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the topic of checkpoints panicked");
            }
        }
    }
}
