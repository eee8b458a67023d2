//! Checkpoints that cursors of clients who come back refer to: those of this node, those that were looked up, and those that
//! still are. A client waits until its cursor is understood.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::Shard;
use super::replay::Stage;
use super::resume::{Beginning, First};
use crate::checkpoints::{CheckpointSource, Found, Lookup};
use crate::cursor::{Checkpoint, Recent, Reference, ResumeFrom};

/// Checkpoints that a shard remembers after they were looked up.
const MAX_KNOWN: usize = 32;

/// What a shard knows of checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    source: Option<Arc<dyn CheckpointSource>>,
    /// The node's own.
    pub(super) recent: Arc<Recent>,
    /// Looked up, the oldest first.
    known: VecDeque<Arc<Checkpoint>>,
    asked: HashSet<Reference, ahash::RandomState>,
}

impl Checkpoints {
    fn get(&self, reference: Reference) -> Option<&Arc<Checkpoint>> {
        let mut all = self.recent.checkpoints().iter().rev().chain(&self.known);
        all.find(|checkpoint| checkpoint.reference() == reference)
    }

    /// Puts a plain position in place of a cursor that refers to checkpoints. False where these must be looked up first, which
    /// is asked for here.
    pub(super) fn translate(&mut self, first: &mut First, shard: usize) -> bool {
        let Beginning::Presented(ResumeFrom::Checkpointed(cursor)) = &first.from else { return true };
        let missing: Vec<Reference> = cursor.references().filter(|reference| self.get(*reference).is_none()).collect();
        if let (Some(source), false) = (&self.source, missing.is_empty()) {
            for reference in missing {
                if self.asked.insert(reference) {
                    source.find(Lookup { shard, reference });
                }
            }
            return false;
        }
        let plain = cursor.resolve(|reference| self.get(reference).map(|checkpoint| &**checkpoint));
        first.client.footing.own = cursor.references().next().and_then(|reference| self.get(reference)).cloned();
        first.from = Beginning::Presented(plain.map_or(ResumeFrom::Gone, ResumeFrom::Cursor));
        true
    }
}

impl Shard {
    /// Who looks up checkpoints that cursors refer to.
    pub fn set_checkpoint_source(&mut self, source: Option<Arc<dyn CheckpointSource>>) {
        self.replays.checkpoints.source = source;
    }

    /// A checkpoint was looked up: clients that wait for it go on.
    pub fn checkpoint_found(&mut self, found: &Found) {
        let checkpoints = &mut self.replays.checkpoints;
        checkpoints.asked.remove(&found.reference);
        if let Some(checkpoint) = &found.checkpoint {
            if checkpoints.known.len() >= MAX_KNOWN {
                checkpoints.known.pop_front();
            }
            checkpoints.known.push_back(Arc::clone(checkpoint));
        }
        for first in self.replays.first.values_mut() {
            let Beginning::Presented(ResumeFrom::Checkpointed(cursor)) = &first.from else { continue };
            if !cursor.references().any(|reference| reference == found.reference) {
                continue;
            }
            if found.checkpoint.is_none() {
                first.from = Beginning::Presented(ResumeFrom::Gone);
            }
            if first.client.stage == Stage::Parked(u64::MAX) {
                first.client.stage = Stage::Parked(0);
            }
        }
        self.ask_first_again(self.now_ms);
    }
}
