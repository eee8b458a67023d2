//! A node's shards as the rest of the process sees them: start, ask, stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_channel::oneshot;
use tidegate_reactive::correlation::CorrelationId;

use crate::auth::key::Key;
use crate::bell::Bell;
use crate::checkpoints::Found;
pub use crate::mailbox::ControlFull;
use crate::mailbox::{Control, ControlLane, PollAnswer, SetOutcome, lanes};
use crate::metrics::{Cell, ShardMetrics};
use crate::proxy::outbound::CorrelatedAnswer;
use crate::proxy::table::ApiTable;
use crate::publisher::{InterestLane, Publisher};
use crate::replay;
pub use crate::runtime::backend_tls;
use crate::runtime::{self, Listening, Resolver, ShardThread};
use crate::settings::ShardSettings;
use crate::shard::identity::Identity;
use crate::submit::Sinks;
use crate::subscription::Subscription;
use crate::token::ConnectionAddress;

/// How the shards are laid out.
#[derive(Clone, Debug)]
pub struct NodeLayout {
    /// The core each shard is pinned to; `None` leaves a shard unpinned. Its length is the number of shards.
    pub cores: Vec<Option<usize>>,
    /// Capacity of each shard's event queue, in events.
    pub mailbox_events: usize,
    /// Size of one segment, in bytes.
    pub segment_bytes: usize,
    /// Bytes of recent segments kept for replay.
    pub history_bytes: usize,
}

/// Time between two turns of the shards' wheels, which count in the same step.
const TICK: Duration = Duration::from_millis(50);

/// The running shards.
#[derive(Debug)]
pub struct Node {
    threads: Vec<JoinHandle<()>>,
    clock: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    lanes: Arc<[ControlLane]>,
    metrics: Vec<Arc<ShardMetrics>>,
    listening: Listening,
}

