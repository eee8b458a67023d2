//! Which event types anybody on this node wants, by shard and transport. Owned by ingress; the
//! shards send it their changes.

use std::collections::HashMap;

use ahash::RandomState;

/// A set of transports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transports(u8);

impl Transports {
    /// No transport.
    pub const NONE: Self = Self(0);
    /// WebSocket.
    pub const WS: Self = Self(1);
    /// Server-Sent Events.
    pub const SSE: Self = Self(2);
    /// Long polling.
    pub const LONG_POLLING: Self = Self(4);
    /// All of them.
    pub const ALL: Self = Self(7);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Is every member of `other` in this set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is the set empty?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a shard tells ingress.
#[derive(Debug)]
pub enum InterestChange {
    /// The shard wants this type on these transports (beside those it named before). Ingress answers
    /// with `ticket` through the shard's event queue: from there on no event of the type is missing.
    Add {
        /// The shard that asks.
        shard: usize,
        /// CloudEvents type.
        event_type: Box<str>,
        /// Transports that want it.
        transports: Transports,
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Nobody on the shard wants this type any more.
    Remove {
        /// The shard that tells.
        shard: usize,
        /// CloudEvents type.
        event_type: Box<str>,
    },
}

/// The wishes of all shards for one type.
#[derive(Debug)]
struct Wanted {
    /// Per shard.
    shards: Box<[Transports]>,
    union: Transports,
}

/// The node's interest.
#[derive(Debug)]
pub struct Interest {
    shards: usize,
    types: HashMap<Box<str>, Wanted, RandomState>,
}

impl Interest {
    /// Nobody wants anything yet.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { shards, types: HashMap::default() }
    }

    /// Records that `shard` wants the type on these transports too.
    pub fn add(&mut self, shard: usize, event_type: Box<str>, transports: Transports) {
        let shards = self.shards;
        let wanted = self.types.entry(event_type).or_insert_with(|| Wanted {
            shards: vec![Transports::NONE; shards].into_boxed_slice(),
            union: Transports::NONE,
        });
        wanted.shards[shard] = wanted.shards[shard].union(transports);
        wanted.union = wanted.union.union(transports);
    }

    /// Records that `shard` doesn't want the type any more.
    pub fn remove(&mut self, shard: usize, event_type: &str) {
        let Some(wanted) = self.types.get_mut(event_type) else { return };
        wanted.shards[shard] = Transports::NONE;
        wanted.union = wanted.shards.iter().fold(Transports::NONE, |union, shard| union.union(*shard));
        if wanted.union.is_empty() {
            self.types.remove(event_type);
        }
    }

    /// Does anybody want this type?
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.types.contains_key(event_type)
    }

    /// The transports that want it on any shard, and the wish of each shard.
    #[must_use]
    pub fn of(&self, event_type: &str) -> Option<(Transports, &[Transports])> {
        self.types.get(event_type).map(|wanted| (wanted.union, &*wanted.shards))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_wanted_until_the_last_shard_gives_it_up() {
        let mut interest = Interest::new(2);
        interest.add(0, "a".into(), Transports::WS);
        interest.add(1, "a".into(), Transports::SSE);
        assert_eq!(interest.of("a").unwrap(), (Transports(3), &[Transports::WS, Transports::SSE][..]));
        interest.remove(0, "a");
        assert_eq!(interest.of("a").unwrap().0, Transports::SSE);
        interest.remove(1, "a");
        assert!(!interest.wants("a"));
        interest.remove(1, "never");
    }
}
