//! How many connections a node holds, together and for each address.
//!
//! All shards count in the same atomics: they change when a connection comes or goes, not per event or request. Each shard
//! asks before it counts, so a bound can be passed by as many connections as shards let one in at the same instant.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::rate::client_key;

/// Addresses that share a place in the table.
const WAYS: usize = 8;
/// Places in the table: room for 524,288 addresses, 4 MiB; made only where addresses are counted.
const PLACES: usize = 65_536;
/// Bits of an entry that count; those above them tell addresses apart.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Connections over the bound that still get an answer before they are closed.
const ANSWERED_ABOVE: usize = 256;

/// The largest `MAX_CONNECTIONS_PER_ADDRESS`.
pub const MAX_PER_ADDRESS: u32 = 1_000_000;

/// Counts what holds a place: every accepted socket, every long-polling session, every event stream over HTTP/2.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: AtomicUsize,
    addresses: Option<AddressCounts>,
}

/// Whether a node has room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It has.
    Free,
    /// It hasn't; say so.
    Full,
    /// It hasn't, and too many are being told so already.
    Overfull,
}

/// A connection's part in the count of its address; to be given back.
#[derive(Debug)]
#[must_use]
pub struct Held {
    /// Names the address; `None` where the table had no room, and the connection isn't counted.
    hash: Option<u64>,
}

impl Places {
    /// For `max` places, and `max_per_address` for each address (0 for as many as there are, at most
    /// [`MAX_PER_ADDRESS`]).
    #[must_use]
    pub fn new(max: usize, max_per_address: u32) -> Self {
        let addresses = (max_per_address > 0).then(|| AddressCounts::new(max_per_address.min(MAX_PER_ADDRESS), PLACES));
        Self { max, taken: AtomicUsize::new(0), addresses }
    }

    /// Whether there is room for one more.
    #[must_use]
    pub fn room(&self) -> Room {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken < self.max {
            Room::Free
        } else if taken < self.max.saturating_add(ANSWERED_ABOVE) {
            Room::Full
        } else {
            Room::Overfull
        }
    }

    /// Counts one more.
    pub fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Places taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether addresses are counted at all.
    #[must_use]
    pub fn counts_addresses(&self) -> bool {
        self.addresses.is_some()
    }

    /// Whether this address may have one more connection.
    #[must_use]
    pub fn has_room_for(&self, address: IpAddr) -> bool {
        self.addresses.as_ref().is_none_or(|addresses| addresses.count(address) < addresses.max)
    }

    /// Counts one more for the address; `None` where addresses aren't counted.
    pub fn hold(&self, address: IpAddr) -> Option<Held> {
        self.addresses.as_ref().map(|addresses| addresses.hold(address))
    }

    /// Counts one less.
    pub fn release(&self, held: Held) {
        if let (Some(addresses), Some(hash)) = (&self.addresses, held.hash) {
            addresses.release(hash);
        }
    }
}

/// Counts per address without a lock: an entry is one atomic that holds both the address (40 bits of its hash, beside those
/// that chose its place) and the count. An address may stand twice in its place, after two shards have met it at once; the
/// sum counts. Where all entries of a place are in use for others, an address isn't counted: the bound on all connections
/// still holds then.
#[derive(Debug)]
struct AddressCounts {
    max: u32,
    places: Box<[[AtomicU64; WAYS]]>,
    /// Keyed at random: which addresses share a place can't be known from outside.
    hasher: ahash::RandomState,
}

impl AddressCounts {
    fn new(max: u32, places: usize) -> Self {
        let places = (0..places).map(|_| [const { AtomicU64::new(0) }; WAYS]).collect();
        Self { max, places, hasher: ahash::RandomState::new() }
    }

    fn hash(&self, address: IpAddr) -> u64 {
        self.hasher.hash_one(client_key(address))
    }

    fn place(&self, hash: u64) -> &[AtomicU64; WAYS] {
        &self.places[usize::try_from(hash & COUNT_MASK).unwrap_or(0) % self.places.len()]
    }

    fn count(&self, address: IpAddr) -> u32 {
        let hash = self.hash(address);
        let entries = self.place(hash).iter().map(|entry| entry.load(Ordering::Relaxed));
        let counts = entries.filter(|entry| is_of(*entry, hash)).map(|entry| entry & COUNT_MASK);
        u32::try_from(counts.sum::<u64>()).unwrap_or(u32::MAX)
    }

