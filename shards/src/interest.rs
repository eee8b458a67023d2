//! Which event types anybody on this node wants, by shard and transport. Owned by ingress; the
//! shards send it their changes.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use crate::cursor::Vector;

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
    /// WebSocket whose client asks for the cursor of each event.
    pub const WS_CURSOR: Self = Self(8);
    /// All of them.
    pub const ALL: Self = Self(15);

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

    /// Is any member of `other` in this set?
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
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
    /// The shard wants these types, and what was kept of them: a client comes back. Ingress answers with `ticket` through
    /// the shard's event queue, with [`crate::mailbox::Kept`]; from there on no event of these types is missing.
    Resume {
        /// The shard that asks.
        shard: usize,
        /// CloudEvents types.
        event_types: Box<[Box<str>]>,
        /// Transports that want them.
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
    /// The node's next offsets by slot when it began to be kept: from there on nothing of it is missing in the ring.
    kept_since: Vector,
    /// When the last shard gave it up, in milliseconds.
    unwanted_since_ms: u64,
}

/// The node's interest. A type that nobody wants any more is kept for a while, since its clients may come back.
#[derive(Debug)]
pub struct Interest {
    shards: usize,
    keep_ms: u64,
    types: HashMap<Box<str>, Wanted, RandomState>,
    /// Types that were given up, in the order in which they were.
    unwanted: VecDeque<(u64, Box<str>)>,
    /// What the names in `unwanted` take, as [`kept_bytes`] counts it.
    unwanted_bytes: usize,
}

/// Types that are kept although nobody wants them at the moment.
const MAX_UNWANTED: usize = 4_096;
/// Bytes that their names may take, since clients may want types of any length.
const MAX_UNWANTED_BYTES: usize = 8 << 20;

/// A name is there twice: in the order of the unwanted types, and as the key.
fn kept_bytes(event_type: &str) -> usize {
    2 * event_type.len()
}

impl Interest {
    /// Nobody wants anything yet. A type is kept for `keep_ms` after the last shard has given it up, if there is room.
    #[must_use]
    pub fn new(shards: usize, keep_ms: u64) -> Self {
        Self { shards, keep_ms, types: HashMap::default(), unwanted: VecDeque::new(), unwanted_bytes: 0 }
    }

    /// Records that `shard` wants the type on these transports too; `now` is where the node is.
    pub fn add(&mut self, shard: usize, event_type: Box<str>, transports: Transports, now: &Vector) {
        let shards = self.shards;
        let wanted = self.types.entry(event_type).or_insert_with(|| Wanted {
            shards: vec![Transports::NONE; shards].into_boxed_slice(),
            union: Transports::NONE,
            kept_since: Vector::clone(now),
            unwanted_since_ms: 0,
        });
        wanted.shards[shard] = wanted.shards[shard].union(transports);
        wanted.union = wanted.union.union(transports);
    }

    /// Records that `shard` doesn't want the type any more.
    pub fn remove(&mut self, shard: usize, event_type: &str, now_ms: u64) {
        let Some(wanted) = self.types.get_mut(event_type) else { return };
        if wanted.union.is_empty() {
            return;
        }
        wanted.shards[shard] = Transports::NONE;
        wanted.union = wanted.shards.iter().fold(Transports::NONE, |union, shard| union.union(*shard));
        if wanted.union.is_empty() {
            wanted.unwanted_since_ms = now_ms;
            self.expire(now_ms);
            if self.unwanted_bytes + kept_bytes(event_type) > MAX_UNWANTED_BYTES {
                self.types.remove(event_type);
                return;
            }
            self.unwanted_bytes += kept_bytes(event_type);
            self.unwanted.push_back((now_ms, event_type.into()));
            self.expire(now_ms);
        }
    }

