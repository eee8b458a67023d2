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
    /// Whether it is known if it was there at the start.
    listed_before: bool,
    /// Since when, in milliseconds, no listing has had it.
    missing_since_ms: Option<u64>,
    partitions: BTreeMap<u32, Partition>,
}

impl Topic {
    fn add(&mut self, partitions: std::ops::Range<u32>, first: StartFrom) {
        let start = if self.listed_before { StartFrom::Beginning } else { first };
        self.listed_before = true;
        self.missing_since_ms = None;
        for partition in partitions {
            self.partitions.entry(partition).or_insert(Partition::Unresolved(start));
        }
    }

    fn leave(&mut self) -> Vec<u32> {
        self.listed_before = true;
        std::mem::take(&mut self.partitions)
            .into_iter()
            .filter(|(_, state)| *state == Partition::Running)
            .map(|(partition, _)| partition)
            .collect()
    }
}

/// How long all listings must be without a topic before it counts as deleted, in milliseconds: a broker that has just come
/// back may not know its topics yet.
const GONE_MS: u64 = 10_000;

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
    pub(super) fn listed(&mut self, topic: usize, listing: Listing, now_ms: u64) -> Vec<u32> {
        let Some(topic) = self.topics.get_mut(topic) else { return Vec::new() };
        match listing {
            Listing::Partitions(count) => topic.add(0..count, self.first),
            Listing::One(partition) => topic.add(partition..partition + 1, self.first),
            Listing::Missing => {
                let since_ms = *topic.missing_since_ms.get_or_insert(now_ms);
                if now_ms.saturating_sub(since_ms) >= GONE_MS {
                    return topic.leave();
                }
            }
        }
        Vec::new()
    }

    /// The topic is another one of the same name. Returns the partitions of the old one that were being read.
    pub(super) fn remade(&mut self, topic: usize) -> Vec<u32> {
        self.topics.get_mut(topic).map(Topic::leave).unwrap_or_default()
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
        assert!(discovery.listed(0, Listing::Partitions(2), 0).is_empty());
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::End), (0, 1, StartFrom::End)]);
    }

    #[test]
    fn of_a_topic_of_which_one_partition_counts_the_others_are_left_alone() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::One(5), 0);
        assert_eq!(discovery.unresolved(), [(0, 5, StartFrom::End)]);
        discovery.resolved(0, 5);
        assert_eq!(discovery.remade(0), [5]);
    }

    #[test]
    fn a_partition_that_appears_later_is_read_from_its_beginning() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(1), 0);
        discovery.resolved(0, 0);
        discovery.listed(0, Listing::Partitions(2), 0);
        assert_eq!(discovery.unresolved(), [(0, 1, StartFrom::Beginning)]);
    }

    #[test]
    fn a_topic_that_appears_later_is_read_from_its_beginning() {
        let mut discovery = Discovery::new(2, StartFrom::End);
        discovery.listed(1, Listing::Missing, 0);
        discovery.listed(1, Listing::Missing, GONE_MS);
        discovery.listed(1, Listing::Partitions(1), GONE_MS + 1);
        assert_eq!(discovery.unresolved(), [(1, 0, StartFrom::Beginning)]);
    }

    #[test]
    fn a_topic_that_one_listing_lacks_was_there_all_the_time() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Missing, 0);
        discovery.listed(0, Listing::Partitions(1), 2_000);
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::End)], "at the start");
        discovery.resolved(0, 0);
        assert!(discovery.listed(0, Listing::Missing, 4_000).is_empty());
        discovery.listed(0, Listing::Partitions(1), 6_000);
        assert!(discovery.listed(0, Listing::Missing, GONE_MS + 4_000).is_empty(), "another time");
        discovery.listed(0, Listing::Partitions(1), GONE_MS + 6_000);
        assert!(discovery.unresolved().is_empty(), "it is read as before");
    }

    #[test]
    fn an_unresolved_start_is_asked_for_again_and_keeps_its_meaning() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(1), 0);
        discovery.listed(0, Listing::Partitions(1), 0);
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::End)]);
        discovery.resolved(0, 0);
        assert!(discovery.unresolved().is_empty());
    }

    #[test]
    fn a_deleted_topic_is_left_and_read_from_the_beginning_when_it_comes_back() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(2), 0);
        discovery.resolved(0, 1);
        assert!(discovery.listed(0, Listing::Missing, 5).is_empty());
        assert_eq!(discovery.listed(0, Listing::Missing, GONE_MS + 5), [1], "only what was being read is left");
        assert!(discovery.listed(0, Listing::Missing, GONE_MS + 6).is_empty());
        discovery.listed(0, Listing::Partitions(1), GONE_MS + 7);
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::Beginning)]);
    }

    #[test]
    fn a_topic_made_anew_is_left_and_read_from_its_beginning_at_once() {
        let mut discovery = Discovery::new(1, StartFrom::End);
        discovery.listed(0, Listing::Partitions(1), 0);
        discovery.resolved(0, 0);
        assert_eq!(discovery.remade(0), [0]);
        discovery.listed(0, Listing::Partitions(1), 1);
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
        discovery.listed(0, Listing::Partitions(1), 0);
        discovery.resolved(0, 0);
        discovery.out_of_range(0, 0, 77);
        assert_eq!(discovery.unresolved(), [(0, 0, StartFrom::Offset(77))]);
    }
}
