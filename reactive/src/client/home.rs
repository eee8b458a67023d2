//! Which partition of the reply topic is a client's own. Clients of one process take different ones while there are enough;
//! those of different processes start their search at random.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Clients of this process per topic of a cluster and partition.
static TAKEN: Mutex<BTreeMap<(String, i32), u32>> = Mutex::new(BTreeMap::new());

/// A partition taken by a client; free again when dropped.
#[derive(Debug)]
pub(super) struct Home {
    topic: String,
    pub(super) partition: i32,
}

impl Home {
    /// Takes the partition that is wanted, or else, from `start` on, the one that the fewest clients here have.
    pub(super) fn take(brokers: &str, topic: &str, partitions: u32, wanted: Option<u32>, start: u64) -> Self {
        let topic = format!("{brokers}/{topic}");
        let partitions = partitions.max(1);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let first = u32::try_from(start % u64::from(partitions)).unwrap_or_default();
        let candidates = (0..partitions).map(|step| (first + step) % partitions);
        let number = |partition: u32| i32::try_from(partition).unwrap_or(i32::MAX);
        let clients = |partition: u32| taken.get(&(topic.clone(), number(partition))).copied().unwrap_or(0);
        let partition = wanted.or_else(|| candidates.min_by_key(|partition| clients(*partition))).unwrap_or(first);
        let partition = number(partition);
        *taken.entry((topic.clone(), partition)).or_insert(0) += 1;
        Self { topic, partition }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (std::mem::take(&mut self.topic), self.partition);
        if let Some(clients) = taken.get_mut(&key) {
            *clients -= 1;
            if *clients == 0 {
                taken.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(topic: &str, start: u64) -> Home {
        Home::take("b:9092", topic, 3, None, start)
    }

    #[test]
    fn clients_of_one_process_share_a_partition_only_when_there_are_more_of_them() {
        let homes: Vec<Home> = (0..6).map(|_| take("shared", 7)).collect();
        let mut partitions: Vec<i32> = homes.iter().map(|home| home.partition).collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_partition_is_free_again_when_its_client_ends() {
        let first = take("again", 1);
        assert_eq!(first.partition, 1);
        assert_eq!(take("again", 1).partition, 2);
        drop(first);
        assert_eq!(take("again", 1).partition, 1);
        assert_eq!(Home::take("b:9092", "again", 3, Some(0), 1).partition, 0);
    }
}
