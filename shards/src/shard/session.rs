//! Long polling: a session keeps the newest events, and calls wait for the next one.

use std::rc::Rc;

use futures_channel::oneshot;

use super::connection::{Address, Output};
use super::stored_text::StoredText;
use super::{Shard, Timer, key};
use crate::longpoll::{Session, append_answer};
use crate::mailbox::PollAnswer;

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
    /// The id of the newest event that the client has presented.
    seen: String,
    /// Events had to go that the client may not have.
    forgot: bool,
    waiting: Vec<Waiting>,
    /// The node drains: the next call is the last, and the session ends at this time without it.
    leaves_ms: Option<u64>,
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
        Self { session: Session::new(now_ms), seen: String::new(), forgot: false, waiting: Vec::new(), leaves_ms: None }
    }

    /// Has something been forgotten that came after this id?
    fn has_gap_after(&self, last_event_id: &str) -> bool {
        self.forgot && self.session.after(last_event_id).events().len() == self.session.len()
    }

    /// The cursor at which the session began: that of `rig.subscriptions_set`, the second event of every session. What came
    /// since has been stored, but not been given to the client.
    pub(super) fn first_cursor(&self) -> Option<&str> {
        let second = self.session.after("").events().nth(1).filter(|_| !self.forgot);
        second.and_then(|event| event.cursor.as_deref())
    }

    /// Events that the client has not said it has.
    pub(super) fn unseen(&self) -> usize {
        self.session.after(&self.seen).events().len()
    }

    /// When its client last called, in milliseconds.
    pub(super) fn last_call_ms(&self) -> u64 {
        self.session.expires_at_ms(0)
    }

    fn answer(&self, last_event_id: &str) -> PollAnswer {
        let poll = self.session.after(last_event_id);
        let mut body = Vec::new();
        append_answer(poll.last_event_id, poll.events().map(|event| event.body.as_bytes()), &mut body);
        let cursor = poll.events().filter_map(|event| event.cursor.as_deref()).last().map(str::to_owned);
        PollAnswer { body: body.into(), last_event_id: poll.last_event_id.to_owned(), cursor }
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
    /// `last_event_id`, else by the next event or when the wait is over. Without such a session
    /// `reply` is dropped.
    pub fn poll(&mut self, address: Address, last_event_id: String, reply: oneshot::Sender<PollAnswer>, now_ms: u64) {
        let until_ms = now_ms + self.settings.long_polling_wait_ms;
        let has_cursors = self.connections.get(address).is_some_and(|connection| connection.cursor);
        if has_cursors && self.session(address).is_some_and(|session| session.has_gap_after(&last_event_id)) {
            // Its cursor leads a new session to what this one has forgotten.
            return self.remove(address);
        }
        let Some(session) = self.session(address) else { return };
        session.session.touch(now_ms);
        session.seen.clone_from(&last_event_id);
        session.waiting.retain(|waiting| !waiting.reply.is_canceled());
        if session.leaves_ms.is_some() {
            let _nobody_waits_any_more = reply.send(session.answer(&last_event_id));
            self.remove(address);
        } else if !session.session.after(&last_event_id).is_empty() {
            let _nobody_waits_any_more = reply.send(session.answer(&last_event_id));
        } else {
            session.waiting.push(Waiting { last_event_id, until_ms, reply });
            self.wheel.insert(until_ms, key(address, Timer::Poll));
        }
    }

    /// Answers the calls that wait, which leaves their client with everything there is. Returns whether the session must
    /// stay for one more call, until `leaves_ms` at most, since none was waiting.
    pub(super) fn leave_session(&mut self, address: Address, leaves_ms: u64) -> bool {
        let Some(session) = self.session(address) else { return false };
        let mut answered = false;
        for waiting in std::mem::take(&mut session.waiting) {
            answered |= waiting.reply.send(session.answer(&waiting.last_event_id)).is_ok();
        }
        if !answered {
            session.leaves_ms = Some(leaves_ms);
            self.wheel.insert(leaves_ms, key(address, Timer::Session));
        }
        !answered
    }

    pub(super) fn store_own_event(&mut self, address: Address, body: String, cursor: &str) {
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

    /// The cursor at which a session began whose client asked for cursors. A client that only knows this one has seen nothing of the
    /// session, and gets everything again from elsewhere.
    #[must_use]
    pub fn session_cursor(&mut self, address: Address) -> Option<String> {
        self.session(address)?.first_cursor().map(str::to_owned)
    }

    fn store(&mut self, address: Address, id: &str, body: StoredEvent, cursor: &str) {
        let wanted = self.connections.get(address).is_some_and(|connection| connection.cursor);
        let cursor = (wanted && !cursor.is_empty()).then(|| cursor.into());
        let event = Kept { body, cursor };
        let Some(session) = self.session(address) else { return };
        session.forgot |= session.session.push(id, event).is_some();
        for waiting in std::mem::take(&mut session.waiting) {
            let _nobody_waits_any_more = waiting.reply.send(session.answer(&waiting.last_event_id));
        }
    }

    /// Answers the calls whose wait is over.
    pub(super) fn poll_timer(&mut self, address: Address, now_ms: u64) {
        let Some(session) = self.session(address) else { return };
        let (over, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut session.waiting).into_iter().partition(|waiting| waiting.until_ms <= now_ms);
        session.waiting = still;
        for waiting in over {
            let _nobody_waits_any_more = waiting.reply.send(session.answer(&waiting.last_event_id));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ShardMetrics;

    #[test]
    fn the_cursor_of_the_first_answer_is_before_every_event_that_the_session_has_stored_by_then() {
        let metrics = std::sync::Arc::<ShardMetrics>::default();
        let mut polling = LongPolling::new(0);
        for (id, cursor) in [("create", None), ("set", Some("at-the-beginning")), ("event", Some("after-the-event"))] {
            let body = StoredText::new(id.to_owned(), &metrics);
            polling.session.push(id, Kept { body, cursor: cursor.map(Into::into) });
        }
        assert_eq!(polling.first_cursor(), Some("at-the-beginning"));
        polling.forgot = true;
        assert_eq!(polling.first_cursor(), None, "the second event may be another one by now");
    }
}
