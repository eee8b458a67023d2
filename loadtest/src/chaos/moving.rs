//! Audited clients that move from one node to another while events flow; whoever has them starts and ends the nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use super::fleet::{self, FleetPlan, Goal, RunningFleet};
use super::moves::{Moves, most_within};
use super::publisher::{self, Flow, Published};
use super::violation::{Violation, Violations};
use crate::clock::Clock;
use crate::error::LoadError;
use crate::marker::EventTemplate;
use crate::run::run_id;
use crate::scenario::Transport;
use crate::sys;

const EVENT_TYPE: &str = "load.move";
const TRANSPORTS: &[Transport] = &[Transport::Sse, Transport::Ws];
/// A client that hears nothing for so long believes its node dead.
const PATIENCE: Duration = Duration::from_secs(60);
const READY_PATIENCE: Duration = Duration::from_secs(120);
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(120);
/// How long the clients stay when they have everything: whatever still comes is too much.
const LINGER: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);
const OTHER_FILES: u64 = 200;
const SECOND_NS: u64 = 1_000_000_000;

/// Clients that will move.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MoveOptions {
    /// Bootstrap servers.
    pub brokers: String,
    /// Topic of the events; it is made.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Clients, half of them event streams and half WebSockets; each has a stream of its own in every partition.
    pub clients: u32,
    /// Events a second, each for one client.
    pub rate_per_s: f64,
    /// Size of an event's JSON text, in bytes.
    pub event_bytes: usize,
    /// Events stop after so many seconds even if nobody stops them.
    pub longest_s: f64,
}

impl MoveOptions {
    /// `EXTRACTORS` of the nodes.
    #[must_use]
    pub fn extractors() -> String {
        let key = serde_json::json!({ "stable_field_index": 1, "event": { "json_pointer": "/data/key" } });
        serde_json::json!({ EVENT_TYPE: { "key": key } }).to_string()
    }

    /// Creates the topic, which nodes must find when they start.
    ///
    /// # Errors
    /// Kafka is out of reach, or has the topic.
    pub fn create_topic(&self) -> Result<(), LoadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LoadError::system("starting an event loop"))?;
        self.flow(0).create_topic(runtime.handle())
    }

    fn flow(&self, run: u32) -> Flow {
        Flow {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            partitions: self.partitions,
            groups: self.clients,
            rate_per_s: self.rate_per_s,
            duration_s: self.longest_s,
            run,
            template: EventTemplate::new(run, EVENT_TYPE, self.event_bytes),
        }
    }
}

/// Connected clients that get events.
pub struct MovingClients {
    clients: u64,
    flow: Flow,
    fleet: RunningFleet,
    began: Instant,
    violations: Arc<Violations>,
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<Result<Vec<u64>, LoadError>>,
    moves: Arc<Moves>,
}

impl MovingClients {
    /// Connects all clients to the first of these nodes, and lets events flow once each has had one of every partition.
    ///
    /// # Errors
    /// There are too many clients for this process, or they don't all get there.
    pub fn start(options: &MoveOptions, nodes: Vec<SocketAddr>) -> Result<Self, LoadError> {
        let limit = sys::raise_open_files().map_err(LoadError::system("raising the limit of open files"))?;
        let needed = u64::from(options.clients) + OTHER_FILES;
        if needed > limit {
            return Err(LoadError::OpenFiles { wanted: options.clients.into(), needed, limit });
        }
        let (clock, run) = (Clock::start(), run_id());
        let violations = Arc::new(Violations::new(clock));
        let (published, stop) = (Arc::<Published>::default(), Arc::<AtomicBool>::default());
        let moves = Arc::new(Moves::new(clock, options.partitions, options.clients, Arc::clone(&published)));
        let plan = FleetPlan {
            run,
            event_type: EVENT_TYPE.to_owned(),
            partitions: options.partitions,
            groups: options.clients,
            clients: options.clients,
            transports: TRANSPORTS,
            patience: PATIENCE,
            moves: Some(Arc::clone(&moves)),
            dice: Dice::new(run.into()),
        };
        let (fleet, embark) = fleet::start_direct(plan, nodes, &violations)?;
        embark.go();
        let flow = options.flow(run);
        let all = u64::from(options.clients);
        let state = Arc::clone(&fleet.fleet);
        wait(READY_PATIENCE, &state.ready, all, "subscriptions are confirmed")?;
        let publishing = publisher::start(flow.clone(), Arc::clone(&published), Arc::clone(&stop), clock)?;
        wait(READY_PATIENCE, &state.warm, all, "have the first events")?;
        published.go.store(true, Relaxed);
        Ok(Self { clients: all, flow, fleet, began: Instant::now(), violations, stop, publishing, moves })
    }