impl Node {
    /// Starts one executor per entry of `layout.cores` and returns once all of them listen.
    /// The publisher belongs to the ingress thread, which sleeps on `ingress_bell`.
    ///
    /// # Errors
    /// A port can't be bound, or io_uring can't start; the text says which and what to do.
    pub fn start(
        layout: &NodeLayout,
        settings: &Arc<ShardSettings>,
        sinks: &Sinks,
        ingress_bell: &Bell,
    ) -> io::Result<(Self, Publisher)> {
        let interest = InterestLane::default();
        let resolver = Resolver::start(settings.proxy.ca_pem.clone())?;
        let (mut event_lanes, mut control_lanes, mut inboxes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut replay_lanes, mut snapshot_lanes) = (Vec::new(), Vec::new());
        for _ in &layout.cores {
            let (events, control, mut inbox) = lanes(layout.mailbox_events);
            let (replay_lane, replay) = replay::lane(&inbox.waker);
            inbox.replay = Some(replay);
            replay_lanes.push(replay_lane);
            if sinks.snapshots.is_some() {
                let (snapshot_lane, snapshots) = replay::lane(&inbox.waker);
                inbox.snapshots = Some(snapshots);
                snapshot_lanes.push(snapshot_lane);
            }
            event_lanes.push(events);
            control_lanes.push(control);
            inboxes.push(inbox);
        }
        let mut node = Self {
            threads: Vec::new(),
            clock: None,
            lanes: control_lanes.into(),
            metrics: layout.cores.iter().map(|_| Arc::default()).collect(),
            listening: Listening {
                plain: settings.listen.clone(),
                tls: settings.tls.as_ref().map_or_else(Vec::new, |tls| tls.listen.clone()),
            },
        };
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let started = runtime::start(ShardThread {
                number,
                core: layout.cores[number],
                settings: Arc::clone(settings),
                metrics: Arc::clone(&node.metrics[number]),
                inbox,
                lanes: Arc::clone(&node.lanes),
                interest: Arc::clone(&interest),
                ingress_bell: ingress_bell.clone(),
                sinks: sinks.clone(),
                resolver: resolver.clone(),
                addresses: node.listening.clone(),
            });
            let listening = started.and_then(|(thread, listening)| {
                node.threads.push(thread);
                listening.recv().map_err(|_| io::Error::other(format!("shard {number} ended while it started")))?
            });
            match listening {
                // Port 0 is resolved by the first shard; the others share its port.
                Ok(listening) => node.listening = listening,
                Err(error) => {
                    node.shutdown();
                    return Err(error);
                }
            }
        }
        node.clock = Some(start_clock(Arc::clone(&node.lanes))?);
        let publisher = Publisher::new(event_lanes, interest, layout.segment_bytes, layout.history_bytes);
        Ok((node, publisher.with_replay_lanes(replay_lanes).with_snapshot_lanes(snapshot_lanes)))
    }

    /// Addresses the shards listen on (port 0 resolved).
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening.plain
    }

    /// Addresses of the TLS port (port 0 resolved); none without certificates.
    #[must_use]
    pub fn listening_tls(&self) -> &[SocketAddr] {
        &self.listening.tls
    }

    /// The counters of each shard.
    #[must_use]
    pub fn metrics(&self) -> &[Arc<ShardMetrics>] {
        &self.metrics
    }

    /// Asks shard `index` for a sign of life; the receiver resolves when its event loop has handled the request.
    pub fn ping(&self, index: usize) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        if let Some(lane) = self.lanes.get(index)
            && lane.send(Control::Ping(reply)).is_err()
        {
            tracing::warn!(shard = index, "the control lane is full: the shard is far behind");
        }
        answer
    }

    /// Puts endpoints in force on every shard; the receivers resolve as the shards have them.
    ///
    /// # Errors
    /// [`ControlFull`] when a shard is far behind; some shards may have the new table then.
    pub fn set_apis(&self, table: &Arc<ApiTable>) -> Result<Vec<oneshot::Receiver<()>>, ControlFull> {
        let set = |lane: &ControlLane| {
            let (reply, done) = oneshot::channel();
            lane.send(Control::SetApis { table: Arc::clone(table), reply }).map(|()| done)
        };
        // The others get it even if one is full.
        let sent: Vec<_> = self.lanes.iter().map(set).collect();
        sent.into_iter().collect()
    }

    /// Serves new TLS connections with this configuration from now on; open ones are left alone.
    ///
    /// # Errors
    /// [`ControlFull`] when a shard is far behind and keeps the old one.
    pub fn set_tls(&self, config: &Arc<rustls::ServerConfig>) -> Result<(), ControlFull> {
        let set = |lane: &ControlLane| lane.send(Control::SetTls { config: Arc::clone(config) });
        // The others get it even if one is full.
        self.lanes.iter().map(set).fold(Ok(()), Result::and)
    }

    /// Puts keys of tokens in force on every shard: all of the issuer with this place in the settings.
    ///
    /// # Errors
    /// [`ControlFull`] when a shard is far behind; some shards may have the new keys then.
    pub fn set_keys(&self, issuer: usize, keys: &Arc<[Key]>) -> Result<(), ControlFull> {
        let set = |lane: &ControlLane| lane.send(Control::SetKeys { issuer, keys: Arc::clone(keys) });
        // The others get them even if one is full.
        self.lanes.iter().map(set).fold(Ok(()), Result::and)
    }

    /// Who brings correlated answers to the shards.
    #[must_use]
    pub fn answers(&self) -> Answers {
        Answers { lanes: Arc::clone(&self.lanes) }
    }

    /// Who brings checkpoints to the shards that have asked for them.
    #[must_use]
    pub fn finders(&self) -> Finders {
        Finders { lanes: Arc::clone(&self.lanes) }
    }

    /// Who brings calls of other nodes to the connections of this one.
    #[must_use]
    pub fn holders(&self) -> Holders {
        Holders { lanes: Arc::clone(&self.lanes) }
    }

    /// Stops accepting, lets requests finish, and moves streams away over `drain_ms`; see
    /// [`Shard::start_drain`](crate::shard::Shard::start_drain). Call [`Self::shutdown`] in the end.
    pub fn drain(&self, drain_ms: u64) {
        for lane in self.lanes.iter() {
            // A full lane means a shard that hangs; its connections end with the process.
            let _full = lane.send(Control::Drain { drain_ms });
        }
    }

    /// Connections and sessions that are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        let of_shard = |shard: &Arc<ShardMetrics>| {
            let ShardMetrics { connections_ws, connections_sse, connections_longpolling, connections_http, .. } =
                &**shard;
            [connections_ws, connections_sse, connections_longpolling, connections_http]
                .map(Cell::get)
                .iter()
                .sum::<u64>()
        };
        self.metrics.iter().map(of_shard).sum()
    }

    /// Closes all connections and listeners and waits for the threads to end.
    pub fn shutdown(self) {
        for lane in self.lanes.iter() {
            // A full lane means a shard that hangs; the process ends without it.
            let _full = lane.send(Control::Shutdown);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a shard's thread had panicked");
            }
        }
        if let Some((clock, stopped)) = self.clock {
            stopped.store(true, Ordering::Relaxed);
            clock.thread().unpark();
            if clock.join().is_err() {
                tracing::error!("the clock's thread had panicked");
            }
        }
    }
}

/// Brings checkpoints to the shards that have asked for them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Finders {
    lanes: Arc<[ControlLane]>,
}

