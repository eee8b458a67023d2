//! Which nodes there are, and where they are reached. Time is that of this node's own heartbeats as they come back from Kafka:
//! while it is cut off, nobody else seems to be gone. Other nodes' heartbeats count from when they come in, since their
//! clocks may differ from this one's.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tidegate_shards::peers::MAX_AGE_S;

/// Silence after which a node is gone, in milliseconds; several of its heartbeats.
pub const EXPIRY_MS: u64 = 15_000;
/// Age of a heartbeat, in milliseconds, beyond which its node has ended, and left it in the topic without a farewell: the
/// clocks of nodes differ by two minutes at most.
const MAX_AGE_MS: u64 = EXPIRY_MS + MAX_AGE_S * 1_000;
/// Nodes that are remembered.
const MAX_NODES: usize = 4_096;
/// The bits of a node's identity that stand in correlation ids, see
/// [`ProxySettings::instance`](tidegate_shards::settings::ProxySettings::instance).
const INSTANCE_BITS: u64 = !0xffff;

/// A node's record in the topic.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    /// `host:port` of its port for other nodes.
    pub(super) address: String,
    /// When it was written, in milliseconds since 1970.
    pub(super) at_ms: u64,
}

#[derive(Debug)]
struct Entry {
    address: String,
    heard_ms: u64,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Reached at this `host:port`.
    At(u64, String),
    /// It has ended, or nothing has been heard of it for long.
    Gone,
    /// Nothing is known yet: the topic has not been read.
    Unknown,
}

/// The nodes that share a topic.
#[derive(Debug)]
pub struct Directory {
    me: u64,
    entries: HashMap<u64, Entry>,
    own_heard_ms: u64,
    read_back: bool,
}

impl Directory {
    /// A directory that knows nothing yet, of the node `me`.
    #[must_use]
    pub fn new(me: u64) -> Self {
        Self { me, entries: HashMap::new(), own_heard_ms: 0, read_back: false }
    }

    /// A record of the topic, `None` for a tombstone; `unix_ms` and `now_ms` are the time since 1970 and that of this machine's
    /// clock. A record whose key is no node's is left out.
    ///
    /// # Errors
    /// It is no heartbeat.
    pub fn take(
        &mut self,
        key: &str,
        record: Option<&[u8]>,
        unix_ms: u64,
        now_ms: u64,
    ) -> Result<(), serde_json::Error> {
        let Ok(node) = u64::from_str_radix(key, 16) else { return Ok(()) };
        match record {
            Some(record) => {
                let Heartbeat { address, at_ms } = serde_json::from_slice(record)?;
                self.heard(node, &address, unix_ms.saturating_sub(at_ms), now_ms);
            }
            None => self.left(node),
        }
        Ok(())
    }

    /// A heartbeat that comes in at `now_ms`, and was written `age_ms` before by the clocks of both nodes.
    pub fn heard(&mut self, node: u64, address: &str, age_ms: u64, now_ms: u64) {
        if node == self.me {
            // What stood in the topic before has been read, then.
            self.read_back = true;
            self.own_heard_ms = self.own_heard_ms.max(now_ms.saturating_sub(age_ms));
            let latest_ms = self.own_heard_ms;
            self.entries.retain(|_, entry| !is_expired(entry, latest_ms));
        } else if age_ms <= MAX_AGE_MS || self.entries.contains_key(&node) {
            if self.entries.len() >= MAX_NODES && !self.entries.contains_key(&node) {
                return;
            }
            let entry = self.entries.entry(node).or_insert(Entry { address: String::new(), heard_ms: 0 });
            address.clone_into(&mut entry.address);
            entry.heard_ms = entry.heard_ms.max(now_ms);
        }
    }

    /// A node said that it ends.
    pub fn left(&mut self, node: u64) {
        self.entries.remove(&node);
    }

    /// Everything that stands in the topic has been read.
    pub fn read_back(&mut self) {
        self.read_back = true;
    }

    /// Where the node with this identity is.
    #[must_use]
    pub fn find(&self, node: u64) -> Found {
        self.found(self.entries.get_key_value(&node))
    }

    /// Where the node is whose requests carry ids of this instance.
    #[must_use]
    pub fn find_instance(&self, instance: u64) -> Found {
        let of_node = |node: &u64| node & INSTANCE_BITS == instance & INSTANCE_BITS;
        self.found(self.entries.iter().find(|(node, _)| of_node(node)))
    }

    fn found(&self, entry: Option<(&u64, &Entry)>) -> Found {
        match entry {
            Some((node, entry)) if !is_expired(entry, self.own_heard_ms) => Found::At(*node, entry.address.clone()),
            Some(_) => Found::Gone,
            None if self.read_back => Found::Gone,
            None => Found::Unknown,
        }
    }

