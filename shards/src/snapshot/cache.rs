//! The newest event of each key and type of one topic, within a bound of bytes.
//!
//! A key is what Kafka compacts by: the message's key, in its partition. A null value takes the key out. At the bound, the keys
//! that were updated longest ago go, and the cache says from then on that it isn't complete.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;

/// Bytes that a key takes beside its text: entries of two tables and of one order, each at its emptiest, and the allocations.
const KEY_OVERHEAD_BYTES: usize = 384;
/// The same of an event beside its body and its type.
const EVENT_OVERHEAD_BYTES: usize = 192;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    partition: u32,
    bytes: Box<[u8]>,
}

/// The newest event of one type of a key.
#[derive(Debug)]
struct Held {
    event_type: Arc<str>,
    offset: u64,
    body: Arc<[u8]>,
}

#[derive(Debug, Default)]
struct Events {
    /// When the key was updated last, in the order of updates.
    age: u64,
    held: Vec<Held>,
}

/// An event of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: u64,
    /// Its JSON text.
    pub body: Arc<[u8]>,
}

/// The newest events of a topic.
#[derive(Debug)]
pub struct TopicCache {
    limit_bytes: usize,
    bytes: usize,
    evictions: u64,
    complete: bool,
    incarnation: u128,
    updates: u64,
    keys: HashMap<Arc<Key>, Events, RandomState>,
    by_age: BTreeMap<u64, Arc<Key>>,
    by_place: BTreeMap<(u32, u64), Arc<Key>>,
    types: HashSet<Arc<str>, RandomState>,
    next: BTreeMap<u32, u64>,
}

