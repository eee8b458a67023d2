//! One measurement: load generators against a running gateway, first at full rate, then at half of it.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use tidegate_load::{
    HttpSource, KeyOrder, Limits, Load, LoadError, Report, Scenario, Source, Target, Transport, Workload,
    run_with_progress,
};

use crate::error::TuneError;
use crate::gateway::{GatewayProcess, event_type};
use crate::measurement::{Busy, Measurement, Traffic};
use crate::plan::{Budget, Seating};
use crate::threads::Sampler;

/// Threads of the generators; threads they start inherit the name.
const GENERATOR_NAME: &str = "load-";
/// Part at the start of a run that does not count for the delay.
const WARMUP_PART: f64 = 0.1;
/// More events a second than any gateway takes: the closed loop decides.
const ENDLESS_RATE_PER_S: f64 = 10_000_000.0;
/// The rate at which the delay is measured, as a part of the full one: a gateway has this much room in practice.
const PACED_PART: f64 = 0.5;
/// Longest wait for all clients to be connected, in seconds.
const READY_TIMEOUT_S: f64 = 20.0;
/// Longest wait for late events, in seconds.
const DRAIN_TIMEOUT_S: f64 = 5.0;

/// What each kind of traffic consists of.
struct Shape {
    event_bytes: usize,
    /// Events under way at full rate, all generators together.
    outstanding: u64,
    /// Events per publishing request.
    batch: usize,
}

impl Shape {
    fn of(traffic: Traffic) -> Self {
        match traffic {
            Traffic::Broadcast => Self { event_bytes: 200, outstanding: 1_024, batch: 32 },
            Traffic::Unicast => Self { event_bytes: 512, outstanding: 16_384, batch: 128 },
        }
    }
}

/// What all generators found together.
#[derive(Clone, Debug, Default)]
struct Outcome {
    deliveries: u64,
    payload_bytes: u64,
    measured_s: f64,
    p99_us: Option<u64>,
    complete: bool,
}

impl Outcome {
    fn of(reports: &[Report]) -> Self {
        Self {
            deliveries: reports.iter().map(|report| report.deliveries).sum(),
            payload_bytes: reports.iter().map(|report| report.payload_bytes).sum(),
            measured_s: reports.iter().map(|report| report.measured_s).fold(0.0, f64::max),
            p99_us: reports.iter().filter_map(|report| Some(report.latency.as_ref()?.p99_us)).max(),
            complete: reports.iter().all(|report| report.audit.passed() && report.connections.failed == 0),
        }
    }

    fn per_s(&self, count: u64) -> f64 {
        if self.measured_s > 0.0 { count as f64 / self.measured_s } else { 0.0 }
    }
}

/// A gateway on its seats, and what may be spent on measuring it.
pub(crate) struct Bench<'a> {
    pub(crate) gateway: &'a GatewayProcess,
    pub(crate) seating: &'a Seating,
    pub(crate) budget: &'a Budget,
    /// Cores of the whole machine that may be used.
    pub(crate) cores: usize,
}

