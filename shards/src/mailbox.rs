//! The two lanes into a shard: events from ingress over a lock-free SPSC queue, and control
//! messages from any thread over a bounded MPMC queue. Both wake the same task.

use std::sync::{Arc, OnceLock};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use futures_channel::oneshot;
use tidegate_reactive::correlation::CorrelationId;

use crate::auth::key::Key;
use crate::checkpoints::Found;
use crate::cursor::{Layout, Loss, Recent, Vector};
use crate::proxy::outbound::CorrelatedAnswer;
use crate::proxy::stored::StoreCall;
use crate::proxy::table::ApiTable;
use crate::record::Range;
use crate::replay::Replayed;
use crate::segment::Segment;
use crate::shard::identity::Identity;
use crate::snapshot::Snapshotted;
use crate::subscription::Subscription;

/// Control messages that may wait for one shard.
const CONTROL_CAPACITY: usize = 16_384;

/// One entry of the event lane.
#[derive(Debug)]
pub enum Mail {
    /// The events that follow lie in this segment.
    Segment(Arc<Segment>),
    /// An event of the current segment.
    Event(Range),
    /// Ingress knows the interest that was announced with this ticket.
    InterestKnown(u64),
    /// The cursor of all that came before.
    Position(Arc<str>),
    /// The partitions that the node reads have changed; the events that follow use the new numbers.
    Layout(Arc<Layout>),
    /// The source has lost events before anybody got them.
    Lost(Box<Loss>),
    /// What a shard asked for a client that comes back.
    Kept(Box<Kept>),
}

/// What ingress has for a client that comes back, at the moment at which this stands in the event lane.
#[derive(Debug)]
pub struct Kept {
    /// The ticket it was asked with.
    pub ticket: u64,
    /// The partitions.
    pub layout: Arc<Layout>,
    /// Next offsets by slot: where the node is.
    pub now: Vector,
    /// The ring: recent segments, oldest first, the current one last.
    pub ring: Vec<Arc<Segment>>,
    /// Next offsets by slot from which on the ring has every event of the types that were asked for.
    pub complete_from: Vec<u64>,
    /// The last record of the ring.
    pub last: Option<Place>,
    /// The node's last checkpoints.
    pub checkpoints: Arc<Recent>,
}

/// A record's place in the node's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of its segment.
    pub segment: u64,
    /// Its offset there.
    pub offset: u32,
}

/// One entry of the control lane.
#[derive(Debug)]
pub enum Control {
    /// Answer to show that the event loop turns.
    Ping(oneshot::Sender<()>),
    /// Replace the subscriptions of a connection of this shard.
    SetSubscriptions {
        /// Slot of the connection.
        slot: u32,
        /// Generation of the slot.
        generation: u32,
        /// The new list.
        subscriptions: Vec<Subscription>,
        /// Whose it is by the tokens of the call.
        identity: Identity,
        /// Resolves once they are in force.
        reply: oneshot::Sender<SetOutcome>,
    },
    /// Fetch events of a long-polling session of this shard.
    Poll {
        /// Slot of the session.
        slot: u32,
        /// Generation of the slot.
        generation: u32,
        /// Newest id that the client has.
        last_event_id: String,
        /// Resolves with the answer, at once or when an event comes or the wait is over; dropped
        /// when the session is gone.
        reply: oneshot::Sender<PollAnswer>,
    },
    /// Put these endpoints in force; requests at hand finish under the old ones.
    SetApis {
        /// The new table.
        table: Arc<ApiTable>,
        /// Resolves once they are in force.
        reply: oneshot::Sender<()>,
    },
    /// Serve new TLS connections with these certificates; those that are open keep theirs.
    SetTls {
        /// The new configuration.
        config: Arc<rustls::ServerConfig>,
    },
    /// An answer to a request of the API proxy that waits on this shard.
    Answer {
        /// Names the request; already proven to be signed by this node and to mean this shard.
        id: CorrelationId,
        /// The answer.
        answer: CorrelatedAnswer,
        /// Resolves with whether somebody was waiting for it.
        reply: Option<oneshot::Sender<bool>>,
    },
    /// Put these keys of tokens in force.
    SetKeys {
        /// Whose they are, by the issuer's place in the settings.
        issuer: usize,
        /// All of the issuer's keys.
        keys: Arc<[Key]>,
    },
    /// A checkpoint that this shard asked for.
    Checkpoint(Found),
    /// Ask this shard's store of answers.
    Store(StoreCall),
    /// Accept no more connections, let requests finish, and move streams away over this time.
    Drain {
        /// In milliseconds.
        drain_ms: u64,
    },
    /// Close everything and end.
    Shutdown,
}

/// What became of a request to replace subscriptions.
#[derive(Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// They are in force.
    InForce,
    /// The connection doesn't exist any more.
    Gone,
    /// The list was refused, with the reason.
    Refused(String),
}

