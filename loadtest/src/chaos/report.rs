//! What came out of a chaos run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Fault;
use super::violation::Violation;
use crate::table::{lay_out, mebibytes, thousands};

/// Reasons of ends that the table shows; JSON has all.
const SHOWN_ENDS: usize = 12;

/// Where a run stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ChaosMoment {
    /// Seconds since the first event.
    pub at_s: f64,
    /// Events published.
    pub published: u64,
    /// Events that clients have got.
    pub deliveries: u64,
    /// Connections that have ended.
    pub connections: u64,
    /// Faults so far.
    pub faults: u64,
    /// Resident memory of the nodes that run, in bytes.
    pub rss_bytes: Vec<u64>,
    /// Violations so far.
    pub violations: u64,
    /// What began since the last moment.
    pub begun: Vec<String>,
}

impl ChaosMoment {
    /// One line of text.
    #[must_use]
    pub fn line(&self) -> String {
        let rss: Vec<String> = self.rss_bytes.iter().map(|bytes| mebibytes(*bytes)).collect();
        let mut line = format!(
            "{:>6.1} s  {} events, {} deliveries, {} connections ended, {} faults, memory {}, {} violations",
            self.at_s,
            thousands(self.published as f64),
            thousands(self.deliveries as f64),
            thousands(self.connections as f64),
            self.faults,
            rss.join(" / "),
            self.violations
        );
        for begun in &self.begun {
            line.push_str("\n          ");
            line.push_str(begun);
        }
        line
    }
}

/// The outcome of a chaos run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ChaosReport {
    /// What the plan came from.
    pub seed: u64,
    /// Length of the part with faults, in seconds.
    pub lasted_s: f64,
    /// Gateways.
    pub nodes: usize,
    /// Audited clients.
    pub clients: u32,
    /// Events that Kafka has acknowledged, and that its log was found to hold.
    pub published: u64,
    /// Events that clients have got.
    pub deliveries: u64,
    /// Connections that ended before the run did.
    pub connections: u64,
    /// Why, and how many each.
    pub ends: BTreeMap<String, u64>,
    /// How often each fault came.
    pub faults: BTreeMap<Fault, u64>,
    /// Notices of lost history that clients have got.
    pub history_lost: u64,
    /// Events that were skipped after such notices.
    pub skipped: u64,
    /// Clients that had everything in the end.
    pub complete: u64,
    /// From the last event to the moment when all clients had everything, in seconds; `None` if they never had.
    pub caught_up_s: Option<f64>,
    /// Largest resident memory of any node, in bytes.
    pub max_rss_bytes: u64,
    /// Violations in all.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
}

impl ChaosReport {
    /// Nothing was lost, doubled or reordered, and every process lived that should.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violation_count == 0
    }

    /// The report as text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        row("seed", self.seed.to_string());
        row("faults for", format!("{:.0} s", self.lasted_s));
        row("nodes, clients", format!("{}, {}", self.nodes, thousands(f64::from(self.clients))));
        for (fault, count) in &self.faults {
            row(&format!("  {fault}"), count.to_string());
        }
        row("events in Kafka's log", thousands(self.published as f64));
        row("deliveries", thousands(self.deliveries as f64));
        row("connections ended", thousands(self.connections as f64));
        let mut ends: Vec<_> = self.ends.iter().collect();
        ends.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in ends.into_iter().take(SHOWN_ENDS) {
            row(&format!("  {}", thousands(*count as f64)), reason.clone());
        }
        row("history lost (said so)", format!("{} times, {} events", self.history_lost, self.skipped));
        row("clients with everything", format!("{} of {}", self.complete, self.clients));
        let caught_up = self.caught_up_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1} s"));
        row("caught up after the end", caught_up);
        row("largest memory of a node", mebibytes(self.max_rss_bytes));
        row("violations", self.violation_count.to_string());
        let mut text = lay_out(if self.passed() { "chaos: passed" } else { "chaos: FAILED" }, &rows);
        for violation in &self.violations {
            text.push_str(&format!("\n  {violation}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::violation::Wrong;
    use super::*;
    use crate::scenario::Transport;

    #[test]
    fn a_violation_stands_in_the_table_with_client_partition_and_numbers() {
        let (wrong, trail) = (Wrong::Skipped { partition: 3, expected: 41, seen: 43 }, Vec::new());
        let violation = Violation::Client {
            at_s: 12.5,
            client: 7,
            transport: Transport::Sse,
            node: 1,
            connection: 4,
            wrong,
            trail,
        };
        let report = ChaosReport {
            seed: 99,
            lasted_s: 60.0,
            nodes: 3,
            clients: 10,
            published: 5,
            deliveries: 5,
            connections: 2,
            ends: BTreeMap::from([("sse: the server ended the connection".to_owned(), 2)]),
            faults: BTreeMap::from([(Fault::KillNode, 2)]),
            history_lost: 0,
            skipped: 0,
            complete: 9,
            caught_up_s: None,
            max_rss_bytes: 1 << 20,
            violation_count: 1,
            violations: vec![violation],
        };
        assert!(!report.passed());
        let table = report.table();
        assert!(table.contains("client 7 (sse, connection 4, node 1), partition 3: expected 41, saw 43"), "{table}");
        assert!(table.contains("FAILED") && table.contains("kill-node") && table.contains("99"), "{table}");
        let read: ChaosReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(read, report);
    }
}
