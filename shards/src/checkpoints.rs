//! Looking up checkpoints: what shards ask of whoever has their log (Kafka), and the answer, which comes through the control
//! lane.

use std::sync::Arc;

use crate::cursor::{Checkpoint, Reference};

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

/// Who looks up checkpoints; shared by all shards. `find` never blocks. Each call is answered once, in the end.
pub trait CheckpointSource: std::fmt::Debug + Send + Sync + 'static {
    /// Asks; the answer comes as [`Control::Checkpoint`](crate::mailbox::Control::Checkpoint).
    fn find(&self, lookup: Lookup);
}
