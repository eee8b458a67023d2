//! Which offsets may be committed: those below which everything has been dealt with, per partition.
//!
//! Requests of a partition are finished in any order. An offset is committed only when it and all before it are, so that a
//! crash repeats requests and never loses one.

use std::collections::{BTreeMap, VecDeque};

/// Requests that one partition may have finished behind one that isn't.
pub const MAX_AHEAD: usize = 100_000;

/// Names a request that was read, for [`Progress::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Tells apart the times that the partition was assigned here.
    epoch: u64,
}

#[derive(Debug)]
struct Partition {
    epoch: u64,
    /// Requests in the order of their offsets, from the first that isn't settled.
    window: VecDeque<(i64, bool)>,
    /// What the next commit says: the offset behind all that is settled.
    next: Option<i64>,
    committed: Option<i64>,
}

/// Progress in all partitions that are assigned here.
#[derive(Debug, Default)]
pub struct Progress {
    partitions: BTreeMap<i32, Partition>,
    epoch: u64,
    held: usize,
}

impl Progress {
    /// Nothing is assigned.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests that were started and are not settled.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// The same of some partitions.
    #[must_use]
    pub fn held_of(&self, partitions: &[i32]) -> usize {
        let of = |partition| self.partitions.get(partition).map_or(0, unsettled);
        partitions.iter().map(of).sum()
    }

    /// Whether a partition has so much finished behind something unfinished that reading should stop.
    #[must_use]
    pub fn is_far_ahead(&self) -> bool {
        self.partitions.values().any(|partition| partition.window.len() >= MAX_AHEAD)
    }

    /// A request was read. A partition appears with its first one.
    pub fn start(&mut self, partition: i32, offset: i64) -> Token {
        let epoch = &mut self.epoch;
        let entry = self.partitions.entry(partition).or_insert_with(|| {
            *epoch += 1;
            Partition { epoch: *epoch, window: VecDeque::new(), next: None, committed: None }
        });
        // The same offset again, or one before: Kafka went back, and so does the window.
        while let Some((_, settled)) = entry.window.pop_back_if(|(found, _)| *found >= offset) {
            self.held -= usize::from(!settled);
        }
        entry.window.push_back((offset, false));
        self.held += 1;
        Token { partition, offset, epoch: entry.epoch }
    }

    /// A request has been dealt with. False for one that was settled before, or whose partition has gone since.
    pub fn settle(&mut self, token: Token) -> bool {
        let Some(partition) = self.partitions.get_mut(&token.partition) else { return false };
        if partition.epoch != token.epoch {
            return false;
        }
        let Ok(index) = partition.window.binary_search_by_key(&token.offset, |(offset, _)| *offset) else {
            return false;
        };
        if std::mem::replace(&mut partition.window[index].1, true) {
            return false;
        }
        self.held -= 1;
        while let Some((offset, _)) = partition.window.pop_front_if(|(_, settled)| *settled) {
            partition.next = Some(offset + 1);
        }
        if partition.window.is_empty() {
            partition.window.shrink_to(KEPT_ENTRIES);
        }
        true
    }

    /// What there is to commit, as partition and next offset; noted as committed. Hand back with
    /// [`uncommit`](Self::uncommit) what could not be.
    pub fn take_commits(&mut self) -> Vec<(i32, i64)> {
        let mut commits = Vec::new();
        for (number, partition) in &mut self.partitions {
            if let Some(next) = partition.next.filter(|next| partition.committed != Some(*next)) {
                partition.committed = Some(next);
                commits.push((*number, next));
            }
        }
        commits
    }

    /// Where some partitions stand, also what was committed before: an earlier commit may yet turn out to have failed.
    #[must_use]
    pub fn positions(&self, wanted: impl Fn(i32) -> bool) -> Vec<(i32, i64)> {
        let wanted = self.partitions.iter().filter(|(number, _)| wanted(**number));
        wanted.filter_map(|(number, partition)| Some((*number, partition.next?))).collect()
    }

