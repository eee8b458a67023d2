//! Which source partitions a node reads, under which numbers, and how far it is in each.

use std::sync::Arc;

use super::checksum;

/// Next offsets by slot.
pub type Vector = Arc<Vec<u64>>;

/// A source topic, or the local hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: Box<str>,
    /// What tells a topic from one of the same name made later: Kafka's topic id, or the epoch of a local hub. 0 where
    /// the brokers don't say.
    pub incarnation: u128,
    /// The slot of each partition that is read.
    pub slots: Vec<Option<u32>>,
}

impl Source {
    pub(super) fn name_print(&self) -> u32 {
        checksum(self.name.as_bytes())
    }

    pub(super) fn incarnation_print(&self) -> u32 {
        if self.incarnation == 0 { 0 } else { checksum(&self.incarnation.to_le_bytes()).max(1) }
    }
}

/// What a slot, the number of a partition in [`crate::publisher::Position`], stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of its source.
    pub source: usize,
    /// Number of the partition in it.
    pub partition: u32,
    /// Where the node began to read it.
    pub first: u64,
}

/// All partitions that a node reads. Slots are never used again: a partition made anew gets a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    sources: Vec<Source>,
    slots: Vec<Option<Slot>>,
    /// Partitions may be missing that are about to be read.
    opening: bool,
}

impl Layout {
    /// Is the node still finding out what there is to read? Until it knows, it can't say where a client goes on.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.opening
    }

    /// The sources, in the node's order.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What a slot stands for; `None` for one that is read no more.
    #[must_use]
    pub fn slot(&self, slot: usize) -> Option<Slot> {
        self.slots.get(slot).copied().flatten()
    }

    /// Every slot that is read.
    pub fn slots(&self) -> impl Iterator<Item = (usize, Slot)> + '_ {
        self.slots.iter().enumerate().filter_map(|(at, slot)| slot.map(|slot| (at, slot)))
    }
}

/// A node's positions: owned by ingress, which moves them on with every message.
#[derive(Debug, Default)]
pub struct Positions {
    layout: Arc<Layout>,
    next: Vec<u64>,
    version: u64,
}

impl Positions {
    /// The partitions.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Counts the changes of [`Self::layout`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Next offset by slot.
    #[must_use]
    pub fn next(&self) -> &[u64] {
        &self.next
    }

    /// The partitions are not known yet; they come one by one, up to [`Self::opened`].
    pub fn opening(&mut self) {
        self.set_opening(true);
    }

    /// Every partition that there was at the start is read.
    pub fn opened(&mut self) {
        self.set_opening(false);
    }

    fn set_opening(&mut self, opening: bool) {
        if self.layout.opening != opening {
            Arc::make_mut(&mut self.layout).opening = opening;
            self.version += 1;
        }
    }

    /// Names the source with this index; one whose incarnation changes keeps no partition.
    pub fn name_source(&mut self, source: usize, name: &str, incarnation: u128) {
        let layout = Arc::make_mut(&mut self.layout);
        if layout.sources.len() <= source {
            layout.sources.resize(source + 1, Source::default());
        }
        let known = &mut layout.sources[source];
        if *known.name == *name && known.incarnation == incarnation {
            return;
        }
        let slots = if known.incarnation == incarnation || known.incarnation == 0 {
            std::mem::take(&mut known.slots)
        } else {
            for slot in known.slots.iter().flatten() {
                layout.slots[*slot as usize] = None;
            }
            Vec::new()
        };
        layout.sources[source] = Source { name: name.into(), incarnation, slots };
        self.version += 1;
    }

    /// Reading of a partition begins, or goes on, at `next` under this slot. The source must have been named.
    pub fn start(&mut self, slot: u32, source: usize, partition: u32, next: u64) {
        let at = slot as usize;
        if self.next.len() <= at {
            self.next.resize(at + 1, 0);
        }
        self.next[at] = next;
        let known = Slot { source, partition, first: next };
        if self.layout.slot(at).is_some_and(|slot| (slot.source, slot.partition) == (source, partition)) {
            return;
        }
        let layout = Arc::make_mut(&mut self.layout);
        if layout.slots.len() <= at {
            layout.slots.resize(at + 1, None);
        }
        let Some(entry) = layout.sources.get_mut(source) else { return };
        let partition = partition as usize;
        if entry.slots.len() <= partition {
            entry.slots.resize(partition + 1, None);
        }
        if let Some(before) = entry.slots[partition].replace(slot) {
            layout.slots[before as usize] = None;
        }
        layout.slots[at] = Some(known);
        self.version += 1;
    }

    /// The partition of this slot is read no more.
    pub fn stop(&mut self, slot: u32) {
        let Some(known) = self.layout.slot(slot as usize) else { return };
        let layout = Arc::make_mut(&mut self.layout);
        layout.slots[slot as usize] = None;
        let source = layout.sources.get_mut(known.source);
        if let Some(entry) = source.and_then(|source| source.slots.get_mut(known.partition as usize)) {
            *entry = None;
        }
        self.version += 1;
    }

    /// Everything before `next` in this slot has been dealt with.
    pub fn advance(&mut self, slot: u32, next: u64) {
        if let Some(place) = self.next.get_mut(slot as usize) {
            *place = next;
        }
    }

    /// The slot under which a partition is read.
    #[must_use]
    pub fn slot_of(&self, source: usize, partition: u32) -> Option<u32> {
        self.layout.sources.get(source)?.slots.get(partition as usize).copied().flatten()
    }
}
