//! Whether Kafka can be reached, for health and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const CONNECTED: u64 = u64::MAX;

/// Written by the thread that watches Kafka, read by the control thread. Times are milliseconds of [`tidegate_shards::clock`].
#[derive(Debug)]
pub struct Reachability {
    out_of_reach_since_ms: AtomicU64,
    last_error: Mutex<String>,
    partitions: AtomicU64,
    partitions_without_leader: AtomicU64,
}

impl Reachability {
    /// Out of reach from `now_ms` on, until shown otherwise.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            out_of_reach_since_ms: AtomicU64::new(now_ms),
            last_error: Mutex::new("not connected yet".to_owned()),
            partitions: AtomicU64::new(0),
            partitions_without_leader: AtomicU64::new(0),
        }
    }

    /// Kafka answered. Returns for how long it had been out of reach, if it was.
    pub fn answered(&self, now_ms: u64) -> Option<u64> {
        let since = self.out_of_reach_since_ms.swap(CONNECTED, Ordering::Relaxed);
        (since != CONNECTED).then(|| now_ms.saturating_sub(since))
    }

    /// Kafka did not answer. Returns true if it did before.
    pub fn failed(&self, now_ms: u64, error: &str) -> bool {
        error.clone_into(&mut self.last_error.lock().unwrap_or_else(PoisonError::into_inner));
        self.out_of_reach_since_ms.compare_exchange(CONNECTED, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Sets the gauges of partitions.
    pub fn count_partitions(&self, all: u64, without_leader: u64) {
        self.partitions.store(all, Ordering::Relaxed);
        self.partitions_without_leader.store(without_leader, Ordering::Relaxed);
    }

    /// Milliseconds out of reach; `None` while connected.
    #[must_use]
    pub fn out_of_reach_ms(&self, now_ms: u64) -> Option<u64> {
        let since = self.out_of_reach_since_ms.load(Ordering::Relaxed);
        (since != CONNECTED).then(|| now_ms.saturating_sub(since))
    }

    /// The last error, as text.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Partitions of the source topics.
    #[must_use]
    pub fn partitions(&self) -> u64 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// Those of them that no broker leads at the moment.
    #[must_use]
    pub fn partitions_without_leader(&self) -> u64 {
        self.partitions_without_leader.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_out_of_reach_counts_from_the_first_failure() {
        let state = Reachability::new(1_000);
        assert_eq!(state.out_of_reach_ms(4_000), Some(3_000));
        assert_eq!(state.answered(5_000), Some(4_000));
        assert_eq!(state.out_of_reach_ms(6_000), None);
        assert!(state.failed(7_000, "refused"), "it was connected before");
        assert!(!state.failed(8_000, "refused again"), "it was out of reach already");
        assert_eq!(state.out_of_reach_ms(9_000), Some(2_000));
        assert_eq!(state.last_error(), "refused again");
    }
}
