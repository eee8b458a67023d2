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
/// Every entry has an id of its own. Where a producer uses an id again, a suffix tells the entries apart, since a poll with
/// an ambiguous id would lose or repeat events for ever.
#[derive(Clone, Debug)]
pub struct Session<T> {
    entries: VecDeque<Entry<T>>,
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
}

impl<'a, T> Poll<'a, T> {
    /// The events after the id that was presented, oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &'a T> + use<'a, T> {
        self.entries.clone().map(|entry| &entry.event)
    }

    /// Whether there is nothing new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }
}

impl<T> Session<T> {
    /// A session opened at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { entries: VecDeque::new(), repeated_ids: 0, last_call_ms: now_ms, hasher: ahash::RandomState::new() }
    }

    /// Notes a call at `now_ms`; the session's life starts anew.
    pub fn touch(&mut self, now_ms: u64) {
        self.last_call_ms = self.last_call_ms.max(now_ms);
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
        while unique == FIRST_EVENT || self.position(&unique).is_some() {
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
