//! What is measured, in which order and for how long. Pure: numbers in, numbers out.

use crate::measurement::Traffic;

/// Longest time for one kind of traffic at one shard count, in seconds: more tells nothing new.
const MAX_SLOT_S: f64 = 30.0;
/// Clients on small machines.
const MAX_CONNECTIONS: u32 = 1_000;
/// Clients per core on large ones: `SO_REUSEPORT` spreads them by hash, and few per shard would spread unevenly.
const CONNECTIONS_PER_CORE: u32 = 128;
/// Clients in all, below the open files that most systems allow.
const CONNECTIONS_CEILING: u32 = 10_000;
/// Fewest clients.
const MIN_CONNECTIONS: u32 = 64;
/// Clients that can be opened per second of a slot without eating much of it.
const CONNECTIONS_PER_SLOT_SECOND: f64 = 250.0;
/// Load generators side by side on the smallest machine.
const MIN_GENERATORS: usize = 2;
/// Parts of a slot; what is left goes to starting, connecting and draining.
const SATURATED_PART: f64 = 0.45;
const PACED_PART: f64 = 0.25;

/// The first round: 1, 2, 4 … and all `cores`.
pub(crate) fn shard_counts(cores: usize) -> Vec<usize> {
    let cores = cores.max(1);
    let doubling = std::iter::successors(Some(1usize), |count| count.checked_mul(2));
    doubling.take_while(|count| *count < cores).chain([cores]).collect()
}

/// The second round: the counts next to `best` that the first round left out.
pub(crate) fn neighbours(best: usize, cores: usize, measured: &[usize]) -> Vec<usize> {
    let candidates = [best.checked_sub(1), best.checked_add(1)];
    let is_new = |count: &usize| (1..=cores).contains(count) && !measured.contains(count);
    candidates.into_iter().flatten().filter(is_new).collect()
}

/// How the time is shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget {
    /// Events as fast as they are delivered, in seconds.
    pub(crate) saturated_s: f64,
    /// Events at half that rate, in seconds.
    pub(crate) paced_s: f64,
    /// Clients, all generators together.
    pub(crate) connections: u32,
}

impl Budget {
    /// Shares `total_s` seconds among all shard counts of a machine with `cores` usable cores.
    pub(crate) fn new(total_s: f64, cores: usize) -> Self {
        let first = shard_counts(cores).len();
        let counts = first + cores.saturating_sub(first).min(2);
        let slot_s = (total_s / (counts * Traffic::ALL.len()) as f64).min(MAX_SLOT_S);
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        let wanted = cores.saturating_mul(CONNECTIONS_PER_CORE).clamp(MAX_CONNECTIONS, CONNECTIONS_CEILING);
        let affordable = (slot_s * CONNECTIONS_PER_SLOT_SECOND) as u32;
        Self {
            saturated_s: slot_s * SATURATED_PART,
            paced_s: slot_s * PACED_PART,
            connections: wanted.min(affordable).max(MIN_CONNECTIONS),
        }
    }
}

/// Where the threads of one measurement run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seating {
    /// Cores of the shards, one each.
    pub(crate) shards: Vec<usize>,
    /// Cores of the load generators; shared with the shards where none is left.
    pub(crate) generators: Vec<usize>,
    /// Load generators that run side by side.
    pub(crate) generator_count: usize,
}

impl Seating {
    /// Seats `shards` shards on the first of `cores`, and the generators on the rest.
    pub(crate) fn new(shards: usize, cores: &[usize]) -> Self {
        let (taken, left) = cores.split_at(shards.min(cores.len()));
        // A generator has two busy threads, and each waits for the gateway's answers now and then while another one can go on.
        let generator_count = left.len().div_ceil(2).clamp(MIN_GENERATORS, shards.max(MIN_GENERATORS));
        let generators = if left.is_empty() { cores } else { left };
        Self { shards: taken.to_vec(), generators: generators.to_vec(), generator_count }
    }

    /// Whether generators and shards compete for the same cores.
    pub(crate) fn is_shared(&self) -> bool {
        self.generators.iter().any(|core| self.shards.contains(core))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_double_up_to_all_cores() {
        assert_eq!(shard_counts(1), [1]);
        assert_eq!(shard_counts(2), [1, 2]);
        assert_eq!(shard_counts(6), [1, 2, 4, 6]);
        assert_eq!(shard_counts(64), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(shard_counts(0), [1]);
    }

    #[test]
    fn the_second_round_holds_only_what_the_first_left_out() {
        assert_eq!(neighbours(4, 16, &[1, 2, 4, 8, 16]), [3, 5]);
        assert_eq!(neighbours(2, 2, &[1, 2]), [0; 0]);
        assert_eq!(neighbours(1, 8, &[1, 2, 4, 8]), [0; 0]);
        assert_eq!(neighbours(8, 8, &[1, 2, 4, 8]), [7]);
    }

    #[test]
    fn the_measured_time_stays_within_the_time_given() {
        for (total_s, cores) in [(2.0, 2), (60.0, 2), (60.0, 64), (10.0, 3)] {
            let budget = Budget::new(total_s, cores);
            let counts = shard_counts(cores).len() + 2;
            let measured_s = (budget.saturated_s + budget.paced_s) * (counts.min(cores) * 2) as f64;
            assert!(measured_s <= total_s * 0.8 && budget.saturated_s > 0.0, "{total_s} s, {cores} cores: {budget:?}");
        }
    }

    #[test]
    fn a_long_run_has_a_thousand_clients_a_short_one_fewer_and_a_large_machine_more() {
        assert_eq!(Budget::new(60.0, 2).connections, 1_000);
        assert_eq!(Budget::new(2.0, 2).connections, 125);
        assert_eq!(Budget::new(0.1, 2).connections, 64);
        assert_eq!(Budget::new(900.0, 64).connections, 7_500);
    }

    #[test]
    fn generators_get_the_cores_that_shards_leave_and_share_when_there_are_none() {
        let cores = [0, 2, 4, 6, 1, 3, 5, 7];
        let seating = Seating::new(3, &cores);
        assert_eq!((seating.shards.as_slice(), seating.generators.as_slice()), (&cores[..3], &cores[3..]));
        assert_eq!((seating.generator_count, seating.is_shared()), (3, false));
        let full = Seating::new(8, &cores);
        assert_eq!((full.generators.as_slice(), full.generator_count), (cores.as_slice(), 2));
        assert!(full.is_shared());
    }
}