    /// Other nodes that live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.values().filter(|entry| !is_expired(entry, self.own_heard_ms)).count()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_expired(entry: &Entry, now_ms: u64) -> bool {
    now_ms.saturating_sub(entry.heard_ms) > EXPIRY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u64 = 0x0001_0000;
    const OTHER: u64 = 0x0002_0007;

    fn at(address: &str) -> Found {
        Found::At(OTHER, address.to_owned())
    }

    #[test]
    fn before_the_topic_is_read_nobody_is_gone() {
        let mut directory = Directory::new(ME);
        assert_eq!(directory.find(OTHER), Found::Unknown);
        directory.read_back();
        assert_eq!(directory.find(OTHER), Found::Gone);
        let mut directory = Directory::new(ME);
        directory.heard(ME, "me:1", 0, 1_000);
        assert_eq!(directory.find(OTHER), Found::Gone, "its own heartbeat came after all that stood there");
    }

    #[test]
    fn a_node_is_found_by_its_identity_and_by_the_instance_in_its_ids_until_it_leaves() {
        let mut directory = Directory::new(ME);
        directory.read_back();
        directory.heard(OTHER, "a:1", 0, 1_000);
        directory.heard(OTHER, "b:2", 0, 2_000);
        assert_eq!(directory.find(OTHER), at("b:2"), "the newest address counts");
        assert_eq!(directory.find_instance(0x0002_0003), at("b:2"));
        assert_eq!(directory.find_instance(0x0003_0003), Found::Gone);
        directory.left(OTHER);
        assert_eq!((directory.find(OTHER), directory.len()), (Found::Gone, 0));
    }

    #[test]
    fn silence_counts_only_while_this_node_hears_itself() {
        let mut directory = Directory::new(ME);
        directory.read_back();
        directory.heard(ME, "me:1", 0, 1_000);
        directory.heard(OTHER, "a:1", 0, 1_000);
        assert_eq!(directory.find(OTHER), at("a:1"), "cut off for an hour, nobody is gone");
        directory.heard(ME, "me:1", 0, 1_000 + EXPIRY_MS);
        assert_eq!(directory.find(OTHER), at("a:1"));
        directory.heard(ME, "me:1", 0, 1_001 + EXPIRY_MS);
        assert_eq!((directory.find(OTHER), directory.is_empty()), (Found::Gone, true));
    }

    #[test]
    fn what_a_dead_node_left_in_the_topic_brings_it_not_back() {
        let mut directory = Directory::new(ME);
        directory.heard(OTHER, "a:1", MAX_AGE_MS + 1, 100_000);
        directory.read_back();
        assert_eq!(directory.find(OTHER), Found::Gone);
    }

    #[test]
    fn a_node_whose_clock_differs_by_two_minutes_is_as_alive_as_any() {
        let key = format!("{OTHER:016x}");
        for (unix_ms, at_ms) in [(500_000, 380_000), (380_000, 500_000)] {
            let mut directory = Directory::new(ME);
            let beat = |at_ms| serde_json::to_vec(&Heartbeat { address: "a:1".to_owned(), at_ms }).expect("a record");
            directory.take(&key, Some(&beat(at_ms)), unix_ms, 1_000).expect("it is taken");
            directory.read_back();
            for passed_ms in (3_000..=60_000).step_by(3_000) {
                let now_ms = 1_000 + passed_ms;
                directory.heard(ME, "me:1", 0, now_ms);
                assert_eq!((directory.find(OTHER), directory.len()), (at("a:1"), 1), "after {passed_ms} ms");
                let record = beat(at_ms + passed_ms);
                directory.take(&key, Some(&record), unix_ms + passed_ms, now_ms).expect("it is taken");
            }
            directory.heard(ME, "me:1", 0, 61_001 + EXPIRY_MS);
            assert_eq!((directory.find(OTHER), directory.len()), (Found::Gone, 0), "it is silent");
        }
    }

    #[test]
    fn a_record_of_the_topic_is_a_heartbeat_a_farewell_or_refused() {
        let mut directory = Directory::new(ME);
        directory.read_back();
        let key = format!("{OTHER:016x}");
        let record = serde_json::to_vec(&Heartbeat { address: "a:1".to_owned(), at_ms: 7_000 }).expect("a record");
        directory.take(&key, Some(&record), 7_500, 1_000).expect("it is taken");
        assert_eq!(directory.find(OTHER), at("a:1"));
        assert!(directory.take(&key, Some(b"{}"), 7_500, 1_000).is_err());
        directory.take("no node", Some(b"{}"), 7_500, 1_000).expect("it is left out");
        assert_eq!(directory.find(OTHER), at("a:1"));
        directory.take(&key, None, 7_500, 1_000).expect("it is taken");
        assert_eq!(directory.find(OTHER), Found::Gone);
    }
}
