//! Carries a plan out: starts everything, begins and ends each fault in its time, watches who lives.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::disk::StateNode;
use super::fleet::{self, FleetPlan, Goal, RunningFleet};
use super::flood::flood;
use super::node::{BrokerProcess, Node, Recipe};
use super::options::ChaosOptions;
use super::plan::{Fault, Step, plan};
use super::publisher::{self, Flow, Published};
use super::report::{ChaosMoment, ChaosReport};
use super::violation::Violations;
use crate::clock::Clock;
use crate::error::LoadError;
use crate::marker::EventTemplate;
use crate::run::run_id;
use crate::sys::{self, ProcessSignal};

const EVENT_TYPE: &str = "load.chaos";
/// Time between two looks at everything.
const TURN: Duration = Duration::from_millis(20);
const MOMENT: Duration = Duration::from_secs(5);
const RSS_EVERY: Duration = Duration::from_millis(500);
/// Longest time for a node to listen, Kafka being there.
const START_PATIENCE: Duration = Duration::from_secs(60);
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// A node may take so much longer to end than it was told to.
const DRAIN_GRACE: Duration = Duration::from_secs(15);
const HEARTBEAT_MS: u64 = 2_000;
/// A client that hears nothing for so long believes its node dead.
const PATIENCE: Duration = Duration::from_millis(4 * HEARTBEAT_MS);
/// How long the clients stay when they have everything: whatever still comes is too much.
const LINGER: Duration = Duration::from_secs(2);
const LONGEST_DELAY_MS: u64 = 300;

/// Runs it all; `moment` is called every few seconds.
///
/// # Errors
/// The run could not be done: a program does not start, Kafka is not there or its log is not as it was written. What went
/// wrong with the gateways stands in the report.
pub fn run_chaos(options: &ChaosOptions, mut moment: impl FnMut(&ChaosMoment)) -> Result<ChaosReport, LoadError> {
    let open_files = sys::raise_open_files().map_err(LoadError::system("raising the limit of open files"))?;
    options.check(open_files)?;
    let clock = Clock::start();
    let violations = Arc::new(Violations::new(clock));
    let folder = tempfile::tempdir().map_err(LoadError::system("making a temporary folder"))?;
    let mut dice = Dice::new(options.seed);
    let run = run_id();
    let (mut fleet, embark) = fleet::start(
        FleetPlan {
            run,
            event_type: EVENT_TYPE.to_owned(),
            partitions: options.partitions,
            groups: options.groups,
            clients: options.clients,
            transports: fleet::ALL_TRANSPORTS,
            patience: PATIENCE,
            moves: None,
            dice: dice.split(),
        },
        options.nodes,
        &violations,
    )?;
    let topic = format!("chaos-{run:08x}");
    let flow = Flow {
        brokers: options.brokers.clone(),
        topic: topic.clone(),
        partitions: options.partitions,
        groups: options.groups,
        rate_per_s: options.rate_per_s,
        duration_s: options.minutes * 60.0,
        run,
        template: EventTemplate::new(run, EVENT_TYPE, options.event_bytes),
    };
    let broker = options.broker_command.as_deref().map(BrokerProcess::start).transpose()?;
    flow.create_topic(&fleet.runtime)?;
    let recipe = recipe(options, &topic);
    let mut director = Director {
        options,
        violations: Arc::clone(&violations),
        links_dice: dice.split(),
        seats: Vec::new(),
        broker,
        broker_address: options.brokers.split(',').next().and_then(|address| address.parse().ok()),
        broker_away: None,
        state_node: None,
        recipe,
        endings: Vec::new(),
        counts: BTreeMap::new(),
        begun: Vec::new(),
        max_rss_bytes: 0,
        rss_looked: Instant::now(),
    };
    director.seat_all(&mut fleet, folder.path())?;
    embark.go();
    let all = u64::from(options.clients);
    let (ready, fleet_now) = (READY_PATIENCE, Arc::clone(&fleet.fleet));
    director.wait(&fleet, ready, "confirmed subscriptions", || fleet_now.ready.load(Relaxed) >= all)?;
    let (published, stop) = (Arc::<Published>::default(), Arc::<AtomicBool>::default());
    let publishing = publisher::start(flow.clone(), Arc::clone(&published), Arc::clone(&stop), clock)?;
    director.wait(&fleet, ready, "the first event of each partition", || fleet_now.warm.load(Relaxed) >= all)?;
    published.go.store(true, Relaxed);
    director.perform(&mut fleet, &published, &mut moment)?;
    let per_stream = publishing.join().map_err(|_| LoadError::Thread("publisher"))??;
    let events = per_stream.iter().sum();
    let ended = Instant::now();
    fleet.fleet.set_goal(Goal { groups: options.groups, per_stream: per_stream.clone() });
    let patience = Duration::from_secs_f64(options.catch_up_s);
    while fleet_now.done.load(Relaxed) < all && ended.elapsed() < patience {
        director.turn(&mut fleet)?;
        thread::sleep(TURN);
    }
    let caught_up_s = (fleet_now.done.load(Relaxed) >= all).then(|| ended.elapsed().as_secs_f64());
    let lingering = Instant::now();
    while lingering.elapsed() < LINGER {
        director.turn(&mut fleet)?;
        thread::sleep(TURN);
    }
    flow.check_log(&per_stream)?;
    let fleet = fleet.stop()?;
    Ok(ChaosReport {
        seed: options.seed,
        lasted_s: options.minutes * 60.0,
        nodes: options.nodes,
        clients: options.clients,
        published: events,
        deliveries: fleet.deliveries.load(Relaxed),
        connections: fleet.connections.load(Relaxed).saturating_sub(all),
        ends: fleet.ends(),
        faults: director.counts,
        history_lost: fleet.history_lost.load(Relaxed),
        skipped: fleet.skipped.load(Relaxed),
        complete: fleet.done.load(Relaxed),
        caught_up_s,
        max_rss_bytes: director.max_rss_bytes,
        violation_count: violations.count(),
        violations: violations.kept(),
    })
}

