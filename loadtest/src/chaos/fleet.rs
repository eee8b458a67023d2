//! What all clients share, and the thread they live on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::client::{Cause, Client};
use super::dice::Dice;
use super::links::Link;
use super::moves::Moves;
use super::violation::Violations;
use crate::error::LoadError;
use crate::scenario::Transport;

/// Different reasons of ends that are counted apart.
const MAX_REASONS: usize = 64;
/// In the place of a node: any of them, by chance.
const ANY_NODE: usize = usize::MAX;
/// The transports of a fleet that has them all.
pub(super) const ALL_TRANSPORTS: &[Transport] = &[Transport::Sse, Transport::Ws, Transport::Longpolling];

/// How many events were published, by partition and group.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) groups: u32,
    pub(super) per_stream: Vec<u64>,
}

impl Goal {
    /// The events of one group, partition by partition.
    pub(super) fn of_group(&self, group: u32) -> impl Iterator<Item = u64> {
        self.per_stream.iter().skip(group as usize).step_by(self.groups as usize).copied()
    }
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) run: u32,
    pub(super) event_type: String,
    pub(super) partitions: u32,
    pub(super) groups: u32,
    clients: u32,
    /// Where clients connect to, one address per node.
    pub(super) links: Vec<SocketAddr>,
    /// The node that all clients go to, or [`ANY_NODE`].
    course: AtomicUsize,
    pub(super) transports: &'static [Transport],
    /// How clients come back, where somebody watches it.
    pub(super) moves: Option<Arc<Moves>>,
    /// A client that hears nothing for so long goes elsewhere.
    pub(super) patience: Duration,
    pub(super) violations: Arc<Violations>,
    /// Clients whose subscription was confirmed once.
    pub(super) ready: AtomicU64,
    /// Clients that have seen the first event of each partition.
    pub(super) warm: AtomicU64,
    /// Clients that have seen everything.
    pub(super) done: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) history_lost: AtomicU64,
    pub(super) skipped: AtomicU64,
    ends: Mutex<BTreeMap<String, u64>>,
    goal: OnceLock<Goal>,
    has_goal: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Fleet {
    /// From now on, clients that connect go to this node.
    pub(super) fn set_course(&self, node: usize) {
        self.course.store(node, Relaxed);
    }

    /// The node that a client goes to next.
    pub(super) fn next_node(&self, dice: &mut Dice) -> usize {
        match self.course.load(Relaxed) {
            ANY_NODE => dice.below(self.links.len()),
            node => node,
        }
    }

    /// Transport and group of a client. Where there are more clients than groups, each group has every transport.
    pub(super) fn role(&self, client: u32) -> (Transport, u32) {
        let count = self.transports.len();
        let number = if self.clients <= self.groups { client } else { client / count as u32 };
        (self.transports[client as usize % count], number % self.groups)
    }

    pub(super) fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves when the fleet stops.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// From now on, clients that have seen all this are done.
    pub(super) fn set_goal(&self, goal: Goal) {
        let _ = self.goal.set(goal);
        self.has_goal.send_replace(true);
    }

    /// Resolves when there is a goal.
    pub(super) async fn has_goal(&self) {
        let mut has_goal = self.has_goal.subscribe();
        // The sender lives as long as this.
        let _ = has_goal.wait_for(|has_goal| *has_goal).await;
    }

    pub(super) fn goal(&self) -> Option<&Goal> {
        self.goal.get()
    }

    pub(super) fn note_end(&self, transport: Transport, ended: &Result<(), Cause>) {
        self.connections.fetch_add(1, Relaxed);
        let Err(cause) = ended else { return };
        let Ok(mut ends) = self.ends.lock() else { return };
        let reason = format!("{}: {cause}", transport.name());
        let is_new = ends.len() >= MAX_REASONS && !ends.contains_key(&reason);
        let reason = if is_new { "other reasons".to_owned() } else { reason };
        *ends.entry(reason).or_default() += 1;
    }

    /// Why connections ended, and how often.
    pub(super) fn ends(&self) -> BTreeMap<String, u64> {
        self.ends.lock().map(|ends| ends.clone()).unwrap_or_default()
    }
}

