//! Long polling: a session keeps the newest events, and calls wait for the next one.

use std::iter;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_channel::oneshot;

use super::connection::{Address, Output};
use super::stored_text::StoredText;
use super::{Shard, Timer, key, own_events};
use crate::cookie::FIRST_EVENT;
use crate::longpoll::{Session, append_answer};
use crate::mailbox::PollAnswer;

/// Bytes of events in one answer; a larger event comes alone. The rest comes with the next call.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Bytes of a session's answers that are on their way to its client, from which on it gets no more events. Each answer is a
/// copy, and it is the client who says how many it wants and when it takes them.
pub(super) const MAX_UNTAKEN_BYTES: usize = 4 * MAX_ANSWER_BYTES;

/// A stored event's JSON text.
pub type StoredEvent = Rc<StoredText>;

/// What a session keeps of an event.
#[derive(Clone, Debug)]
struct Kept {
    body: StoredEvent,
    /// The position after it, where the session's client wants cursors.
    cursor: Option<Box<str>>,
}

/// A long-polling session.
#[derive(Debug)]
pub struct LongPolling {
    session: Session<Kept>,
    /// The cursor at which the session began, where its client wants cursors; empty if there is none, or it has been given.
    began_at: Option<Box<str>>,
    /// Events had to go that the client may not have.
    forgot: bool,
    waiting: Vec<Waiting>,
    /// Bytes of answers that are on their way, wherever they are.
    untaken_bytes: Arc<AtomicUsize>,
    /// The node drains: the call that gets the rest is the last, and the session ends at this time without it.
    leaves_ms: Option<u64>,
}

/// The body of an answer, which counts until nobody holds it any more.
struct Untaken {
    body: Vec<u8>,
    bytes: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Untaken {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

/// A call that waits for an event.
#[derive(Debug)]
struct Waiting {
    last_event_id: String,
    until_ms: u64,
    reply: oneshot::Sender<PollAnswer>,
}

impl LongPolling {
    /// A session whose first call is this one.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            session: Session::new(now_ms),
            began_at: None,
            forgot: false,
            waiting: Vec::new(),
            untaken_bytes: Arc::default(),
            leaves_ms: None,
        }
    }

    /// Has something been forgotten that came after this id?
    fn has_gap_after(&self, last_event_id: &str) -> bool {
        self.forgot && self.session.after(last_event_id).events().len() == self.session.len()
    }

    /// Events that the client has not said it has.
    pub(super) fn unseen(&self) -> usize {
        self.session.unseen()
    }

    /// When its client last called, in milliseconds.
    pub(super) fn last_call_ms(&self) -> u64 {
        self.session.expires_at_ms(0)
    }

    /// Whether the client takes its answers: another one may go out.
    fn has_room(&self) -> bool {
        self.untaken_bytes.load(Ordering::Relaxed) < MAX_UNTAKEN_BYTES
    }

    /// The answer to a call, and whether it has everything that is there.
    fn answer(&self, last_event_id: &str) -> (PollAnswer, bool) {
        if !self.has_room() {
            let same_id = if last_event_id.is_empty() { FIRST_EVENT } else { last_event_id };
            let body = self.body(same_id, iter::empty());
            return (PollAnswer { body, last_event_id: same_id.to_owned(), cursor: None }, false);
        }
        let poll = self.session.after(last_event_id).within(MAX_ANSWER_BYTES, |event| event.body.len());
        let body = self.body(poll.last_event_id, poll.events().map(|event| event.body.as_bytes()));
        let cursor = poll.events().filter_map(|event| event.cursor.as_deref()).last().map(str::to_owned);
        (PollAnswer { body, last_event_id: poll.last_event_id.to_owned(), cursor }, poll.is_whole())
    }

    fn body<'a>(&self, last_event_id: &str, events: impl Iterator<Item = &'a [u8]>) -> Bytes {
        let mut body = Vec::new();
        append_answer(last_event_id, events, &mut body);
        self.untaken_bytes.fetch_add(body.len(), Ordering::Relaxed);
        Bytes::from_owner(Untaken { body, bytes: Arc::clone(&self.untaken_bytes) })
    }

    /// Answers a call. Whether its client gets everything that is there.
    fn give(&mut self, last_event_id: &str, reply: oneshot::Sender<PollAnswer>) -> bool {
        let (answer, is_whole) = self.answer(last_event_id);
        self.session.note_answered(&answer.last_event_id);
        reply.send(answer).is_ok() && is_whole
    }
}

impl Shard {
    fn session(&mut self, address: Address) -> Option<&mut LongPolling> {
        match &mut self.connections.get_mut(address)?.output {
            Output::Session(session) => Some(session),
            _ => None,
        }
    }

