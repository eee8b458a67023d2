//! One core's world without its event loop: connections, subscriptions and the events that reach
//! them. Sockets are plain descriptors that are sent to without blocking; time is passed in.
//!
//! Read `connection` (what is kept), `admission` (who is let in), `subscribe` (how subscriptions come into force), `delivery`
//! (how a batch of events becomes one send per connection), `session` (long polling), `identity` (whose connection it is), then
//! `replay` and `resume` (clients that come back), and `snapshot` (their initial state).

pub mod admission;
#[cfg(test)]
mod catch_up_tests;
#[cfg(test)]
mod checkpoint_tests;
mod checkpoints;
pub mod connection;
mod delivery;
mod drain;
mod heartbeat;
pub mod identity;
#[cfg(test)]
mod opening_tests;
mod output;
pub mod own_events;
mod replay;
mod replay_output;
#[cfg(test)]
mod replay_tests;
mod resume;
mod sealed;
#[cfg(test)]
mod sealed_tests;
pub mod session;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
pub(crate) mod socket;
pub mod stored_text;
mod subscribe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidegate_reactive::wheel::TimerWheel;

use self::admission::Admission;
use self::connection::{Address, Closing, Connections, Output};
use self::delivery::Batch;
use self::drain::Drain;
use self::identity::Identities;
use self::replay::Replays;
use self::snapshot::Snapshots;
use self::subscribe::Requests;
use crate::bell::Bell;
use crate::index::Index;
use crate::metrics::ShardMetrics;
use crate::publisher::InterestLane;
use crate::queue::SegmentHold;
use crate::record::Range;
use crate::replay::ReplaySource;
use crate::settings::ShardSettings;
use crate::snapshot::SnapshotSource;
use crate::ws::encode::{self, OpCode};

/// Ends a chunked event stream (RFC 9112 section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// [`sse::HEARTBEAT`] as one chunk.
const HEARTBEAT_CHUNK: &[u8] = b"d\r\n: heartbeat\n\n\r\n";

/// How often an HTTP connection's deadline is looked at, in milliseconds: it moves with every request, the timer doesn't.
const DEADLINE_CHECK_MS: u64 = 1_000;

/// What a timer is for; part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Timer {
    Heartbeat = 1,
    Deadline = 2,
    Session = 3,
    Poll = 4,
    Token = 5,
}

/// The state of one shard.
#[derive(Debug)]
pub struct Shard {
    number: usize,
    settings: Arc<ShardSettings>,
    metrics: Arc<ShardMetrics>,
    connections: Connections,
    index: Index,
    requests: Requests,
    batch: Batch,
    wheel: TimerWheel,
    due: Vec<u64>,
    admission: Admission,
    identities: Identities,
    /// Bytes of one connection that are gathered into one send while it is being opened.
    cork: Option<(u32, Vec<u8>)>,
    /// Where bytes are encrypted before they are sent; used again for every send.
    sealed: Vec<u8>,
    segment: Option<SegmentHold>,
    /// The last record of `segment` that was taken.
    last_record: Option<Range>,
    /// The cursor of the last record of `segment` that has one, where that is newer than `position`.
    cursor_range: Range,
    /// A cursor that stands for all that was taken when it came.
    position: Option<Arc<str>>,
    replays: Replays,
    snapshots: Snapshots,
    older_segments: std::collections::VecDeque<std::rc::Weak<Arc<crate::segment::Segment>>>,
    /// The time of the last tick, in milliseconds.
    now_ms: u64,
    /// Hashes what events are about, for clients that conflate.
    keys: ahash::RandomState,
    /// The node is about to end.
    drain: Option<Box<Drain>>,
}

impl Shard {
    /// A shard without connections.
    #[must_use]
    pub fn new(
        number: usize,
        settings: Arc<ShardSettings>,
        metrics: Arc<ShardMetrics>,
        interest: InterestLane,
        ingress_bell: Bell,
        now_ms: u64,
    ) -> Self {
        let admission = Admission::new(settings.max_connections_per_minute);
        let identities = Identities::new(settings.sessions.additions());
        Self {
            number,
            settings,
            metrics,
            connections: Connections::default(),
            index: Index::new(),
            requests: Requests::new(interest, ingress_bell),
            batch: Batch::default(),
            wheel: TimerWheel::new(now_ms),
            due: Vec::new(),
            admission,
            identities,
            cork: None,
            sealed: Vec::new(),
            segment: None,
            last_record: None,
            cursor_range: Range::default(),
            position: None,
            replays: Replays::default(),
            snapshots: Snapshots::default(),
            older_segments: std::collections::VecDeque::new(),
            now_ms,
            keys: ahash::RandomState::new(),
            drain: None,
        }
    }

