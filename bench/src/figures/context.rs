//! What all figures share: how long they may take, the programs, and one Kafka.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_load::{
    CallReport, CallScenario, Report, Scenario, call_progress_line, progress_line, run_calls, run_with_progress,
};
use xtask::kafka::{Kafka, Options};

use super::cpu;
use super::error::FigureError;
use super::process::Server;
use crate::floor::pace::Pace;
use crate::floor::server::Delivery;

/// Partitions of every topic.
const PARTITIONS: u32 = 4;
const KAFKA_HEAP_MIB: u32 = 1_024;

/// The surroundings of one report.
pub(super) struct Context {
    quick: bool,
    tidegate: PathBuf,
    kafka: OnceCell<Kafka>,
    topics: AtomicU32,
}

impl Context {
    pub(super) fn new(quick: bool, tidegate: PathBuf) -> Self {
        Self { quick, tidegate, kafka: OnceCell::new(), topics: AtomicU32::new(0) }
    }

    /// The first value for a report that counts, the second for a quick look.
    pub(super) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Says what is going on.
    pub(super) fn say(&self, text: &str) {
        eprintln!("    {text}");
    }

    /// A Tidegate with one shard on [`cpu::SERVER`] and these settings.
    pub(super) fn tidegate(&self, settings: &[(&'static str, String)]) -> Result<Server, FigureError> {
        Server::start(&self.tidegate, &[], &Self::environment(settings))
    }

    /// As [`Self::tidegate`], known by what `ready` finds in a line that it prints.
    pub(super) fn tidegate_saying(
        &self,
        settings: &[(&'static str, String)],
        stdin: Stdio,
        ready: fn(&str) -> Option<String>,
    ) -> Result<Server, FigureError> {
        Server::start_saying(cpu::SERVER, &self.tidegate, &[], &Self::environment(settings), stdin, ready)
    }

    fn environment(settings: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("INBOUND_HOST", "127.0.0.1".to_owned()),
            ("INBOUND_PORT", "0".to_owned()),
            ("API_HTTP_PORT", "0".to_owned()),
            ("SHARDS", "1".to_owned()),
            ("CPUS", cpu::SERVER.to_string()),
            ("MAX_CONNECTIONS_PER_MINUTE", u32::MAX.to_string()),
        ];
        environment.extend_from_slice(settings);
        environment
    }

    /// A floor server.
    pub(super) fn floor(&self, delivery: Delivery, pace: Option<Pace>) -> Result<Server, FigureError> {
        let this = std::env::current_exe().map_err(FigureError::system("finding this program"))?;
        let mut arguments = vec!["floor".to_owned()];
        if delivery == Delivery::Coalesced {
            arguments.push("--coalesced".to_owned());
        }
        if let Some(pace) = pace {
            arguments.push(format!("--rate-per-s={}", pace.rate_per_s));
            arguments.push(format!("--event-bytes={}", pace.event_bytes));
            arguments.push(format!("--connections={}", pace.connections));
        }
        Server::start(&this, &arguments, &[])
    }

    /// The load generator's backend on [`cpu::LOAD`]; its answers have bodies of this size.
    pub(super) fn backend(&self, answer_bytes: usize) -> Result<Server, FigureError> {
        let this = std::env::current_exe().map_err(FigureError::system("finding this program"))?;
        Server::start_on(cpu::LOAD, &this, &["backend".to_owned(), format!("--answer-bytes={answer_bytes}")], &[])
    }

    /// The Kafka of all figures; started when first asked for.
    pub(super) fn kafka(&self) -> Result<&Kafka, FigureError> {
        if let Some(kafka) = self.kafka.get() {
            return Ok(kafka);
        }
        self.say("starting Kafka");
        let options = Options { partitions: PARTITIONS, heap_mib: KAFKA_HEAP_MIB, ..Options::default() };
        let kafka = Kafka::start(options)?;
        Ok(self.kafka.get_or_init(|| kafka))
    }

    /// Name of a topic that nobody has used, also on a Kafka that outlives this report.
    pub(super) fn new_topic(&self, figure: &str) -> String {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        format!("figures-{figure}-{}-{number}", std::process::id())
    }

    /// Carries out a load against `server` from [`cpu::LOAD`].
    pub(super) fn load(&self, mut scenario: Scenario, server: &Server) -> Result<Report, FigureError> {
        scenario.observe.server_pid = Some(server.pid());
        scenario.observe.pin_cpu = Some(cpu::LOAD);
        let report = run_with_progress(&scenario, |second| {
            if (second.at_s as u64).is_multiple_of(5) {
                self.say(&progress_line(second));
            }
        })?;
        Ok(report)
    }
}

impl Context {
    /// Carries out calls from [`cpu::LOAD`]; `server` is whose CPU time and memory are looked at.
    pub(super) fn calls(&self, mut scenario: CallScenario, server: &Server) -> Result<CallReport, FigureError> {
        scenario.observe.server_pid = Some(server.pid());
        scenario.observe.pin_cpu = Some(cpu::LOAD);
        let report = run_calls(&scenario, |second| {
            if (second.at_s as u64).is_multiple_of(5) {
                self.say(&call_progress_line(second));
            }
        })?;
        Ok(report)
    }
}

/// What is wrong with a run of calls, if anything.
pub(super) fn call_faults(whose: &str, report: &CallReport) -> Vec<String> {
    if report.passed() {
        return Vec::new();
    }
    let counts = &report.counts;
    let first = report.first_failure.as_deref().unwrap_or("no call was made");
    vec![format!(
        "{whose}: {} of {} calls answered; {} refused, {} wrong, {} missing, {} twice, {} never sent; first: {first}",
        counts.answered, counts.issued, counts.refused, counts.wrong, counts.missing, counts.duplicates, counts.unsent,
    )]
}

/// CPU seconds of the server in the measured part.
pub(super) fn server_cpu_s(report: &Report) -> Result<f64, FigureError> {
    let usage = report.server.as_ref().filter(|usage| usage.cpu_s() > 0.0);
    usage.map(tidegate_load::ServerUsage::cpu_s).ok_or_else(|| FigureError::Invalid("no CPU time was seen".to_owned()))
}

/// What is wrong with a run, if anything: connections lost, events refused, missing, doubled.
pub(super) fn faults(whose: &str, report: &Report) -> Vec<String> {
    if report.passed() {
        return Vec::new();
    }
    let (audit, connections) = (&report.audit, &report.connections);
    let mut text = format!(
        "{whose}: {} missing, {} twice, {} out of order, {} misdelivered; {} of {} connections ready, {} ended early",
        audit.missing,
        audit.duplicates,
        audit.out_of_order,
        audit.misdelivered,
        connections.ready,
        connections.wanted,
        connections.failed + connections.closed_by_server,
    );
    if let Some(publish) = &report.publish {
        text.push_str(&format!("; {} events refused, {} never sent", publish.failed, publish.unsent));
    }
    vec![text]
}