    /// A commit failed: it is due again.
    pub fn uncommit(&mut self, commits: &[(i32, i64)]) {
        for (number, next) in commits {
            if let Some(partition) = self.partitions.get_mut(number)
                && partition.committed == Some(*next)
            {
                partition.committed = None;
            }
        }
    }

    /// A partition was taken away; what is still being done for it counts no more.
    pub fn forget(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.remove(&partition) {
            self.held -= unsettled(&partition);
        }
    }
}

fn unsettled(partition: &Partition) -> usize {
    partition.window.iter().filter(|(_, settled)| !settled).count()
}

/// Entries of a window that are kept when it is empty.
const KEPT_ENTRIES: usize = 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_behind_an_unfinished_request_is_committed() {
        let mut progress = Progress::new();
        let tokens: Vec<Token> = (10..14).map(|offset| progress.start(0, offset)).collect();
        assert!(progress.settle(tokens[1]));
        assert!(progress.settle(tokens[2]));
        assert_eq!(progress.take_commits(), []);
        assert!(progress.settle(tokens[0]));
        assert_eq!(progress.take_commits(), [(0, 13)]);
        assert_eq!(progress.take_commits(), []);
        assert_eq!(progress.held(), 1);
    }

    #[test]
    fn offsets_may_have_gaps_and_a_request_is_settled_once() {
        let mut progress = Progress::new();
        let (first, second) = (progress.start(3, 5), progress.start(3, 90));
        assert!(progress.settle(first));
        assert!(!progress.settle(first));
        assert!(progress.settle(second));
        assert_eq!(progress.take_commits(), [(3, 91)]);
    }

    #[test]
    fn what_is_done_for_a_partition_that_has_gone_does_not_count_for_its_next_time_here() {
        let mut progress = Progress::new();
        let old = progress.start(0, 5);
        progress.forget(0);
        assert_eq!(progress.held(), 0);
        let new = progress.start(0, 5);
        assert!(!progress.settle(old));
        assert_eq!((progress.held(), progress.held_of(&[0]), progress.held_of(&[1])), (1, 1, 0));
        assert!(progress.settle(new));
    }

    #[test]
    fn a_commit_that_failed_is_due_again() {
        let mut progress = Progress::new();
        let token = progress.start(0, 0);
        progress.settle(token);
        let commits = progress.take_commits();
        assert_eq!((progress.take_commits(), progress.positions(|_| true)), (vec![], commits.clone()));
        progress.uncommit(&commits);
        assert_eq!(progress.take_commits(), commits);
    }

    #[test]
    fn reading_again_from_an_earlier_offset_starts_there_anew() {
        let mut progress = Progress::new();
        let first = progress.start(0, 7);
        progress.start(0, 8);
        let again = progress.start(0, 7);
        assert_eq!(progress.held(), 1);
        assert_eq!(first, again);
        assert!(progress.settle(again));
        assert_eq!(progress.take_commits(), [(0, 8)]);
    }

    proptest! {
        #[test]
        fn a_commit_is_the_longest_settled_prefix(
            count in 1_i64..60,
            order in prop::collection::vec(0_usize..60, 0..60),
        ) {
            let mut progress = Progress::new();
            let tokens: Vec<Token> = (0..count).map(|offset| progress.start(0, offset)).collect();
            let mut settled = vec![false; tokens.len()];
            let mut committed = 0;
            for pick in order {
                let index = pick % tokens.len();
                prop_assert_eq!(progress.settle(tokens[index]), !settled[index]);
                settled[index] = true;
                let prefix = settled.iter().take_while(|settled| **settled).count() as i64;
                for (_, next) in progress.take_commits() {
                    prop_assert!(next > committed);
                    committed = next;
                }
                prop_assert_eq!(committed, prefix);
                prop_assert_eq!(progress.held(), settled.iter().filter(|settled| !**settled).count());
            }
        }
    }
}
