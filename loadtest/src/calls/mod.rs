//! Calls, each with one answer, and an audit of whose answer it was.
//!
//! A [`CallScenario`] says what to call; [`run_calls`] does it on one thread and returns a [`CallReport`]. Each call
//! carries a `number` that its answer must repeat, also in every byte of the body; `template` makes the requests, `caller`
//! sends them and reads the answers, `reactive` does both through the bare client over Kafka, and `ledger` keeps what became of each.

mod caller;
mod ledger;
pub(crate) mod number;
pub(crate) mod reactive;
mod report;
mod scenario;
mod template;

use std::net::TcpStream;
use std::time::Duration;

pub use self::report::{CallCounts, CallReport, CallSecond, ReplyBytes, call_progress_line};
pub use self::scenario::{CallLoad, CallPath, CallScenario, HttpCalls, ReactiveCalls, RequestBody};

use self::caller::HttpCaller;
use self::ledger::Ledger;
use self::reactive::ReactiveCaller;
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

/// What is read of the server's process and this one at both ends of the measured part.
struct Samples<'a> {
    read_server: &'a dyn Fn() -> Result<Option<ProcessSample>, LoadError>,
    from: Option<(Option<ProcessSample>, ProcessSample)>,
    until: Option<(Option<ProcessSample>, ProcessSample)>,
}

impl Samples<'_> {
    /// Reads what is due by now.
    fn take(&mut self, now_ns: u64, phases: Phases) -> Result<(), LoadError> {
        let read = || Ok::<_, LoadError>(((self.read_server)()?, ProcessSample::read(std::process::id())?));
        if self.from.is_none() && now_ns >= phases.measured_from_ns {
            self.from = Some(read()?);
        }
        if self.until.is_none() && now_ns >= phases.measured_until_ns {
            self.until = Some(read()?);
        }
        Ok(())
    }
}

/// Runs `scenario` to its end, and calls `progress` about once a second.
///
/// # Errors
/// [`LoadError`] when it could not be carried out. Wrong or missing answers are no error: see [`CallReport::passed`].
pub fn run_calls(scenario: &CallScenario, mut progress: impl FnMut(&CallSecond)) -> Result<CallReport, LoadError> {
    scenario.validate()?;
    let pin = |cpu| PinnedToCpu::pin(cpu).map_err(LoadError::system(format!("binding to CPU {cpu}")));
    let _pinned = scenario.observe.pin_cpu.map(pin).transpose()?;
    let read_server = || scenario.observe.server_pid.map(ProcessSample::read).transpose();
    let before = read_server()?;
    let mut samples = Samples { read_server: &read_server, from: None, until: None };
    let load = &scenario.load;
    let (ledger, clock, reply_bytes) = match &scenario.path {
        CallPath::Http(calls) => {
            let endpoint = open_path(calls, load.concurrency)?;
            let (clock, phases, ledger) = begin(scenario);
            let schedule = load.rate_per_s.map(|rate| Schedule::new(phases.began_ns, rate, load.duration_s));
            let template = CallTemplate::http(calls, &endpoint);
            let caller = HttpCaller::new(template, &endpoint, calls, load, schedule, phases, ledger, clock)?;
            (caller.run(&mut samples, &mut progress)?, clock, None)
        }
        CallPath::Reactive(calls) => {
            let caller = ReactiveCaller::connect(calls)?;
            let (clock, phases, ledger) = begin(scenario);
            let (ledger, bytes) = caller.run(load, phases, ledger, clock, &mut samples, &mut progress)?;
            (ledger, clock, Some(bytes))
        }
    };
    let measured_s = ledger.measured_s();
    let ((ready, own_from), (after, own_until)) = (samples.from.unwrap_or_default(), samples.until.unwrap_or_default());
    let server = before.zip(ready).zip(after).zip(read_server()?);
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
        generator_cpu_s: own_until.cpu_s() - own_from.cpu_s(),
        reply_bytes,
        series: ledger.series,
    })
}

/// Starts the run's clock.
fn begin(scenario: &CallScenario) -> (Clock, Phases, Ledger) {
    let clock = Clock::start();
    let phases = phases(scenario, clock.now_ns());
    (clock, phases, Ledger::new(run_id(), phases.measured_from_ns, phases.measured_until_ns, phases.began_ns))
}

/// Checks that there are enough files for the connections, and somebody who takes them.
fn open_path(calls: &HttpCalls, concurrency: u32) -> Result<Endpoint, LoadError> {
    let endpoint = Endpoint::parse_plain(&calls.url)?;
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
