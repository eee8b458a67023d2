//! Which shard count to take, and why. Pure: measurements in, a recommendation out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::measurement::{Measurement, Traffic};

/// A larger count must deliver this much more to be worth its cores.
const WORTHWHILE_GAIN: f64 = 1.10;
/// Share of a core above which a thread counts as full: the edges of the measured window cost the rest.
const FULL_THREAD: f64 = 0.90;
/// Share of a core below which no thread of the gateway can have been what held the deliveries up.
const IDLE_THREAD: f64 = 0.80;
/// Share of the cores that other processes may use without spoiling the figures.
const DISTURBING: f64 = 0.10;
/// Share of a link's speed above which it counts as full: headers take the rest.
const FULL_LINK: f64 = 0.90;

/// What keeps a larger count from delivering more.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "limit")]
pub enum Limit {
    /// Every core that the process may use has a shard.
    Cores,
    /// The next count gains too little.
    Gain {
        /// The next larger count.
        next_shards: usize,
        /// What it delivers more, in percent; negative if it delivers less.
        gain_percent: f64,
    },
    /// The one ingress thread is at its limit.
    Ingress {
        /// The count at which it was seen.
        shards: usize,
        /// Its share of a core.
        busy: f64,
    },
    /// The load generator (or something else on this machine) held the deliveries up and not the gateway, so the true
    /// limit is higher than the figure.
    Generator {
        /// The count at which it was seen.
        shards: usize,
        /// Whether it had to share its cores with the shards.
        shared_cores: bool,
    },
    /// The network card would be full.
    Network {
        /// The card.
        link: Link,
    },
}

/// What one kind of traffic says.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reason {
    /// The traffic.
    pub traffic: Traffic,
    /// The smallest count that is not worth exceeding.
    pub shards: usize,
    /// Why.
    #[serde(flatten)]
    pub limit: Limit,
}

/// The advice.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Recommendation {
    /// Value for `--shards`.
    pub shards: usize,
    /// One per kind of traffic.
    pub reasons: Vec<Reason>,
    /// Whether the load generator was the limit at the recommended count: the figures are then lower bounds.
    pub is_lower_bound: bool,
    /// Kinds of traffic that a smaller count served better by more than a tenth.
    pub loses: Vec<Traffic>,
    /// Counts that were measured while other processes were busy: their figures are too low.
    pub disturbed_at: Vec<usize>,
    /// Counts at which events were missing, double or out of order.
    pub incomplete_at: Vec<usize>,
}

/// Recommends the largest of the counts that the kinds of traffic ask for; `None` without measurements.
#[must_use]
pub fn recommend(measurements: &[Measurement], link: Option<&Link>) -> Option<Recommendation> {
    let reasons: Vec<Reason> =
        Traffic::ALL.into_iter().filter_map(|traffic| reason(&series(measurements, traffic), link)).collect();
    let shards = reasons.iter().map(|reason| reason.shards).max()?;
    let incomplete_at = counts_where(measurements, |found| !found.complete);
    let disturbed_at = counts_where(measurements, |found| found.busy.others >= DISTURBING);
    let loses = |reason: &&Reason| {
        let series = series(measurements, reason.traffic);
        let rate = |count| series.iter().find(|found| found.shards == count).map(|found| found.deliveries_per_s);
        matches!((rate(reason.shards), rate(shards)), (Some(own), Some(here)) if own > here * WORTHWHILE_GAIN)
    };
    let is_lower_bound = measurements.iter().any(|found| found.shards == shards && is_lower_bound(found));
    let loses = reasons.iter().filter(loses).map(|reason| reason.traffic).collect();
    Some(Recommendation { shards, loses, reasons, is_lower_bound, disturbed_at, incomplete_at })
}

fn counts_where(measurements: &[Measurement], holds: impl Fn(&Measurement) -> bool) -> Vec<usize> {
    let counts: BTreeSet<usize> = measurements.iter().filter(|found| holds(found)).map(|found| found.shards).collect();
    counts.into_iter().collect()
}

fn series(measurements: &[Measurement], traffic: Traffic) -> Vec<Measurement> {
    let mut series: Vec<_> = measurements.iter().filter(|found| found.traffic == traffic).copied().collect();
    series.sort_by_key(|found| found.shards);
    series
}

fn reason(series: &[Measurement], link: Option<&Link>) -> Option<Reason> {
    let mut best = series.first()?;
    for found in series {
        if found.deliveries_per_s > best.deliveries_per_s * WORTHWHILE_GAIN {
            best = found;
        }
        if let Some(link) = link.filter(|link| fills(best, link)) {
            let limit = Limit::Network { link: link.clone() };
            return Some(Reason { traffic: best.traffic, shards: best.shards, limit });
        }
    }
    let next = series.iter().find(|found| found.shards > best.shards);
    Some(Reason { traffic: best.traffic, shards: best.shards, limit: limit(best, next) })
}

/// Why `next`, the count above `best`, is no better.
fn limit(best: &Measurement, next: Option<&Measurement>) -> Limit {
    let tried = next.unwrap_or(best);
    if tried.busy.ingress >= FULL_THREAD {
        return Limit::Ingress { shards: tried.shards, busy: tried.busy.ingress };
    }
    let Some(next) = next else { return Limit::Cores };
    if is_lower_bound(next) {
        return Limit::Generator { shards: next.shards, shared_cores: next.shared_cores };
    }
    let gain_percent =
        if best.deliveries_per_s > 0.0 { (next.deliveries_per_s / best.deliveries_per_s - 1.0) * 100.0 } else { 0.0 };
    Limit::Gain { next_shards: next.shards, gain_percent }
}

/// Whether the gateway could have delivered more: its threads had time left, the generator had none, or they took it from
/// each other.
fn is_lower_bound(found: &Measurement) -> bool {
    let busy = &found.busy;
    found.shared_cores || busy.generator >= FULL_THREAD || busy.shard.max(busy.ingress) < IDLE_THREAD
}

fn fills(found: &Measurement, link: &Link) -> bool {
    found.payload_bytes_per_s * 8.0 >= link.bits_per_s as f64 * FULL_LINK
}

#[cfg(test)]
#[path = "recommend_tests.rs"]
mod tests;