impl Bench<'_> {
    /// Measures one kind of traffic; `progress` gets the deliveries of each second.
    pub(crate) fn measure(&self, traffic: Traffic, progress: &mut dyn FnMut(f64)) -> Result<Measurement, TuneError> {
        let shards = self.seating.shards.len();
        let sampler =
            Sampler::start(self.gateway.pid()).map_err(TuneError::system("watching the gateway's threads"))?;
        let fail = |source| TuneError::Load { traffic, shards, source };
        let full = self.run(traffic, self.budget.saturated_s, None, progress).map_err(fail)?;
        let ended = Instant::now();
        let began = ended.checked_sub(Duration::from_secs_f64(full.measured_s)).unwrap_or(ended);
        let usage = sampler.stop(began, ended).map_err(TuneError::system("reading the gateway's CPU time"))?;
        let rate_per_s = full.per_s(full.deliveries);
        let per_event = if traffic == Traffic::Broadcast { f64::from(self.connections_each()) } else { 1.0 };
        let paced_rate_per_s = rate_per_s * PACED_PART / per_event / self.seating.generator_count as f64;
        let paced = if paced_rate_per_s > 0.0 {
            self.run(traffic, self.budget.paced_s, Some(paced_rate_per_s), progress).map_err(fail)?
        } else {
            Outcome { complete: true, ..Outcome::default() }
        };
        Ok(Measurement {
            shards,
            traffic,
            connections: self.connections_each() * self.generators(),
            deliveries_per_s: rate_per_s,
            p99_us: paced.p99_us,
            cpu_ms_per_thousand: usage.gateway_cpu_s() * 1e6 / full.deliveries.max(1) as f64,
            payload_bytes_per_s: full.per_s(full.payload_bytes),
            busy: Busy {
                shard: usage.busiest(&usage.gateway, "shard-"),
                ingress: usage.busiest(&usage.gateway, "ingress"),
                generator: usage.busiest(&usage.own, GENERATOR_NAME).max(usage.together(
                    &usage.own,
                    GENERATOR_NAME,
                    self.seating.generators.len(),
                )),
                machine: usage.machine(self.cores),
                others: usage.others(self.cores),
            },
            shared_cores: self.seating.is_shared(),
            complete: full.complete && paced.complete,
        })
    }

    fn generators(&self) -> u32 {
        u32::try_from(self.seating.generator_count).unwrap_or(u32::MAX)
    }

    fn connections_each(&self) -> u32 {
        (self.budget.connections / self.generators()).max(1)
    }

    /// Runs all generators side by side, each with its own clients and its own type of event.
    fn run(
        &self,
        traffic: Traffic,
        duration_s: f64,
        rate_per_s: Option<f64>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Outcome, LoadError> {
        let (sender, seconds) = mpsc::channel();
        let reports = thread::scope(|scope| {
            let mut running = Vec::new();
            for generator in 0..self.seating.generator_count {
                let scenario = self.scenario(traffic, generator, duration_s, rate_per_s);
                let (sender, cores) = (sender.clone(), self.seating.generators.as_slice());
                let thread = thread::Builder::new().name(format!("{GENERATOR_NAME}{generator}"));
                let started = thread.spawn_scoped(scope, move || {
                    stay_on(cores)?;
                    run_with_progress(&scenario, |second| {
                        let _receiver_is_gone = sender.send((generator, second.rate_per_s));
                    })
                });
                running.push(started.map_err(|source| system("starting a load generator", source))?);
            }
            drop(sender);
            let mut rates = vec![0.0; self.seating.generator_count];
            for (generator, rate_per_s) in seconds {
                rates[generator] = rate_per_s;
                progress(rates.iter().sum());
            }
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Report, LoadError>>| {
                thread.join().map_err(|_| LoadError::Thread("load generator"))?
            };
            running.into_iter().map(join).collect::<Result<Vec<_>, LoadError>>()
        })?;
        Ok(Outcome::of(&reports))
    }

    fn scenario(&self, traffic: Traffic, generator: usize, duration_s: f64, rate_per_s: Option<f64>) -> Scenario {
        let shape = Shape::of(traffic);
        let connections = self.connections_each();
        let load = Load {
            rate_per_s: rate_per_s.unwrap_or(ENDLESS_RATE_PER_S),
            duration_s,
            warmup_s: duration_s * WARMUP_PART,
            event_bytes: shape.event_bytes,
            max_outstanding: match rate_per_s {
                Some(_) => None,
                None => Some((shape.outstanding / u64::from(self.generators())).max(1)),
            },
        };
        let workload = match traffic {
            Traffic::Broadcast => Workload::Broadcast { connections, load },
            Traffic::Unicast => Workload::Unicast { connections, load, keys: KeyOrder::RoundRobin },
        };
        let mut scenario = Scenario::new(workload, Target::new(self.gateway.url(), Transport::Ws));
        scenario.event_type = event_type(traffic, generator);
        scenario.source = Source::Http(HttpSource { batch: shape.batch, ..HttpSource::new(self.gateway.url()) });
        scenario.limits =
            Limits { ready_timeout_s: READY_TIMEOUT_S, drain_timeout_s: DRAIN_TIMEOUT_S, ..Limits::default() };
        scenario
    }
}

fn system(what: &str, source: std::io::Error) -> LoadError {
    LoadError::System { what: what.to_owned(), source }
}

/// Binds the calling thread, and the threads it starts from now on, to `cores`.
fn stay_on(cores: &[usize]) -> Result<(), LoadError> {
    let mut set = CpuSet::new();
    for core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| system("binding a load generator to its cores", error.into()))
}
