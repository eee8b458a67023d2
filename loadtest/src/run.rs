//! Carries out a scenario: starts the receiving and the publishing thread, leads them through the phases, and puts
//! together what they found.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::audit::AuditReport;
use crate::clock::Clock;
use crate::endpoint::{Opening, key};
use crate::error::LoadError;
use crate::latency::LatencySummary;
use crate::marker::EventTemplate;
use crate::process::{ProcessSample, ServerUsage};
use crate::publish::{self, PublishPlan, Published, Publisher};
use crate::receiver::{Received, Receiver, ReceiverPlan, Shared};
use crate::report::{ConnectionCounts, DropFigures, Report, Second, SlowClientFigures};
use crate::scenario::{KeyOrder, Load, Scenario, Workload};
use crate::schedule::{Addressing, Schedule};
use crate::sys::{self, PinnedToCpu};

/// Connections from one source address, well below the 28,232 ports of Linux's default range.
const CONNECTIONS_PER_SOURCE: u32 = 20_000;
/// Source addresses for workloads that use up ports quickly.
const CHURN_SOURCES: u8 = 8;
/// Open files besides the clients' sockets.
const OTHER_FILES: u64 = 64;
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
const SECOND_NS: f64 = 1e9;

/// Runs `scenario` to its end.
///
/// # Errors
/// [`LoadError`] when it could not be carried out. A failed audit is not an error: see [`Report::passed`].
pub fn run(scenario: &Scenario) -> Result<Report, LoadError> {
    run_with_progress(scenario, |_| {})
}

/// As [`run`], and calls `progress` about once a second.
///
/// # Errors
/// As [`run`].
pub fn run_with_progress(scenario: &Scenario, mut progress: impl FnMut(&Second)) -> Result<Report, LoadError> {
    scenario.validate()?;
    let pin = |cpu| PinnedToCpu::pin(cpu).map_err(LoadError::system(format!("binding to CPU {cpu}")));
    let _pinned = scenario.observe.pin_cpu.map(pin).transpose()?;
    let wanted = u64::from(scenario.workload.connections());
    let limit = sys::raise_open_files().map_err(LoadError::system("raising the limit of open files"))?;
    if wanted + OTHER_FILES > limit {
        return Err(LoadError::OpenFiles { wanted, needed: wanted + OTHER_FILES, limit });
    }
    let opening =
        Opening::new(&scenario.target, &scenario.event_type(), matches!(scenario.workload, Workload::Unicast { .. }))?;
    let (shared, clock) = (Shared::default(), Clock::start());
    let run = run_id();
    let plan = receiver_plan(scenario, opening, run);
    let total = plan.total;
    let before = scenario.observe.server_pid.map(ProcessSample::read).transpose()?;
    let (sender, seconds) = mpsc::channel();
    let (found, received) = thread::scope(|scope| {
        let receiver = Receiver::new(plan, &shared, clock, sender)?;
        let receiver = scope.spawn(move || receiver.run());
        let stop = StopOnDrop(&shared);
        let mut lead = Lead { scenario, shared: &shared, clock, run, total, seconds, progress: &mut progress };
        let found = lead.phases(scope);
        drop(stop);
        let received = receiver.join().map_err(|_| LoadError::Thread("receiving"))??;
        Ok::<_, LoadError>((found?, received))
    })?;
    conclude(scenario, &shared, clock, total, before, found, received)
}

struct StopOnDrop<'a>(&'a Shared);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

/// What the phases of a run bring to light.
#[derive(Default)]
struct Found {
    opening_s: f64,
    ready: Option<ProcessSample>,
    after: Option<ProcessSample>,
    began_ns: u64,
    ended_ns: u64,
    published: Option<Published>,
}

/// Leads the threads through the phases.
struct Lead<'a> {
    scenario: &'a Scenario,
    shared: &'a Shared,
    clock: Clock,
    run: u32,
    total: u64,
    seconds: mpsc::Receiver<Second>,
    progress: &'a mut dyn FnMut(&Second),
}

