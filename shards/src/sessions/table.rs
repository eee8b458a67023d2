//! Which sessions are listed, and until when: an open-addressing table of atomics in buckets that are made when they are needed.
//!
//! One thread writes. A reader takes no lock and writes nothing: it finds a bucket by the first half of a fingerprint and looks
//! for the second half in it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::changes::{Changes, News};
use super::fingerprint::Fingerprint;
use crate::auth::SessionList;
use crate::clock;

/// Sessions that may be listed at a time: a million, in 32 MiB at most.
pub const MAX_SESSIONS: usize = 1 << 20;
/// Buckets, each of [`SLOTS`]: a million sessions fill half of one on average, and the fullest far from all of it.
const BUCKETS: usize = 4096;
/// Places in a bucket.
const SLOTS: usize = 512;

/// A place that was never taken: a search ends here.
const EMPTY: u64 = 0;
/// A place that was given up: a search goes on behind it.
const GIVEN_UP: u64 = 1;

/// One session: the second half of its fingerprint, and when it may come back.
#[derive(Debug, Default)]
struct Slot {
    tag: AtomicU64,
    until_unix_ms: AtomicU64,
}

type Bucket = Box<[Slot]>;

/// The list as shards read it.
#[derive(Debug)]
pub struct SessionTable {
    buckets: Box<[OnceLock<Bucket>]>,
    changes: Changes,
    /// What must be added to [`clock::now_ms`] to get the time since 1970.
    unix_offset_ms: AtomicI64,
}

/// There is no place for one more session; those that are listed stay listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SESSIONS} sessions are blacklisted already; the next place is free when one of them expires")]
pub struct TableFull;

/// The one who writes the list.
#[derive(Debug)]
pub struct SessionWriter {
    table: Arc<SessionTable>,
    len: usize,
}

impl Default for SessionTable {
    /// A list that stays empty unless [`SessionWriter::new`] made it.
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| OnceLock::new()).collect(),
            changes: Changes::new(),
            unix_offset_ms: AtomicI64::new(0),
        }
    }
}

impl SessionTable {
    /// Is the session listed at this time?
    #[must_use]
    pub fn is_listed(&self, session: Fingerprint, now_unix_ms: u64) -> bool {
        self.until_unix_ms(session).is_some_and(|until_unix_ms| until_unix_ms > now_unix_ms)
    }

    /// Is the session listed now?
    #[must_use]
    pub fn is_listed_now(&self, session: Fingerprint) -> bool {
        self.until_unix_ms(session).is_some_and(|until_unix_ms| until_unix_ms > self.unix_ms(clock::now_ms()))
    }

    /// Time since 1970 at `now_ms` of [`clock::now_ms`].
    #[must_use]
    pub fn unix_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.unix_offset_ms.load(Ordering::Relaxed))
    }

    /// [`clock::now_ms`] at a time since 1970: 0 for what was before the start, `u64::MAX` for what never comes.
    #[must_use]
    pub fn clock_ms(&self, unix_ms: u64) -> u64 {
        unix_ms.saturating_add_signed(self.unix_offset_ms.load(Ordering::Relaxed).saturating_neg())
    }

    /// Additions so far: where a shard without connections begins to listen.
    #[must_use]
    pub fn additions(&self) -> u64 {
        self.changes.count()
    }

    /// What was listed after the first `seen` additions, which then is all of them.
    pub fn news(&self, seen: &mut u64) -> News {
        self.changes.since(seen)
    }

    fn until_unix_ms(&self, session: Fingerprint) -> Option<u64> {
        let slot = self.find(session)?;
        let until_unix_ms = slot.until_unix_ms.load(Ordering::Acquire);
        // The slot may have been given to somebody else between the two.
        (slot.tag.load(Ordering::Relaxed) == tag(session)).then_some(until_unix_ms)
    }

    fn find(&self, session: Fingerprint) -> Option<&Slot> {
        let bucket = self.buckets[place_of_bucket(session)].get()?;
        let tag = tag(session);
        for at in probe(tag) {
            match bucket[at].tag.load(Ordering::Acquire) {
                EMPTY => return None,
                found if found == tag => return Some(&bucket[at]),
                _ => {}
            }
        }
        None
    }
}

