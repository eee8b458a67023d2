//! Tidegate's own position in every source partition: what proves that nothing is handed on twice.

/// What to do with a message at some offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New: hand it on under this partition number, then call [`Progress::done`].
    New {
        /// The partition's number on this node.
        slot: u32,
    },
    /// It was handed on before.
    Duplicate,
    /// This partition isn't read (any more).
    Unassigned,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u32,
    next_offset: u64,
}

/// Next offset per partition. Every start of a partition whose offsets fall back gets a new number, since positions
/// of one number must rise.
#[derive(Debug, Default)]
pub(super) struct Progress {
    topics: Vec<Vec<Option<Slot>>>,
    numbers: u32,
}

impl Progress {
    /// For this many topics.
    #[must_use]
    pub(super) fn new(topics: usize) -> Self {
        Self { topics: vec![Vec::new(); topics], numbers: 0 }
    }

    /// Reading of a partition starts, or goes on, at `offset`. Returns the number it is read under.
    pub(super) fn start(&mut self, topic: usize, partition: u32, offset: u64) -> Option<u32> {
        let partition = partition as usize;
        let partitions = self.topics.get_mut(topic)?;
        if partitions.len() <= partition {
            partitions.resize(partition + 1, None);
        }
        match &mut partitions[partition] {
            Some(slot) if slot.next_offset <= offset => slot.next_offset = offset,
            slot => {
                *slot = Some(Slot { number: self.numbers, next_offset: offset });
                self.numbers += 1;
            }
        }
        partitions[partition].map(|slot| slot.number)
    }

    /// The partition is gone. Returns the number that it was read under.
    pub(super) fn stop(&mut self, topic: usize, partition: u32) -> Option<u32> {
        self.slot(topic, partition).and_then(Option::take).map(|slot| slot.number)
    }

    /// Judges a message.
    pub(super) fn judge(&mut self, topic: usize, partition: u32, offset: u64) -> Verdict {
        match self.slot(topic, partition) {
            Some(Some(slot)) if offset >= slot.next_offset => Verdict::New { slot: slot.number },
            Some(Some(_)) => Verdict::Duplicate,
            _ => Verdict::Unassigned,
        }
    }

    /// The message at `offset` is dealt with.
    pub(super) fn done(&mut self, topic: usize, partition: u32, offset: u64) {
        if let Some(Some(slot)) = self.slot(topic, partition) {
            slot.next_offset = offset + 1;
        }
    }

    /// The next offset of a partition that is read.
    pub(super) fn next_offset(&mut self, topic: usize, partition: u32) -> Option<u64> {
        self.slot(topic, partition).and_then(|slot| slot.map(|slot| slot.next_offset))
    }

    fn slot(&mut self, topic: usize, partition: u32) -> Option<&mut Option<Slot>> {
        self.topics.get_mut(topic)?.get_mut(partition as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_below_the_next_one_is_a_duplicate() {
        let mut progress = Progress::new(1);
        progress.start(0, 2, 10);
        assert_eq!(progress.judge(0, 2, 9), Verdict::Duplicate);
        assert_eq!(progress.judge(0, 2, 10), Verdict::New { slot: 0 });
        progress.done(0, 2, 10);
        assert_eq!(progress.judge(0, 2, 10), Verdict::Duplicate);
        assert_eq!(progress.next_offset(0, 2), Some(11));
    }

    #[test]
    fn a_gap_left_by_compaction_or_transactions_is_no_obstacle() {
        let mut progress = Progress::new(1);
        progress.start(0, 0, 0);
        progress.done(0, 0, 5);
        assert_eq!(progress.judge(0, 0, 9), Verdict::New { slot: 0 });
    }

    #[test]
    fn partitions_that_are_not_read_give_nothing() {
        let mut progress = Progress::new(1);
        progress.start(0, 0, 0);
        progress.stop(0, 0);
        for (topic, partition) in [(0, 0), (0, 7), (3, 0)] {
            assert_eq!(progress.judge(topic, partition, 1), Verdict::Unassigned);
        }
    }

    #[test]
    fn a_partition_made_anew_gets_a_new_number_and_one_that_goes_on_keeps_its_own() {
        let mut progress = Progress::new(2);
        progress.start(0, 0, 100);
        progress.start(1, 0, 100);
        progress.start(0, 0, 120);
        assert_eq!(progress.judge(0, 0, 120), Verdict::New { slot: 0 });
        progress.start(0, 0, 3);
        assert_eq!(progress.judge(0, 0, 3), Verdict::New { slot: 2 });
    }
}