/// Answer to one long-polling call.
#[derive(Debug, PartialEq, Eq)]
pub struct PollAnswer {
    /// The JSON body.
    pub body: Bytes,
    /// The id of the newest event in it, for the cookie.
    pub last_event_id: String,
    /// The cursor of that event, where the client asked for cursors.
    pub cursor: Option<String>,
}

/// A control lane was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFull;

/// The waker of a shard's tick task, set when the task first runs and never taken out: waking it
/// gets the shard out of any sleep.
pub type Ticker = Arc<OnceLock<Waker>>;

/// Sends control messages to one shard; cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlLane {
    queue: Arc<ArrayQueue<Control>>,
    waker: Arc<AtomicWaker>,
    ticker: Ticker,
}

impl ControlLane {
    /// Queues a message and wakes the shard.
    ///
    /// # Errors
    /// [`ControlFull`] when the shard is far behind; the message is dropped, and its reply channel with it.
    pub fn send(&self, message: Control) -> Result<(), ControlFull> {
        self.queue.push(message).map_err(|_| ControlFull)?;
        self.waker.wake();
        Ok(())
    }

    /// Room for a message? Others may take it first.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.queue.is_full()
    }

    /// Lets the shard's wheel turn.
    pub fn tick(&self) {
        if let Some(waker) = self.ticker.get() {
            waker.wake_by_ref();
        }
    }
}

/// Ingress's end of the event lane.
#[derive(Debug)]
pub struct EventLane {
    producer: rtrb::Producer<Mail>,
    waker: Arc<AtomicWaker>,
    segment: Option<u64>,
    dirty: bool,
}

impl EventLane {
    /// Room for `entries` more?
    #[must_use]
    pub fn has_room(&self, entries: usize) -> bool {
        self.producer.slots() >= entries
    }

    /// Queues an event; the segment goes first where the shard doesn't know it. Needs room for two.
    pub fn push_event(&mut self, segment: &Arc<Segment>, event: Range) {
        if self.segment != Some(segment.number()) {
            self.segment = Some(segment.number());
            self.push(Mail::Segment(Arc::clone(segment)));
        }
        self.push(Mail::Event(event));
    }

    /// Queues anything else. Needs room for one.
    pub fn push_other(&mut self, mail: Mail) {
        self.push(mail);
    }

    /// Queues an answer to an announcement of interest. Needs room for one.
    pub fn push_interest_known(&mut self, ticket: u64) {
        self.push(Mail::InterestKnown(ticket));
    }

    /// Wakes the shard if it got mail since the last call.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.waker.wake();
        }
    }

    fn push(&mut self, mail: Mail) {
        self.dirty = true;
        let pushed = self.producer.push(mail);
        debug_assert!(pushed.is_ok(), "callers check for room first");
    }
}

/// A shard's end of both lanes.
#[derive(Debug)]
pub struct Inbox {
    /// Events from ingress.
    pub events: rtrb::Consumer<Mail>,
    /// Control messages.
    pub control: Arc<ArrayQueue<Control>>,
    /// Events read again, where there is somebody who does.
    pub replay: Option<rtrb::Consumer<Replayed>>,
    /// Snapshots, where there is somebody who gives them.
    pub snapshots: Option<rtrb::Consumer<Snapshotted>>,
    /// Woken by all lanes.
    pub waker: Arc<AtomicWaker>,
    /// Where the tick task leaves its waker.
    pub ticker: Ticker,
}

/// Makes the lanes of one shard.
#[must_use]
pub fn lanes(event_capacity: usize) -> (EventLane, ControlLane, Inbox) {
    let (producer, events) = rtrb::RingBuffer::new(event_capacity.max(4));
    let waker = Arc::new(AtomicWaker::new());
    let control = Arc::new(ArrayQueue::new(CONTROL_CAPACITY));
    let ticker = Ticker::default();
    (
        EventLane { producer, waker: Arc::clone(&waker), segment: None, dirty: false },
        ControlLane { queue: Arc::clone(&control), waker: Arc::clone(&waker), ticker: Arc::clone(&ticker) },
        Inbox { events, control, replay: None, snapshots: None, waker, ticker },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentWriter;

    #[test]
    fn a_shard_hears_of_a_segment_before_its_first_event_and_only_once() {
        let (mut lane, _control, mut inbox) = lanes(8);
        let writer = SegmentWriter::new(5, 64);
        let range = Range { offset: 0, len: 1 };
        lane.push_event(writer.segment(), range);
        lane.push_event(writer.segment(), range);
        assert!(matches!(inbox.events.pop(), Ok(Mail::Segment(segment)) if segment.number() == 5));
        assert!(matches!(inbox.events.pop(), Ok(Mail::Event(_))));
        assert!(matches!(inbox.events.pop(), Ok(Mail::Event(_))));
        assert!(inbox.events.pop().is_err());
    }

    #[test]
    fn a_full_control_lane_refuses() {
        let (_lane, control, _inbox) = lanes(8);
        let ping = || Control::Ping(oneshot::channel().0);
        for _ in 0..CONTROL_CAPACITY {
            control.send(ping()).unwrap();
        }
        assert_eq!(control.send(ping()), Err(ControlFull));
    }
}
