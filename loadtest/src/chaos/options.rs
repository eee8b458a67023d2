//! What a chaos run is told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::Fault;
use crate::error::LoadError;

/// Descriptors of one client: its own socket and the two of the link.
const FILES_PER_CLIENT: u64 = 3;

/// A chaos run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ChaosOptions {
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Bootstrap servers of the Kafka that all nodes share.
    pub brokers: String,
    /// Program and arguments, with blanks between, that run this Kafka's broker in the foreground, and again with the same
    /// data after a SIGKILL; `None`: it runs already and has no faults.
    pub broker_command: Option<String>,
    /// What the plan of faults comes from.
    pub seed: u64,
    /// How long there are faults, in minutes.
    pub minutes: f64,
    /// Gateways.
    pub nodes: usize,
    /// Audited clients; a third each over SSE, WebSocket and long polling.
    pub clients: u32,
    /// Connections of one flood of slow clients.
    pub flood: u32,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Streams per partition; each client wants one of each partition.
    pub groups: u32,
    /// Events a second, of all streams together.
    pub rate_per_s: f64,
    /// Size of an event's JSON text, in bytes.
    pub event_bytes: usize,
    /// Kinds of faults.
    pub faults: Vec<Fault>,
    /// Resident memory that no node may exceed, in bytes.
    pub max_rss_bytes: u64,
    /// How long a node may take to drain, in seconds; it is told the same.
    pub drain_s: u64,
    /// Longest wait for all clients to have everything once there are no more faults, in seconds.
    pub catch_up_s: f64,
    /// Further settings of every node.
    pub settings: Vec<(String, String)>,
}

impl ChaosOptions {
    /// A minute of every fault on three nodes.
    #[must_use]
    pub fn new(gateway: PathBuf, brokers: String) -> Self {
        Self {
            gateway,
            brokers,
            broker_command: None,
            seed: 1,
            minutes: 1.0,
            nodes: 3,
            clients: 2_000,
            flood: 200,
            partitions: 6,
            groups: 20,
            rate_per_s: 200.0,
            event_bytes: 400,
            faults: Fault::ALL.to_vec(),
            max_rss_bytes: 512 << 20,
            drain_s: 3,
            catch_up_s: 90.0,
            settings: Vec::new(),
        }
    }

    /// The kinds of faults that can be had: none of a broker that nobody can start.
    #[must_use]
    pub fn possible_faults(&self) -> Vec<Fault> {
        let has_broker = self.broker_command.is_some();
        let possible = |fault: &&Fault| has_broker || !matches!(fault, Fault::KillBroker | Fault::FreezeBroker);
        self.faults.iter().filter(possible).copied().collect()
    }

    /// Length of the part with faults, in milliseconds.
    pub(super) fn span_ms(&self) -> u64 {
        (self.minutes * 60_000.0) as u64
    }

    pub(super) fn check(&self, open_files: u64) -> Result<(), LoadError> {
        let refused = |reason: &str| Err(LoadError::Scenario(reason.to_owned()));
        if self.nodes == 0 || self.clients == 0 || self.partitions == 0 || self.groups == 0 {
            return refused("there must be at least one node, client, partition and group");
        }
        if !(self.minutes > 0.0 && self.rate_per_s > 0.0) {
            return refused("minutes and rate must be positive");
        }
        let needed = u64::from(self.clients) * FILES_PER_CLIENT + u64::from(self.flood) + 200;
        if needed > open_files {
            return Err(LoadError::OpenFiles { wanted: self.clients.into(), needed, limit: open_files });
        }
        Ok(())
    }
}
