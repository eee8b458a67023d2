//! Calls through the proxy: beside nginx in front of the same backend, and beside calls that go to the backend directly.

use tidegate_load::{CallLoad, CallPath, CallReport, CallScenario, HttpCalls, LatencySummary};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, call_faults};
use super::error::FigureError;
use super::nginx::Nginx;
use super::process::Server;

const CONNECTIONS: u32 = 50;
const ANSWER_BYTES: usize = 200;
const RATE_PER_S: f64 = 1_000.0;
/// Path of the endpoint that sends calls to the backend.
pub(super) const PATH: &str = "/load";

/// Answers of Tidegate per CPU-second and per second, in parts of nginx's.
pub(super) fn throughput(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut per_cpu = Finding::new(
        "proxy",
        "Proxied GET, answers of 200 bytes, 50 keep-alive connections, one shard: requests per CPU-second, of nginx with one \
         worker before the same backend",
        Bound::AtLeast(0.6),
        Unit::Ratio,
    );
    let mut per_second = Finding::new(
        "proxy-rate",
        "The same: requests per second, of nginx; load generator and backend share the other core",
        Bound::AtLeast(0.6),
        Unit::Ratio,
    );
    let backend = context.backend(ANSWER_BYTES)?;
    let load = CallLoad { concurrency: CONNECTIONS, duration_s: context.pick(9.0, 3.0), ..CallLoad::default() };
    for _ in 0..context.pick(5, 1) {
        let theirs = {
            let nginx = Nginx::start(backend.authority())?;
            get(context, nginx.server(), nginx.server().url(), &load)?
        };
        let ours = {
            let gateway = gateway(context, &backend)?;
            get(context, &gateway, gateway.url(), &load)?
        };
        let (our_rate, their_rate) = (per_cpu_s(&ours)?, per_cpu_s(&theirs)?);
        per_cpu.values.push(our_rate / their_rate);
        per_cpu.details.push(format!("{:.1} thousand per CPU-second; nginx {:.1}", our_rate / 1e3, their_rate / 1e3));
        per_second.values.push(ours.calls_per_s / theirs.calls_per_s.max(1e-9));
        per_second.details.push(format!(
            "{:.1} thousand per second with {:.0} % of the core; nginx {:.1} with {:.0} %",
            ours.calls_per_s / 1e3,
            cpu_percent(&ours),
            theirs.calls_per_s / 1e3,
            cpu_percent(&theirs),
        ));
        per_cpu.problems.extend(call_faults("tidegate", &ours));
        per_cpu.problems.extend(call_faults("nginx", &theirs));
    }
    per_second.problems.clone_from(&per_cpu.problems);
    Ok(vec![per_cpu, per_second])
}

/// What the way through the proxy adds to a call's latency.
pub(super) fn added_latency(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let row = |name: &str, which: &str, below_us: f64| {
        let what = format!(
            "Added latency of a proxied GET at 1,000 a second over 50 connections: {which} of the proxied calls minus that of \
             direct ones to the same backend"
        );
        Finding::new(name, &what, Bound::Below(below_us), Unit::Microseconds)
    };
    let mut median = row("added-p50", "median", 100.0);
    let mut tail = row("added-p99", "99th percentile", 1_000.0);
    let backend = context.backend(ANSWER_BYTES)?;
    let gateway = gateway(context, &backend)?;
    let nginx = Nginx::start(backend.authority())?;
    let load = CallLoad {
        concurrency: CONNECTIONS,
        rate_per_s: Some(RATE_PER_S),
        duration_s: context.pick(11.0, 3.0),
        ..CallLoad::default()
    };
    for _ in 0..context.pick(5, 1) {
        let direct = get(context, &backend, backend.url(), &load)?;
        let proxied = get(context, &gateway, gateway.url(), &load)?;
        let rival = get(context, nginx.server(), nginx.server().url(), &load)?;
        let (near, far, theirs) = (latency(&direct)?, latency(&proxied)?, latency(&rival)?);
        let added = |pick: fn(&LatencySummary) -> u64| pick(far) as f64 - pick(near) as f64;
        median.values.push(added(|latency| latency.p50_us));
        tail.values.push(added(|latency| latency.p99_us));
        median.details.push(format!("{} µs; direct {}; nginx {}", far.p50_us, near.p50_us, theirs.p50_us));
        tail.details.push(format!("{} µs; direct {}; nginx {}", far.p99_us, near.p99_us, theirs.p99_us));
        median.problems.extend(call_faults("tidegate", &proxied));
        median.problems.extend(call_faults("directly", &direct));
        median.problems.extend(call_faults("nginx", &rival));
    }
    tail.problems.clone_from(&median.problems);
    Ok(vec![median, tail])
}

fn get(context: &Context, server: &Server, url: &str, load: &CallLoad) -> Result<CallReport, FigureError> {
    let calls = HttpCalls::get(&format!("{url}{PATH}"));
    context.calls(CallScenario::new(CallPath::Http(calls), load.clone()), server)
}

/// A gateway with one endpoint, before this backend.
fn gateway(context: &Context, backend: &Server) -> Result<Server, FigureError> {
    context.tidegate(&[("PROXY_CONFIG_FILE", definition(backend))])
}

/// The endpoint that sends calls of [`PATH`] to this backend.
pub(super) fn definition(backend: &Server) -> String {
    let authority = backend.authority();
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let definition = serde_json::json!([{
        "id": "figures", "name": "figures", "auth_type": "none",
        "version_data": {"default": {"endpoints": [
            {"id": "load", "method": "GET", "path_regex": PATH, "target": "http"},
        ]}},
        "proxy": {"use_env": false, "target_url": format!("http://{host}"), "port": port.parse::<u16>().unwrap_or(80)},
    }]);
    definition.to_string()
}

fn per_cpu_s(report: &CallReport) -> Result<f64, FigureError> {
    report.per_server_cpu_s().ok_or_else(|| FigureError::Invalid("no CPU time was seen".to_owned()))
}

fn cpu_percent(report: &CallReport) -> f64 {
    report.server.as_ref().map_or(0.0, tidegate_load::ServerUsage::cpu_percent)
}

fn latency(report: &CallReport) -> Result<&LatencySummary, FigureError> {
    report.latency.as_ref().ok_or_else(|| FigureError::Invalid("no call was answered after the warm-up".to_owned()))
}