    /// From now on, clients that connect go to the node at this place.
    pub fn go_to(&self, node: usize) {
        self.fleet.fleet.set_course(node);
    }

    /// Waits until every client has lost its connection and has caught up on another.
    ///
    /// # Errors
    /// That takes too long.
    pub fn wait_until_moved(&self, patience: Duration) -> Result<(), LoadError> {
        wait(patience, &self.moves.back, self.clients, "have moved")
    }

    /// Stops the events, waits until everybody has them all, and compares what was published with Kafka's log.
    ///
    /// # Errors
    /// Kafka did not take or keep what it should. What the clients lack stands in the report.
    pub fn conclude(self) -> Result<MoveReport, LoadError> {
        self.stop.store(true, Relaxed);
        let per_stream = self.publishing.join().map_err(|_| LoadError::Thread("publisher"))??;
        let published: u64 = per_stream.iter().sum();
        let flow_s = self.began.elapsed().as_secs_f64();
        let state = Arc::clone(&self.fleet.fleet);
        state.set_goal(Goal { groups: self.flow.groups, per_stream: per_stream.clone() });
        // What is missing is told by the clients themselves.
        let _ = wait(CATCH_UP_PATIENCE, &state.done, self.clients, "have everything");
        thread::sleep(LINGER);
        self.flow.check_log(&per_stream)?;
        let fleet = self.fleet.stop()?;
        let moves = self.moves.all();
        let ends = moves.iter().map(|one| one.cut_ns);
        let (began_ns, ended_ns) = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0));
        let mut away_ms: Vec<u64> = moves.iter().map(|one| (one.caught_up_ns - one.cut_ns) / 1_000_000).collect();
        away_ms.sort_unstable();
        let back_ns = moves.iter().map(|one| one.caught_up_ns).max().unwrap_or(0);
        let connects_ns = self.moves.connects_ns();
        Ok(MoveReport {
            clients: self.clients,
            published,
            // One event of every stream came before the flow.
            published_per_s: (published - per_stream.len() as u64) as f64 / flow_s,
            deliveries: fleet.deliveries.load(Relaxed),
            complete: fleet.done.load(Relaxed),
            history_lost: fleet.history_lost.load(Relaxed),
            moves: moves.len() as u64,
            connects: connects_ns.len() as u64,
            most_connects_per_s: most_within(&connects_ns, SECOND_NS) as u64,
            cut_within_s: (ended_ns - began_ns) as f64 / 1e9,
            all_back_s: back_ns.saturating_sub(began_ns) as f64 / 1e9,
            away_ms,
            ends: fleet.ends(),
            violation_count: self.violations.count(),
            violations: self.violations.kept(),
        })
    }
}

fn wait(patience: Duration, reached: &AtomicU64, all: u64, what: &str) -> Result<(), LoadError> {
    let began = Instant::now();
    while reached.load(Relaxed) < all {
        if began.elapsed() > patience {
            return Err(LoadError::NotReady {
                ready: reached.load(Relaxed),
                wanted: all,
                failed: 0,
                waited_s: patience.as_secs_f64(),
                reason: format!("not all clients {what}"),
            });
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// What became of clients that moved.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MoveReport {
    /// Clients.
    pub clients: u64,
    /// Events that Kafka's log holds.
    pub published: u64,
    /// The same a second.
    pub published_per_s: f64,
    /// Events that clients have got.
    pub deliveries: u64,
    /// Clients that had everything in the end.
    pub complete: u64,
    /// Notices of lost history.
    pub history_lost: u64,
    /// Ways back: connections that ended and whose client caught up on another.
    pub moves: u64,
    /// Connections that were begun for that, those too that failed.
    pub connects: u64,
    /// The most of them within a second.
    pub most_connects_per_s: u64,
    /// From the first end of a connection to the last, in seconds.
    pub cut_within_s: f64,
    /// From the first end of a connection to the moment when all had caught up, in seconds.
    pub all_back_s: f64,
    /// From the end of each connection until its client had caught up, in milliseconds, shortest first.
    pub away_ms: Vec<u64>,
    /// Why connections ended, and how many each.
    pub ends: BTreeMap<String, u64>,
    /// Events skipped, doubled, late, missing or not subscribed to.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
}

impl MoveReport {
    /// The time away that this share of the moves did not exceed, in milliseconds.
    #[must_use]
    pub fn away_ms_at(&self, share: f64) -> u64 {
        let last = self.away_ms.len().saturating_sub(1);
        self.away_ms.get((last as f64 * share).round() as usize).copied().unwrap_or(0)
    }

    /// Everyone had everything, once and in order, without a notice of lost history.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violation_count == 0 && self.history_lost == 0 && self.complete == self.clients
    }
}
