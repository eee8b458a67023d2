//! The rate of new connections, counted in fixed minutes.

/// Length of the window, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// Admits so many in each minute of the clock that is passed in (`MAX_CONNECTIONS_PER_MINUTE`).
#[derive(Clone, Debug)]
pub struct ConnectionRate {
    max_per_minute: u32,
    minute: u64,
    admitted: u32,
}

impl ConnectionRate {
    /// Admits `max_per_minute`; 0 admits nobody.
    #[must_use]
    pub fn new(max_per_minute: u32) -> Self {
        Self { max_per_minute, minute: 0, admitted: 0 }
    }

    /// Whether one more may come at `now_ms`. Those that are refused don't count.
    pub fn admit(&mut self, now_ms: u64) -> bool {
        let minute = now_ms / WINDOW_MS;
        if minute != self.minute {
            self.minute = minute;
            self.admitted = 0;
        }
        let admits = self.admitted < self.max_per_minute;
        self.admitted += u32::from(admits);
        admits
    }

    /// Seconds until the minute after `now_ms` begins, rounded up.
    #[must_use]
    pub const fn next_minute_s(now_ms: u64) -> u64 {
        (WINDOW_MS - now_ms % WINDOW_MS).div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_admits_its_number_and_the_next_one_again() {
        let mut rate = ConnectionRate::new(2);
        assert!(rate.admit(0));
        assert!(rate.admit(59_999));
        assert!(!rate.admit(59_999));
        assert!(rate.admit(60_000));
        assert!(rate.admit(60_001));
        assert!(!rate.admit(119_999));
        assert!(rate.admit(600_000));
    }

    #[test]
    fn those_that_are_refused_do_not_count() {
        let mut rate = ConnectionRate::new(1);
        assert!(rate.admit(0));
        assert!((0..1_000).all(|_| !rate.admit(1)));
        assert!(rate.admit(60_000));
    }

    #[test]
    fn the_next_minute_begins_within_a_minute() {
        assert_eq!([0, 1, 59_000, 59_999, 60_000].map(ConnectionRate::next_minute_s), [60, 60, 1, 1, 60]);
    }

    #[test]
    fn zero_admits_nobody() {
        assert!(!ConnectionRate::new(0).admit(0));
    }
}