/// The settings of every node.
fn recipe(options: &ChaosOptions, topic: &str) -> Recipe {
    let extractors = serde_json::json!({
        EVENT_TYPE: { "key": { "stable_field_index": 1, "event": { "json_pointer": "/data/key" } } }
    });
    let settings = [
        ("KAFKA_BROKERS", options.brokers.clone()),
        ("KAFKA_SOURCE_TOPICS", topic.to_owned()),
        ("INBOUND_HOST", "127.0.0.1".to_owned()),
        ("INBOUND_PORT", "0".to_owned()),
        ("API_HTTP_PORT", "0".to_owned()),
        ("SHARDS", "2".to_owned()),
        ("EXTRACTORS", extractors.to_string()),
        ("NODE_COOKIE", format!("chaos-{}", options.seed)),
        ("MAX_CONNECTIONS_PER_MINUTE", u32::MAX.to_string()),
        ("HEARTBEAT_MS", HEARTBEAT_MS.to_string()),
        ("LONG_POLLING_WAIT_MS", HEARTBEAT_MS.to_string()),
        ("DRAIN_SECONDS", options.drain_s.to_string()),
        ("MAX_QUEUE_BYTES", (128 << 10).to_string()),
        ("MAX_EVENT_BYTES", (64 << 10).to_string()),
        ("MAX_BODY_BYTES", (64 << 10).to_string()),
        ("HISTORY_BYTES", (8 << 20).to_string()),
    ];
    let mut settings: Vec<(String, String)> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    settings.extend(options.settings.iter().cloned());
    Recipe { program: options.gateway.clone(), settings }
}

/// The place of one node: whoever serves there now, and whoever is about to leave.
struct Seat {
    node: Option<Node>,
    /// Gets the link when it is ready.
    successor: Option<Node>,
    leaving: Vec<(Node, Instant)>,
}

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
struct Ending {
    at: Instant,
    step: Step,
}

