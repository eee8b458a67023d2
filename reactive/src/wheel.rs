//! A hashed timer wheel for deadlines: answers, heartbeats, ends of sessions (Varghese and Lauck, 1987, scheme 6).
//!
//! Time is passed in, in milliseconds of any monotonic clock. Nothing is cancelled: a key carries a generation, and its
//! owner ignores a key that is out of date.

/// Resolution of the wheel, in milliseconds.
pub const TICK_MS: u64 = 50;

/// Slots of the wheel: one turn takes 25.6 seconds, so that a heartbeat is touched once.
const SLOTS: usize = 512;

/// A slot that has grown beyond this many entries gives its memory back when it has been emptied.
const KEPT_ENTRIES: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    tick: u64,
    key: u64,
}

/// Deadlines of one shard; every operation costs O(1) per entry and turn.
#[derive(Debug)]
pub struct TimerWheel {
    slots: Box<[Vec<Entry>]>,
    /// Everything up to this tick has expired.
    tick: u64,
    len: usize,
}

impl TimerWheel {
    /// An empty wheel whose clock stands at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: now_ms / TICK_MS, len: 0 }
    }

    /// Entries that have not expired, out-of-date ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The earliest time at which [`advance`](Self::advance) can find something new, in milliseconds.
    #[must_use]
    pub fn next_tick_ms(&self) -> u64 {
        self.tick.saturating_add(1).saturating_mul(TICK_MS)
    }

    /// Lets `key` expire at `deadline_ms`: never before it, and by [`TICK_MS`] at most after it. A deadline that has
    /// passed expires with the next tick. The same key may wait several times.
    pub fn insert(&mut self, deadline_ms: u64, key: u64) {
        let tick = deadline_ms.div_ceil(TICK_MS).max(self.tick + 1);
        self.slots[slot(tick)].push(Entry { tick, key });
        self.len += 1;
    }

    /// Moves the clock to `now_ms` and appends the keys that have expired to `expired`, in no particular order within a
    /// tick. A clock that stands still or goes back changes nothing.
    pub fn advance(&mut self, now_ms: u64, expired: &mut Vec<u64>) {
        let now = now_ms / TICK_MS;
        if now <= self.tick {
            return;
        }
        let before = expired.len();
        let last = now.min(self.tick + SLOTS as u64);
        for tick in self.tick + 1..=last {
            let entries = &mut self.slots[slot(tick)];
            entries.retain(|entry| {
                let waits = entry.tick > now;
                if !waits {
                    expired.push(entry.key);
                }
                waits
            });
            if entries.is_empty() && entries.capacity() > KEPT_ENTRIES {
                *entries = Vec::new();
            }
        }
        self.tick = now;
        self.len -= expired.len() - before;
    }
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("invariant: the remainder is below SLOTS")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn advance(wheel: &mut TimerWheel, now_ms: u64) -> Vec<u64> {
        let mut expired = Vec::new();
        wheel.advance(now_ms, &mut expired);
        expired.sort_unstable();
        expired
    }

    #[test]
    fn a_key_expires_at_its_deadline_and_not_before() {
        let mut wheel = TimerWheel::new(1_000);
        wheel.insert(1_120, 7);
        assert!(advance(&mut wheel, 1_119).is_empty());
        assert!(advance(&mut wheel, 1_149).is_empty());
        assert_eq!(advance(&mut wheel, 1_150), [7]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_expires_with_the_next_tick() {
        let mut wheel = TimerWheel::new(10_000);
        wheel.insert(0, 1);
        assert!(advance(&mut wheel, 10_049).is_empty());
        assert_eq!(wheel.next_tick_ms(), 10_050);
        assert_eq!(advance(&mut wheel, 10_050), [1]);
    }

    #[test]
    fn a_deadline_many_turns_away_waits_for_its_turn() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(3_600_000, 1);
        let early = (0..3_600_000).step_by(500).flat_map(|now_ms| advance(&mut wheel, now_ms)).count();
        assert_eq!(early, 0);
        assert_eq!(advance(&mut wheel, 3_600_000), [1]);
    }

    #[test]
    fn a_jump_over_many_turns_loses_nothing() {
        let mut wheel = TimerWheel::new(0);
        for key in 0..2_000 {
            wheel.insert(key * 97, key);
        }
        assert_eq!(advance(&mut wheel, 10_000_000), (0..2_000).collect::<Vec<_>>());
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let mut wheel = TimerWheel::new(5_000);
        wheel.insert(6_000, 1);
        assert!(advance(&mut wheel, 1_000).is_empty());
        assert_eq!(advance(&mut wheel, 6_000), [1]);
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut wheel = TimerWheel::new(0);
        for key in 0..10_000 {
            wheel.insert(100, key);
        }
        assert_eq!(advance(&mut wheel, 200).len(), 10_000);
        assert!(wheel.slots.iter().all(|entries| entries.capacity() <= KEPT_ENTRIES));
    }

    #[test]
    fn the_end_of_time_is_a_deadline_like_any_other() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(u64::MAX, 1);
        assert!(advance(&mut wheel, 1_000_000).is_empty());
        assert_eq!(wheel.len(), 1);
    }

    proptest! {
        #[test]
        fn the_wheel_expires_what_a_sorted_list_would(
            steps in prop::collection::vec((0_u64..60_000, prop::collection::vec(0_u64..120_000, 0..8)), 1..60)
        ) {
            let mut wheel = TimerWheel::new(0);
            let mut model: Vec<(u64, u64)> = Vec::new();
            let (mut now_ms, mut key) = (0, 0);
            for (elapsed_ms, delays_ms) in steps {
                for delay_ms in delays_ms {
                    let deadline_ms = now_ms + delay_ms;
                    wheel.insert(deadline_ms, key);
                    let tick = deadline_ms.div_ceil(TICK_MS).max(now_ms / TICK_MS + 1);
                    model.push((tick * TICK_MS, key));
                    key += 1;
                }
                now_ms += elapsed_ms;
                let mut due: Vec<u64> =
                    model.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).map(|(_, key)| key).collect();
                due.sort_unstable();
                prop_assert_eq!(advance(&mut wheel, now_ms), due);
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