    fn hold(&self, address: IpAddr) -> Held {
        let hash = self.hash(address);
        let place = self.place(hash);
        let add = |entry: u64| {
            let room = entry & COUNT_MASK < COUNT_MASK;
            (is_of(entry, hash) && room).then(|| entry + 1)
        };
        let begin = |entry: u64| (entry & COUNT_MASK == 0).then_some(tag(hash) | 1);
        let changed = |change: &dyn Fn(u64) -> Option<u64>| {
            place.iter().any(|entry| entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok())
        };
        let counted = changed(&add) || changed(&begin);
        Held { hash: counted.then_some(hash) }
    }

    fn release(&self, hash: u64) {
        let subtract = |entry: u64| is_of(entry, hash).then(|| entry - 1);
        let _one_is_there = self
            .place(hash)
            .iter()
            .any(|entry| entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract).is_ok());
    }
}

/// The part of an entry that names the address.
fn tag(hash: u64) -> u64 {
    hash & !COUNT_MASK
}

/// Whether the entry counts connections of the address with this hash.
fn is_of(entry: u64, hash: u64) -> bool {
    entry & COUNT_MASK > 0 && tag(entry) == tag(hash)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn places_are_free_then_full_then_too_many_for_an_answer() {
        let places = Places::new(2, 0);
        assert_eq!(places.room(), Room::Free);
        places.take();
        places.take();
        assert_eq!(places.room(), Room::Full);
        (0..ANSWERED_ABOVE).for_each(|_| places.take());
        assert_eq!(places.room(), Room::Overfull);
        (0..=ANSWERED_ABOVE).for_each(|_| places.give_back());
        assert_eq!((places.room(), places.taken()), (Room::Free, 1));
        assert!(places.has_room_for(address(1)) && places.hold(address(1)).is_none());
    }

    #[test]
    fn each_address_has_its_own_bound() {
        let places = Places::new(usize::MAX, 2);
        let first = places.hold(address(1)).unwrap();
        let _second = places.hold(address(1)).unwrap();
        assert!(!places.has_room_for(address(1)));
        assert!(places.has_room_for(address(2)));
        places.release(first);
        assert!(places.has_room_for(address(1)));
    }

    #[test]
    fn an_address_that_finds_no_room_in_the_table_is_not_counted_and_can_be_released() {
        let counts = AddressCounts::new(1, 1);
        let held: Vec<_> = (0..20).map(|number| counts.hold(address(number))).collect();
        assert_eq!(held.iter().filter(|held| held.hash.is_some()).count(), WAYS);
        assert_eq!((0..20).map(|number| counts.count(address(number))).sum::<u32>(), 8);
        held.into_iter().filter_map(|held| held.hash).for_each(|hash| counts.release(hash));
        assert!(counts.places[0].iter().all(|entry| entry.load(Ordering::Relaxed) & COUNT_MASK == 0));
        assert!(counts.hold(address(99)).hash.is_some(), "the room can be used again");
    }

    #[test]
    fn shards_that_count_at_once_lose_nothing() {
        let counts = Arc::new(AddressCounts::new(1_000_000, 1));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counts = Arc::clone(&counts);
                std::thread::spawn(move || {
                    let kept = counts.hold(address(0));
                    for number in 0..20_000 {
                        let held = counts.hold(address(number % 3));
                        if let Some(hash) = held.hash {
                            counts.release(hash);
                        }
                    }
                    kept.hash.is_some()
                })
            })
            .collect();
        let kept = threads.into_iter().map(|thread| u32::from(thread.join().unwrap())).sum::<u32>();
        assert_eq!(counts.count(address(0)), kept);
        assert_eq!(counts.count(address(1)) + counts.count(address(2)), 0);
    }

    proptest! {
        #[test]
        fn counts_are_exact(steps in prop::collection::vec((0_u32..50, any::<bool>()), 0..400)) {
            let counts = AddressCounts::new(10, 64);
            let mut held: Vec<Vec<u64>> = vec![Vec::new(); 50];
            for (number, comes) in steps {
                let of = &mut held[number as usize];
                if comes {
                    of.extend(counts.hold(address(number)).hash);
                } else if let Some(hash) = of.pop() {
                    counts.release(hash);
                }
                prop_assert_eq!(counts.count(address(number)) as usize, of.len());
            }
        }
    }
}
