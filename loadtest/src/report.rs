//! What a run has found, for machines (serde) and, in [`crate::table`] and [`crate::html`], for people.

use serde::{Deserialize, Serialize};

use crate::audit::AuditReport;
use crate::latency::LatencySummary;
use crate::process::{ProcessSample, ServerUsage};
use crate::publish::PublishCounts;
use crate::scenario::{Scenario, Workload};

/// One second of a run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Second {
    /// Its end, in seconds since the start of the run.
    pub at_s: f64,
    /// Connections open or being opened.
    pub open: u64,
    /// Deliveries a second; for churn, connections a second.
    pub rate_per_s: f64,
    /// 99th percentile of the latency in this second, in microseconds; 0 without deliveries.
    pub p99_us: u64,
    /// Sequence numbers skipped and not yet come, over all clients.
    pub missing: u64,
    /// Events that came more than once, over all clients.
    pub duplicates: u64,
}

/// What became of the connections.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ConnectionCounts {
    /// Asked for.
    pub wanted: u64,
    /// Whose subscription came into force.
    pub ready: u64,
    /// That ended before that.
    pub failed: u64,
    /// That the server ended after that.
    pub closed_by_server: u64,
    /// Time until all were ready (for churn: until the last one had left), in seconds.
    pub opening_s: f64,
    /// Why the first of those that failed or were closed ended.
    pub first_failure: Option<String>,
}

/// Figures of the `drop` workload.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DropFigures {
    /// Unwanted messages that were produced.
    pub messages: u64,
    /// Time to hand them all to the producer, in seconds.
    pub produce_s: f64,
    /// From the hand-over of the last wanted message to its arrival at the client, in seconds.
    pub last_arrival_s: f64,
    /// Messages a second from the first hand-over to the last arrival.
    pub messages_per_s: f64,
    /// CPU of the server per message, in microseconds, where its process is known.
    pub server_cpu_us_per_message: Option<f64>,
}

/// Figures of the `slow-clients` workload.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SlowClientFigures {
    /// Clients that stopped reading half-way.
    pub slow: u64,
    /// Those among them that the server had disconnected at the end, as far as the kernel told.
    pub disconnected: u64,
    /// Latency of all while everybody was reading.
    pub before: Option<LatencySummary>,
    /// Latency of the others from then on.
    pub during: Option<LatencySummary>,
}

/// The outcome of a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// What was run.
    pub scenario: Scenario,
    /// Length of the whole run, in seconds.
    pub elapsed_s: f64,
    /// Length of the measured part, in seconds: from the first intended send time to the last delivery; for `idle` the
    /// time of waiting, for `churn` the time of all connections.
    pub measured_s: f64,
    /// The connections.
    pub connections: ConnectionCounts,
    /// The source's answers; `None` where nothing is published.
    pub publish: Option<PublishCounts>,
    /// Events that arrived at clients.
    pub deliveries: u64,
    /// Events a second over the measured part.
    pub deliveries_per_s: f64,
    /// Messages of any kind that arrived.
    pub messages: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Latency from the intended send time; for `churn`, from connecting to the confirmed subscription.
    pub latency: Option<LatencySummary>,
    /// Who got what; empty where nothing is published.
    pub audit: AuditReport,
    /// The server's process, if it is known.
    pub server: Option<ServerUsage>,
    /// CPU and memory of this process at the end.
    pub generator: ProcessSample,
    /// Figures of `drop`.
    pub drop: Option<DropFigures>,
    /// Figures of `slow-clients`.
    pub slow_clients: Option<SlowClientFigures>,
    /// Second by second.
    pub series: Vec<Second>,
}

impl Report {
    /// True when every connection became ready and stayed, every event was accepted, and the audit passed.
    pub fn passed(&self) -> bool {
        let published = self.publish.as_ref().is_none_or(|publish| publish.failed == 0 && publish.unsent == 0);
        self.audit.passed()
            && published
            && self.connections.ready == self.connections.wanted
            && self.connections.failed == 0
            && self.connections.closed_by_server == 0
    }

    /// Deliveries per CPU second of the server; for `churn` connections, for `drop` messages; for `idle` nothing.
    pub fn per_server_cpu_s(&self) -> Option<f64> {
        let cpu_s = self.server.as_ref()?.cpu_s();
        let count = match (&self.scenario.workload, &self.drop) {
            (Workload::Idle { .. }, _) => return None,
            (Workload::Churn { .. }, _) => self.connections.ready,
            (_, Some(figures)) => figures.messages,
            _ => self.deliveries,
        };
        (cpu_s > 0.0).then(|| count as f64 / cpu_s)
    }
}
