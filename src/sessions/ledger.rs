//! Who is listed until when, and who expires next: a state machine without I/O or clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tidegate_shards::sessions::record::Record;
use tidegate_shards::sessions::{Fingerprint, MAX_SESSIONS, SessionTable, SessionWriter, TableFull};

/// Ends that may be out of date before they are cleared away.
const SPARE_ENDS: usize = 1_024;

/// When an entry ends. Out of date if the list has another end for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    until_unix_ms: u64,
    session: Fingerprint,
    /// Listed by this node, which then clears it away.
    own: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is in force.
    Listed,
    /// There is one that lasts as long, or longer, until this time in milliseconds since 1970.
    Outlasted(u64),
    /// Its time was over before.
    Expired,
}

/// The list with its ends.
#[derive(Debug)]
pub struct Ledger {
    writer: SessionWriter,
    ends: BinaryHeap<Reverse<End>>,
}

impl Ledger {
    /// An empty list.
    #[must_use]
    pub fn new(now_unix_ms: u64) -> Self {
        Self { writer: SessionWriter::new(now_unix_ms), ends: BinaryHeap::new() }
    }

    /// The list as shards read it.
    #[must_use]
    pub fn table(&self) -> &Arc<SessionTable> {
        self.writer.table()
    }

    /// How many are listed, expired ones included until [`Self::expire`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Is nobody listed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// Until when a session is listed, in milliseconds since 1970.
    #[must_use]
    pub fn until_unix_ms(&self, session: Fingerprint) -> Option<u64> {
        self.writer.until_unix_ms(session)
    }

    /// Is there a place for one more?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.writer.len() < MAX_SESSIONS
    }

    /// Takes an entry in, unless there is one that lasts longer.
    ///
    /// # Errors
    /// [`TableFull`].
    pub fn list(&mut self, record: Record, own: bool, now_unix_ms: u64) -> Result<Listing, TableFull> {
        let Record { session, until_unix_ms } = record;
        if until_unix_ms <= now_unix_ms {
            return Ok(Listing::Expired);
        }
        if let Some(known) = self.until_unix_ms(session).filter(|known| *known >= until_unix_ms) {
            if own && known == until_unix_ms {
                // It came back from the topic before its own node took it in.
                self.ends.push(Reverse(End { until_unix_ms, session, own }));
            }
            return Ok(Listing::Outlasted(known));
        }
        self.writer.set(session, until_unix_ms)?;
        self.ends.push(Reverse(End { until_unix_ms, session, own }));
        if self.ends.len() > 2 * self.writer.len() + SPARE_ENDS {
            let writer = &self.writer;
            self.ends.retain(|Reverse(end)| writer.until_unix_ms(end.session) == Some(end.until_unix_ms));
        }
        Ok(Listing::Listed)
    }

    /// Takes out those whose time is over, and sets the clock. Returns those that this node listed.
    pub fn expire(&mut self, now_unix_ms: u64) -> Vec<Fingerprint> {
        self.writer.set_unix_ms(now_unix_ms);
        let mut own = Vec::new();
        while let Some(Reverse(end)) = self.ends.peek().copied()
            && end.until_unix_ms <= now_unix_ms
        {
            self.ends.pop();
            let known = self.until_unix_ms(end.session);
            if known == Some(end.until_unix_ms) {
                self.writer.remove(end.session);
            }
            if end.own && known.is_none_or(|known| known == end.until_unix_ms) {
                own.push(end.session);
            }
        }
        own
    }

    /// All entries, in no order.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let newest = |end: &&Reverse<End>| self.until_unix_ms(end.0.session) == Some(end.0.until_unix_ms);
        let record = |Reverse(end): &Reverse<End>| Record { session: end.session, until_unix_ms: end.until_unix_ms };
        self.ends.iter().filter(newest).map(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, until_unix_ms: u64) -> Record {
        Record { session: Fingerprint::of(name), until_unix_ms }
    }

    #[test]
    fn the_longer_of_two_entries_wins_in_either_order() {
        for (first, second) in [(100, 200), (200, 100)] {
            let mut ledger = Ledger::new(0);
            ledger.list(record("s", first), true, 0).unwrap();
            let listing = ledger.list(record("s", second), true, 0).unwrap();
            assert_eq!(listing, if second == 200 { Listing::Listed } else { Listing::Outlasted(200) });
            assert!(ledger.expire(199).is_empty());
            assert_eq!(ledger.records().collect::<Vec<_>>(), [record("s", 200)]);
            assert_eq!(ledger.expire(200), [Fingerprint::of("s")]);
            assert!(ledger.is_empty() && ledger.records().next().is_none());
        }
    }

    #[test]
    fn what_expired_leaves_and_only_own_entries_are_told() {
        let mut ledger = Ledger::new(0);
        ledger.list(record("own", 100), true, 0).unwrap();
        ledger.list(record("other", 100), false, 0).unwrap();
        ledger.list(record("later", 101), true, 0).unwrap();
        assert_eq!(ledger.list(record("past", 5), true, 5).unwrap(), Listing::Expired);
        assert_eq!(ledger.expire(100), [Fingerprint::of("own")]);
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn an_entry_that_is_made_longer_again_and_again_takes_no_more_memory() {
        let mut ledger = Ledger::new(0);
        for until in 1..100_000 {
            ledger.list(record("s", until), true, 0).unwrap();
            assert!(ledger.ends.len() <= 2 + SPARE_ENDS);
        }
        assert_eq!(ledger.records().count(), 1);
    }

    #[test]
    fn an_own_entry_that_came_back_first_is_still_an_own_one() {
        let mut ledger = Ledger::new(0);
        ledger.list(record("s", 10), false, 0).unwrap();
        ledger.list(record("s", 10), true, 0).unwrap();
        assert_eq!((ledger.len(), ledger.expire(10)), (1, vec![Fingerprint::of("s")]));
    }

    #[test]
    fn a_session_that_expired_can_be_listed_again() {
        let mut ledger = Ledger::new(0);
        ledger.list(record("s", 10), true, 0).unwrap();
        ledger.expire(10);
        assert_eq!(ledger.list(record("s", 20), false, 10).unwrap(), Listing::Listed);
        assert_eq!(ledger.until_unix_ms(Fingerprint::of("s")), Some(20));
    }
}
