//! Finding the best shard count of a machine, and holding the machine against the shipped profiles.
//!
//! # Tour
//!
//! [`tune`] measures. `plan` says which shard counts, on which cores and for how long; `gateway` is a real gateway process
//! on loopback; `load` lets generators of `tidegate-load` loose on it, at full rate and then at half of it; `threads`
//! reads meanwhile how busy each thread is. Each ends as a [`Measurement`]. [`recommend`] draws the conclusion, without
//! any process or clock. [`table`] and [`svg`] show an [`Outcome`]; serde makes JSON of it.
//!
//! [`profiles`] is independent of all that: it reads `profiles/*.conf` and says where this machine differs.

mod error;
mod gateway;
mod link;
mod load;
mod measurement;
mod orphan;
mod plan;
pub mod profiles;
mod recommend;
mod svg;
mod table;
mod threads;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::TuneError;
pub use link::Link;
pub use measurement::{Busy, Measurement, Traffic};
pub use recommend::{Limit, Reason, Recommendation, recommend};
pub use svg::svg;
pub use table::{progress_line, table};

use gateway::{GatewayProcess, event_type};
use load::Bench;
use plan::{Budget, Seating};

/// What to measure with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateway's binary; it is run as `BINARY serve …`.
    pub gateway: PathBuf,
    /// Cores to use, in the order in which shards take them (hyper-thread siblings last).
    pub cores: Vec<usize>,
    /// Time for everything, in seconds; starting and connecting may add a little.
    pub total_s: f64,
}

/// All that was measured, and what follows from it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// Cores that could be used.
    pub cores: usize,
    /// The fastest network card, if one says its speed.
    pub link: Option<Link>,
    /// By shard count, and within it by traffic.
    pub measurements: Vec<Measurement>,
    /// The advice.
    pub recommendation: Recommendation,
}

/// What is happening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Events flow.
    Running {
        /// Shards of the gateway.
        shards: usize,
        /// The traffic.
        traffic: Traffic,
        /// Deliveries in the last second.
        deliveries_per_s: f64,
    },
    /// One shard count is done for one kind of traffic.
    Measured(Measurement),
}

/// Measures this machine at rising shard counts, with real gateway processes on loopback.
///
/// # Errors
/// [`TuneError`] when a gateway does not start or can't be put under load.
pub fn tune(settings: &Settings, mut progress: impl FnMut(&Progress)) -> Result<Outcome, TuneError> {
    let cores = settings.cores.len();
    let link = link::fastest();
    let budget = Budget::new(settings.total_s, cores);
    let mut measurements = Vec::new();
    let counts = if cores == 0 { Vec::new() } else { plan::shard_counts(cores) };
    for shards in &counts {
        measurements.extend(measure(settings, *shards, &budget, &mut progress)?);
    }
    let first = recommend(&measurements, link.as_ref()).ok_or(TuneError::NoCores)?;
    for shards in plan::neighbours(first.shards, cores, &counts) {
        measurements.extend(measure(settings, shards, &budget, &mut progress)?);
    }
    measurements.sort_by_key(|measurement| measurement.shards);
    let recommendation = recommend(&measurements, link.as_ref()).ok_or(TuneError::NoCores)?;
    Ok(Outcome { cores, link, measurements, recommendation })
}

fn measure(
    settings: &Settings,
    shards: usize,
    budget: &Budget,
    progress: &mut impl FnMut(&Progress),
) -> Result<Vec<Measurement>, TuneError> {
    let seating = Seating::new(shards, &settings.cores);
    let event_types: Vec<String> =
        (0..seating.generator_count).map(|generator| event_type(Traffic::Unicast, generator)).collect();
    let gateway = GatewayProcess::start(&settings.gateway, &seating.shards, &event_types)?;
    let bench = Bench { gateway: &gateway, seating: &seating, budget, cores: settings.cores.len() };
    let mut measured = Vec::new();
    for traffic in Traffic::ALL {
        let mut second = |deliveries_per_s| progress(&Progress::Running { shards, traffic, deliveries_per_s });
        let measurement = bench.measure(traffic, &mut second)?;
        progress(&Progress::Measured(measurement));
        measured.push(measurement);
    }
    Ok(measured)
}
