//! One event for everybody: at a fixed rate, and as fast as it goes.

use tidegate_load::{HttpSource, Load, Report, Scenario, Source, Target, Transport, Workload};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, faults, server_cpu_s};
use super::error::FigureError;
use super::process::Server;
use crate::floor::server::Delivery;

const CONNECTIONS: u32 = 1_000;
const EVENT_BYTES: usize = 200;
/// Events a second of the fixed rate: 100,000 deliveries.
const RATE_PER_S: f64 = 100.0;
/// A schedule that no server keeps: the bound on outstanding events sets the pace.
const SATURATION_RATE_PER_S: f64 = 20_000.0;
/// Two batches: the server works on one while the next is under way, so that about [`BATCH`] events go into one send, with
/// Tidegate and with the floor. Many more, and both would only copy large blocks.
const OUTSTANDING_EVENTS: u64 = 2 * BATCH as u64;
/// Events in one request of the saturating source.
const BATCH: usize = 16;

pub(super) fn fixed_rate(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let load = Load {
        rate_per_s: RATE_PER_S,
        duration_s: context.pick(8.0, 4.0),
        warmup_s: 1.0,
        event_bytes: EVENT_BYTES,
        max_outstanding: None,
    };
    let finding = Finding::new(
        "broadcast",
        "Broadcast of 200-byte events to 1,000 WebSockets at 100,000 deliveries a second: deliveries per CPU-second of the \
         whole process, of the raw floor (one send per delivery)",
        Bound::AtLeast(0.8),
        Unit::Ratio,
    );
    Ok(vec![compare(context, finding, load, 1, Delivery::Each)?])
}

pub(super) fn saturation(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let load = Load {
        rate_per_s: SATURATION_RATE_PER_S,
        duration_s: context.pick(6.0, 3.0),
        warmup_s: 1.0,
        event_bytes: EVENT_BYTES,
        max_outstanding: Some(OUTSTANDING_EVENTS),
    };
    let finding = Finding::new(
        "saturation",
        "The same as fast as it goes: deliveries per CPU-second, of the raw floor that coalesces",
        Bound::AtLeast(0.6),
        Unit::Ratio,
    );
    Ok(vec![compare(context, finding, load, BATCH, Delivery::Coalesced)?])
}

fn compare(
    context: &Context,
    mut finding: Finding,
    load: Load,
    batch: usize,
    floor_delivery: Delivery,
) -> Result<Finding, FigureError> {
    for _ in 0..context.pick(3, 1) {
        let floor = run(context, &context.floor(floor_delivery, None)?, &load, batch)?;
        let ours = run(context, &context.tidegate(&[])?, &load, batch)?;
        let (floor_rate, rate) = (per_cpu_s(&floor)?, per_cpu_s(&ours)?);
        finding.values.push(rate / floor_rate);
        finding.details.push(format!(
            "{:.0} thousand deliveries per CPU-second at {:.0} thousand a second; floor {:.0} at {:.0}",
            rate / 1e3,
            ours.deliveries_per_s / 1e3,
            floor_rate / 1e3,
            floor.deliveries_per_s / 1e3,
        ));
        finding.problems.extend(faults("tidegate", &ours));
        finding.problems.extend(faults("floor", &floor));
    }
    Ok(finding)
}

fn run(context: &Context, server: &Server, load: &Load, batch: usize) -> Result<Report, FigureError> {
    let workload = Workload::Broadcast { connections: CONNECTIONS, load: load.clone() };
    let mut scenario = Scenario::new(workload, Target::new(server.url(), Transport::Ws));
    scenario.source = Source::Http(HttpSource { batch, ..HttpSource::new(server.url()) });
    context.load(scenario, server)
}

fn per_cpu_s(report: &Report) -> Result<f64, FigureError> {
    Ok(report.deliveries as f64 / server_cpu_s(report)?)
}