impl SessionList for SessionTable {
    fn is_blacklisted(&self, session: &str) -> bool {
        self.additions() > 0 && self.is_listed_now(Fingerprint::of(session))
    }
}

impl SessionWriter {
    /// An empty list; `unix_ms` is the time since 1970 now.
    #[must_use]
    pub fn new(unix_ms: u64) -> Self {
        let writer = Self { table: Arc::default(), len: 0 };
        writer.set_unix_ms(unix_ms);
        writer
    }

    /// The list as others read it.
    #[must_use]
    pub fn table(&self) -> &Arc<SessionTable> {
        &self.table
    }

    /// Sets the clock anew; `unix_ms` is the time since 1970 now.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        let now_ms = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
        let offset_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX).saturating_sub(now_ms);
        self.table.unix_offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// How many are listed, expired ones included until they are taken out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is nobody listed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Until when the session is listed, in milliseconds since 1970.
    #[must_use]
    pub fn until_unix_ms(&self, session: Fingerprint) -> Option<u64> {
        self.table.until_unix_ms(session)
    }

    /// Lists a session, or moves the end of its time. Shards hear of it.
    ///
    /// # Errors
    /// [`TableFull`].
    pub fn set(&mut self, session: Fingerprint, until_unix_ms: u64) -> Result<(), TableFull> {
        if let Some(slot) = self.table.find(session) {
            slot.until_unix_ms.store(until_unix_ms, Ordering::Release);
        } else {
            if self.len >= MAX_SESSIONS {
                return Err(TableFull);
            }
            let bucket = self.table.buckets[place_of_bucket(session)]
                .get_or_init(|| (0..SLOTS).map(|_| Slot::default()).collect());
            let free = |at: &usize| bucket[*at].tag.load(Ordering::Relaxed) <= GIVEN_UP;
            let at = probe(tag(session)).find(free).ok_or(TableFull)?;
            bucket[at].until_unix_ms.store(until_unix_ms, Ordering::Release);
            bucket[at].tag.store(tag(session), Ordering::Release);
            self.len += 1;
        }
        self.table.changes.push(session);
        Ok(())
    }

    /// Takes a session out.
    pub fn remove(&mut self, session: Fingerprint) {
        let Some(slot) = self.table.find(session) else { return };
        slot.tag.store(GIVEN_UP, Ordering::Release);
        self.len -= 1;
        // Where a search would end behind the place anyway, it may as well end here.
        let Some(bucket) = self.table.buckets[place_of_bucket(session)].get() else { return };
        let Some(mut at) = bucket.iter().position(|other| std::ptr::eq(other, slot)) else { return };
        if bucket[(at + 1) % SLOTS].tag.load(Ordering::Relaxed) != EMPTY {
            return;
        }
        while bucket[at].tag.load(Ordering::Relaxed) == GIVEN_UP {
            bucket[at].tag.store(EMPTY, Ordering::Release);
            at = (at + SLOTS - 1) % SLOTS;
        }
    }
}

fn place_of_bucket(session: Fingerprint) -> usize {
    let [first, _] = session.halves();
    usize::try_from(first % BUCKETS as u64).expect("invariant: the remainder is below BUCKETS")
}

/// The second half of the fingerprint, kept clear of the two values that mean something else.
fn tag(session: Fingerprint) -> u64 {
    let [_, second] = session.halves();
    second.max(GIVEN_UP + 1)
}

