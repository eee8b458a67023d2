//! Long-polling sessions: the newest events of a client that is not always there.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::collections::vec_deque;

use crate::cookie::FIRST_EVENT;

/// Events that a session keeps; an older one is forgotten.
pub const MAX_BUFFERED_EVENTS: usize = 200;

#[derive(Clone, Debug)]
struct Entry<T> {
    /// Of `id`, so that a look-up reads one cache line for several entries.
    hash: u64,
    id: Box<str>,
    event: T,
}

/// The buffer of one session; `T` is whatever leads to an event's body.
///
/// Every entry has an id of its own. Where a producer uses an id again, a suffix tells the entries apart, since a poll
/// with an ambiguous id would lose or repeat events for ever. The ids that the client may present next count as taken
/// even when their entries are forgotten: otherwise what came before the id's second use would seem to be seen.
#[derive(Clone, Debug)]
pub struct Session<T> {
    entries: VecDeque<Entry<T>>,
    /// The id that the client has presented last.
    presented: String,
    /// The id of the last answer.
    answered: String,
    repeated_ids: u64,
    last_call_ms: u64,
    hasher: ahash::RandomState,
}

/// What a poll gets.
#[derive(Clone, Debug)]
pub struct Poll<'a, T> {
    /// The id to present in the next call.
    pub last_event_id: &'a str,
    entries: vec_deque::Iter<'a, Entry<T>>,
    /// How many of them it gets.
    count: usize,
}

impl<'a, T> Poll<'a, T> {
    /// The events after the id that was presented, oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &'a T> + use<'a, T> {
        self.entries.clone().take(self.count).map(|entry| &entry.event)
    }

    /// Whether there is nothing new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the next call finds nothing that is there already.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.count == self.entries.len()
    }

    /// Leaves to the next call what would pass `max_bytes`, by the size of each event. The first event always stays: a client
    /// that got nothing would never get past it.
    #[must_use]
    pub fn within(mut self, max_bytes: usize, bytes: impl Fn(&T) -> usize) -> Self {
        let mut total_bytes = 0;
        let fits = |entry: &&Entry<T>| {
            total_bytes += bytes(&entry.event);
            total_bytes <= max_bytes
        };
        let fitting = self.entries.clone().take_while(fits).count();
        self.count = fitting.max(1).min(self.entries.len());
        if let Some(last) = self.count.checked_sub(1).and_then(|at| self.entries.clone().nth(at)) {
            self.last_event_id = &last.id;
        }
        self
    }
}

impl<T> Session<T> {
    /// A session opened at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            presented: String::new(),
            answered: String::new(),
            repeated_ids: 0,
            last_call_ms: now_ms,
            hasher: ahash::RandomState::new(),
        }
    }

    /// Notes a call at `now_ms`; the session's life starts anew.
    pub fn touch(&mut self, now_ms: u64) {
        self.last_call_ms = self.last_call_ms.max(now_ms);
    }

    /// Notes the id that a call presents.
    pub fn note_presented(&mut self, last_event_id: &str) {
        last_event_id.clone_into(&mut self.presented);
    }

    /// Notes the id that the client is given to present in its next call.
    pub fn note_answered(&mut self, last_event_id: &str) {
        last_event_id.clone_into(&mut self.answered);
    }

    /// Events that the client has not said it has.
    #[must_use]
    pub fn unseen(&self) -> usize {
        self.after(&self.presented).events().len()
    }

    /// When the session ends unless another call comes before, in milliseconds.
    #[must_use]
    pub fn expires_at_ms(&self, life_ms: u64) -> u64 {
        self.last_call_ms.saturating_add(life_ms)
    }

    /// Adds the newest event and returns the one that had to go, if any. `id` may be any text.
    pub fn push(&mut self, id: &str, event: T) -> Option<T> {
        let forgotten = if self.entries.len() == MAX_BUFFERED_EVENTS { self.entries.pop_front() } else { None };
        let mut unique = Cow::Borrowed(id);
        while self.is_taken(&unique) {
            self.repeated_ids += 1;
            unique = Cow::Owned(format!("{id}#{}", self.repeated_ids));
        }
        let hash = self.hasher.hash_one(&*unique);
        self.entries.push_back(Entry { hash, id: unique.into(), event });
        forgotten.map(|entry| entry.event)
    }

    /// What came after `last_event_id`: everything buffered if it is unknown, forgotten, or [`FIRST_EVENT`]. Nothing is
    /// removed, so a poll that breaks off loses nothing.
    #[must_use]
    pub fn after(&self, last_event_id: &str) -> Poll<'_, T> {
        let start = self.position(last_event_id).map_or(0, |at| at + 1);
        Poll {
            last_event_id: self.entries.back().map_or(FIRST_EVENT, |entry| &entry.id),
            entries: self.entries.range(start..),
            count: self.entries.len() - start,
        }
    }

    /// Events in the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the buffer is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn is_taken(&self, id: &str) -> bool {
        id == FIRST_EVENT || id == self.answered || id == self.presented || self.position(id).is_some()
    }

    /// Place of the newest entry with this id; most polls present the newest of all.
    fn position(&self, id: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(id);
        self.entries.iter().rposition(|entry| entry.hash == hash && *entry.id == *id)
    }
}

