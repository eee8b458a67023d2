//! Connections as such: what an idle one costs, what opening one costs, and that nothing is left of a million.

use std::thread;
use std::time::Duration;

use tidegate_load::{Report, Scenario, ServerUsage, Target, Transport, Workload};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, faults, server_cpu_s};
use super::error::FigureError;
use super::process::Server;
use crate::floor::server::Delivery;

const IDLE_CONNECTIONS: u32 = 10_000;
const CONCURRENCY: u32 = 128;
/// One part in this many of all connections is opened and closed before the first look at memory.
const WARMING_PART: u64 = 20;
/// Time for the allocator to give back what was freed last.
const PURGE_MARGIN: Duration = Duration::from_secs(5);

pub(super) fn idle(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut cpu = Finding::new(
        "idle-cpu",
        "CPU with 10,000 idle connections, heartbeats included, in percent of a core",
        Bound::Below(2.0),
        Unit::Percent,
    );
    let mut findings = Vec::new();
    for (transport, name, kind) in
        [(Transport::Ws, "memory-ws", "WebSocket"), (Transport::Sse, "memory-sse", "event stream")]
    {
        let mut memory = Finding::new(
            name,
            &format!("Memory per idle connection, 10,000 of kind {kind}: growth of RSS for each"),
            Bound::Below(3.0),
            Unit::Kibibytes,
        );
        let server = context.tidegate(&[])?;
        // At least one heartbeat each: their period is 15 s.
        let workload = Workload::Idle { connections: IDLE_CONNECTIONS, duration_s: context.pick(31.0, 20.0) };
        let report = context.load(Scenario::new(workload, Target::new(server.url(), transport)), &server)?;
        let usage = usage(&report)?;
        memory.values.push(usage.rss_per_connection_bytes(u64::from(IDLE_CONNECTIONS)) / 1024.0);
        memory.details.push(format!(
            "RSS {:.1} MiB without a connection, {:.1} with all, {:.1} after they have gone",
            mebibytes(usage.before.rss_bytes),
            mebibytes(usage.ready.rss_bytes),
            mebibytes(usage.closed.rss_bytes),
        ));
        memory.problems.extend(faults("tidegate", &report));
        cpu.values.push(usage.cpu_percent());
        cpu.details.push(format!("{kind}: {:.2} % over {:.0} s", usage.cpu_percent(), usage.measured_s));
        findings.push(memory);
    }
    findings.push(cpu);
    Ok(findings)
}

pub(super) fn handshakes(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "handshakes",
        "WebSocket handshakes with a subscription, per CPU-second, of the floor (accept, answer, close)",
        Bound::AtLeast(0.5),
        Unit::Ratio,
    );
    let total = context.pick(40_000, 10_000);
    for _ in 0..context.pick(3, 1) {
        let floor = churn(context, &context.floor(Delivery::Each, None)?, total)?;
        let ours = churn(context, &context.tidegate(&[])?, total)?;
        let (floor_rate, rate) = (total as f64 / server_cpu_s(&floor)?, total as f64 / server_cpu_s(&ours)?);
        finding.values.push(rate / floor_rate);
        finding.details.push(format!("{rate:.0} per CPU-second; floor {floor_rate:.0}"));
        finding.problems.extend(faults("tidegate", &ours));
        finding.problems.extend(faults("floor", &floor));
    }
    Ok(vec![finding])
}

pub(super) fn return_of_memory(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let total = context.pick(1_000_000, 50_000);
    let mut finding = Finding::new(
        "churn",
        &format!(
            "RSS after {} connections opened and closed in turns: growth since the first {}",
            thousands(total),
            thousands(total / WARMING_PART)
        ),
        Bound::Below(10.0),
        Unit::Percent,
    );
    let heartbeat_ms: u64 = context.pick(15_000, 2_000);
    let server = context.tidegate(&[("HEARTBEAT_MS", heartbeat_ms.to_string())])?;
    // Timers of connections that have gone are let go when they are due: one heartbeat later.
    let rest = Duration::from_millis(heartbeat_ms) + PURGE_MARGIN;
    let fresh = server.sample()?.rss_bytes;
    // The first ones bring code and tables into memory that stay there for all.
    churn(context, &server, total / WARMING_PART)?;
    thread::sleep(rest);
    let warm_bytes = server.sample()?.rss_bytes;
    let report = churn(context, &server, total)?;
    thread::sleep(rest);
    let closed_bytes = server.sample()?.rss_bytes;
    finding.values.push((closed_bytes as f64 / warm_bytes as f64 - 1.0) * 100.0);
    finding.details.push(format!(
        "{:.1} MiB after the start, {:.1} after {} connections, {:.1} after {} more",
        mebibytes(fresh),
        mebibytes(warm_bytes),
        thousands(total / WARMING_PART),
        mebibytes(closed_bytes),
        thousands(total),
    ));
    finding.details.push(format!("{:.0} connections a second", total as f64 / report.measured_s.max(1e-9)));
    finding.problems.extend(faults("tidegate", &report));
    Ok(vec![finding])
}

fn churn(context: &Context, server: &Server, total: u64) -> Result<Report, FigureError> {
    let workload = Workload::Churn { total, concurrency: CONCURRENCY, reset: false };
    let mut scenario = Scenario::new(workload, Target::new(server.url(), Transport::Ws));
    scenario.limits.run_timeout_s = context.pick(300.0, 60.0);
    context.load(scenario, server)
}

fn usage(report: &Report) -> Result<&ServerUsage, FigureError> {
    report.server.as_ref().ok_or_else(|| FigureError::Invalid("the server's process was not observed".to_owned()))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn thousands(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", thousands(number / 1_000), number % 1_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_get_separators() {
        assert_eq!([thousands(999), thousands(50_000), thousands(1_000_000)], ["999", "50,000", "1,000,000"]);
    }
}
