//! What the cursors of a client that catches up refer to: its positions are its own, mixed of what it came with and of what it
//! has got, and no checkpoint was made of them.

use std::sync::Arc;

use super::{Checkpoint, CursorWriter, Layout};

/// Checkpoints that a node remembers.
pub(super) const MAX_RECENT: usize = 64;
/// Cursors between two looks for better checkpoints.
const LOOK_EVERY: u32 = 32;

/// A node's last checkpoints.
#[derive(Debug)]
pub struct Recent {
    /// Plain cursors up to this length stay what they are, in characters.
    pub(super) max_plain_chars: usize,
    /// The oldest first.
    checkpoints: Vec<Arc<Checkpoint>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Recent {
    pub(super) fn new(max_plain_chars: usize) -> Self {
        Self { max_plain_chars, checkpoints: Vec::new() }
    }

    pub(super) fn with(&self, newest: Arc<Checkpoint>, most: usize) -> Self {
        let first = (self.checkpoints.len() + 1).saturating_sub(most);
        let checkpoints = self.checkpoints.iter().skip(first).cloned().chain([newest]).collect();
        Self { max_plain_chars: self.max_plain_chars, checkpoints }
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> &[Arc<Checkpoint>] {
        &self.checkpoints
    }

    /// The one whose positions are nearest to these, taken together.
    fn nearest(&self, next: &[u64]) -> Option<&Arc<Checkpoint>> {
        let total: u128 = next.iter().map(|next| u128::from(*next) + 1).sum();
        let after = self.checkpoints.partition_point(|checkpoint| checkpoint.total < total);
        let around = [after.checked_sub(1), Some(after)].into_iter().flatten();
        around.filter_map(|at| self.checkpoints.get(at)).min_by_key(|checkpoint| checkpoint.total.abs_diff(total))
    }
}

/// What the cursors of one client refer to.
#[derive(Clone, Debug, Default)]
pub struct Footing {
    /// What the cursor referred to that it came with.
    pub own: Option<Arc<Checkpoint>>,
    chosen: Option<(Arc<Checkpoint>, Option<Arc<Checkpoint>>)>,
    /// Cursors until the next look.
    left: u32,
}

impl CursorWriter {
    /// The cursor of a client's own positions: the plain one where that is short, else from those checkpoints that make it
    /// shortest, which are looked for anew now and then.
    pub fn write_near(&mut self, layout: &Layout, next: &[u64], footing: &mut Footing, recent: &Recent) -> &str {
        if footing.own.is_none() && recent.checkpoints.is_empty() {
            return self.write(layout, next);
        }
        if footing.left == 0 {
            footing.left = LOOK_EVERY;
            footing.chosen = self.look(layout, next, footing.own.as_ref(), recent);
        }
        footing.left -= 1;
        match &footing.chosen {
            Some((first, second)) => self.write_from(layout, next, first, second.as_deref()),
            None => self.write(layout, next),
        }
    }

    fn look(
        &mut self,
        layout: &Layout,
        next: &[u64],
        own: Option<&Arc<Checkpoint>>,
        recent: &Recent,
    ) -> Option<(Arc<Checkpoint>, Option<Arc<Checkpoint>>)> {
        let mut shortest = self.write(layout, next).len();
        let (nearest, newest) = (recent.nearest(next), recent.checkpoints.last());
        let choices = [(nearest, None), (own, None), (newest, None), (own, newest), (own, nearest), (nearest, newest)];
        let mut chosen = None;
        for (first, second) in choices {
            if shortest <= recent.max_plain_chars {
                break;
            }
            let (Some(first), second) = (first, second) else { continue };
            let chars = self.write_from(layout, next, first, second.map(|second| &**second)).len();
            if chars < shortest {
                shortest = chars;
                chosen = Some((Arc::clone(first), second.cloned()));
            }
        }
        chosen
    }
}