    /// Who reads events again that are in the ring no more.
    pub fn set_replay_source(&mut self, source: Option<Arc<dyn ReplaySource>>) {
        self.replays.source = source;
    }

    /// Who gives snapshots.
    pub fn set_snapshot_source(&mut self, source: Option<Arc<dyn SnapshotSource>>) {
        self.snapshots.source = source;
    }

    /// The connections.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.connections
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// A socket was accepted; it speaks HTTP until it is told otherwise, and ends at the deadline.
    pub fn accepted(&mut self, deadline_ms: u64, now_ms: u64) -> Address {
        self.metrics.connections_accepted.add(1);
        self.metrics.connections_http.add(1);
        self.take_place();
        let address = self.connections.insert(Output::Http, deadline_ms);
        self.wheel.insert(deadline_ms.min(now_ms + DEADLINE_CHECK_MS), key(address, Timer::Deadline));
        address
    }

    /// Moves the end of an HTTP connection's present phase; looked at once a second.
    pub fn set_deadline(&mut self, address: Address, deadline_ms: u64) {
        if let Some(connection) = self.connections.get_mut(address) {
            connection.deadline_ms = deadline_ms;
        }
    }

    /// The connection only waits for its peer to close: it ends at the deadline.
    pub fn set_linger(&mut self, address: Address, deadline_ms: u64) {
        if let Some(connection) = self.connections.get_mut(address) {
            connection.deadline_ms = deadline_ms;
            self.wheel.insert(deadline_ms, key(address, Timer::Deadline));
        }
    }