impl<'a> Lead<'a> {
    fn phases<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Result<Found, LoadError>
    where
        'a: 'scope,
    {
        match &self.scenario.workload {
            Workload::Churn { .. } => self.churn(),
            Workload::Idle { duration_s, .. } => self.idle(*duration_s),
            Workload::Drop { messages, event_bytes } => self.drop_messages(scope, *messages, *event_bytes),
            Workload::Broadcast { load, .. } => self.flow(scope, load, Addressing::Everyone),
            Workload::SlowClients { load, .. } => self.flow(scope, load, Addressing::Everyone),
            Workload::Unicast { connections, load, keys } => {
                let addressing = match keys {
                    KeyOrder::RoundRobin => Addressing::RoundRobin { streams: *connections },
                    KeyOrder::Random { seed } => Addressing::random(*connections, *seed),
                };
                self.flow(scope, load, addressing)
            }
        }
    }

    fn churn(&mut self) -> Result<Found, LoadError> {
        let (began_ns, ready) = (self.clock.now_ns(), self.sample()?);
        let (shared, total) = (self.shared, self.total);
        let timeout = Duration::from_secs_f64(self.scenario.limits.run_timeout_s);
        self.wait_until(timeout, || shared.ready.load(Relaxed) + shared.failed.load(Relaxed) >= total);
        let ended_ns = self.clock.now_ns();
        let opening_s = (ended_ns - began_ns) as f64 / SECOND_NS;
        Ok(Found { opening_s, ready, after: self.sample()?, began_ns, ended_ns, published: None })
    }

    fn idle(&mut self, duration_s: f64) -> Result<Found, LoadError> {
        let opening_s = self.wait_ready()?;
        let (began_ns, ready) = (self.clock.now_ns(), self.sample()?);
        self.wait_until(Duration::from_secs_f64(duration_s), || false);
        let ended_ns = self.clock.now_ns();
        Ok(Found { opening_s, ready, after: self.sample()?, began_ns, ended_ns, published: None })
    }

