//! How slowly a request body may come.

/// Follows one body. A client that sends a byte now and then would hold its connection for ever if only silence counted:
/// a body also has to keep an average.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    started_ms: u64,
    silence_ms: u64,
    min_bytes_per_s: u64,
    bytes: u64,
}

impl Pace {
    /// A body that begins at `now_ms`. It may pause for `silence_ms`, and has to bring `min_bytes_per_s` on average once
    /// that time is over; 0 for no average.
    #[must_use]
    pub fn new(now_ms: u64, silence_ms: u64, min_bytes_per_s: u64) -> Self {
        Self { started_ms: now_ms, silence_ms, min_bytes_per_s, bytes: 0 }
    }

    /// Counts bytes that have come.
    pub fn received(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// When the next bytes must be there, seen from `now_ms`, when the last ones came.
    #[must_use]
    pub fn deadline_ms(&self, now_ms: u64) -> u64 {
        let silence = now_ms.saturating_add(self.silence_ms);
        let average = self.bytes.saturating_mul(1_000).checked_div(self.min_bytes_per_s);
        let earned = average.map_or(u64::MAX, |ms| self.started_ms.saturating_add(self.silence_ms).saturating_add(ms));
        silence.min(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_now_and_then_does_not_hold_a_connection() {
        let mut pace = Pace::new(1_000, 10_000, 500);
        let mut now_ms = 1_000;
        while pace.deadline_ms(now_ms) > now_ms + 9_000 {
            now_ms += 9_000;
            pace.received(1);
        }
        assert_eq!((now_ms, pace.deadline_ms(now_ms)), (10_000, 11_002));
    }

    #[test]
    fn a_body_that_keeps_the_average_may_take_its_time() {
        let mut pace = Pace::new(0, 10_000, 500);
        for second in 1..3_600 {
            assert!(pace.deadline_ms((second - 1) * 1_000) > second * 1_000);
            pace.received(500);
        }
    }

    #[test]
    fn silence_ends_a_body_however_much_has_come() {
        let mut pace = Pace::new(0, 10_000, 500);
        pace.received(1 << 40);
        assert_eq!(pace.deadline_ms(5_000), 15_000);
    }

    #[test]
    fn without_an_average_only_silence_counts() {
        let mut pace = Pace::new(0, 10_000, 0);
        pace.received(1);
        assert_eq!(pace.deadline_ms(1 << 40), (1 << 40) + 10_000);
    }
}
