//! The newest additions to the list, in a ring that the writer goes round in and every shard follows at its own pace.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::Fingerprint;

/// Additions that a shard may be behind; one that is further behind looks through all its connections instead.
const RING: usize = 1024;

/// What a shard hears of additions.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These were listed since it last asked, which may be none.
    Listed(Vec<Fingerprint>),
    /// More than the ring holds: any session may have been listed.
    TooMany,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Changes {
    entries: Box<[[AtomicU64; 2]]>,
    /// Additions so far; the newest stands at this less one.
    count: AtomicU64,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { entries: (0..RING).map(|_| <[AtomicU64; 2]>::default()).collect(), count: AtomicU64::new(0) }
    }

    /// Additions so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Adds one; the writer alone may call this, after the table has it.
    pub(super) fn push(&self, fingerprint: Fingerprint) {
        let count = self.count.load(Ordering::Relaxed);
        let entry = &self.entries[place(count)];
        for (half, value) in entry.iter().zip(fingerprint.halves()) {
            half.store(value, Ordering::Release);
        }
        self.count.store(count + 1, Ordering::Release);
    }

    /// What was added after the first `seen`, which then is all.
    pub(super) fn since(&self, seen: &mut u64) -> News {
        let from = *seen;
        let count = self.count();
        *seen = count;
        if count - from >= RING as u64 {
            return News::TooMany;
        }
        let read = |at: u64| {
            let [first, second] = &self.entries[place(at)];
            Fingerprint::from_halves([first.load(Ordering::Acquire), second.load(Ordering::Acquire)])
        };
        let listed = (from..count).map(read).collect();
        // The writer may have come round meanwhile, and have begun to write over the oldest of these.
        fence(Ordering::Acquire);
        if self.count() - from >= RING as u64 { News::TooMany } else { News::Listed(listed) }
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at % RING as u64).expect("invariant: the remainder is below RING")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: usize) -> Fingerprint {
        Fingerprint::of(&number.to_string())
    }

    #[test]
    fn every_follower_hears_of_each_addition_once_and_in_order() {
        let changes = Changes::new();
        let (mut early, mut late) = (0, 0);
        assert_eq!(changes.since(&mut early), News::Listed(Vec::new()));
        for number in 0..3 {
            changes.push(session(number));
        }
        assert_eq!(changes.since(&mut early), News::Listed((0..3).map(session).collect()));
        changes.push(session(3));
        assert_eq!(changes.since(&mut early), News::Listed(vec![session(3)]));
        assert_eq!(changes.since(&mut early), News::Listed(Vec::new()));
        assert_eq!(changes.since(&mut late), News::Listed((0..4).map(session).collect()));
    }

    #[test]
    fn a_follower_that_is_too_far_behind_is_told_so_once() {
        let changes = Changes::new();
        let mut seen = 0;
        (0..RING).for_each(|number| changes.push(session(number)));
        assert_eq!(changes.since(&mut seen), News::TooMany);
        changes.push(session(RING));
        assert_eq!(changes.since(&mut seen), News::Listed(vec![session(RING)]));
    }

    #[test]
    fn nothing_is_missed_while_the_writer_goes_on() {
        const ADDED: usize = 200_000;
        let changes = Changes::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..ADDED).for_each(|number| changes.push(Fingerprint::from_halves([number as u64; 2]))));
            let (mut seen, mut next) = (0, 0);
            while seen < ADDED as u64 {
                match changes.since(&mut seen) {
                    News::Listed(listed) => {
                        for fingerprint in listed {
                            assert_eq!(fingerprint.halves(), [next; 2]);
                            next += 1;
                        }
                    }
                    News::TooMany => next = seen,
                }
            }
        });
    }
}