/// The running clients and the links they use.
pub(super) struct RunningFleet {
    pub(super) fleet: Arc<Fleet>,
    pub(super) links: Arc<[Link]>,
    pub(super) runtime: tokio::runtime::Handle,
    thread: JoinHandle<()>,
}

/// What a fleet is made of.
pub(super) struct FleetPlan {
    pub(super) run: u32,
    pub(super) event_type: String,
    pub(super) partitions: u32,
    pub(super) groups: u32,
    pub(super) clients: u32,
    pub(super) transports: &'static [Transport],
    pub(super) patience: Duration,
    pub(super) moves: Option<Arc<Moves>>,
    pub(super) dice: Dice,
}

/// Starts as many links as there are nodes, which lead nowhere yet; the clients begin with [`Embark::go`].
pub(super) fn start(
    mut plan: FleetPlan,
    nodes: usize,
    violations: &Arc<Violations>,
) -> Result<(RunningFleet, Embark), LoadError> {
    let runtime = event_loop()?;
    let links = runtime.block_on(async {
        let mut links = Vec::new();
        for _ in 0..nodes {
            links.push(Link::open(plan.dice.split()).await.map_err(LoadError::system("opening a link"))?);
        }
        Ok::<_, LoadError>(links)
    })?;
    let addresses = links.iter().map(|link| link.address).collect();
    launch(runtime, plan, addresses, links.into(), violations)
}

/// As [`start`], without links: the clients connect to the nodes themselves, at first all to the first one.
pub(super) fn start_direct(
    plan: FleetPlan,
    nodes: Vec<SocketAddr>,
    violations: &Arc<Violations>,
) -> Result<(RunningFleet, Embark), LoadError> {
    let started = launch(event_loop()?, plan, nodes, Arc::default(), violations)?;
    started.0.fleet.set_course(0);
    Ok(started)
}

fn event_loop() -> Result<Runtime, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(LoadError::system("starting the clients' event loop"))
}

fn launch(
    runtime: Runtime,
    plan: FleetPlan,
    addresses: Vec<SocketAddr>,
    links: Arc<[Link]>,
    violations: &Arc<Violations>,
) -> Result<(RunningFleet, Embark), LoadError> {
    let handle = runtime.handle().clone();
    let mut dice = plan.dice;
    let fleet = Arc::new(Fleet {
        run: plan.run,
        event_type: plan.event_type,
        partitions: plan.partitions,
        groups: plan.groups,
        clients: plan.clients,
        links: addresses,
        course: AtomicUsize::new(ANY_NODE),
        transports: plan.transports,
        moves: plan.moves,
        patience: plan.patience,
        violations: Arc::clone(violations),
        ready: AtomicU64::new(0),
        warm: AtomicU64::new(0),
        done: AtomicU64::new(0),
        deliveries: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        history_lost: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
        ends: Mutex::default(),
        goal: OnceLock::new(),
        has_goal: watch::Sender::new(false),
        stop: watch::Sender::new(false),
    });
    let (embark, embarked) = oneshot::channel();
    let (crew, clients) = (Arc::clone(&fleet), plan.clients);
    let work = async move {
        if embarked.await.is_err() {
            return;
        }
        let mut all = JoinSet::new();
        for number in 0..clients {
            all.spawn(Client::new(Arc::clone(&crew), number, dice.split()).live());
            // Not all at the same moment.
            if number % 64 == 63 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        while let Some(ended) = all.join_next().await {
            if let Err(error) = ended {
                crew.violations.process("a client of the load generator", error.to_string());
            }
        }
    };
    let thread = thread::Builder::new()
        .name("clients".to_owned())
        .spawn(move || runtime.block_on(work))
        .map_err(LoadError::system("starting the clients' thread"))?;
    Ok((RunningFleet { fleet, links, runtime: handle, thread }, Embark(embark)))
}

/// Lets the clients begin.
pub(super) struct Embark(oneshot::Sender<()>);

impl Embark {
    pub(super) fn go(self) {
        // The other side ends only after the fleet has stopped.
        let _ = self.0.send(());
    }
}

impl RunningFleet {
    /// Ends all clients, each of which then says what it misses.
    pub(super) fn stop(self) -> Result<Arc<Fleet>, LoadError> {
        self.fleet.stop.send_replace(true);
        self.thread.join().map_err(|_| LoadError::Thread("clients"))?;
        Ok(self.fleet)
    }
}