impl TopicCache {
    /// An empty cache that takes this much memory at most.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            bytes: 0,
            evictions: 0,
            complete: true,
            incarnation: 0,
            updates: 0,
            keys: HashMap::default(),
            by_age: BTreeMap::new(),
            by_place: BTreeMap::new(),
            types: HashSet::default(),
            next: BTreeMap::new(),
        }
    }

    /// Takes the next event of a partition in. Offsets of a partition rise.
    pub fn put(&mut self, partition: u32, offset: u64, key: &[u8], event_type: &str, body: &[u8]) {
        self.advance(partition, offset + 1);
        let key = Arc::new(Key { partition, bytes: key.into() });
        let key = self.keys.get_key_value(&key).map_or(key, |(known, _)| Arc::clone(known));
        let event_type = self.type_of(event_type);
        if !self.keys.contains_key(&key) {
            self.bytes += KEY_OVERHEAD_BYTES + key.bytes.len();
        }
        self.updates += 1;
        let events = self.keys.entry(Arc::clone(&key)).or_default();
        self.by_age.remove(&events.age);
        events.age = self.updates;
        self.by_age.insert(self.updates, Arc::clone(&key));
        let held = Held { event_type, offset, body: body.into() };
        self.bytes += cost(&held);
        self.by_place.insert((partition, offset), key);
        match events.held.iter_mut().find(|known| known.event_type == held.event_type) {
            Some(known) => {
                let before = std::mem::replace(known, held);
                self.bytes -= cost(&before);
                self.by_place.remove(&(partition, before.offset));
            }
            None => events.held.push(held),
        }
        while self.bytes > self.limit_bytes {
            let Some(oldest) = self.by_age.first_key_value().map(|(_, key)| Arc::clone(key)) else { break };
            self.take_out(&oldest);
            self.evictions += 1;
            self.complete = false;
        }
    }

    /// A message without value: nothing of its key is left.
    pub fn delete(&mut self, partition: u32, offset: u64, key: &[u8]) {
        self.advance(partition, offset + 1);
        self.take_out(&Key { partition, bytes: key.into() });
    }

    /// Everything before `next` in this partition was taken in.
    pub fn advance(&mut self, partition: u32, next: u64) {
        let known = self.next.entry(partition).or_default();
        *known = (*known).max(next);
    }

    /// What is known of a partition counts no more: it is gone, or is read anew.
    pub fn forget(&mut self, partition: u32) {
        self.next.remove(&partition);
        let range = (partition, 0)..=(partition, u64::MAX);
        let keys: Vec<_> = self.by_place.range(range).map(|(_, key)| Arc::clone(key)).collect();
        keys.iter().for_each(|key| self.take_out(key));
    }

    /// The topic's id is this one now; under another one, everything was of a topic that is gone.
    pub fn identify(&mut self, incarnation: u128) {
        if self.incarnation != 0 && self.incarnation != incarnation {
            *self = Self { evictions: self.evictions, ..Self::new(self.limit_bytes) };
        }
        self.incarnation = incarnation;
    }

    /// The topic's id, 0 where the brokers don't say.
    #[must_use]
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// The next offset to be taken in.
    #[must_use]
    pub fn next(&self, partition: u32) -> u64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    /// Has no key had to go since the topic was read from its beginning?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Keys, bytes that they take, and keys that had to go.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, u64) {
        (self.keys.len(), self.bytes, self.evictions)
    }

    /// Looks at up to `looks` events of a partition from the offset `from` on. Those go to `found` that are the newest of their
    /// key among these types and lie below `below`. Returns where to look next, `None` at the end.
    pub fn look(
        &self,
        partition: u32,
        from: u64,
        below: u64,
        event_types: &[Box<str>],
        looks: usize,
        found: &mut Vec<Found>,
    ) -> Option<u64> {
        if from >= below {
            return None;
        }
        let range = (partition, from)..(partition, below);
        for (at, (&(_, offset), key)) in self.by_place.range(range).enumerate() {
            if at == looks {
                return Some(offset);
            }
            let Some(events) = self.keys.get(key) else { continue };
            let asked = |held: &&Held| event_types.iter().any(|asked| **asked == *held.event_type);
            let newest = events.held.iter().filter(asked).max_by_key(|held| held.offset);
            if let Some(newest) = newest.filter(|newest| newest.offset == offset) {
                found.push(Found { offset, body: Arc::clone(&newest.body) });
            }
        }
        None
    }

    fn take_out(&mut self, key: &Key) {
        let Some((key, events)) = self.keys.remove_entry(key) else { return };
        self.by_age.remove(&events.age);
        self.bytes -= KEY_OVERHEAD_BYTES + key.bytes.len();
        for held in events.held {
            self.bytes -= cost(&held);
            self.by_place.remove(&(key.partition, held.offset));
            // One is the table's, one this one.
            if Arc::strong_count(&held.event_type) == 2 {
                self.types.remove(&held.event_type);
            }
        }
    }

    fn type_of(&mut self, event_type: &str) -> Arc<str> {
        if let Some(known) = self.types.get(event_type) {
            return Arc::clone(known);
        }
        let new: Arc<str> = event_type.into();
        self.types.insert(Arc::clone(&new));
        new
    }
}