/// Appends the body of an answer, `{"last_event_id":"…","events":[…]}`; `bodies` are JSON texts, written as they are.
pub fn append_answer<'a>(last_event_id: &str, bodies: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"last_event_id\":");
    serde_json::to_writer(&mut *out, last_event_id).expect("invariant: a text becomes JSON and a Vec takes it");
    out.extend_from_slice(b",\"events\":[");
    for (at, body) in bodies.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(body);
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(ids: &[&str]) -> Session<usize> {
        let mut session = Session::new(0);
        for (event, id) in ids.iter().enumerate() {
            session.push(id, event);
        }
        session
    }

    fn poll(session: &Session<usize>, last_event_id: &str) -> (String, Vec<usize>) {
        let poll = session.after(last_event_id);
        (poll.last_event_id.to_owned(), poll.events().copied().collect())
    }

    #[test]
    fn a_poll_gets_what_came_after_its_id() {
        let session = session(&["a", "b", "c"]);
        assert_eq!(poll(&session, "a"), ("c".to_owned(), vec![1, 2]));
        assert_eq!(poll(&session, "c"), ("c".to_owned(), vec![]));
        assert!(session.after("c").is_empty());
    }

    #[test]
    fn an_unknown_id_and_the_first_event_give_everything_buffered() {
        let session = session(&["a", "b"]);
        assert_eq!(poll(&session, FIRST_EVENT), ("b".to_owned(), vec![0, 1]));
        assert_eq!(poll(&session, "nonsense"), ("b".to_owned(), vec![0, 1]));
    }

    #[test]
    fn polling_with_an_old_id_repeats() {
        let session = session(&["a", "b"]);
        assert_eq!(poll(&session, "a"), poll(&session, "a"));
    }

    #[test]
    fn what_is_too_much_for_one_answer_comes_with_the_next_and_one_event_always_fits() {
        let session = session(&["a", "b", "c", "d"]);
        // Each event takes its number times ten bytes, from 0 on.
        let poll = |last_event_id: &str, max_bytes| {
            let poll = session.after(last_event_id).within(max_bytes, |event| event * 10);
            (poll.last_event_id.to_owned(), poll.events().copied().collect::<Vec<_>>(), poll.is_whole())
        };
        assert_eq!(poll(FIRST_EVENT, 60), ("d".to_owned(), vec![0, 1, 2, 3], true));
        assert_eq!(poll(FIRST_EVENT, 59), ("c".to_owned(), vec![0, 1, 2], false));
        assert_eq!(poll("c", 59), ("d".to_owned(), vec![3], true));
        assert_eq!(poll("b", 1), ("c".to_owned(), vec![2], false));
        assert_eq!(poll("d", 1), ("d".to_owned(), vec![], true));
    }

    #[test]
    fn an_empty_session_answers_with_the_first_event() {
        assert_eq!(poll(&session(&[]), "anything"), (FIRST_EVENT.to_owned(), vec![]));
    }

    #[test]
    fn only_the_newest_200_events_are_kept() {
        let mut session = Session::new(0);
        for event in 0..MAX_BUFFERED_EVENTS {
            assert_eq!(session.push(&event.to_string(), event), None);
        }
        assert_eq!(session.push("next", 200), Some(0));
        assert_eq!(session.len(), MAX_BUFFERED_EVENTS);
        assert_eq!(poll(&session, FIRST_EVENT).1, (1..=200).collect::<Vec<_>>());
        assert_eq!(poll(&session, "0").1.len(), MAX_BUFFERED_EVENTS);
    }

    #[test]
    fn a_repeated_id_neither_loses_nor_repeats_events() {
        let mut session = session(&["a", "b", "a"]);
        let (last_event_id, events) = poll(&session, "a");
        assert_eq!(events, [1, 2]);
        assert!(session.after(&last_event_id).is_empty());
        session.push("a", 3);
        assert_eq!(poll(&session, &last_event_id).1, [3]);
    }

    #[test]
    fn an_id_that_the_client_may_present_is_no_other_events_after_its_own_was_forgotten() {
        let note: [fn(&mut Session<usize>, &str); 2] = [Session::note_presented, Session::note_answered];
        for note in note {
            let mut session = session(&["7"]);
            note(&mut session, "7");
            for event in 1..=MAX_BUFFERED_EVENTS {
                session.push(&format!("another {event}"), event);
            }
            session.push("7", 201);
            session.push("8", 202);
            assert_eq!(poll(&session, "7").1, (3..=202).collect::<Vec<_>>(), "none of them counts as seen");
        }
    }

    #[test]
    fn an_event_that_calls_itself_the_first_one_is_not_repeated_for_ever() {
        let session = session(&[FIRST_EVENT]);
        let (last_event_id, events) = poll(&session, FIRST_EVENT);
        assert_eq!(events, [0]);
        assert!(session.after(&last_event_id).is_empty());
    }

    #[test]
    fn a_call_prolongs_the_life_of_the_session() {
        let mut session = session(&[]);
        assert_eq!(session.expires_at_ms(3_600_000), 3_600_000);
        session.touch(5_000);
        session.touch(1_000);
        assert_eq!(session.expires_at_ms(3_600_000), 3_605_000);
    }

    #[test]
    fn the_answer_is_compact_and_forwards_bodies_unchanged() {
        let mut out = Vec::new();
        append_answer("2", [&b"{ \"id\": 1.50 }"[..], b"{\"id\":\"2\"}"], &mut out);
        assert_eq!(out, br#"{"last_event_id":"2","events":[{ "id": 1.50 },{"id":"2"}]}"#);
        out.clear();
        append_answer(FIRST_EVENT, [], &mut out);
        assert_eq!(out, br#"{"last_event_id":"first_event","events":[]}"#);
    }

    proptest! {
        #[test]
        fn the_answer_is_json_whatever_the_id(id in any::<String>()) {
            let mut out = Vec::new();
            append_answer(&id, [&b"{}"[..]], &mut out);
            let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(answer["last_event_id"].as_str(), Some(id.as_str()));
        }

        #[test]
        fn a_client_that_keeps_polling_sees_every_event_once(ids in prop::collection::vec("[ab#1]{0,3}", 0..300)) {
            let mut session = Session::new(0);
            let mut last_event_id = FIRST_EVENT.to_owned();
            let mut seen = Vec::new();
            for (event, id) in ids.iter().enumerate() {
                session.push(id, event);
                if event % 7 == 0 || event + 1 == ids.len() {
                    let (newest, events) = poll(&session, &last_event_id);
                    seen.extend(events);
                    last_event_id = newest;
                }
            }
            prop_assert_eq!(seen, (0..ids.len()).collect::<Vec<_>>());
        }
    }
}
