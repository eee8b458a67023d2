//! Durations in logarithmic buckets, written by many threads without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets per doubling: a quantile is exact to a quarter of its power of two.
const STEPS: u64 = 4;

/// Doublings above the linear start: up to 2^36 µs, 19 hours.
const DOUBLINGS: usize = 34;

const BUCKETS: usize = STEPS as usize * (DOUBLINGS + 1);

/// A histogram of durations in microseconds.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        self.record_us(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one duration in microseconds.
    pub fn record_us(&self, us: u64) {
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Relaxed)).collect();
        Snapshot { counts, sum_us: self.sum_us.load(Relaxed) }
    }
}

/// The state of a histogram at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counts: Vec<u64>,
    /// Sum of all durations, in microseconds.
    pub sum_us: u64,
}

impl Snapshot {
    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound of the bucket in which the quantile (0 to 1) lies, in microseconds; 0 if nothing was counted.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let rank = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_us(index);
            }
        }
        0
    }

    /// Upper bounds of the buckets that are not empty, in microseconds, with what each of them holds.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, count)| (upper_us(index), *count))
    }
}

/// Index of the bucket: linear below [`STEPS`], then [`STEPS`] for each power of two.
fn bucket(us: u64) -> usize {
    if us < STEPS {
        return usize::try_from(us).unwrap_or(0);
    }
    let doubling = us.ilog2() - STEPS.ilog2();
    let step = (us >> doubling) - STEPS;
    let index = STEPS * u64::from(doubling + 1) + step;
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

fn upper_us(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let (doubling, step) = (index / STEPS - 1, index % STEPS);
    ((STEPS + step + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_nothing_are_zero_and_of_one_value_its_bucket() {
        let histogram = Histogram::default();
        assert_eq!((histogram.snapshot().count(), histogram.snapshot().quantile_us(0.5)), (0, 0));
        histogram.record(Duration::from_micros(1_000));
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.sum_us), (1, 1_000));
        assert!((1_000..1_250).contains(&snapshot.quantile_us(0.5)));
        assert_eq!(snapshot.buckets().count(), 1);
    }

    #[test]
    fn the_longest_duration_is_counted_too() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.snapshot().count(), 1);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_below_its_bound_and_above_that_of_the_one_before(us in 0_u64..1 << 36) {
            let index = bucket(us);
            prop_assert!(us <= upper_us(index));
            prop_assert!(index == 0 || us > upper_us(index - 1));
        }
    }
}
