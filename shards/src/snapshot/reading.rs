//! One look through the caches for all clients that ask for the same types.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cache::{Found, TopicCache};
use super::{Member, Progress, SnapshotRequest};
use crate::cursor::Layout;

/// Events of a cache that are looked at in one go.
const LOOKS: usize = 1_024;

/// The caches of a node's sources, by their numbers; `None` for one that isn't cached.
#[derive(Debug, Default)]
pub struct Caches(Vec<Option<TopicCache>>);

/// Whether a request can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The caches have seen everything before its position.
    Ready,
    /// They haven't yet.
    Later,
    /// Its position is in a topic of another time.
    Never,
}

impl Caches {
    /// For these sources: the bytes that the cache of each may take, `None` where it isn't cached.
    #[must_use]
    pub fn new(limits_bytes: impl Iterator<Item = Option<usize>>) -> Self {
        Self(limits_bytes.map(|limit_bytes| limit_bytes.map(TopicCache::new)).collect())
    }

    /// The cache of a source.
    #[must_use]
    pub fn get(&self, source: usize) -> Option<&TopicCache> {
        self.0.get(source)?.as_ref()
    }

    /// As [`Self::get`], to change it.
    pub fn get_mut(&mut self, source: usize) -> Option<&mut TopicCache> {
        self.0.get_mut(source)?.as_mut()
    }

    /// All of them with the numbers of their sources.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &TopicCache)> {
        self.0.iter().enumerate().filter_map(|(source, cache)| Some((source, cache.as_ref()?)))
    }

    /// Can this request be served?
    #[must_use]
    pub fn readiness(&self, request: &SnapshotRequest) -> Readiness {
        let mut readiness = Readiness::Ready;
        for (at, slot) in request.layout.slots() {
            let Some(cache) = self.get(slot.source) else { continue };
            let theirs = request.layout.sources().get(slot.source).map_or(0, |source| source.incarnation);
            let ours = cache.incarnation();
            if theirs != 0 && ours != 0 && theirs != ours {
                return Readiness::Never;
            }
            if cache.next(slot.partition) < request.to.get(at).copied().unwrap_or(0) {
                readiness = Readiness::Later;
            }
        }
        readiness
    }

    fn is_complete(&self) -> bool {
        self.iter().all(|(_, cache)| cache.is_complete())
    }
}

/// A look through the caches. Every client takes of it what lies before its own position, and after what it has already.
#[derive(Debug)]
pub struct Reading {
    /// The clients, by the shard of each.
    pub members: Vec<(usize, Member)>,
    event_types: Box<[Box<str>]>,
    layout: Arc<Layout>,
    to: Vec<u64>,
    at: Option<Progress>,
}

impl Reading {
    /// Takes the first of the requests out, and those that ask for the same types.
    pub fn of(requests: &mut VecDeque<SnapshotRequest>) -> Option<Self> {
        let first = requests.pop_front()?;
        let mut reading = Self {
            members: Vec::new(),
            event_types: first.event_types.clone(),
            layout: Arc::clone(&first.layout),
            to: Vec::new(),
            at: Some(first.after),
        };
        reading.join(&first);
        requests.retain(|request| {
            let other = request.event_types != reading.event_types;
            if !other {
                reading.join(request);
            }
            other
        });
        Some(reading)
    }

    fn join(&mut self, request: &SnapshotRequest) {
        self.members.push((request.shard, request.member));
        if self.to.len() < request.to.len() {
            // Slots are never used again: the longer one knows all that the others know.
            self.layout = Arc::clone(&request.layout);
            self.to.resize(request.to.len(), 0);
        }
        self.to.iter_mut().zip(request.to.iter()).for_each(|(to, other)| *to = (*to).max(*other));
        self.at = self.at.map(|at| at.min(request.after));
    }

    /// Some more events, all of the slot that is returned; `None` at the end. There may be none in some steps.
    pub fn step(&mut self, caches: &Caches, found: &mut Vec<Found>) -> Option<usize> {
        let Progress { slot: at, next } = self.at?;
        let below = self.to.get(at).copied();
        let Some(below) = below else {
            self.at = None;
            return None;
        };
        let cached = self.layout.slot(at).and_then(|slot| Some((slot.partition, caches.get(slot.source)?)));
        let more =
            cached.and_then(|(partition, cache)| cache.look(partition, next, below, &self.event_types, LOOKS, found));
        self.at = Some(more.map_or(Progress { slot: at + 1, next: 0 }, |next| Progress { slot: at, next }));
        Some(at)
    }

    /// The types that are asked for.
    #[must_use]
    pub fn event_types(&self) -> &[Box<str>] {
        &self.event_types
    }

    /// Was nothing left out for want of memory, as far as is known now?
    #[must_use]
    pub fn is_complete(&self, caches: &Caches) -> bool {
        caches.is_complete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Positions, Vector};
    use crate::shard::connection::Address;

    fn layout(incarnation: u128, partitions: u32) -> Arc<Layout> {
        let mut positions = Positions::default();
        positions.name_source(0, "seats", incarnation);
        for partition in 0..partitions {
            positions.start(partition, 0, partition, 0);
        }
        Arc::clone(positions.layout())
    }

    fn request(slot: u32, incarnation: u128, to: &[u64], after: Progress, event_type: &str) -> SnapshotRequest {
        SnapshotRequest {
            shard: 0,
            member: Member { address: Address { slot, generation: 1 }, round: 1 },
            to: Vector::new(to.to_vec()),
            layout: layout(incarnation, u32::try_from(to.len()).unwrap()),
            after,
            event_types: [event_type.into()].into(),
        }
    }

    fn caches() -> Caches {
        let mut caches = Caches::new([Some(1 << 20)].into_iter());
        let cache = caches.get_mut(0).unwrap();
        cache.identify(7);
        for offset in 0..4 {
            cache.put(0, offset, &[u8::try_from(offset).unwrap()], "a", b"{}");
            cache.put(1, offset, &[9], "a", b"{}");
        }
        caches
    }

    #[test]
    fn a_request_waits_until_the_cache_has_come_to_its_position() {
        let caches = caches();
        let readiness =
            |incarnation, to: &[u64]| caches.readiness(&request(0, incarnation, to, Progress::default(), "a"));
        assert_eq!(readiness(7, &[4, 4]), Readiness::Ready);
        assert_eq!(readiness(7, &[4, 5]), Readiness::Later);
        assert_eq!(readiness(0, &[4, 4]), Readiness::Ready, "the brokers don't say which topic it is");
        assert_eq!(readiness(8, &[4, 4]), Readiness::Never);
        assert_eq!(readiness(7, &[0, 0, 0]), Readiness::Ready);
    }

    #[test]
    fn those_who_ask_for_the_same_types_share_a_look_that_covers_them_all() {
        let mut waiting = VecDeque::from([
            request(0, 7, &[2, 4], Progress { slot: 1, next: 2 }, "a"),
            request(1, 7, &[4, 4], Progress { slot: 0, next: 1 }, "a"),
            request(2, 7, &[4, 4], Progress::default(), "b"),
        ]);
        let mut reading = Reading::of(&mut waiting).unwrap();
        assert_eq!((reading.members.len(), waiting.len()), (2, 1));
        let (caches, mut all) = (caches(), Vec::new());
        let mut found = Vec::new();
        while let Some(slot) = reading.step(&caches, &mut found) {
            all.extend(found.drain(..).map(|found| (slot, found.offset)));
        }
        assert_eq!(all, [(0, 1), (0, 2), (0, 3), (1, 3)]);
        assert!(reading.is_complete(&caches));
    }
}
