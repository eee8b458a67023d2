//! Keeps a stream of bad input from becoming a stream of log lines.

/// Lets a few lines through per period and counts the rest. Time is passed in.
#[derive(Debug)]
pub(crate) struct Limiter {
    period_start_ms: u64,
    let_through: u32,
    suppressed: u64,
}

const PERIOD_MS: u64 = 10_000;
const LINES_PER_PERIOD: u32 = 10;

impl Limiter {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { period_start_ms: now_ms, let_through: 0, suppressed: 0 }
    }

    /// `Some` if a line may be logged, with the number of lines held back since the last one.
    pub(crate) fn permit(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.period_start_ms) >= PERIOD_MS {
            self.period_start_ms = now_ms;
            self.let_through = 0;
        }
        if self.let_through == LINES_PER_PERIOD {
            self.suppressed += 1;
            return None;
        }
        self.let_through += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_pass_and_the_rest_is_counted_until_the_next_period() {
        let mut limiter = Limiter::new(0);
        let passed = (0..1_000).filter(|_| limiter.permit(5).is_some()).count();
        assert_eq!(passed, LINES_PER_PERIOD as usize);
        assert_eq!(limiter.permit(PERIOD_MS), Some(990));
        assert_eq!(limiter.permit(PERIOD_MS), Some(0));
    }
}
