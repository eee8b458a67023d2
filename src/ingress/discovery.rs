//! Which partitions exist and where to start each: a pure state machine, fed with listings of topics.

use std::collections::BTreeMap;

/// Where reading of a partition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFrom {
    /// After its last message: it was there at the start.
    End,
    /// At its first message: it appeared later, and everything in it is new.
    Beginning,
    /// At this offset, unless the broker no longer or not yet has it.
    Offset(u64),
}

/// What a listing of one topic said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// The topic has this many partitions, all of which are read.
    Partitions(u32),
    /// The topic is there, and this partition of it is read.
    One(u32),
    /// There is no such topic.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partition {
    Unresolved(StartFrom),
    Running,
}

#[derive(Debug, Default)]
struct Topic {
    listed_before: bool,
    partitions: BTreeMap<u32, Partition>,
}

impl Topic {
    fn add(&mut self, partitions: std::ops::Range<u32>, start: StartFrom) -> Vec<u32> {
        for partition in partitions {
            self.partitions.entry(partition).or_insert(Partition::Unresolved(start));
        }
        Vec::new()
    }
}

/// The state of all source topics; a topic is named by its index in the settings.
#[derive(Debug)]
pub(super) struct Discovery {
    /// Where reading begins in what is there at the first look.
    first: StartFrom,
    topics: Vec<Topic>,
}

impl Discovery {
    /// No topic listed yet.
    #[must_use]
    pub(super) fn new(topics: usize, first: StartFrom) -> Self {
        Self { first, topics: (0..topics).map(|_| Topic::default()).collect() }
    }

    /// Takes a listing in. Returns the partitions that are gone (the topic was deleted) and were being read.
    pub(super) fn listed(&mut self, topic: usize, listing: Listing) -> Vec<u32> {
        let Some(topic) = self.topics.get_mut(topic) else { return Vec::new() };
        let start = if topic.listed_before { StartFrom::Beginning } else { self.first };
        topic.listed_before = true;
        match listing {
            Listing::Partitions(count) => topic.add(0..count, start),
            Listing::One(partition) => topic.add(partition..partition + 1, start),
            Listing::Missing => std::mem::take(&mut topic.partitions)
                .into_iter()
                .filter(|(_, state)| *state == Partition::Running)
                .map(|(partition, _)| partition)
                .collect(),
        }
    }

    /// Partitions whose start must be asked for.
    #[must_use]
    pub(super) fn unresolved(&self) -> Vec<(usize, u32, StartFrom)> {
        let of_topic = |(index, topic): (usize, &Topic)| {
            let open = topic.partitions.iter().filter_map(move |(&partition, state)| match state {
                Partition::Unresolved(start) => Some((index, partition, *start)),
                Partition::Running => None,
            });
            open.collect::<Vec<_>>()
        };
        self.topics.iter().enumerate().flat_map(of_topic).collect()
    }

    /// The start is known and reading begins.
    pub(super) fn resolved(&mut self, topic: usize, partition: u32) {
        if let Some(state) = self.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(&partition)) {
            *state = Partition::Running;
        }
    }

    /// The broker doesn't have the offset that reading would go on at: ask again where to.
    pub(super) fn out_of_range(&mut self, topic: usize, partition: u32, next_offset: u64) {
        if let Some(state) = self.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(&partition)) {
            *state = Partition::Unresolved(StartFrom::Offset(next_offset));
        }
    }
}

/// Where to go on, and what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// At this offset; nothing was lost.
    At(u64),
    /// At this offset; `lost` messages were deleted before they were read.
    AfterLoss {
        /// First offset still there.
        offset: u64,
        /// Deleted ones.
        lost: u64,
    },
    /// The partition is shorter than what was read of it: it was truncated or made anew. On at this offset.
    Shortened(u64),
}

impl Resume {
    /// Decides by the partition's first offset (`low`) and the one after its last (`high`).
    #[must_use]
    pub(super) fn decide(start: StartFrom, low: u64, high: u64) -> Self {
        match start {
            StartFrom::End => Self::At(high),
            StartFrom::Beginning => Self::At(low),
            StartFrom::Offset(next) if next < low => Self::AfterLoss { offset: low, lost: low - next },
            StartFrom::Offset(next) if next > high => Self::Shortened(high),
            StartFrom::Offset(next) => Self::At(next),
        }
    }

    /// The offset to go on at.
    #[must_use]
    pub(super) fn offset(self) -> u64 {
        match self {
            Self::At(offset) | Self::AfterLoss { offset, .. } | Self::Shortened(offset) => offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_at_the_start_is_read_from_its_end() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        assert!(discovery.listed(0, Listing::Partitions(2)).is_empty());
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::End), (0, 1, StartFrom::End)]);
    }

    #[test]
    fn of_a_topic_of_which_one_partition_counts_the_others_are_left_alone() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::One(5));
        assert_eq!(discovery.unresolved(), [(0, 5, StartFrom::End)]);
        discovery.resolved(0, 5);
        assert_eq!(discovery.listed(0, Listing::Missing), [5]);
    }

    #[test]
    fn a_partition_that_appears_later_is_read_from_its_beginning() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(1));
        discovery.resolved(0, 0);
        discovery.listed(0, Listing::Partitions(2));
        assert_eq!(discovery.unresolved(), [(0, 1, StartFrom::Beginning)]);
    }

    #[test]
    fn a_topic_that_appears_later_is_read_from_its_beginning() {
        let mut discovery = Discovery::new(2, StartFrom::End);
        discovery.listed(1, Listing::Missing);
        discovery.listed(1, Listing::Partitions(1));
        assert_eq!(discovery.unresolved(), [(1, 0, StartFrom::Beginning)]);
    }

    #[test]
    fn an_unresolved_start_is_asked_for_again_and_keeps_its_meaning() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(1));
        discovery.listed(0, Listing::Partitions(1));
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::End)]);
        discovery.resolved(0, 0);
        assert!(discovery.unresolved().is_empty());
    }

    #[test]
    fn a_deleted_topic_is_left_and_read_from_the_beginning_when_it_comes_back() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(2));
        discovery.resolved(0, 1);
        assert_eq!(discovery.listed(0, Listing::Missing), [1], "only what was being read is left");
        discovery.listed(0, Listing::Partitions(1));
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::Beginning)]);
    }

    #[test]
    fn reading_goes_on_exactly_at_the_next_offset_if_the_broker_has_it() {
        assert_eq!(Resume::decide(StartFrom::Offset(5), 0, 9), Resume::At(5));
        assert_eq!(Resume::decide(StartFrom::Offset(9), 0, 9), Resume::At(9));
    }

    #[test]
    fn retention_that_overtook_the_reader_is_a_counted_loss() {
        assert_eq!(Resume::decide(StartFrom::Offset(5), 8, 9), Resume::AfterLoss { offset: 8, lost: 3 });
    }

    #[test]
    fn a_truncated_partition_is_read_on_from_its_new_end() {
        assert_eq!(Resume::decide(StartFrom::Offset(50), 0, 9), Resume::Shortened(9));
    }

    #[test]
    fn an_offset_out_of_range_is_resolved_anew() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(1));
        discovery.resolved(0, 0);
        discovery.out_of_range(0, 0, 77);
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::Offset(77))]);
    }
}
