//! When each event is due: a fixed rate from a fixed start, whatever the server does.

/// A schedule of `total` events at equal distances. Pure: times go in and come out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    total: u64,
}

impl Schedule {
    /// `rate_per_s` must be positive; the number of events is the rate times the duration, at least one.
    pub(crate) fn new(start_ns: u64, rate_per_s: f64, duration_s: f64) -> Self {
        let total = ((rate_per_s * duration_s).round() as u64).max(1);
        Self { start_ns, interval_ns: 1e9 / rate_per_s, total }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The moment at which event `index` should leave.
    pub(crate) fn intended_ns(&self, index: u64) -> u64 {
        self.start_ns.saturating_add((index as f64 * self.interval_ns) as u64)
    }

    /// How many events should have left by `now_ns`, this moment included.
    pub(crate) fn due(&self, now_ns: u64) -> u64 {
        if now_ns < self.start_ns {
            return 0;
        }
        let guess = (((now_ns - self.start_ns) as f64 / self.interval_ns) as u64).min(self.total) + 1;
        let due = if self.intended_ns(guess) <= now_ns { guess + 1 } else { guess };
        due.min(self.total)
    }
}

/// Which client's stream each event goes to.
#[derive(Clone, Debug)]
pub(crate) enum Addressing {
    /// All clients share stream 0.
    Everyone,
    /// One stream after the other.
    RoundRobin {
        /// Number of streams.
        streams: u32,
    },
    /// Any stream, by a generator that gives the same order for the same seed.
    Random {
        /// Number of streams.
        streams: u32,
        /// State of the generator (xorshift64, Marsaglia 2003); never 0.
        state: u64,
    },
}

impl Addressing {
    pub(crate) fn random(streams: u32, seed: u64) -> Self {
        Self::Random { streams, state: seed.max(1) }
    }

    /// The stream of event `index`; to be asked in ascending order.
    pub(crate) fn stream(&mut self, index: u64) -> u32 {
        match self {
            Self::Everyone => 0,
            Self::RoundRobin { streams } => (index % u64::from(*streams)) as u32,
            Self::Random { streams, state } => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                (((*state >> 32) * u64::from(*streams)) >> 32) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_schedule_holds_rate_times_duration_events_and_never_more() {
        let schedule = Schedule::new(1_000, 100.0, 2.5);
        assert_eq!(schedule.total(), 250);
        assert_eq!(schedule.due(999), 0);
        assert_eq!(schedule.due(1_000), 1);
        assert_eq!(schedule.due(u64::MAX), 250);
    }

    #[test]
    fn a_late_publisher_finds_every_missed_event_due_with_its_first_intended_time() {
        let schedule = Schedule::new(0, 1_000.0, 10.0);
        assert_eq!(schedule.due(5_000_000_000), 5_001);
        assert_eq!(schedule.intended_ns(17), 17_000_000);
    }

    proptest! {
        #[test]
        fn an_event_is_due_exactly_from_its_intended_time_on(rate in 0.1f64..2e6, index in 0u64..1_000) {
            let schedule = Schedule::new(42, rate, 1e7 / rate);
            let at = schedule.intended_ns(index);
            prop_assert!(schedule.due(at) > index);
            prop_assert!(at == 42 || schedule.due(at - 1) <= index || schedule.intended_ns(index) < at);
        }
    }

    #[test]
    fn round_robin_visits_every_stream_equally() {
        let mut addressing = Addressing::RoundRobin { streams: 3 };
        let streams: Vec<u32> = (0..6).map(|index| addressing.stream(index)).collect();
        assert_eq!(streams, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn random_streams_repeat_with_the_seed_and_reach_everyone() {
        let draw = |seed| {
            let mut addressing = Addressing::random(10, seed);
            (0..1_000).map(|index| addressing.stream(index)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((0..10).all(|stream| draw(7).contains(&stream)));
        assert!(draw(7).iter().all(|&stream| stream < 10));
    }
}
