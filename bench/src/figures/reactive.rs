//! Request and response over Kafka through the bare client, beside a hand-written ping-pong on the same broker.

use std::cell::Cell;
use std::process::Stdio;

use rustix::time::{ClockId, clock_gettime};
use tidegate_load::{CallLoad, CallPath, CallReport, CallScenario, ReactiveCalls};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, call_faults};
use super::cpu;
use super::error::FigureError;
use super::process::Server;
use crate::floor::ping_pong::{self, Volley, Volleyed};

const PAYLOAD_BYTES: usize = 100;
const SERVICE: &str = "figures";
/// Calls in flight where throughput is measured.
const WINDOW: u32 = 1_024;
/// Clients that share the answers' topic, for the bytes that each reads.
const INSTANCES: [u32; 3] = [1, 4, 16];

/// One call in flight, in times of the ping-pong.
pub(super) fn round_trip(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "round-trip",
        "ReactiveClient to ReactiveServer and back, 100 bytes, one call in flight, acks=all: median round trip, in times of a \
         hand-written produce–consume ping-pong on the same broker",
        Bound::Below(1.3),
        Unit::Ratio,
    );
    let calls = context.pick(4_000, 300);
    for _ in 0..context.pick(5, 1) {
        let bare = ping_pong(context, Volley { window: 1, messages: calls, warmup: calls / 10, ..volley() })?;
        let ours = call(context, 1, 1, calls)?;
        let latency = latency(&ours.report)?;
        let bare_p50_us = bare.volleyed.latency.value_at_quantile(0.5);
        finding.values.push(latency.p50_us as f64 / bare_p50_us.max(1) as f64);
        finding.details.push(format!(
            "p50 {} µs, p99 {}, p99.9 {}; ping-pong {bare_p50_us}, {}, {}",
            latency.p50_us,
            latency.p99_us,
            latency.p99_9_us,
            bare.volleyed.latency.value_at_quantile(0.99),
            bare.volleyed.latency.value_at_quantile(0.999),
        ));
        finding.problems.extend(call_faults("tidegate", &ours.report));
    }
    Ok(vec![finding])
}

/// 1,024 calls in flight: what client and server move, beside what a bare producer and consumer do.
pub(super) fn requests(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut rate = Finding::new(
        "requests",
        "The same with 1,024 calls in flight: requests per second, of the ping-pong with as many messages under way",
        Bound::AtLeast(0.7),
        Unit::Ratio,
    );
    let mut cost = Finding::new(
        "requests-cpu",
        "The same: requests per CPU-second of both sides together, of the ping-pong's two sides",
        Bound::AtLeast(0.7),
        Unit::Ratio,
    );
    let calls = context.pick(200_000, 10_000);
    for _ in 0..context.pick(3, 1) {
        let bare =
            ping_pong(context, Volley { window: u64::from(WINDOW), messages: calls, warmup: calls / 10, ..volley() })?;
        let ours = call(context, WINDOW, 1, calls)?;
        let bare_rate = calls as f64 / bare.volleyed.elapsed_s;
        let (our_cost, bare_cost) = (ours.cpu_s / calls as f64 * 1e3, bare.cpu_s / calls as f64 * 1e3);
        rate.values.push(ours.report.calls_per_s / bare_rate);
        cost.values.push(bare_cost / our_cost.max(1e-9));
        let latency = latency(&ours.report)?;
        rate.details.push(format!(
            "{:.1} thousand a second, p50 {:.1} ms, p99 {:.1} ms; ping-pong {:.1} thousand",
            ours.report.calls_per_s / 1e3,
            latency.p50_us as f64 / 1e3,
            latency.p99_us as f64 / 1e3,
            bare_rate / 1e3,
        ));
        cost.details.push(format!("{our_cost:.4} CPU-seconds per 1,000; ping-pong {bare_cost:.4}"));
        rate.problems.extend(call_faults("tidegate", &ours.report));
    }
    cost.problems.clone_from(&rate.problems);
    Ok(vec![rate, cost])
}