    /// One call of the session's client: answered at once where there is something newer than
    /// `last_event_id`, else by the next event or when the wait is over. So it is where the client has not taken what it got
    /// before. Without such a session `reply` is dropped.
    pub fn poll(&mut self, address: Address, last_event_id: String, reply: oneshot::Sender<PollAnswer>, now_ms: u64) {
        let until_ms = now_ms + self.settings.long_polling_wait_ms;
        let has_cursors = self.connections.get(address).is_some_and(|connection| connection.cursor);
        if has_cursors && self.session(address).is_some_and(|session| session.has_gap_after(&last_event_id)) {
            // Its cursor leads a new session to what this one has forgotten.
            return self.remove(address);
        }
        let Some(session) = self.session(address) else { return };
        session.session.touch(now_ms);
        session.session.note_presented(&last_event_id);
        session.waiting.retain(|waiting| !waiting.reply.is_canceled());
        let leaves = session.leaves_ms.is_some();
        if session.has_room() && (leaves || !session.session.after(&last_event_id).is_empty()) {
            let has_everything = session.give(&last_event_id, reply);
            if leaves && has_everything {
                self.remove(address);
            }
        } else {
            session.waiting.push(Waiting { last_event_id, until_ms, reply });
            self.wheel.insert(until_ms, key(address, Timer::Poll));
        }
    }

    /// Answers the calls that wait. Returns whether the session must stay for more calls, until `leaves_ms` at most, since
    /// none of these leaves its client with everything there is.
    pub(super) fn leave_session(&mut self, address: Address, leaves_ms: u64) -> bool {
        let Some(session) = self.session(address) else { return false };
        let mut has_everything = false;
        for waiting in std::mem::take(&mut session.waiting) {
            has_everything |= session.give(&waiting.last_event_id, waiting.reply);
        }
        if !has_everything {
            session.leaves_ms = Some(leaves_ms);
            self.wheel.insert(leaves_ms, key(address, Timer::Session));
        }
        !has_everything
    }

    pub(super) fn store_own_event(&mut self, address: Address, event_type: &str, body: String, cursor: &str) {
        if event_type == own_events::SUBSCRIPTIONS_SET
            && let Some(connection) = self.connections.get_mut(address).filter(|connection| connection.cursor)
            && let Output::Session(session) = &mut connection.output
        {
            session.began_at.get_or_insert_with(|| cursor.into());
        }
        let id = serde_json::from_str::<serde_json::Value>(&body)
            .ok()
            .and_then(|event| event.get("id").and_then(|id| id.as_str().map(String::from)))
            .unwrap_or_default();
        let event = StoredText::new(body, &self.metrics);
        self.store(address, &id, event, cursor);
    }

    pub(super) fn store_event(&mut self, address: Address, id: &str, event: &StoredEvent, cursor: &str) {
        self.store(address, id, Rc::clone(event), cursor);
    }

    /// The cursor at which a session began whose client asked for cursors, that of its first `rig.subscriptions_set`; given
    /// once. A client that only knows this one has seen nothing of the session, whatever that has stored or forgotten since,
    /// and gets everything again from elsewhere.
    #[must_use]
    pub fn session_cursor(&mut self, address: Address) -> Option<String> {
        let cursor = self.session(address)?.began_at.as_mut().map(std::mem::take)?;
        (!cursor.is_empty()).then(|| cursor.into())
    }

    fn store(&mut self, address: Address, id: &str, body: StoredEvent, cursor: &str) {
        let wanted = self.connections.get(address).is_some_and(|connection| connection.cursor);
        let cursor = (wanted && !cursor.is_empty()).then(|| cursor.into());
        let event = Kept { body, cursor };
        let Some(session) = self.session(address) else { return };
        session.forgot |= session.session.push(id, event).is_some();
        for waiting in std::mem::take(&mut session.waiting) {
            if session.has_room() {
                session.give(&waiting.last_event_id, waiting.reply);
            } else {
                session.waiting.push(waiting);
            }
        }
    }

    /// Answers the calls whose wait is over.
    pub(super) fn poll_timer(&mut self, address: Address, now_ms: u64) {
        let Some(session) = self.session(address) else { return };
        let (over, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut session.waiting).into_iter().partition(|waiting| waiting.until_ms <= now_ms);
        session.waiting = still;
        for waiting in over {
            session.give(&waiting.last_event_id, waiting.reply);
        }
    }

    /// Answers all calls that wait, with what is there.
    pub(super) fn answer_waiting(&mut self, address: Address) {
        self.poll_timer(address, u64::MAX);
    }

    /// Ends a session that nobody has called for long.
    pub(super) fn session_timer(&mut self, address: Address, now_ms: u64) {
        let life_ms = self.settings.long_polling_session_ms;
        let Some(session) = self.session(address) else { return };
        let ends_ms = session.session.expires_at_ms(life_ms).min(session.leaves_ms.unwrap_or(u64::MAX));
        if ends_ms <= now_ms && session.waiting.is_empty() {
            self.remove(address);
        } else {
            self.wheel.insert(ends_ms.max(now_ms + 1), key(address, Timer::Session));
        }
    }
}
