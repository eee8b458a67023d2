//! The auditor of one client: every sequence number of its stream in every partition, once and in order.

use super::violation::Wrong;

/// What one client has seen.
#[derive(Clone, Debug)]
pub(super) struct Auditor {
    /// The next sequence number of each partition.
    next: Box<[u64]>,
    /// The client was told that history is lost and has not had an event of this partition since.
    lost: Box<[bool]>,
    /// Events that were skipped after such a notice.
    skipped: u64,
}

impl Auditor {
    pub(super) fn new(partitions: u32) -> Self {
        let partitions = partitions as usize;
        Self { next: vec![0; partitions].into(), lost: vec![false; partitions].into(), skipped: 0 }
    }

    /// Takes note of an event of the client's own stream. What is wrong counts once: the audit goes on behind it.
    pub(super) fn observe(&mut self, partition: u32, sequence: u64) -> Result<(), Wrong> {
        let at = partition as usize;
        let Some(next) = self.next.get_mut(at) else { return Err(Wrong::Foreign { partition }) };
        let expected = *next;
        if sequence < expected {
            return Err(Wrong::Repeated { partition, expected, seen: sequence });
        }
        *next = sequence + 1;
        let told = std::mem::take(&mut self.lost[at]);
        if sequence > expected {
            if !told {
                return Err(Wrong::Skipped { partition, expected, seen: sequence });
            }
            self.skipped += sequence - expected;
        }
        Ok(())
    }

    /// The client was told that history is lost: each partition may go on at a later event.
    pub(super) fn history_lost(&mut self) {
        self.lost.fill(true);
    }

    /// Has it seen so many events of each partition?
    pub(super) fn has_reached(&self, goal: impl Iterator<Item = u64>) -> bool {
        self.next.iter().zip(goal).all(|(next, goal)| *next >= goal)
    }

    /// The partitions whose last events are missing: the next number and how many there are. After a notice of lost
    /// history nothing more is owed until the next event comes.
    pub(super) fn short_of(&self, goal: impl Iterator<Item = u64>) -> impl Iterator<Item = (u32, u64, u64)> {
        let places = self.next.iter().zip(&self.lost).zip(goal).enumerate();
        places
            .filter(|(_, ((next, lost), goal))| **next < *goal && !**lost)
            .map(|(partition, ((next, _), goal))| (partition as u32, *next, goal))
    }

    /// Events that were skipped after notices of lost history.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_order_are_right_in_each_partition_for_itself() {
        let mut auditor = Auditor::new(2);
        for sequence in 0..3 {
            assert_eq!(auditor.observe(1, sequence), Ok(()));
        }
        assert_eq!(auditor.observe(0, 0), Ok(()));
        assert!(auditor.has_reached([1, 3].into_iter()) && !auditor.has_reached([2, 3].into_iter()));
        assert_eq!(auditor.short_of([2, 3].into_iter()).collect::<Vec<_>>(), [(0, 1, 2)]);
    }

    #[test]
    fn a_gap_a_repetition_and_an_unknown_partition_are_each_told_apart() {
        let mut auditor = Auditor::new(1);
        auditor.observe(0, 0).unwrap();
        assert_eq!(auditor.observe(0, 2), Err(Wrong::Skipped { partition: 0, expected: 1, seen: 2 }));
        assert_eq!(auditor.observe(0, 1), Err(Wrong::Repeated { partition: 0, expected: 3, seen: 1 }));
        assert_eq!(auditor.observe(0, 3), Ok(()), "it counts once");
        assert_eq!(auditor.observe(1, 0), Err(Wrong::Foreign { partition: 1 }));
    }

    #[test]
    fn a_notice_of_lost_history_excuses_one_gap_and_no_repetition() {
        let mut auditor = Auditor::new(1);
        auditor.observe(0, 0).unwrap();
        auditor.history_lost();
        assert_eq!(auditor.short_of([9].into_iter()).count(), 0);
        assert_eq!(auditor.observe(0, 5), Ok(()));
        assert_eq!(auditor.skipped(), 4);
        assert_eq!(auditor.observe(0, 7), Err(Wrong::Skipped { partition: 0, expected: 6, seen: 7 }));
        auditor.history_lost();
        assert_eq!(auditor.observe(0, 7), Err(Wrong::Repeated { partition: 0, expected: 8, seen: 7 }));
    }
}
