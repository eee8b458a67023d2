//! Checkpoints that cursors of clients who come back refer to: those of this node, those that were looked up, and those that
//! still are. A client waits until its cursor is understood.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::Shard;
use super::replay::{Replays, Stage};
use super::resume::{Beginning, First};
use crate::checkpoints::{CheckpointSource, Found, Lookup, MAX_LOOKUPS};
use crate::cursor::{Checkpoint, CheckpointedCursor, Recent, Reference, ResumeFrom};

/// Checkpoints that a shard remembers after they were looked up.
const MAX_KNOWN: usize = 32;

/// What a shard knows of checkpoints.
#[derive(Debug)]
pub(super) struct Checkpoints {
    source: Option<Arc<dyn CheckpointSource>>,
    /// The node's own.
    pub(super) recent: Arc<Recent>,
    /// Looked up, the oldest first.
    known: VecDeque<Arc<Checkpoint>>,
    asked: HashSet<Reference, ahash::RandomState>,
    /// How many may be asked for at a time.
    pub(super) max_asked: usize,
    /// There was no room to ask for all that clients wait for.
    is_crowded: bool,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            source: None,
            recent: Arc::default(),
            known: VecDeque::new(),
            asked: HashSet::default(),
            max_asked: MAX_LOOKUPS,
            is_crowded: false,
        }
    }
}

impl Checkpoints {
    fn get(&self, reference: Reference) -> Option<&Arc<Checkpoint>> {
        let mut all = self.recent.checkpoints().iter().rev().chain(&self.known);
        all.find(|checkpoint| checkpoint.reference() == reference)
    }

    /// Puts a plain position in place of a cursor that refers to checkpoints. False where these must be looked up first,
    /// which is asked for here, or once there is room for it.
    pub(super) fn translate(&mut self, first: &mut First, shard: usize) -> bool {
        if self.resolve(first) {
            return true;
        }
        let Beginning::Presented(ResumeFrom::Checkpointed(cursor)) = &first.from else { return true };
        if self.source.is_none() {
            first.from = Beginning::Presented(ResumeFrom::Gone);
            return true;
        }
        self.ask(cursor, shard);
        false
    }

    /// The same where all checkpoints are known; false where one isn't.
    fn resolve(&self, first: &mut First) -> bool {
        let Beginning::Presented(ResumeFrom::Checkpointed(cursor)) = &first.from else { return true };
        if cursor.references().any(|reference| self.get(reference).is_none()) {
            return false;
        }
        let plain = cursor.resolve(|reference| self.get(reference).map(|checkpoint| &**checkpoint));
        first.client.footing.own = cursor.references().next().and_then(|reference| self.get(reference)).cloned();
        first.from = Beginning::Presented(plain.map_or(ResumeFrom::Gone, ResumeFrom::Cursor));
        true
    }

    /// Asks for what isn't known and has not been asked for, as far as there is room.
    fn ask(&mut self, cursor: &CheckpointedCursor, shard: usize) {
        let Some(source) = &self.source else { return };
        for reference in cursor.references() {
            if self.get(reference).is_some() || self.asked.contains(&reference) {
                continue;
            }
            if self.asked.len() >= self.max_asked {
                self.is_crowded = true;
                return;
            }
            self.asked.insert(reference);
            source.find(Lookup { shard, reference });
        }
    }
}

impl Shard {
    /// Who looks up checkpoints that cursors refer to.
    pub fn set_checkpoint_source(&mut self, source: Option<Arc<dyn CheckpointSource>>) {
        self.replays.checkpoints.source = source;
    }

    /// A checkpoint was looked up: clients that wait for it go on.
    pub fn checkpoint_found(&mut self, found: &Found) {
        let Replays { first, checkpoints, .. } = &mut self.replays;
        checkpoints.asked.remove(&found.reference);
        if let Some(checkpoint) = &found.checkpoint {
            if checkpoints.known.len() >= MAX_KNOWN {
                checkpoints.known.pop_front();
            }
            checkpoints.known.push_back(Arc::clone(checkpoint));
        }
        for first in first.values_mut() {
            let Beginning::Presented(ResumeFrom::Checkpointed(cursor)) = &first.from else { continue };
            if !cursor.references().any(|reference| reference == found.reference) {
                continue;
            }
            if found.checkpoint.is_none() {
                first.from = Beginning::Presented(ResumeFrom::Gone);
            } else if cursor.references().any(|reference| checkpoints.asked.contains(&reference)) {
                continue;
            } else {
                // At once: of many that are found, only the last ones are remembered. Where it waits for another one that
                // was forgotten meanwhile, it asks again.
                checkpoints.resolve(first);
            }
            if first.client.stage == Stage::Parked(u64::MAX) {
                first.client.stage = Stage::Parked(0);
            }
        }
        self.ask_for_the_rest();
        self.ask_first_again(self.now_ms);
    }

    /// Asks for checkpoints that there was no room for, once there is plenty: those of who came first come first.
    fn ask_for_the_rest(&mut self) {
        let Replays { first, checkpoints, .. } = &mut self.replays;
        if !checkpoints.is_crowded || checkpoints.asked.len() > checkpoints.max_asked / 2 {
            return;
        }
        checkpoints.is_crowded = false;
        let firsts = first.values().map(Box::as_ref);
        let mut waiting: Vec<&First> = firsts.filter(|first| first.client.stage == Stage::Parked(u64::MAX)).collect();
        waiting.sort_unstable_by_key(|first| (first.came_ms, first.client.address.slot));
        for first in waiting {
            if let Beginning::Presented(ResumeFrom::Checkpointed(cursor)) = &first.from {
                checkpoints.ask(cursor, self.number);
            }
            if checkpoints.is_crowded {
                return;
            }
        }
    }
}