fn cost(held: &Held) -> usize {
    EVENT_OVERHEAD_BYTES + held.event_type.len() + held.body.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn types(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    fn offsets(cache: &TopicCache, below: u64, names: &[&str]) -> Vec<u64> {
        let mut found = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            from = cache.look(0, at, below, &types(names), 3, &mut found);
        }
        found.iter().map(|found| found.offset).collect()
    }

    #[test]
    fn the_newest_event_of_each_key_is_found_in_the_order_of_offsets() {
        let mut cache = TopicCache::new(1 << 20);
        for (offset, key) in [b"a", b"b", b"a", b"c"].into_iter().enumerate() {
            cache.put(0, offset as u64, key, "seat", b"{}");
        }
        assert_eq!(offsets(&cache, 100, &["seat"]), [1, 2, 3]);
        assert_eq!(cache.next(0), 4);
        assert!(cache.is_complete());
    }

    #[test]
    fn of_several_types_of_a_key_the_newest_that_is_asked_for_counts() {
        let mut cache = TopicCache::new(1 << 20);
        cache.put(0, 5, b"k", "held", b"{}");
        cache.put(0, 8, b"k", "sold", b"{}");
        assert_eq!(offsets(&cache, 100, &["held", "sold"]), [8]);
        assert_eq!(offsets(&cache, 100, &["held"]), [5]);
        assert_eq!(offsets(&cache, 100, &["other"]), [0; 0]);
    }

    #[test]
    fn a_key_whose_newest_event_lies_beyond_the_position_is_left_out() {
        let mut cache = TopicCache::new(1 << 20);
        cache.put(0, 1, b"k", "a", b"{}");
        cache.put(0, 2, b"l", "a", b"{}");
        cache.put(0, 7, b"k", "b", b"{}");
        assert_eq!(offsets(&cache, 7, &["a", "b"]), [2]);
        assert_eq!(offsets(&cache, 7, &["a"]), [1, 2]);
        assert_eq!(offsets(&cache, 8, &["a", "b"]), [2, 7]);
    }

    #[test]
    fn a_null_value_takes_the_key_out_in_its_partition() {
        let mut cache = TopicCache::new(1 << 20);
        cache.put(0, 1, b"k", "a", b"{}");
        cache.put(0, 2, b"k", "b", b"{}");
        cache.put(1, 1, b"k", "a", b"{}");
        cache.delete(0, 3, b"k");
        cache.delete(0, 4, b"never");
        assert_eq!(offsets(&cache, 100, &["a", "b"]), [0; 0]);
        assert_eq!((cache.next(0), cache.counts().0), (5, 1));
        cache.delete(1, 2, b"k");
        assert_eq!(cache.counts(), (0, 0, 0));
        assert!(cache.types.is_empty() && cache.by_age.is_empty() && cache.by_place.is_empty());
    }

    #[test]
    fn at_the_bound_the_keys_that_were_updated_longest_ago_go_and_the_cache_says_so() {
        let one = KEY_OVERHEAD_BYTES + EVENT_OVERHEAD_BYTES + 1 + 1 + 2;
        let mut cache = TopicCache::new(3 * one);
        for (offset, key) in [b"a", b"b", b"c", b"a", b"d"].into_iter().enumerate() {
            cache.put(0, offset as u64, key, "t", b"{}");
        }
        assert_eq!(offsets(&cache, 100, &["t"]), [2, 3, 4], "b went");
        assert_eq!(cache.counts(), (3, 3 * one, 1));
        assert!(!cache.is_complete());
        cache.put(0, 9, b"e", "t", &vec![b' '; 4 * one]);
        assert_eq!(cache.counts(), (0, 0, 5), "an event larger than the bound leaves nothing");
    }

    #[test]
    fn a_topic_made_anew_leaves_nothing_of_the_one_before() {
        let mut cache = TopicCache::new(1 << 20);
        cache.identify(7);
        cache.put(0, 5, b"k", "a", b"{}");
        cache.identify(7);
        assert_eq!(cache.counts().0, 1);
        cache.identify(8);
        assert_eq!((cache.counts().0, cache.next(0), cache.incarnation()), (0, 0, 8));
    }

    #[test]
    fn a_partition_that_is_read_anew_is_forgotten_alone() {
        let mut cache = TopicCache::new(1 << 20);
        cache.put(0, 5, b"k", "a", b"{}");
        cache.put(1, 5, b"k", "a", b"{}");
        cache.forget(0);
        assert_eq!((cache.next(0), cache.next(1), cache.counts().0), (0, 6, 1));
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_every_byte_is_given_back(
            steps in prop::collection::vec((0..2_u32, 0..9_u8, 0..4_u8, 0..300_usize), 0..200),
        ) {
            let mut cache = TopicCache::new(4_000);
            for (offset, (partition, key, event_type, len)) in steps.into_iter().enumerate() {
                let (offset, key) = (offset as u64, [key]);
                match event_type {
                    3 => cache.delete(partition, offset, &key),
                    event_type => cache.put(partition, offset, &key, &event_type.to_string(), &vec![b' '; len]),
                }
                prop_assert!(cache.counts().1 <= 4_000);
                prop_assert_eq!(cache.keys.len(), cache.by_age.len());
                prop_assert_eq!(cache.keys.values().map(|events| events.held.len()).sum::<usize>(), cache.by_place.len());
            }
            cache.forget(0);
            cache.forget(1);
            prop_assert_eq!(cache.counts().1, 0);
            prop_assert!(cache.types.is_empty());
        }
    }
}