/// What clients read from the topic that they share, for each byte meant for them.
pub(super) fn reply_bytes(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let calls = context.pick(50_000, 3_000);
    let mut findings = Vec::new();
    for instances in INSTANCES {
        let mut finding = Finding::new(
            &format!("reply-bytes-{instances}"),
            &format!("Bytes read from the reply topic for each useful one, client instances: {instances}"),
            Bound::Below(1.2),
            Unit::Ratio,
        );
        let report = call(context, 64, instances, calls)?.report;
        let bytes = report.reply_bytes.unwrap_or_default();
        finding.values.push(bytes.read as f64 / bytes.own.max(1) as f64);
        finding.details.push(format!("{} bytes read, {} of own answers, {calls} calls", bytes.read, bytes.own));
        finding.problems.extend(call_faults("tidegate", &report));
        findings.push(finding);
    }
    Ok(findings)
}

/// A run of the ping-pong, and the CPU time of both sides in it.
struct Bare {
    volleyed: Volleyed,
    cpu_s: f64,
}

/// A run through the client, and the CPU time of both sides in it.
struct Ours {
    report: CallReport,
    cpu_s: f64,
}

fn volley() -> Volley {
    Volley { window: 1, messages: 1, warmup: 0, payload_bytes: PAYLOAD_BYTES }
}

fn ping_pong(context: &Context, volley: Volley) -> Result<Bare, FigureError> {
    let brokers = context.kafka()?.brokers().to_owned();
    let (there, back) = (context.new_topic("there"), context.new_topic("back"));
    ping_pong::make_topics(&brokers, &there, &back)?;
    let echo = helper(&["echo", "--brokers", &brokers, "--there", &there, "--back", &back])?;
    let sample = || Ok::<_, FigureError>(own_cpu_s() + echo.sample()?.cpu_s());
    let before = Cell::new(sample());
    let volleyed =
        cpu::bound_to(cpu::LOAD, || ping_pong::volley(&brokers, &there, &back, volley, || before.set(sample())))?;
    Ok(Bare { volleyed, cpu_s: sample()? - before.into_inner()? })
}

fn call(context: &Context, in_flight: u32, instances: u32, calls: u64) -> Result<Ours, FigureError> {
    let brokers = context.kafka()?.brokers().to_owned();
    let (topic, reply_topic) = (context.new_topic("asked"), context.new_topic("replies"));
    let server = helper(&["serve", "--brokers", &brokers, "--topic", &topic, "--id", SERVICE])?;
    let path = |reply_topic: &str| {
        CallPath::Reactive(ReactiveCalls {
            brokers: brokers.clone(),
            destination: format!("kafka:{topic}/{SERVICE}"),
            reply_topic: reply_topic.to_owned(),
            payload_bytes: PAYLOAD_BYTES,
            clients: instances,
        })
    };
    let load = |total: u64| CallLoad {
        concurrency: in_flight,
        duration_s: 120.0,
        total: Some(total),
        warmup_s: 0.0,
        ..CallLoad::default()
    };
    // The first calls find connections and caches cold; the ping-pong's first messages are left out too.
    let warm = context.calls(CallScenario::new(path(&context.new_topic("warm")), load(calls / 10)), &server)?;
    if !warm.passed() {
        return Err(FigureError::Invalid(call_faults("warming up", &warm).join("; ")));
    }
    let report = context.calls(CallScenario::new(path(&reply_topic), load(calls)), &server)?;
    let server_cpu_s = report.server.as_ref().map_or(0.0, tidegate_load::ServerUsage::cpu_s);
    let cpu_s = report.generator_cpu_s + server_cpu_s;
    Ok(Ours { report, cpu_s })
}

/// Another role of this program, on the CPU that servers get, once it has said `ready`.
fn helper(arguments: &[&str]) -> Result<Server, FigureError> {
    let this = std::env::current_exe().map_err(FigureError::system("finding this program"))?;
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Server::start_saying(cpu::SERVER, &this, &arguments, &[], Stdio::piped(), |line| {
        (line == "ready").then(String::new)
    })
}

fn latency(report: &CallReport) -> Result<&tidegate_load::LatencySummary, FigureError> {
    report.latency.as_ref().ok_or_else(|| FigureError::Invalid("no call was answered".to_owned()))
}

fn own_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
