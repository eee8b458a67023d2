//! Looking up checkpoints: what shards ask of whoever has their log (Kafka), and the answer, which comes through the control
//! lane.

use std::sync::Arc;

use crate::cursor::{Checkpoint, Reference};

/// Look-ups of one shard at a time; clients that need further ones wait. Those of cursors that somebody made up take
/// longest, some 10 s: there is room for others beside them.
pub const MAX_LOOKUPS: usize = 2_048;

/// A shard needs this checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// The shard that asks.
    pub shard: usize,
    /// The checkpoint.
    pub reference: Reference,
}

/// What became of a [`Lookup`].
#[derive(Clone, Debug)]
pub struct Found {
    /// The checkpoint that was asked for.
    pub reference: Reference,
    /// `None` where it is kept no more.
    pub checkpoint: Option<Arc<Checkpoint>>,
}

/// Who looks up checkpoints; shared by all shards, of which none has more than [`MAX_LOOKUPS`] open. `find` never blocks.
/// Each call is answered once, in the end.
pub trait CheckpointSource: std::fmt::Debug + Send + Sync + 'static {
    /// Asks; the answer comes as [`Control::Checkpoint`](crate::mailbox::Control::Checkpoint).
    fn find(&self, lookup: Lookup);
}
