//! Counters of the caches: the thread that fills a cache writes them, the control thread reads them.

use tidegate_shards::metrics::Cell;

/// Counters of one topic's cache.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Topic; of the local hub, `local`.
    pub topic: String,
    /// Gauge: keys.
    pub keys: Cell,
    /// Gauge: bytes, counted with what tables and allocations take.
    pub bytes: Cell,
    /// Keys that had to go for want of room.
    pub evictions: Cell,
}

impl CacheMetrics {
    pub(super) fn set(&self, (keys, bytes, evictions): (usize, usize, u64)) {
        self.keys.set(keys as u64);
        self.bytes.set(bytes as u64);
        self.evictions.set(evictions);
    }
}

/// Counters of all caches.
#[derive(Debug)]
pub struct SnapshotMetrics {
    /// Per cached topic, in the order of the settings.
    pub topics: Vec<CacheMetrics>,
}

impl SnapshotMetrics {
    pub(super) fn new(topics: impl Iterator<Item = String>) -> Self {
        let (keys, bytes, evictions) = (Cell::default, Cell::default, Cell::default);
        let of_topic = |topic| CacheMetrics { topic, keys: keys(), bytes: bytes(), evictions: evictions() };
        Self { topics: topics.map(of_topic).collect() }
    }
}