struct Director<'a> {
    options: &'a ChaosOptions,
    violations: Arc<Violations>,
    links_dice: Dice,
    seats: Vec<Seat>,
    broker: Option<BrokerProcess>,
    broker_address: Option<SocketAddr>,
    /// Since when nobody listens on the broker's port, or nobody answers there.
    broker_away: Option<Instant>,
    state_node: Option<StateNode>,
    recipe: Recipe,
    endings: Vec<Ending>,
    counts: BTreeMap<Fault, u64>,
    begun: Vec<String>,
    max_rss_bytes: u64,
    rss_looked: Instant,
}

impl Director<'_> {
    fn seat_all(&mut self, fleet: &mut RunningFleet, folder: &Path) -> Result<(), LoadError> {
        for place in 0..self.options.nodes {
            let node = Node::start(&format!("node {place}"), &self.recipe)?;
            self.seats.push(Seat { node: Some(node), successor: None, leaving: Vec::new() });
        }
        for (place, seat) in self.seats.iter_mut().enumerate() {
            let Some(node) = &mut seat.node else { continue };
            let addresses = node
                .wait_until_ready(START_PATIENCE)
                .map_err(|reason| LoadError::Scenario(format!("node {place} {reason}")))?;
            fleet.links[place].change(|weather| weather.node = Some(addresses.inbound));
        }
        if self.options.faults.contains(&Fault::FillDisk) {
            let mut recipe = self.recipe.clone();
            recipe.settings.retain(|(name, _)| name != "KAFKA_BROKERS" && name != "KAFKA_SOURCE_TOPICS");
            recipe.settings.push(("STATE_DIR".to_owned(), folder.display().to_string()));
            self.state_node = Some(StateNode::start(recipe)?);
        }
        Ok(())
    }

    /// Waits for all clients to have something; nothing has been done to them yet.
    fn wait(
        &mut self,
        fleet: &RunningFleet,
        patience: Duration,
        what: &str,
        reached: impl Fn() -> bool,
    ) -> Result<(), LoadError> {
        let began = Instant::now();
        while !reached() {
            if began.elapsed() > patience {
                let (ready, warm) = (fleet.fleet.ready.load(Relaxed), fleet.fleet.warm.load(Relaxed));
                return Err(LoadError::NotReady {
                    ready: ready.min(warm.max(ready)),
                    wanted: self.options.clients.into(),
                    failed: fleet.fleet.connections.load(Relaxed),
                    waited_s: patience.as_secs_f64(),
                    reason: format!("waiting for {what}; connections ended: {:?}", fleet.fleet.ends()),
                });
            }
            thread::sleep(TURN);
        }
        Ok(())
    }

    fn perform(
        &mut self,
        fleet: &mut RunningFleet,
        published: &Published,
        moment: &mut impl FnMut(&ChaosMoment),
    ) -> Result<(), LoadError> {
        let options = self.options;
        let mut steps = plan(options.seed, options.span_ms(), options.nodes, &options.possible_faults()).into_iter();
        let (began, mut next, mut last_moment) = (Instant::now(), steps.next(), Instant::now());
        let span = Duration::from_millis(options.span_ms());
        while began.elapsed() < span || !self.endings.is_empty() {
            while let Some(step) = next.filter(|step| began.elapsed() >= Duration::from_millis(step.at_ms)) {
                if !step.fault.is_the_brokers() || published.broker_may_fail() {
                    self.begin(step, fleet, began.elapsed())?;
                }
                next = steps.next();
            }
            self.turn(fleet)?;
            if last_moment.elapsed() >= MOMENT {
                last_moment = Instant::now();
                moment(&ChaosMoment {
                    at_s: began.elapsed().as_secs_f64(),
                    published: published.sent.load(Relaxed),
                    deliveries: fleet.fleet.deliveries.load(Relaxed),
                    connections: fleet.fleet.connections.load(Relaxed),
                    faults: self.counts.values().sum(),
                    rss_bytes: self.nodes().filter_map(Node::rss_bytes).collect(),
                    violations: self.violations.count(),
                    begun: std::mem::take(&mut self.begun),
                });
            }
            thread::sleep(TURN);
        }
        Ok(())
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.seats
            .iter()
            .flat_map(|seat| seat.node.iter().chain(&seat.successor).chain(seat.leaving.iter().map(|(node, _)| node)))
    }

    fn begin(&mut self, step: Step, fleet: &mut RunningFleet, at: Duration) -> Result<(), LoadError> {
        let Step { fault, node: place, lasts_ms, percent, .. } = step;
        let lasts = Duration::from_millis(lasts_ms);
        let link = &fleet.links[place];
        let seat = &mut self.seats[place];
        let whom = match fault {
            Fault::KillBroker | Fault::FreezeBroker => "the broker".to_owned(),
            Fault::FillDisk => "the node with a state file".to_owned(),
            _ => format!("node {place}"),
        };
        self.begun.push(format!("{:>6.1} s  {fault}, {whom}, {lasts_ms} ms, {percent} %", at.as_secs_f64()));
        let mut ends = false;
        match fault {
            Fault::KillNode => {
                link.change(|weather| weather.node = None);
                if let Some(mut node) = seat.node.take() {
                    node.kill();
                }
                ends = true;
            }
            Fault::FreezeNode => {
                seat.node.iter_mut().for_each(|node| node.signal(ProcessSignal::Stop));
                ends = true;
            }
            Fault::DrainNode => {
                link.change(|weather| weather.node = None);
                if let Some(mut node) = seat.node.take() {
                    node.signal(ProcessSignal::Terminate);
                    seat.leaving.push((node, Instant::now()));
                }
                seat.node = Some(Node::start(&whom, &self.recipe)?);
            }
            Fault::UpgradeNode => seat.successor = Some(Node::start(&whom, &self.recipe)?),
            Fault::ReloadNode => seat.node.iter_mut().for_each(|node| node.signal(ProcessSignal::Reload)),
            Fault::KillBroker => {
                self.broker.iter_mut().for_each(BrokerProcess::kill);
                ends = true;
            }
            Fault::FreezeBroker => {
                self.broker.iter_mut().for_each(|broker| broker.signal(ProcessSignal::Stop));
                ends = true;
            }
            Fault::CutLinks => link.change(|weather| {
                (weather.cuts, weather.cut_percent) = (weather.cuts + 1, percent);
            }),
            Fault::DelayLinks => {
                let delay = Duration::from_millis(LONGEST_DELAY_MS * u64::from(percent) / 100);
                link.change(|weather| weather.delay = delay);
                ends = true;
            }
            Fault::StallLinks => {
                link.change(|weather| weather.stalled_percent = percent);
                ends = true;
            }
            Fault::FloodSlowClients => {
                let place = self.links_dice.below(fleet.links.len());
                if let Some(address) = fleet.links[place].node() {
                    let flood = flood(address, EVENT_TYPE.to_owned(), self.options.flood, lasts);
                    fleet.runtime.spawn(flood);
                }
            }
            Fault::FillDisk => {
                if let Some(node) = &mut self.state_node {
                    node.exercise(&self.violations)?;
                }
            }
        }
        *self.counts.entry(fault).or_default() += 1;
        if ends {
            self.endings.push(Ending { at: Instant::now() + lasts, step });
        }
        Ok(())
    }

    fn end(&mut self, step: Step, fleet: &RunningFleet) -> Result<(), LoadError> {
        let link = &fleet.links[step.node];
        let seat = &mut self.seats[step.node];
        match step.fault {
            Fault::KillNode => seat.node = Some(Node::start(&format!("node {}", step.node), &self.recipe)?),
            // It may have got a successor meanwhile, and leave.
            Fault::FreezeNode => {
                let leaving = seat.leaving.iter_mut().map(|(node, _)| node);
                leaving.chain(&mut seat.node).for_each(|node| node.signal(ProcessSignal::Continue));
            }
            Fault::KillBroker => {
                if let Some(broker) = &mut self.broker {
                    broker.restart()?;
                }
            }
            Fault::FreezeBroker => {
                self.broker.iter_mut().for_each(|broker| broker.signal(ProcessSignal::Continue));
            }
            Fault::DelayLinks => link.change(|weather| weather.delay = Duration::ZERO),
            Fault::StallLinks => link.change(|weather| weather.stalled_percent = 0),
            Fault::DrainNode
            | Fault::UpgradeNode
            | Fault::ReloadNode
            | Fault::CutLinks
            | Fault::FloodSlowClients
            | Fault::FillDisk => {}
        }
        Ok(())
    }

    /// Ends what is over, and looks after everyone.
    fn turn(&mut self, fleet: &mut RunningFleet) -> Result<(), LoadError> {
        let now = Instant::now();
        let over: Vec<Step> = self.endings.iter().filter(|ending| ending.at <= now).map(|ending| ending.step).collect();
        self.endings.retain(|ending| ending.at > now);
        for step in over {
            self.end(step, fleet)?;
        }
        self.look_at_broker();
        for place in 0..self.seats.len() {
            self.look_at_seat(place, fleet)?;
        }
        if self.rss_looked.elapsed() >= RSS_EVERY {
            self.rss_looked = Instant::now();
            let sizes: Vec<(String, u64)> =
                self.nodes().filter_map(|node| Some((node.name.clone(), node.rss_bytes()?))).collect();
            for (name, bytes) in sizes {
                let limit = self.options.max_rss_bytes;
                if bytes > limit && self.max_rss_bytes <= limit {
                    self.violations.process(&name, format!("holds {bytes} bytes of memory, more than {limit}"));
                }
                self.max_rss_bytes = self.max_rss_bytes.max(bytes);
            }
        }
        Ok(())
    }

    /// While the broker is away, no node can be expected to become ready.
    fn look_at_broker(&mut self) {
        let Some(broker) = &mut self.broker else { return };
        if let Some(status) = broker.ended() {
            let away = self.broker_away.is_some();
            if !away {
                self.violations.process("the broker", format!("ended with {status}"));
            }
        }
        let answers = !broker.frozen
            && self
                .broker_address
                .is_some_and(|address| TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_ok());
        if !answers || self.endings.iter().any(|ending| ending.step.fault == Fault::KillBroker) {
            self.broker_away = Some(Instant::now());
        }
    }

    fn look_at_seat(&mut self, place: usize, fleet: &RunningFleet) -> Result<(), LoadError> {
        let (violations, recipe) = (Arc::clone(&self.violations), self.recipe.clone());
        let broker_away = self.broker_away;
        let is_late = |node: &Node| {
            let since = broker_away.map_or(node.started, |away| away.max(node.started));
            since.elapsed() > START_PATIENCE
        };
        let drain = Duration::from_secs(self.options.drain_s) + DRAIN_GRACE;
        let seat = &mut self.seats[place];
        let link = &fleet.links[place];
        for who in [&mut seat.node, &mut seat.successor] {
            let Some(node) = who else { continue };
            if let Some(status) = node.ended() {
                violations.process(&node.name, format!("ended with {status}; {}", node.last_words()));
                let name = node.name.clone();
                *who = Some(Node::start(&name, &recipe)?);
            } else if !node.is_ready() && is_late(node) {
                violations.process(&node.name, format!("was not ready in time; {}", node.last_words()));
                node.started = Instant::now();
            }
        }
        if let Some(mut successor) = seat.successor.take_if(|successor| successor.is_ready()) {
            if let Some(mut old) = seat.node.take() {
                old.signal(ProcessSignal::Terminate);
                seat.leaving.push((old, Instant::now()));
            }
            successor.started = Instant::now();
            seat.node = Some(successor);
        }
        // `is_ready` above has looked for the addresses.
        let address = seat.node.as_ref().and_then(|node| node.addresses);
        if link.node() != address.map(|addresses| addresses.inbound) {
            link.change(|weather| weather.node = address.map(|addresses| addresses.inbound));
        }
        seat.leaving.retain_mut(|(node, since)| match node.ended() {
            Some(status) if status.success() => false,
            Some(status) => {
                violations.process(&node.name, format!("ended with {status} after SIGTERM; {}", node.last_words()));
                false
            }
            None if since.elapsed() > drain => {
                let words = node.last_words();
                violations.process(&node.name, format!("still runs {} s after SIGTERM; {words}", drain.as_secs()));
                false
            }
            None => true,
        });
        Ok(())
    }
}