/// Every place of a bucket, in the order in which a search goes through them.
fn probe(tag: u64) -> impl Iterator<Item = usize> {
    let start = usize::try_from(tag % SLOTS as u64).expect("invariant: the remainder is below SLOTS");
    (start..SLOTS).chain(0..start)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn session(number: u64) -> Fingerprint {
        Fingerprint::of(&number.to_string())
    }

    #[test]
    fn a_session_is_listed_until_its_time_is_over() {
        let mut writer = SessionWriter::new(0);
        let table = Arc::clone(writer.table());
        assert!(!table.is_listed(session(1), 0));
        writer.set(session(1), 100).unwrap();
        assert!(table.is_listed(session(1), 99));
        assert!(!table.is_listed(session(1), 100));
        assert!(!table.is_listed(session(2), 0));
        writer.set(session(1), 200).unwrap();
        assert_eq!((writer.len(), table.is_listed(session(1), 199)), (1, true));
        writer.remove(session(1));
        assert_eq!((writer.len(), table.is_listed(session(1), 0)), (0, false));
    }

    #[test]
    fn shards_hear_of_each_addition() {
        let mut writer = SessionWriter::new(0);
        let table = Arc::clone(writer.table());
        let mut seen = table.additions();
        writer.set(session(1), 100).unwrap();
        assert_eq!(table.news(&mut seen), News::Listed(vec![session(1)]));
        assert_eq!(table.news(&mut seen), News::Listed(Vec::new()));
    }

    #[test]
    fn a_million_sessions_fit_and_the_next_one_is_refused() {
        let mut writer = SessionWriter::new(0);
        for number in 0..MAX_SESSIONS as u64 {
            writer.set(session(number), 1 + number).unwrap();
        }
        let table = Arc::clone(writer.table());
        assert!((0..MAX_SESSIONS as u64).all(|number| table.is_listed(session(number), number)));
        let next = session(MAX_SESSIONS as u64);
        assert!(!table.is_listed(next, 0));
        assert_eq!(writer.set(next, 1), Err(TableFull));
        writer.remove(session(5));
        writer.set(next, 1).unwrap();
    }

    #[test]
    fn places_that_were_given_up_are_taken_again() {
        let mut writer = SessionWriter::new(0);
        for number in 0..300_000 {
            writer.set(session(number), 1).unwrap();
            writer.remove(session(number));
        }
        let taken = |bucket: &Bucket| bucket.iter().any(|slot| slot.tag.load(Ordering::Relaxed) != EMPTY);
        assert!(!writer.table.buckets.iter().filter_map(OnceLock::get).any(taken));
    }

    #[test]
    fn a_reader_never_sees_a_session_that_was_not_listed() {
        let mut writer = SessionWriter::new(0);
        let table = Arc::clone(writer.table());
        writer.set(session(0), 5).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                for round in 0..20_000_u64 {
                    assert!(table.is_listed(session(0), 4), "round {round}");
                    assert!(!table.is_listed(session(1_000_000 + round % 100), 0));
                }
            });
            let mut number = 0;
            while !reader.is_finished() {
                number = number % 1_000 + 1;
                writer.set(session(number), 5).unwrap();
                writer.remove(session(number));
            }
        });
    }

    #[test]
    fn the_clock_of_a_node_and_the_time_since_1970_go_together() {
        let writer = SessionWriter::new(1_800_000_000_000);
        let table = writer.table();
        let now_ms = clock::now_ms();
        assert!(table.unix_ms(now_ms) >= 1_800_000_000_000);
        assert_eq!(table.clock_ms(table.unix_ms(now_ms)), now_ms);
        assert_eq!((table.clock_ms(0), table.clock_ms(u64::MAX) > 1 << 62), (0, true));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64, u64),
        Remove(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..50_u64, 1..9_u64).prop_map(|(s, until)| Step::Set(s, until)),
            (0..50_u64).prop_map(Step::Remove)
        ]
    }

    proptest! {
        #[test]
        fn the_table_is_a_map(steps in prop::collection::vec(step(), 0..300)) {
            let mut writer = SessionWriter::new(0);
            let mut model = HashMap::new();
            // All in one bucket, and close together in it, so that they get into each other's way.
            let crowded = |number| Fingerprint::from_halves([7, 510 + number % 4 + SLOTS as u64 * number]);
            for step in steps {
                match step {
                    Step::Set(number, until) => {
                        writer.set(crowded(number), until).unwrap();
                        model.insert(number, until);
                    }
                    Step::Remove(number) => {
                        writer.remove(crowded(number));
                        model.remove(&number);
                    }
                }
                prop_assert_eq!(writer.len(), model.len());
                for number in 0..50 {
                    prop_assert_eq!(writer.until_unix_ms(crowded(number)), model.get(&number).copied());
                }
            }
        }
    }
}
