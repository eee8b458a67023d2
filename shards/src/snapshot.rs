//! Initial state: the newest event per key, for clients that ask for it before the live events.
//!
//! Whoever reads the source's state topics keeps the newest events in a [`cache`]. A shard asks for those before the position at
//! which its client begins to live; they come back through a lane of their own, and [`reading`] lets clients that ask for the same
//! types at the same time share one look through the cache.

pub mod cache;
pub mod reading;

use std::sync::Arc;

use crate::cursor::{Layout, Vector};
use crate::record::Range;
use crate::replay::Lane;
use crate::segment::Segment;
use crate::shard::connection::Address;

/// A place in the order in which a snapshot comes: by slot, in it by offset. What lies before it has been dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// The slot.
    pub slot: usize,
    /// Next offset in it.
    pub next: u64,
}

/// A client that waits for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The client.
    pub address: Address,
    /// Which of its requests; answers to earlier ones are void.
    pub round: u64,
}

/// A client asks for the newest events before a position.
#[derive(Clone, Debug)]
pub struct SnapshotRequest {
    /// The shard that asks.
    pub shard: usize,
    /// For whom.
    pub member: Member,
    /// Next offsets by slot at which its live stream begins. The cache must have seen everything before them; keys whose newest
    /// event lies beyond are left out, since the live stream brings that one.
    pub to: Vector,
    /// What the slots stand for.
    pub layout: Arc<Layout>,
    /// Where the snapshot goes on that was begun before.
    pub after: Progress,
    /// The types asked for, sorted.
    pub event_types: Box<[Box<str>]>,
}

/// Who gives snapshots; shared by all shards. `request` never blocks.
pub trait SnapshotSource: std::fmt::Debug + Send + Sync + 'static {
    /// Asks; the answer comes through the shard's [`SnapshotLane`].
    fn request(&self, request: SnapshotRequest);
}

/// One entry of the snapshot lane.
#[derive(Debug)]
pub enum Snapshotted {
    /// These clients take part in the events that follow.
    Begin(Vec<Member>),
    /// The events that follow lie in this segment.
    Segment(Arc<Segment>),
    /// An event of the current segment.
    Event(Range),
    /// That was all there is, and whether nothing of it was left out for want of memory.
    Done {
        /// Nothing was left out.
        complete: bool,
    },
    /// The position was of another time of the source: these clients ask again from where the node is now.
    Again(Vec<Member>),
}

/// The source's end of a snapshot lane.
pub type SnapshotLane = Lane<Snapshotted>;
