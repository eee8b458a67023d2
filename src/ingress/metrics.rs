//! Counters of the ingress thread: it alone writes them, the control thread reads them.

use std::sync::OnceLock;

use tidegate_shards::metrics::{Cell, Histogram};

/// Event types that get a label of their own; later ones share [`OTHER_TYPES`].
pub const MAX_TYPE_LABELS: usize = 200;
/// The label of types beyond the bound.
pub const OTHER_TYPES: &str = "other";

/// Upper bounds of the processing time, in milliseconds (RIG's).
pub const PROCESSING_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000];

/// Counters of one topic.
#[derive(Debug)]
pub struct SourceMetrics {
    /// `kafka` or `local`.
    pub source: &'static str,
    /// Topic; of the local hub, `local`.
    pub topic: String,
    /// Messages taken.
    pub consumed: Cell,
    /// Those that were no CloudEvents; counted in `consumed` too.
    pub failed: Cell,
    /// Time from taking a message to its hand-over, in microseconds; its bounds are [`PROCESSING_BOUNDS_MS`].
    pub processing_us: Histogram<12>,
}

/// All counters of ingress.
#[derive(Debug)]
pub struct IngressMetrics {
    /// Per topic, in the order of the settings.
    pub sources: Vec<SourceMetrics>,
    /// Events handed to shards, per type.
    pub forwarded: TypeCounters,
    /// Messages larger than an event may be.
    pub oversized: Cell,
    /// Messages without value.
    pub tombstones: Cell,
    /// Messages that were offered again and not handed on again.
    pub duplicates: Cell,
    /// Messages that Kafka deleted before they were read.
    pub lost: Cell,
    /// Times that a full shard made ingress wait.
    pub back_pressure: Cell,
    /// Passes over Kafka for clients that came back; written by the replay thread alone.
    pub replay_passes: Cell,
    /// Messages that these passes took from Kafka; written by the replay thread alone.
    pub replay_messages: Cell,
}

impl IngressMetrics {
    /// For these topics of one source.
    #[must_use]
    pub fn new(source: &'static str, topics: &[String]) -> Self {
        let bounds_us = PROCESSING_BOUNDS_MS.map(|bound| bound * 1_000);
        let of_topic = |topic: &String| SourceMetrics {
            source,
            topic: topic.clone(),
            consumed: Cell::default(),
            failed: Cell::default(),
            processing_us: Histogram::new(bounds_us),
        };
        Self {
            sources: topics.iter().map(of_topic).collect(),
            forwarded: TypeCounters::default(),
            oversized: Cell::default(),
            tombstones: Cell::default(),
            duplicates: Cell::default(),
            lost: Cell::default(),
            back_pressure: Cell::default(),
            replay_passes: Cell::default(),
            replay_messages: Cell::default(),
        }
    }
}

/// Counters per event type, bounded in number, since types come from users.
#[derive(Debug)]
pub struct TypeCounters {
    slots: Box<[OnceLock<TypeCounter>]>,
    other: Cell,
}

type TypeCounter = (Box<str>, Cell);

impl Default for TypeCounters {
    fn default() -> Self {
        Self { slots: (0..MAX_TYPE_LABELS).map(|_| OnceLock::new()).collect(), other: Cell::default() }
    }
}

impl TypeCounters {
    /// Every type counted so far with its count, then the sum of the others if there are any.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let named = self.slots.iter().map_while(OnceLock::get).map(|(name, count)| (&**name, count.get()));
        named.chain(Some((OTHER_TYPES, self.other.get())).filter(|(_, count)| *count > 0))
    }
}

/// The writer's side of [`TypeCounters`]: finds a type's counter by its hash.
#[derive(Debug, Default)]
pub(super) struct TypeIndex {
    slots: std::collections::HashMap<Box<str>, usize, ahash::RandomState>,
}

impl TypeIndex {
    /// Counts one event.
    pub(super) fn count(&mut self, counters: &TypeCounters, event_type: &str) {
        let slot = self.slots.get(event_type).copied().or_else(|| self.claim(counters, event_type));
        let counter = slot.and_then(|slot| counters.slots[slot].get()).map_or(&counters.other, |(_, counter)| counter);
        counter.add(1);
    }

    fn claim(&mut self, counters: &TypeCounters, event_type: &str) -> Option<usize> {
        let slot = self.slots.len();
        if slot == MAX_TYPE_LABELS || counters.slots[slot].set((event_type.into(), Cell::default())).is_err() {
            return None;
        }
        self.slots.insert(event_type.into(), slot);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_counted_one_by_one() {
        let (counters, mut index) = (TypeCounters::default(), TypeIndex::default());
        for event_type in ["a", "b", "a"] {
            index.count(&counters, event_type);
        }
        assert_eq!(counters.iter().collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
    }

    #[test]
    fn types_beyond_the_bound_share_one_label() {
        let (counters, mut index) = (TypeCounters::default(), TypeIndex::default());
        for number in 0..MAX_TYPE_LABELS + 50 {
            index.count(&counters, &format!("type-{number}"));
        }
        index.count(&counters, "type-0");
        let counts: Vec<_> = counters.iter().collect();
        assert_eq!(counts.len(), MAX_TYPE_LABELS + 1);
        assert_eq!(counts[0], ("type-0", 2));
        assert_eq!(counts[MAX_TYPE_LABELS], (OTHER_TYPES, 50));
    }
}
