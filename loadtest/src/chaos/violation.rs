//! What must not happen, and a bounded list of what did.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::scenario::Transport;

/// Violations that are kept word for word; beyond, they are only counted.
const MAX_KEPT: usize = 200;

/// What is wrong with an event that a client got, or did not get.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// A later event came before it; nothing said that history was lost.
    Skipped {
        /// Partition of the topic.
        partition: u32,
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        seen: u64,
    },
    /// An event came again, or after a later one.
    Repeated {
        /// Partition of the topic.
        partition: u32,
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        seen: u64,
    },
    /// An event that the client did not subscribe to.
    Foreign {
        /// Partition of the topic.
        partition: u32,
    },
    /// Events that had not come when the run was over.
    Missing {
        /// Partition of the topic.
        partition: u32,
        /// The number that should have come next.
        expected: u64,
        /// How many were published.
        published: u64,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped { partition, expected, seen } => {
                write!(f, "partition {partition}: expected {expected}, saw {seen} (skipped)")
            }
            Self::Repeated { partition, expected, seen } => {
                write!(f, "partition {partition}: expected {expected}, saw {seen} (again, or late)")
            }
            Self::Foreign { partition } => write!(f, "partition {partition}: an event it did not subscribe to"),
            Self::Missing { partition, expected, published } => {
                write!(f, "partition {partition}: expected {expected} of {published}, saw nothing more")
            }
        }
    }
}

/// Something that must not happen.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Violation {
    /// A client did not get what it should.
    Client {
        /// When, in seconds since the start of the run.
        at_s: f64,
        /// Its number.
        client: u32,
        /// How it was connected.
        transport: Transport,
        /// The node it was last connected to.
        node: usize,
        /// Which connection of the client.
        connection: u32,
        /// What was wrong.
        wrong: Wrong,
        /// What the client did and saw before, the newest last.
        #[serde(default)]
        trail: Vec<String>,
    },
    /// A process did what it must not do, or did not do what it must.
    Process {
        /// When, in seconds since the start of the run.
        at_s: f64,
        /// Its name.
        process: String,
        /// What happened, with the end of what it wrote.
        what: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { at_s, client, transport, node, connection, wrong, trail } => {
                let transport = transport.name();
                write!(f, "{at_s:.3} s: client {client} ({transport}, connection {connection}, node {node}), {wrong}")?;
                trail.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::Process { at_s, process, what } => write!(f, "{at_s:.3} s: {process} {what}"),
        }
    }
}

/// The violations of a run; threads share it.
#[derive(Debug)]
pub(super) struct Violations {
    clock: Clock,
    count: AtomicU64,
    kept: Mutex<Vec<Violation>>,
}

impl Violations {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, count: AtomicU64::new(0), kept: Mutex::default() }
    }

    /// Seconds since the start of the run.
    pub(super) fn at_s(&self) -> f64 {
        self.clock.now_ns() as f64 / 1e9
    }

    /// Counts it, and says it at once: a long run need not end before one can look.
    pub(super) fn add(&self, violation: Violation) {
        self.count.fetch_add(1, Relaxed);
        if let Ok(mut kept) = self.kept.lock()
            && kept.len() < MAX_KEPT
        {
            eprintln!("violation at {violation}");
            kept.push(violation);
        }
    }

    pub(super) fn process(&self, process: &str, what: impl Into<String>) {
        let (at_s, process, what) = (self.at_s(), process.to_owned(), what.into());
        self.add(Violation::Process { at_s, process, what });
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(super) fn kept(&self) -> Vec<Violation> {
        self.kept.lock().map(|kept| kept.clone()).unwrap_or_default()
    }
}