impl Finders {
    /// Tells shard `index` what became of its question.
    ///
    /// # Errors
    /// [`ControlFull`] when the shard is far behind: tell it again, its clients wait.
    pub fn tell(&self, index: usize, found: Found) -> Result<(), ControlFull> {
        self.lanes.get(index).map_or(Ok(()), |lane| lane.send(Control::Checkpoint(found)))
    }
}

/// Brings correlated answers to the shards that wait for them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    lanes: Arc<[ControlLane]>,
}

impl Answers {
    /// Room for an answer at shard `index`? False where there is no such shard.
    #[must_use]
    pub fn has_room(&self, index: usize) -> bool {
        self.lanes.get(index).is_some_and(ControlLane::has_room)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.lanes.len()
    }

    /// Hands an answer to shard `index`. With `reply`, it resolves with whether somebody was waiting.
    ///
    /// # Errors
    /// [`ControlFull`] when there is no such shard, or it is far behind.
    pub fn send(
        &self,
        index: usize,
        id: CorrelationId,
        answer: CorrelatedAnswer,
        reply: Option<oneshot::Sender<bool>>,
    ) -> Result<(), ControlFull> {
        self.lanes.get(index).ok_or(ControlFull)?.send(Control::Answer { id, answer, reply })
    }
}

/// Brings calls that another node passes on to the shards that hold the connections; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    lanes: Arc<[ControlLane]>,
}

impl Holders {
    /// Replaces the subscriptions of a connection, and notes whose it is; the receiver is dropped if there is no such shard.
    ///
    /// # Errors
    /// [`ControlFull`] when the shard is far behind.
    pub fn set_subscriptions(
        &self,
        at: ConnectionAddress,
        subscriptions: Vec<Subscription>,
        identity: Identity,
    ) -> Result<oneshot::Receiver<SetOutcome>, ControlFull> {
        let ConnectionAddress { slot, generation, .. } = at;
        let (reply, outcome) = oneshot::channel();
        self.send(at, Control::SetSubscriptions { slot, generation, subscriptions, identity, reply })?;
        Ok(outcome)
    }

    /// Fetches events of a long-polling session; the receiver is dropped if it is gone.
    ///
    /// # Errors
    /// [`ControlFull`] when the shard is far behind.
    pub fn poll(
        &self,
        at: ConnectionAddress,
        last_event_id: String,
    ) -> Result<oneshot::Receiver<PollAnswer>, ControlFull> {
        let ConnectionAddress { slot, generation, .. } = at;
        let (reply, answer) = oneshot::channel();
        self.send(at, Control::Poll { slot, generation, last_event_id, reply })?;
        Ok(answer)
    }

    fn send(&self, at: ConnectionAddress, message: Control) -> Result<(), ControlFull> {
        self.lanes.get(usize::from(at.shard)).map_or(Ok(()), |lane| lane.send(message))
    }
}

/// Starts the thread that wakes every shard in short intervals: the wheels turn by it, and a shard
/// that its event loop has put to sleep with work to do (see `runtime/start.rs`) goes on.
fn start_clock(lanes: Arc<[ControlLane]>) -> io::Result<(JoinHandle<()>, Arc<AtomicBool>)> {
    let stopped = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stopped);
    let thread = std::thread::Builder::new().name("clock".to_owned()).spawn(move || {
        while !until.load(Ordering::Relaxed) {
            std::thread::park_timeout(TICK);
            lanes.iter().for_each(ControlLane::tick);
        }
    })?;
    Ok((thread, stopped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Inbox;

    #[test]
    fn a_shard_that_is_far_behind_keeps_nothing_from_the_others() {
        let (behind, full) = lane();
        while behind.send(Control::Ping(oneshot::channel().0)).is_ok() {}
        let (lane, inbox) = lane();
        let node = Node {
            threads: Vec::new(),
            clock: None,
            lanes: [behind, lane].into(),
            metrics: Vec::new(),
            listening: Listening::default(),
        };
        let table = Arc::<ApiTable>::default();
        assert!(node.set_apis(&table).is_err());
        assert!(matches!(inbox.control.pop(), Some(Control::SetApis { .. })));
        assert_eq!(node.set_keys(0, &[].into()), Err(ControlFull));
        assert!(matches!(inbox.control.pop(), Some(Control::SetKeys { .. })));
        while full.control.pop().is_some() {}
        assert_eq!(node.set_apis(&table).map(|waited| waited.len()), Ok(2));
    }

    fn lane() -> (ControlLane, Inbox) {
        let (_events, control, inbox) = lanes(4);
        (control, inbox)
    }
}
