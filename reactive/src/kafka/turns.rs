//! Which partition a message without a key goes to: all of one turn to the same, those of the next turn to the next. What is
//! handed over together then leaves in one write, and the partitions still get equal shares.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rdkafka::bindings as ffi;
use rdkafka::producer::{PARTITION_UA, Partitioner};

/// Counts turns; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<AtomicU32>);

impl Turns {
    /// Starts anywhere, so that many clients don't all begin at the same partition.
    pub(crate) fn starting_at(turn: u32) -> Self {
        Self(Arc::new(AtomicU32::new(turn)))
    }

    /// Messages from now on go to the next partition.
    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Partitioner for Turns {
    fn partition(&self, _topic: &str, key: Option<&[u8]>, count: i32, is_available: impl Fn(i32) -> bool) -> i32 {
        let Some(partitions) = u32::try_from(count).ok().filter(|count| *count > 0) else { return PARTITION_UA };
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            let data = key.as_ptr().cast::<c_void>();
            // SAFETY: the key has that many bytes; the topic and the two opaque pointers are not looked at.
            return unsafe {
                ffi::rd_kafka_msg_partitioner_consistent(
                    ptr::null(),
                    data,
                    key.len(),
                    count,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
        }
        let partition = |number: u32| i32::try_from(number % partitions).unwrap_or_default();
        let first = self.0.load(Relaxed) % partitions;
        let mut candidates = (first..first + partitions).map(partition);
        candidates.find(|number| is_available(*number)).unwrap_or(partition(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_without_a_key_share_a_partition_until_the_next_turn() {
        let turns = Turns::starting_at(u32::MAX);
        let next = || turns.partition("t", None, 3, |_| true);
        let first = next();
        assert_eq!(next(), first);
        let mut seen = vec![first];
        for _ in 0..2 {
            turns.next();
            seen.push(next());
        }
        seen.sort_unstable();
        assert!(
            seen.windows(2).all(|pair| pair[0] <= pair[1]) && seen.iter().all(|one| (0..3).contains(one)),
            "{seen:?}"
        );
        assert_eq!(turns.partition("t", Some(b""), 3, |_| true), next());
    }

    #[test]
    fn a_partition_without_a_leader_is_passed_over() {
        let turns = Turns::starting_at(0);
        assert_eq!(turns.partition("t", None, 4, |number| number == 2), 2);
        assert_eq!(turns.partition("t", None, 4, |_| false), 0);
        assert_eq!(turns.partition("t", None, 0, |_| true), PARTITION_UA);
    }

    #[test]
    fn a_key_has_the_partition_that_librdkafkas_default_gives_it_whatever_the_turn() {
        let turns = Turns::starting_at(5);
        let of = |key: &str| turns.partition("t", Some(key.as_bytes()), 16, |_| true);
        let before: Vec<i32> = ["a", "seat-17"].map(of).to_vec();
        turns.next();
        assert_eq!(["a", "seat-17"].map(of).to_vec(), before);
        // CRC-32 of "123456789" is 0xcbf43926.
        assert_eq!(turns.partition("t", Some(b"123456789"), 16, |_| true), 6);
    }
}
