//! Correlated answers from Kafka: a thread reads the response topics, and this node's own partition of the reply topic, and
//! brings each answer to the shard whose request it names. Partitions are assigned by hand, reading starts at their end, and
//! nothing is committed: an answer matters to the node that waits for it, and only while it waits.

mod consumer;
mod correlator;
mod topic;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tidegate_shards::proxy::outbound::ReplyAddress;

pub use consumer::{Replies, ReplyTopics};
pub use correlator::{Correlator, Unresolved};

/// What shards must know of the reading of answers. Written by the reading thread.
#[derive(Debug, Default)]
pub struct ReplyState {
    address: OnceLock<Arc<ReplyAddress>>,
    reads_own_partition: AtomicBool,
    ready: AtomicBool,
}

impl ReplyState {
    /// Where answers reach this node alone; `None` while that partition isn't being read.
    #[must_use]
    pub fn address(&self) -> Option<Arc<ReplyAddress>> {
        self.reads_own_partition.load(Ordering::Acquire).then(|| self.address.get().cloned())?
    }

    /// Whether every response topic that exists is being read.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn reads(&self, address: ReplyAddress) {
        // The partition is chosen once, so a second start names the same.
        self.address.get_or_init(|| Arc::new(address));
        self.reads_own_partition.store(true, Ordering::Release);
    }

    fn reads_no_longer(&self) {
        self.reads_own_partition.store(false, Ordering::Release);
    }

    fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

/// Counters of answers, whichever way they came.
#[derive(Debug)]
pub struct ReplyMetrics {
    /// Per topic, those for this node and those for nobody; the former count what failed too.
    pub topics: Vec<ReplyTopicMetrics>,
    /// Answers that are for other nodes, or carry no id of this node.
    pub foreign: AtomicU64,
    /// Ids that name this node and are not signed by it.
    pub forged: AtomicU64,
    /// Answers with a code or a header that HTTP has no place for, or without an id.
    pub malformed: AtomicU64,
}

/// Counters of one topic.
#[derive(Debug)]
pub struct ReplyTopicMetrics {
    /// Its name.
    pub topic: String,
    /// Answers that name this node.
    pub consumed: AtomicU64,
    /// Those of them that can't be brought to anybody.
    pub failed: AtomicU64,
}

impl ReplyMetrics {
    /// For these topics.
    #[must_use]
    pub fn new(topics: &[String]) -> Self {
        let of_topic = |topic: &String| ReplyTopicMetrics {
            topic: topic.clone(),
            consumed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Self {
            topics: topics.iter().map(of_topic).collect(),
            foreign: AtomicU64::new(0),
            forged: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
        }
    }
}
