//! Latency in hdrhistogram, and its summary for reports.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, in microseconds: an hour. Longer ones count as this.
const MAX_US: u64 = 3_600_000_000;

/// A histogram of microseconds with three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_US, 3).expect("invariant: constant bounds are valid")
}

/// One point of the percentile plot.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Percentile {
    /// Share of the deliveries, in percent.
    pub percent: f64,
    /// Latency that this share did not exceed, in microseconds.
    pub latency_us: u64,
}

/// Latency of deliveries, counted from the intended send time to the read that brought the event, in microseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Deliveries in the histogram; those of the warm-up are not.
    pub count: u64,
    /// Smallest.
    pub min_us: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p99_9_us: u64,
    /// Largest.
    pub max_us: u64,
    /// The whole curve, finer towards 100 %.
    pub percentiles: Vec<Percentile>,
}

impl LatencySummary {
    /// Nothing to say about no deliveries: `None`.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let percentiles = histogram
            .iter_quantiles(4)
            .map(|step| Percentile { percent: step.quantile() * 100.0, latency_us: step.value_iterated_to() })
            .collect();
        Some(Self {
            count: histogram.len(),
            min_us: histogram.min(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
            percentiles,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_thousand_even_steps_names_the_right_percentiles() {
        let mut latencies = histogram();
        for us in 1..=1_000 {
            latencies.saturating_record(us);
        }
        let summary = LatencySummary::of(&latencies).unwrap();
        assert_eq!((summary.count, summary.min_us, summary.max_us), (1_000, 1, 1_000));
        assert_eq!((summary.p50_us, summary.p90_us, summary.p99_us, summary.p99_9_us), (500, 900, 990, 999));
        assert!((summary.mean_us - 500.5).abs() < 0.01);
    }

    #[test]
    fn the_curve_rises_and_ends_at_the_largest() {
        let mut latencies = histogram();
        for us in [5, 10, 10, 20, 80_000] {
            latencies.saturating_record(us);
        }
        let summary = LatencySummary::of(&latencies).unwrap();
        assert!(summary.percentiles.is_sorted_by(|a, b| a.percent <= b.percent && a.latency_us <= b.latency_us));
        let last = summary.percentiles.last().unwrap();
        assert_eq!(last.percent, 100.0);
        assert!(last.latency_us.abs_diff(80_000) <= 80, "three digits: {}", last.latency_us);
    }

    #[test]
    fn no_deliveries_give_no_summary_and_an_endless_one_is_held_at_the_bound() {
        assert!(LatencySummary::of(&histogram()).is_none());
        let mut latencies = histogram();
        latencies.saturating_record(u64::MAX);
        assert!(LatencySummary::of(&latencies).unwrap().max_us >= MAX_US / 1_001 * 1_000);
    }
}