    fn flow<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        load: &Load,
        addressing: Addressing,
    ) -> Result<Found, LoadError>
    where
        'a: 'scope,
    {
        let everyone = matches!(addressing, Addressing::Everyone);
        let template = self.template(&self.scenario.event_type(), load.event_bytes);
        let (opening_s, mut publisher) = self.open_path(&template, if everyone { "all".into() } else { key(0) })?;
        let streams = if everyone { 1 } else { self.scenario.workload.connections() };
        let began_ns = self.clock.now_ns() + 50_000_000;
        self.shared.measured_from_ns.store(began_ns + (load.warmup_s * SECOND_NS) as u64, Relaxed);
        let ready = self.sample()?;
        let limits = &self.scenario.limits;
        let overtime_s = if load.max_outstanding.is_some() { 0.0 } else { limits.drain_timeout_s };
        let audited = self.audited_clients();
        let plan = PublishPlan {
            template,
            schedule: Schedule::new(began_ns, load.rate_per_s, load.duration_s),
            addressing,
            streams,
            deliveries_per_event: if everyone { audited } else { 1 },
            max_outstanding: load.max_outstanding,
            deadline_ns: began_ns + ((load.duration_s + overtime_s) * SECOND_NS) as u64,
            tick: Duration::from_micros(limits.tick_us.max(1)),
            finish_timeout: Duration::from_secs_f64(limits.drain_timeout_s),
        };
        let (shared, clock) = (self.shared, self.clock);
        let half_ns = began_ns + (load.duration_s / 2.0 * SECOND_NS) as u64;
        let slow_clients = matches!(self.scenario.workload, Workload::SlowClients { .. });
        let thread = scope.spawn(move || publish::run(plan, &mut publisher, shared, clock));
        let published = self.join_publisher(thread, |now_ns| {
            if slow_clients && now_ns >= half_ns {
                shared.slow_clients_stop.store(true, Relaxed);
            }
        })?;
        let expected = if everyone { published.per_stream[0] * audited } else { published.per_stream.iter().sum() };
        self.drain(expected, &published);
        let ended_ns = self.shared.last_delivery_ns.load(Relaxed).max(began_ns);
        let after = self.sample()?;
        Ok(Found { opening_s, ready, after, began_ns, ended_ns, published: Some(published) })
    }

    fn drop_messages<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        messages: u64,
        event_bytes: usize,
    ) -> Result<Found, LoadError>
    where
        'a: 'scope,
    {
        let event_type = self.scenario.event_type();
        let wanted = self.template(&event_type, event_bytes);
        let unwanted = self.template(&format!("{event_type}.unwanted"), event_bytes);
        let (opening_s, mut publisher) = self.open_path(&wanted, "all".to_owned())?;
        let (began_ns, ready) = (self.clock.now_ns(), self.sample()?);
        let limits = &self.scenario.limits;
        let deadline_ns = began_ns + (limits.run_timeout_s * SECOND_NS) as u64;
        let finish = Duration::from_secs_f64(limits.drain_timeout_s.max(30.0));
        let clock = self.clock;
        let thread = scope
            .spawn(move || publish::run_drop(&wanted, &unwanted, messages, &mut publisher, clock, deadline_ns, finish));
        let published = self.join_publisher(thread, |_| {})?;
        self.drain(2, &published);
        let ended_ns = self.shared.last_delivery_ns.load(Relaxed).max(began_ns);
        let after = self.sample()?;
        Ok(Found { opening_s, ready, after, began_ns, ended_ns, published: Some(published) })
    }

    fn template(&self, event_type: &str, event_bytes: usize) -> EventTemplate {
        EventTemplate::new(self.run, event_type, event_bytes).in_envelope(self.scenario.envelope.as_deref())
    }

    fn audited_clients(&self) -> u64 {
        match self.scenario.workload {
            Workload::SlowClients { connections, slow, .. } => u64::from(connections - slow),
            _ => self.total,
        }
    }

    /// Waits for all clients and proves the way from the source to one of them.
    fn open_path(&mut self, template: &EventTemplate, key: String) -> Result<(f64, Publisher), LoadError> {
        let opening_s = self.wait_ready()?;
        let mut publisher = Publisher::open(&self.scenario.source)?;
        publish::probe(template, &key, &mut publisher, self.shared, PROBE_TIMEOUT)?;
        Ok((opening_s, publisher))
    }

    fn wait_ready(&mut self) -> Result<f64, LoadError> {
        let (began, shared, total) = (Instant::now(), self.shared, self.total);
        let timeout_s = self.scenario.limits.ready_timeout_s;
        let counts = || (shared.ready.load(Relaxed), shared.failed.load(Relaxed));
        self.wait_until(Duration::from_secs_f64(timeout_s), || {
            let (ready, failed) = counts();
            failed > 0 || ready >= total
        });
        let (ready, failed) = counts();
        if ready >= total && failed == 0 {
            return Ok(began.elapsed().as_secs_f64());
        }
        let marker = &self.scenario.target.ready_marker;
        let reason = shared.failure().unwrap_or_else(|| format!("no message with {marker:?} came"));
        Err(LoadError::NotReady { ready, wanted: total, failed, waited_s: began.elapsed().as_secs_f64(), reason })
    }

    fn join_publisher(
        &mut self,
        thread: ScopedJoinHandle<'_, Result<Published, LoadError>>,
        mut meanwhile: impl FnMut(u64),
    ) -> Result<Published, LoadError> {
        let clock = self.clock;
        self.wait_until(Duration::MAX, || {
            meanwhile(clock.now_ns());
            thread.is_finished()
        });
        thread.join().map_err(|_| LoadError::Thread("publishing"))?
    }

    /// Waits for what is still under way; what the source refused can't come.
    fn drain(&mut self, expected: u64, published: &Published) {
        let shared = self.shared;
        let expected = if published.counts.failed > 0 { u64::MAX } else { expected };
        let timeout = Duration::from_secs_f64(self.scenario.limits.drain_timeout_s);
        self.wait_until(timeout, || shared.accepted.load(Relaxed) >= expected);
    }

    /// Passes progress on until `done` or the time is over.
    fn wait_until(&mut self, timeout: Duration, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() && began.elapsed() < timeout {
            match self.seconds.recv_timeout(Duration::from_millis(5)) {
                Ok(second) => (self.progress)(&second),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn sample(&self) -> Result<Option<ProcessSample>, LoadError> {
        self.scenario.observe.server_pid.map(ProcessSample::read).transpose()
    }
}

fn receiver_plan(scenario: &Scenario, opening: Opening, run: u32) -> ReceiverPlan {
    let connections = scenario.workload.connections();
    let (total, leave_when_ready, reset) = match scenario.workload {
        Workload::Churn { total, reset, .. } => (total, true, reset),
        _ => (u64::from(connections), false, false),
    };
    let loopback = matches!(opening.address().ip(), IpAddr::V4(address) if address.is_loopback());
    let needed = connections.div_ceil(CONNECTIONS_PER_SOURCE).clamp(1, 250) as u8;
    let needed = if leave_when_ready { needed.max(CHURN_SOURCES) } else { needed };
    let count = scenario.limits.source_addresses.unwrap_or(needed);
    let sources = if loopback && count > 1 {
        (1..=count).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
    } else {
        Vec::new()
    };
    ReceiverPlan {
        opening,
        ready_marker: scenario.target.ready_marker.clone(),
        run,
        keyed: matches!(scenario.workload, Workload::Unicast { .. }),
        total,
        concurrency: connections,
        opening_limit: if leave_when_ready { connections } else { scenario.limits.opening.max(1) },
        leave_when_ready,
        reset,
        slow: if let Workload::SlowClients { slow, .. } = scenario.workload { slow } else { 0 },
        sources,
    }
}

fn conclude(
    scenario: &Scenario,
    shared: &Shared,
    clock: Clock,
    total: u64,
    before: Option<ProcessSample>,
    found: Found,
    received: Received,
) -> Result<Report, LoadError> {
    let measured_s = (found.ended_ns - found.began_ns) as f64 / SECOND_NS;
    let server = match (before, found.ready, found.after, scenario.observe.server_pid) {
        (Some(before), Some(ready), Some(after), Some(pid)) => {
            Some(ServerUsage { before, ready, after, closed: settled(pid)?, measured_s })
        }
        _ => None,
    };
    let mut audit = AuditReport::default();
    if let Some(published) = &found.published {
        for (stream, client) in &received.audits {
            client.conclude(published.per_stream.get(*stream as usize).copied().unwrap_or(0), &mut audit);
        }
    }
    let slow_clients = match scenario.workload {
        Workload::SlowClients { slow, .. } => Some(SlowClientFigures {
            slow: u64::from(slow),
            disconnected: received.slow_disconnected,
            before: LatencySummary::of(&received.latency[0]),
            during: LatencySummary::of(&received.latency[1]),
        }),
        _ => None,
    };
    let drop = match (&scenario.workload, &found.published) {
        (Workload::Drop { .. }, Some(published)) => {
            let messages = published.counts.attempted.saturating_sub(2);
            Some(DropFigures {
                messages,
                produce_s: (published.ended_ns - found.began_ns) as f64 / SECOND_NS,
                last_arrival_s: found.ended_ns.saturating_sub(published.ended_ns) as f64 / SECOND_NS,
                messages_per_s: messages as f64 / measured_s.max(1e-9),
                server_cpu_us_per_message: server.as_ref().map(|usage| usage.cpu_s() * 1e6 / messages.max(1) as f64),
            })
        }
        _ => None,
    };
    let [mut latency, during] = received.latency;
    latency.add(&during).expect("invariant: both histograms have the same bounds");
    let counts = received.counts;
    Ok(Report {
        scenario: scenario.clone(),
        elapsed_s: clock.now_ns() as f64 / SECOND_NS,
        measured_s,
        connections: ConnectionCounts {
            wanted: total,
            ready: shared.ready.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            closed_by_server: shared.closed_by_server.load(Relaxed),
            opening_s: found.opening_s,
            first_failure: shared.failure(),
        },
        publish: found.published.map(|published| published.counts),
        deliveries: counts.deliveries,
        deliveries_per_s: counts.deliveries as f64 / measured_s.max(1e-9),
        messages: counts.messages,
        payload_bytes: counts.payload_bytes,
        latency: LatencySummary::of(&latency),
        audit,
        server,
        generator: ProcessSample::read(std::process::id())?,
        drop,
        slow_clients,
        series: received.series,
    })
}

/// The server's process once its memory has stopped changing, or after three seconds.
fn settled(pid: u32) -> Result<ProcessSample, LoadError> {
    let mut last = ProcessSample::read(pid)?;
    let mut unchanged = 0;
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(100));
        let next = ProcessSample::read(pid)?;
        unchanged = if next.rss_bytes == last.rss_bytes { unchanged + 1 } else { 0 };
        last = next;
        if unchanged == 5 {
            break;
        }
    }
    Ok(last)
}

/// Tells the events of this run from those of others.
pub(crate) fn run_id() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() as u32) ^ std::process::id().rotate_left(16)
}
