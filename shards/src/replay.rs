//! Reading events again: what shards ask of whoever can (Kafka), and how the events come back.
//!
//! Requests that wait at the same time are served by one pass over the range that covers them all; its events go to every shard
//! that has somebody in it, and each client gets what matches its subscriptions from its own position on.

use std::sync::Arc;

use atomic_waker::AtomicWaker;

use crate::cursor::{Layout, Loss, Vector};
use crate::record::Range;
use crate::segment::Segment;
use crate::shard::connection::Address;

/// Entries that may wait for one shard.
const LANE_CAPACITY: usize = 8_192;

/// A client that needs events which are in the ring no more.
#[derive(Debug)]
pub struct ReplayRequest {
    /// The shard that asks.
    pub shard: usize,
    /// Its client.
    pub address: Address,
    /// Next offsets by slot that the client has not seen.
    pub from: Vec<u64>,
    /// Read up to these.
    pub to: Vector,
    /// What the slots stand for.
    pub layout: Arc<Layout>,
    /// The types that it may want.
    pub event_types: Box<[Box<str>]>,
    /// Offsets that are gone are no loss: the client asked for what there is.
    pub earliest: bool,
    /// Begin at the first event since this time instead, in milliseconds since 1970 (UTC).
    pub since_ms: Option<i64>,
}

/// Who reads events again; shared by all shards. `request` never blocks.
pub trait ReplaySource: std::fmt::Debug + Send + Sync + 'static {
    /// Asks; the answer comes through the shard's [`ReplayLane`].
    fn request(&self, request: ReplayRequest);
}

/// One entry of the replay lane.
#[derive(Debug)]
pub enum Replayed {
    /// These clients take part in the events that follow. Each with what of its range is lost, and where it goes on.
    Begin(Vec<Joined>),
    /// The events that follow lie in this segment.
    Segment(Arc<Segment>),
    /// An event of the current segment.
    Event(Range),
    /// Part of the range is lost to clients whose position in this slot is below `to`.
    Lost(Loss),
    /// The pass is over: its clients have everything before these next offsets by slot.
    Done(Vector),
}

/// Held by every client that takes part in a pass, for as long as it does: a pass that nobody is in any more need not go on.
#[derive(Clone, Debug, Default)]
pub struct PassTicket(Arc<()>);

impl PassTicket {
    /// Is this the only one there is?
    #[must_use]
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A client of a pass.
#[derive(Debug)]
pub struct Joined {
    /// That it takes part.
    pub ticket: PassTicket,
    /// The client.
    pub address: Address,
    /// Where it begins, where that was not known before.
    pub from: Option<Vec<u64>>,
    /// What is lost.
    pub losses: Vec<Loss>,
}

/// The reader's end of a lane to a shard.
#[derive(Debug)]
pub struct Lane<T> {
    producer: rtrb::Producer<T>,
    waker: Arc<AtomicWaker>,
}

/// The reader's end of a replay lane.
pub type ReplayLane = Lane<Replayed>;

impl<T> Lane<T> {
    /// Room for `entries` more?
    #[must_use]
    pub fn has_room(&self, entries: usize) -> bool {
        self.producer.slots() >= entries
    }

    /// Queues an entry; gives it back where there is no room.
    ///
    /// # Errors
    /// The entry, when the lane is full.
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        self.producer.push(entry).map_err(|rtrb::PushError::Full(entry)| entry)
    }

    /// Wakes the shard.
    pub fn flush(&self) {
        self.waker.wake();
    }
}

/// Makes a lane to a shard, which sleeps on `waker`.
#[must_use]
pub fn lane<T>(waker: &Arc<AtomicWaker>) -> (Lane<T>, rtrb::Consumer<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(LANE_CAPACITY);
    (Lane { producer, waker: Arc::clone(waker) }, consumer)
}
