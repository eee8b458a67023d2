//! Several nodes on one Kafka: each writes its address into a compacted topic, and passes what it can't do itself (a PUT of
//! subscriptions, a poll, an answer for a connection of another node) to the node that can. Only nodes with the same
//! `NODE_COOKIE` understand each other.

mod assembly;
mod client;
mod directory;
mod port;
mod wire;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_channel::oneshot;
use jiff::Timestamp;
use tidegate_reactive::correlation::CorrelationKey;
use tidegate_shards::clock;
use tidegate_shards::mailbox::{PollAnswer, SetOutcome};
use tidegate_shards::peers::{CallKey, Peers, Unreachable};
use tidegate_shards::shard::identity::Identity;
use tidegate_shards::subscription::Subscription;
use tidegate_shards::token::ConnectionAddress;
use tokio::sync::{mpsc, watch};

pub use directory::{Directory, EXPIRY_MS, Found};
pub use wire::{CALL_PREFIX, NodeDesk, PROOF_HEADER};

use self::directory::Heartbeat;
use crate::config::KafkaSettings;
use crate::control::AnswerDesk;
use crate::kafka::compacted::{CompactedLog, Entry, Subject};

/// Calls that may wait for the thread that makes them.
const MAX_WAITING_CALLS: usize = 4_096;
/// Between two heartbeats; [`EXPIRY_MS`] is several of them.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Time for another node to answer what it can answer at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What this node knows of the others, and how it reaches them.
#[derive(Debug)]
pub struct Nodes {
    me: u64,
    key: CallKey,
    correlation: CorrelationKey,
    poll_timeout: Duration,
    /// Bound of the body of a call, known from [`Self::start`] on.
    max_call_bytes: OnceLock<usize>,
    directory: Mutex<Directory>,
    calls: mpsc::Sender<Call>,
    waiting: Mutex<Option<mpsc::Receiver<Call>>>,
    log: OnceLock<Arc<CompactedLog>>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: NodeCounts,
}

/// Counters of calls to other nodes.
#[derive(Debug, Default)]
pub struct NodeCounts {
    /// Calls that another node answered.
    pub answered: AtomicU64,
    /// Calls that none answered in time.
    pub unreachable: AtomicU64,
}

/// The port for other nodes, what it serves from, and the bound of a body.
type Port = (TcpListener, NodeDesk, AnswerDesk, usize);

/// Takes the answer of a call to another node; `None` where none came.
type Reply = Box<dyn FnOnce(Option<(StatusCode, Bytes)>) + Send>;

/// A call to another node.
struct Call {
    node: u64,
    address: String,
    path: &'static str,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    reply: Reply,
}

impl Nodes {
    /// Knows nobody until [`Self::start`]. `cookie` is `NODE_COOKIE`, `me` the identity in connection tokens.
    #[must_use]
    pub fn new(me: u64, cookie: &str, correlation: CorrelationKey, longest_poll: Duration) -> Arc<Self> {
        let (calls, waiting) = mpsc::channel(MAX_WAITING_CALLS);
        Arc::new(Self {
            me,
            key: CallKey::derive_from(cookie),
            correlation,
            poll_timeout: longest_poll + CALL_TIMEOUT,
            max_call_bytes: OnceLock::new(),
            directory: Mutex::new(Directory::new(me)),
            calls,
            waiting: Mutex::new(Some(waiting)),
            log: OnceLock::new(),
            stop: watch::Sender::new(false),
            thread: Mutex::default(),
            counts: NodeCounts::default(),
        })
    }

    /// Reads the topic, tells the others that this node is reached at `address`, and serves their calls.
    fn follow(self: &Arc<Self>, kafka: &KafkaSettings, topic: &str, address: String, port: Port) -> io::Result<()> {
        let follower = Arc::downgrade(self);
        let log = CompactedLog::start(
            kafka,
            topic,
            Subject { thread: "node-log", records: "nodes" },
            Box::new(move |entry| {
                if let Some(nodes) = follower.upgrade() {
                    nodes.take_entry(&entry);
                }
            }),
        )?;
        let log = Arc::clone(self.log.get_or_init(|| Arc::new(log)));
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waiting = waiting.ok_or_else(|| io::Error::other("the nodes' thread was started twice"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (nodes, stopped) = (Arc::clone(self), self.stop.subscribe());
        let thread = thread::Builder::new()
            .name("nodes".to_owned())
            .spawn(move || runtime.block_on(nodes.run(waiting, &log, address, port, stopped)))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Tells the others that this node ends, and waits for the threads.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the nodes' thread panicked");
        }
        if let Some(log) = self.log.get() {
            log.stop();
        }
    }

    /// Other nodes that live.
    #[must_use]
    pub fn others(&self) -> usize {
        self.directory().len()
    }

    /// Counters of calls to them.
    #[must_use]
    pub fn counts(&self) -> &NodeCounts {
        &self.counts
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_entry(&self, entry: &Entry<'_>) {
        match entry {
            Entry::End => self.directory().read_back(),
            Entry::Record(_, id, value) => {
                if let Err(error) = self.directory().take(id, *value, unix_ms(), clock::now_ms()) {
                    tracing::warn!(id, %error, "a record in the topic of nodes is none");
                }
            }
        }
    }

    async fn run(
        self: Arc<Self>,
        mut waiting: mpsc::Receiver<Call>,
        log: &Arc<CompactedLog>,
        address: String,
        (listener, desk, answers, max_call_bytes): Port,
        mut stopped: watch::Receiver<bool>,
    ) {
        let id = format!("{:016x}", self.me);
        tokio::spawn(async move {
            if let Err(error) = port::serve(listener, desk, answers, max_call_bytes).await {
                tracing::error!(%error, "the port for other nodes has ended");
            }
        });
        let client = client::Client::default();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                _ = heartbeat.tick() => {
                    let (log, id, address) = (Arc::clone(log), id.clone(), address.clone());
                    tokio::spawn(async move {
                        let beat = Heartbeat { address, at_ms: unix_ms() };
                        let record = serde_json::to_vec(&beat).expect("invariant: a heartbeat is JSON");
                        if let Err(error) = log.write(&id, &record).await {
                            tracing::debug!(%error, "Kafka did not take this node's heartbeat");
                        }
                    });
                }
                Some(call) = waiting.recv() => {
                    let (nodes, client) = (Arc::clone(&self), client.clone());
                    tokio::spawn(async move { nodes.make(&client, call).await });
                }
            }
        }
        // The log's end waits until Kafka has it.
        if let Err(error) = log.post(&id, None) {
            tracing::debug!(%error, "Kafka can't take this node's farewell");
        }
    }

