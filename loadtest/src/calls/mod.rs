//! Calls, each with one answer, and an audit of whose answer it was.
//!
//! A [`CallScenario`] says what to call; [`run_calls`] does it on one thread and returns a [`CallReport`]. Each call
//! carries a `number` that its answer must repeat, also in every byte of the body; `template` makes the requests, `caller`
//! sends them and reads the answers, and `ledger` keeps what became of each.

mod caller;
mod ledger;
pub(crate) mod number;
mod report;
mod scenario;
mod template;

use std::net::TcpStream;
use std::time::Duration;

pub use self::report::{CallCounts, CallReport, CallSecond, call_progress_line};
pub use self::scenario::{CallLoad, CallPath, CallScenario, HttpCalls, RequestBody};

use self::caller::HttpCaller;
use self::ledger::Ledger;
use self::template::CallTemplate;
use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::latency::LatencySummary;
use crate::process::{ProcessSample, ServerUsage};
use crate::run::run_id;
use crate::schedule::Schedule;
use crate::sys::{self, PinnedToCpu};

/// Open files besides the connections.
const OTHER_FILES: u64 = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SECOND_NS: f64 = 1e9;

/// Times of a run, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug)]
struct Phases {
    /// First call.
    began_ns: u64,
    /// End of the warm-up.
    measured_from_ns: u64,
    /// End of the measured part; no call of a closed loop leaves later.
    measured_until_ns: u64,
    /// A call without answer is given up after so long.
    answer_timeout_ns: u64,
}

/// What is read from the server's process while the calls are under way.
#[derive(Clone, Copy, Debug, Default)]
struct Samples {
    from: Option<ProcessSample>,
    until: Option<ProcessSample>,
}

/// Runs `scenario` to its end, and calls `progress` about once a second.
///
/// # Errors
/// [`LoadError`] when it could not be carried out. Wrong or missing answers are no error: see [`CallReport::passed`].
pub fn run_calls(scenario: &CallScenario, mut progress: impl FnMut(&CallSecond)) -> Result<CallReport, LoadError> {
    scenario.validate()?;
    let pin = |cpu| PinnedToCpu::pin(cpu).map_err(LoadError::system(format!("binding to CPU {cpu}")));
    let _pinned = scenario.observe.pin_cpu.map(pin).transpose()?;
    let sample = || scenario.observe.server_pid.map(ProcessSample::read).transpose();
    let before = sample()?;
    let CallPath::Http(calls) = &scenario.path;
    let endpoint = open_path(calls, scenario.load.concurrency)?;
    let clock = Clock::start();
    let phases = phases(scenario, clock.now_ns());
    let ledger = Ledger::new(run_id(), phases.measured_from_ns, phases.measured_until_ns, phases.began_ns);
    let load = &scenario.load;
    let schedule = load.rate_per_s.map(|rate| Schedule::new(phases.began_ns, rate, load.duration_s));
    let template = CallTemplate::http(calls, &endpoint);
    let caller = HttpCaller::new(template, &endpoint, calls, load, schedule, phases, ledger, clock)?;
    let (ledger, samples) = caller.run(&sample, &mut progress)?;
    let closed = sample()?;
    let server = before.zip(samples.from).zip(samples.until).zip(closed);
    let measured_s = ledger.measured_s();
    let server =
        server.map(|(((before, ready), after), closed)| ServerUsage { before, ready, after, closed, measured_s });
    Ok(CallReport {
        scenario: scenario.clone(),
        elapsed_s: clock.now_ns() as f64 / SECOND_NS,
        measured_s,
        calls_per_s: ledger.counts.measured as f64 / measured_s.max(1e-9),
        statuses: ledger.statuses(),
        latency: LatencySummary::of(ledger.latency()),
        first_failure: ledger.first_failure,
        counts: ledger.counts,
        server,
        generator: ProcessSample::read(std::process::id())?,
        series: ledger.series,
    })
}

/// Checks that there are enough files for the connections, and somebody who takes them.
fn open_path(calls: &HttpCalls, concurrency: u32) -> Result<Endpoint, LoadError> {
    let endpoint = Endpoint::parse(&calls.url)?;
    let wanted = u64::from(concurrency);
    let limit = sys::raise_open_files().map_err(LoadError::system("raising the limit of open files"))?;
    if wanted + OTHER_FILES > limit {
        return Err(LoadError::OpenFiles { wanted, needed: wanted + OTHER_FILES, limit });
    }
    let address = endpoint.address;
    TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        .map_err(LoadError::system(format!("connecting to {address}")))?;
    Ok(endpoint)
}

fn phases(scenario: &CallScenario, now_ns: u64) -> Phases {
    let after = |began_ns: u64, seconds: f64| began_ns.saturating_add((seconds * SECOND_NS) as u64);
    let load = &scenario.load;
    Phases {
        began_ns: now_ns,
        measured_from_ns: after(now_ns, load.warmup_s),
        measured_until_ns: after(now_ns, load.duration_s),
        answer_timeout_ns: after(0, scenario.answer_timeout_s),
    }
}