    /// Turns an accepted connection into a stream of events and queues its first event.
    /// `greeting` goes out before it, in the same send. End with [`Self::opened`].
    pub fn open(&mut self, address: Address, output: Output, greeting: Vec<u8>, token: &str, now_ms: u64) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        self.metrics.connections_http.subtract(1);
        connection.output = output;
        connection.deadline_ms = u64::MAX;
        self.settle_sealed(address);
        self.start(address, greeting, token, now_ms);
    }

    /// Turns an accepted connection into a stream that gets no events: one that is refused on its
    /// own terms, or an echo. `greeting` goes out first. End with [`Self::opened`].
    pub fn open_bare(&mut self, address: Address, output: Output, greeting: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        self.metrics.connections_http.subtract(1);
        self.metrics.connections_ws.add(u64::from(matches!(output, Output::WebSocket(_))));
        self.metrics.connections_sse.add(u64::from(matches!(output, Output::EventStream { .. })));
        connection.output = output;
        connection.deadline_ms = u64::MAX;
        self.settle_sealed(address);
        self.cork = Some((address.slot, greeting));
    }

    /// Adds a long-polling session, or an event stream whose body is pulled, and queues its first
    /// event. End with [`Self::opened`].
    pub fn open_detached(&mut self, output: Output, token: impl FnOnce(Address) -> String, now_ms: u64) -> Address {
        self.take_place();
        let address = self.connections.insert(output, u64::MAX);
        let token = token(address);
        self.start(address, Vec::new(), &token, now_ms);
        address
    }

    fn start(&mut self, address: Address, greeting: Vec<u8>, token: &str, now_ms: u64) {
        let Some(connection) = self.connections.get(address) else { return };
        let timer = match connection.output {
            Output::WebSocket(_) => {
                self.metrics.connections_ws.add(1);
                Some((Timer::Heartbeat, self.settings.heartbeat_ms))
            }
            Output::EventStream { .. } | Output::Pulled => {
                self.metrics.connections_sse.add(1);
                Some((Timer::Heartbeat, self.settings.heartbeat_ms))
            }
            Output::Session(_) => {
                self.metrics.connections_longpolling.add(1);
                Some((Timer::Session, self.settings.long_polling_session_ms))
            }
            Output::Http => None,
        };
        if let Some((timer, after_ms)) = timer {
            self.wheel.insert(now_ms + after_ms, key(address, timer));
            self.drain_later(address);
        }
        self.cork = Some((address.slot, greeting));
        let data = own_events::connection_create_data(token);
        self.send_own_event(address, own_events::CONNECTION_CREATE, &data);
    }

    /// Sends what [`Self::open`] and the calls since have gathered, at once.
    pub fn opened(&mut self, address: Address) {
        if let Some((_, bytes)) = self.cork.take_if(|(slot, _)| *slot == address.slot) {
            self.send(address, bytes.into());
        }
    }

    /// Ends the connection's existence; its task has closed, or is about to close, the socket.
    pub fn remove(&mut self, address: Address) {
        let Some(connection) = self.connections.remove(address) else { return };
        self.forget_replay(address, connection.replaying);
        self.cork.take_if(|(slot, _)| *slot == address.slot);
        self.leave_place(address);
        self.identities.forget(address.slot);
        match connection.output {
            Output::Http => self.metrics.connections_http.subtract(1),
            Output::WebSocket(_) => self.metrics.connections_ws.subtract(1),
            Output::EventStream { .. } | Output::Pulled => self.metrics.connections_sse.subtract(1),
            Output::Session(_) => self.metrics.connections_longpolling.subtract(1),
        }
        self.metrics.queue_bytes.subtract(connection.queued_bytes() as u64);
        self.metrics.subscriptions.subtract(u64::from(connection.subscriptions));
        self.forget_subscriptions(address);
    }

    /// Asks a connection to end.
    pub fn close(&mut self, address: Address, closing: Closing) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        if closing == Closing::Now && !matches!(connection.output, Output::Http) {
            return self.cut(address.slot);
        }
        connection.closing = connection.closing.max(closing);
        connection.wake();
    }

    /// Sends a WebSocket's close frame, or an event stream's last chunk, and ends the connection after it.
    pub fn finish(&mut self, address: Address, code: Option<u16>, reason: &str) {
        let Some(connection) = self.connections.get(address) else { return };
        if connection.closing != Closing::No {
            return;
        }
        let mut last = Vec::new();
        match connection.output {
            Output::WebSocket(_) => encode::append_close(code, reason, &mut last),
            Output::EventStream { chunked: true, .. } => last.extend_from_slice(LAST_CHUNK),
            Output::EventStream { .. } | Output::Pulled | Output::Http | Output::Session(_) => {}
        }
        if !last.is_empty() {
            self.send(address, last.into());
        }
        self.close(address, Closing::AfterFlush);
    }

    /// Sends a message to one WebSocket alone.
    pub fn send_message(&mut self, address: Address, opcode: OpCode, payload: &[u8]) {
        let mut frame = Vec::new();
        encode::append_frame(opcode, payload, &mut frame);
        self.send(address, frame.into());
    }

    /// Tells every client at once that the node goes away, and ends the connections once that is sent.
    pub fn finish_all(&mut self, now_ms: u64) {
        self.start_drain(0, now_ms);
        let requests: Vec<_> = self
            .connections
            .iter_mut()
            .filter(|(_, connection)| matches!(connection.output, Output::Http))
            .map(|(address, _)| address)
            .collect();
        for address in requests {
            self.close(address, Closing::AfterFlush);
        }
    }

    /// Asks all connections to end, and drops the sessions.
    pub fn close_all(&mut self) {
        let all: Vec<_> = self.connections.iter_mut().map(|(address, _)| address).collect();
        for address in all {
            let session = matches!(self.connections.get(address).map(|c| &c.output), Some(Output::Session(_)));
            if session {
                self.remove(address);
            } else {
                self.close(address, Closing::Now);
            }
        }
    }

    /// Lets time pass: heartbeats, ends of waits, deadlines.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now_ms, &mut due);
        for key in due.drain(..) {
            self.timer(key, now_ms);
        }
        self.due = due;
        self.resume_parked(now_ms);
        self.end_killed_sessions(now_ms);
        self.drain_step(now_ms);
    }

    fn timer(&mut self, key: u64, now_ms: u64) {
        let slot = u32::try_from(key >> 32).expect("invariant: the upper half of a u64 is a u32");
        let Some(connection) = self.connections.at(slot) else { return };
        let address = Address { slot, generation: connection.generation };
        let deadline_ms = connection.deadline_ms;
        let same = |timer| key == self::key(address, timer);
        if same(Timer::Heartbeat) {
            self.heartbeat(address);
            self.wheel.insert(now_ms + self.settings.heartbeat_ms, key);
        } else if same(Timer::Deadline) && deadline_ms != u64::MAX {
            if deadline_ms <= now_ms {
                self.close(address, Closing::Now);
            } else {
                self.wheel.insert(deadline_ms.min(now_ms + DEADLINE_CHECK_MS), key);
            }
        } else if same(Timer::Session) {
            self.session_timer(address, now_ms);
        } else if same(Timer::Poll) {
            self.poll_timer(address, now_ms);
        } else if same(Timer::Token) {
            self.token_timer(address, now_ms);
        }
    }
}

fn key(address: Address, timer: Timer) -> u64 {
    (u64::from(address.slot) << 32) | (u64::from(address.generation & 0x00ff_ffff) << 8) | u64::from(timer as u8)
}