    async fn make(&self, client: &client::Client, call: Call) {
        let Call { node, address, path, headers, body, timeout, reply } = call;
        let path = format!("{CALL_PREFIX}/{node:016x}/{path}");
        let proof = self.key.sign(&path, &body, unix_ms() / 1_000);
        let answer = match tokio::time::timeout(timeout, client.call(&address, &path, &proof, headers, body)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(address, path, %error, "another node can't be reached");
                None
            }
            Err(_) => None,
        };
        let count = if answer.is_some() { &self.counts.answered } else { &self.counts.unreachable };
        count.fetch_add(1, Ordering::Relaxed);
        reply(answer);
    }

    /// Hands a call to the thread; `reply` is dropped at once where there is no room for it.
    fn call(
        &self,
        (node, address): (u64, String),
        path: &'static str,
        (headers, body): (HeaderMap, Bytes),
        timeout: Duration,
        reply: Reply,
    ) {
        let call = Call { node, address, path, headers, body, timeout, reply };
        if self.calls.try_send(call).is_err() {
            self.counts.unreachable.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Passes an answer of a service on to the node whose request it names. `None` where no node is known for it.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn pass_answer(
        &self,
        correlation: &[u8],
        structured: bool,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Option<(StatusCode, Bytes)>, Unreachable> {
        let Some(id) = self.correlation.open(correlation) else { return Ok(None) };
        let found = self.directory().find_instance(id.instance);
        let to = match found {
            Found::At(node, address) => (node, address),
            Found::Gone => return Ok(None),
            Found::Unknown => return Err(Unreachable),
        };
        let path = if structured { wire::RESPONSES_V2 } else { wire::RESPONSES_V3 };
        let (tell, answer) = oneshot::channel();
        let reply = Box::new(move |answer| {
            let _nobody_waits_any_more = tell.send(answer);
        });
        self.call(to, path, (wire::passed_on(headers), body), CALL_TIMEOUT, reply);
        match answer.await.ok().flatten() {
            Some((StatusCode::GONE, _)) => Ok(None),
            Some(answer) => Ok(Some(answer)),
            None => Err(Unreachable),
        }
    }
}

impl Peers for Nodes {
    fn set_subscriptions(
        &self,
        at: ConnectionAddress,
        subscriptions: Vec<Subscription>,
        identity: Identity,
        reply: oneshot::Sender<Result<SetOutcome, Unreachable>>,
    ) {
        let outcome = match self.directory().find(at.node) {
            Found::At(node, address) => Ok((node, address)),
            Found::Gone => Err(Ok(SetOutcome::Gone)),
            Found::Unknown => Err(Err(Unreachable)),
        };
        match outcome {
            Ok(to) => {
                let body = wire::set_request(at, &subscriptions, &identity);
                if self.max_call_bytes.get().is_some_and(|max| body.len() > *max) {
                    let _nobody_waits_any_more = reply.send(Ok(SetOutcome::Refused(wire::TOO_LARGE.to_owned())));
                    return;
                }
                let reply = Box::new(move |answer: Option<(StatusCode, Bytes)>| {
                    let outcome = answer.map_or(Err(Unreachable), |(status, body)| wire::set_outcome(status, &body));
                    let _nobody_waits_any_more = reply.send(outcome);
                });
                self.call(to, wire::SUBSCRIPTIONS, (HeaderMap::new(), body), CALL_TIMEOUT, reply);
            }
            Err(known) => {
                let _nobody_waits_any_more = reply.send(known);
            }
        }
    }

    fn poll(
        &self,
        at: ConnectionAddress,
        last_event_id: String,
        reply: oneshot::Sender<Result<Option<PollAnswer>, Unreachable>>,
    ) {
        let outcome = match self.directory().find(at.node) {
            Found::At(node, address) => Ok((node, address)),
            Found::Gone => Err(Ok(None)),
            Found::Unknown => Err(Err(Unreachable)),
        };
        match outcome {
            Ok(to) => {
                let body = wire::poll_request(at, last_event_id);
                let reply = Box::new(move |answer: Option<(StatusCode, Bytes)>| {
                    let outcome = answer.map_or(Err(Unreachable), |(status, body)| wire::poll_outcome(status, &body));
                    let _nobody_waits_any_more = reply.send(outcome);
                });
                self.call(to, wire::POLL, (HeaderMap::new(), body), self.poll_timeout, reply);
            }
            Err(known) => {
                let _nobody_waits_any_more = reply.send(known);
            }
        }
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}
