//! Which fault comes when: a plan made from a seed before anything starts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::dice::Dice;

/// A kind of fault.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL of a node, and a start some time later.
    KillNode,
    /// SIGSTOP of a node, and SIGCONT some time later.
    FreezeNode,
    /// SIGTERM: the node drains and ends with exit code 0; it is started again.
    DrainNode,
    /// A successor is started and gets the new connections, then the node gets SIGTERM.
    UpgradeNode,
    /// SIGHUP.
    ReloadNode,
    /// SIGKILL of the broker, and a start some time later.
    KillBroker,
    /// SIGSTOP of the broker, and SIGCONT some time later.
    FreezeBroker,
    /// Some of the connections to a node are reset.
    CutLinks,
    /// Every piece of data to and from a node comes late.
    DelayLinks,
    /// Some of the connections to a node carry nothing, so that the node sees clients that don't read.
    StallLinks,
    /// Many connections to a node that want every event and read none.
    FloodSlowClients,
    /// A node with a state file can't write to its disk; then it is killed.
    FillDisk,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::KillNode,
        Self::FreezeNode,
        Self::DrainNode,
        Self::UpgradeNode,
        Self::ReloadNode,
        Self::KillBroker,
        Self::FreezeBroker,
        Self::CutLinks,
        Self::DelayLinks,
        Self::StallLinks,
        Self::FloodSlowClients,
        Self::FillDisk,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill-node",
            Self::FreezeNode => "freeze-node",
            Self::DrainNode => "drain-node",
            Self::UpgradeNode => "upgrade-node",
            Self::ReloadNode => "reload-node",
            Self::KillBroker => "kill-broker",
            Self::FreezeBroker => "freeze-broker",
            Self::CutLinks => "cut-links",
            Self::DelayLinks => "delay-links",
            Self::StallLinks => "stall-links",
            Self::FloodSlowClients => "flood-slow-clients",
            Self::FillDisk => "fill-disk",
        }
    }

    /// Does it happen to the broker?
    pub(super) fn is_the_brokers(self) -> bool {
        self.target() == Target::Broker
    }

    fn target(self) -> Target {
        match self {
            Self::KillNode | Self::FreezeNode | Self::DrainNode | Self::UpgradeNode | Self::ReloadNode => Target::Node,
            Self::KillBroker | Self::FreezeBroker => Target::Broker,
            Self::CutLinks | Self::DelayLinks | Self::StallLinks => Target::Links,
            Self::FloodSlowClients => Target::Flood,
            Self::FillDisk => Target::Disk,
        }
    }

    /// Shortest and longest time that it lasts, in milliseconds; 0 for what is over at once or ends by itself.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::KillNode => (100, 4_000),
            Self::FreezeNode | Self::FreezeBroker => (300, 9_000),
            Self::KillBroker => (300, 3_000),
            Self::DelayLinks | Self::StallLinks | Self::FloodSlowClients => (2_000, 8_000),
            Self::DrainNode | Self::UpgradeNode | Self::ReloadNode | Self::CutLinks | Self::FillDisk => (0, 0),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == text)
            .ok_or_else(|| format!("unknown fault; there are {}", all()))
    }
}

/// What only one fault may have at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    Node,
    Links,
    Broker,
    Flood,
    Disk,
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Step {
    /// When it begins, in milliseconds since the first event.
    pub at_ms: u64,
    /// What happens.
    pub fault: Fault,
    /// To which node, from 0; 0 where it is none's.
    pub node: usize,
    /// How long it lasts, in milliseconds; 0 for what is over at once or ends by itself.
    pub lasts_ms: u64,
    /// How strong it is, in percent: of the connections, or of the longest delay.
    pub percent: u8,
}

/// Time after a fault before the same target has another one: for a node to start, a broker to come back.
const NODE_REST_MS: u64 = 4_000;
const BROKER_REST_MS: u64 = 12_000;
const LINKS_REST_MS: u64 = 300;
/// Longest and shortest time between two faults.
const BETWEEN_MS: (u64, u64) = (200, 2_500);

/// The faults of a run of `span_ms`, by time; the last is over before the end. Each kind comes once before any comes
/// again; at no time are there two at one target.
#[must_use]
pub fn plan(seed: u64, span_ms: u64, nodes: usize, faults: &[Fault]) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let (mut steps, mut bag, mut at_ms) = (Vec::new(), Vec::new(), 500);
    let mut free_at_ms = [vec![0; nodes], vec![0; nodes], vec![0; 3]];
    while at_ms < span_ms && !faults.is_empty() {
        if bag.is_empty() {
            bag.extend_from_slice(faults);
            dice.shuffle(&mut bag);
        }
        let Some(fault) = bag.pop() else { break };
        let (kind, rest_ms) = match fault.target() {
            Target::Node => (0, NODE_REST_MS),
            Target::Links => (1, LINKS_REST_MS),
            Target::Broker => (2, BROKER_REST_MS),
            Target::Flood | Target::Disk => (2, NODE_REST_MS),
        };
        let place = match fault.target() {
            Target::Node | Target::Links => dice.below(nodes),
            Target::Broker => 0,
            Target::Flood => 1,
            Target::Disk => 2,
        };
        let (least, most) = fault.lasts_ms();
        let lasts_ms = dice.between(least, most);
        let begins_ms = at_ms.max(free_at_ms[kind][place]);
        let step = Step {
            at_ms: begins_ms,
            fault,
            node: if kind == 2 { 0 } else { place },
            lasts_ms,
            percent: dice.between(10, 100) as u8,
        };
        let ends_ms = begins_ms + lasts_ms;
        if ends_ms < span_ms {
            free_at_ms[kind][place] = ends_ms + rest_ms;
            steps.push(step);
        }
        at_ms += dice.between(BETWEEN_MS.0, BETWEEN_MS.1);
    }
    steps.sort_by_key(|step| step.at_ms);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_same_for_the_same_seed_and_has_every_kind() {
        let one = plan(7, 120_000, 3, &Fault::ALL);
        assert_eq!(one, plan(7, 120_000, 3, &Fault::ALL));
        assert_ne!(one, plan(8, 120_000, 3, &Fault::ALL));
        for fault in Fault::ALL {
            assert!(one.iter().any(|step| step.fault == fault), "{fault}");
        }
        assert!(one.is_sorted_by_key(|step| step.at_ms));
    }

    #[test]
    fn faults_end_in_time_and_never_meet_at_one_node() {
        for seed in 0..50 {
            let steps = plan(seed, 60_000, 2, &Fault::ALL);
            assert!(steps.iter().all(|step| step.at_ms + step.lasts_ms < 60_000));
            for node in 0..2 {
                let mine = steps.iter().filter(|step| step.fault.target() == Target::Node && step.node == node);
                let mine: Vec<_> = mine.collect();
                for pair in mine.windows(2) {
                    assert!(pair[0].at_ms + pair[0].lasts_ms + NODE_REST_MS <= pair[1].at_ms, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn no_kinds_no_faults() {
        assert!(plan(1, 60_000, 2, &[]).is_empty());
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("earthquake".parse::<Fault>().unwrap_err().contains("kill-node"));
    }
}