    /// Forgets the types that nobody has wanted for long.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some((since_ms, event_type)) = self.unwanted.front() {
            if since_ms + self.keep_ms > now_ms && self.unwanted.len() <= MAX_UNWANTED {
                return;
            }
            let over = |wanted: &Wanted| wanted.union.is_empty() && wanted.unwanted_since_ms == *since_ms;
            if self.types.get(event_type).is_some_and(over) {
                self.types.remove(event_type);
            }
            self.unwanted_bytes -= kept_bytes(event_type);
            self.unwanted.pop_front();
        }
    }

    /// Are there types that will be forgotten?
    #[must_use]
    pub fn has_unwanted(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// Does anybody want this type, or did not long ago?
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.types.contains_key(event_type)
    }

    /// The transports that want it on any shard, and the wish of each shard.
    #[must_use]
    pub fn of(&self, event_type: &str) -> Option<(Transports, &[Transports])> {
        self.types.get(event_type).map(|wanted| (wanted.union, &*wanted.shards))
    }

    /// Where the node was when it began to keep this type.
    #[must_use]
    pub fn kept_since(&self, event_type: &str) -> Option<&Vector> {
        self.types.get(event_type).map(|wanted| &wanted.kept_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_wanted_until_the_last_shard_gives_it_up() {
        let (mut interest, now) = (Interest::new(2, 0), Vector::default());
        interest.add(0, "a".into(), Transports::WS, &now);
        interest.add(1, "a".into(), Transports::SSE, &now);
        assert_eq!(interest.of("a").unwrap(), (Transports(3), &[Transports::WS, Transports::SSE][..]));
        interest.remove(0, "a", 0);
        assert_eq!(interest.of("a").unwrap().0, Transports::SSE);
        interest.remove(1, "a", 0);
        assert!(!interest.wants("a"));
        interest.remove(1, "never", 0);
    }

    #[test]
    fn a_type_is_kept_for_a_while_after_it_was_given_up_and_keeps_its_beginning_if_it_is_wanted_again() {
        let (mut interest, first, later) = (Interest::new(1, 100), Vector::new(vec![5]), Vector::new(vec![9]));
        interest.add(0, "a".into(), Transports::WS, &first);
        interest.remove(0, "a", 1_000);
        interest.expire(1_099);
        assert!(interest.wants("a") && interest.of("a").unwrap().0.is_empty());
        interest.add(0, "a".into(), Transports::WS, &later);
        interest.expire(1_100);
        assert_eq!(interest.kept_since("a"), Some(&first));
        interest.remove(0, "a", 2_000);
        interest.expire(2_100);
        assert!(!interest.wants("a") && !interest.has_unwanted());
        interest.add(0, "a".into(), Transports::WS, &later);
        assert_eq!(interest.kept_since("a"), Some(&later));
    }

    #[test]
    fn names_of_unwanted_types_take_no_more_than_their_bytes_and_do_not_drive_out_those_that_are_kept() {
        let (mut interest, now) = (Interest::new(1, 100), Vector::default());
        let long = |number: usize| format!("{number}{}", "x".repeat(MAX_UNWANTED_BYTES / 8)).into_boxed_str();
        let give_up = |interest: &mut Interest, event_type: Box<str>, now_ms| {
            interest.add(0, event_type.clone(), Transports::WS, &now);
            interest.remove(0, &event_type, now_ms);
        };
        give_up(&mut interest, "short".into(), 0);
        (0..20).for_each(|number| give_up(&mut interest, long(number), 1));
        let kept: Vec<_> = (0..20).filter(|number| interest.wants(&long(*number))).collect();
        assert_eq!(kept, [0, 1, 2]);
        assert!(interest.wants("short") && interest.unwanted_bytes <= MAX_UNWANTED_BYTES);
        give_up(&mut interest, "another".into(), 2);
        assert!(interest.wants("another"), "what fits is kept");
        give_up(&mut interest, long(20), 101);
        assert!(interest.wants(&long(20)), "there is room again");
        interest.expire(1_000);
        assert!(!interest.has_unwanted() && interest.unwanted_bytes == 0 && interest.types.is_empty());
    }
}
