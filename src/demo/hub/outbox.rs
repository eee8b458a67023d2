//! What a service has to say, in order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;

use crate::demo::event::{Draft, FOR_PAGES};
use crate::demo::service::Caller;

/// Letters that may wait; what comes beyond is lost. Callers notice by the time.
const CAPACITY: usize = 4_096;

/// An event or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::demo) enum Letter {
    /// An event.
    Event {
        /// Pages want it, not only services.
        for_pages: bool,
        /// What it is about.
        subject: String,
        /// The `CloudEvent`'s JSON.
        body: Bytes,
    },
    /// The answer to a call.
    Answer {
        /// The call.
        to: Caller,
        status: StatusCode,
        /// JSON.
        body: Bytes,
    },
}

impl Letter {
    /// The event, as of now.
    pub(in crate::demo) fn event(draft: &Draft, source: &str) -> Self {
        let (for_pages, subject) = (FOR_PAGES.contains(&draft.event_type), draft.subject.clone());
        Self::Event { for_pages, subject, body: draft.write(source) }
    }
}

/// A queue that keeps its oldest letter until that is known to have arrived. One courier empties it.
#[derive(Debug, Default)]
pub(in crate::demo) struct Outbox {
    queue: Mutex<VecDeque<Letter>>,
    filled: Notify,
}

impl Outbox {
    /// Appends a letter; false if there is no room for it.
    pub(in crate::demo) fn push(&self, letter: Letter) -> bool {
        let mut queue = self.lock();
        if queue.len() == CAPACITY {
            tracing::error!("a service of the ticket shop can't get rid of {CAPACITY} events; what comes now is lost");
            return false;
        }
        queue.push_back(letter);
        self.filled.notify_one();
        true
    }

    /// Nothing waits.
    pub(in crate::demo) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The oldest letter, as soon as there is one. It stays in the queue.
    pub(in crate::demo) async fn oldest(&self) -> Letter {
        loop {
            if let Some(letter) = self.lock().front() {
                return letter.clone();
            }
            self.filled.notified().await;
        }
    }

    /// Takes the oldest letter out: it has arrived, or never will.
    pub(in crate::demo) fn done(&self) {
        self.lock().pop_front();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::demo::event::{SEAT_RESERVED, SEAT_SOLD};

    fn letter(body: &'static str) -> Letter {
        Letter::Event { for_pages: true, subject: "any".into(), body: body.into() }
    }

    async fn take(outbox: &Outbox) -> Letter {
        let letter = outbox.oldest().await;
        outbox.done();
        letter
    }

    #[tokio::test]
    async fn a_letter_stays_the_oldest_until_it_is_done() {
        let outbox = Outbox::default();
        outbox.push(letter("a"));
        outbox.push(letter("b"));
        assert_eq!(outbox.oldest().await, letter("a"));
        assert_eq!(take(&outbox).await, letter("a"));
        assert_eq!(take(&outbox).await, letter("b"));
        assert!(outbox.is_empty());
    }

    #[tokio::test]
    async fn a_reader_that_waits_wakes_up_with_the_first_letter() {
        let outbox = Outbox::default();
        let (taken, _) = tokio::join!(take(&outbox), async { outbox.push(letter("a")) });
        assert_eq!(taken, letter("a"));
    }

    #[test]
    fn a_full_outbox_takes_nothing_more_and_says_so() {
        let outbox = Outbox::default();
        assert!((0..CAPACITY).all(|_| outbox.push(letter("a"))));
        assert!(!outbox.push(letter("b")));
        outbox.done();
        assert!(outbox.push(letter("b")));
    }

    #[test]
    fn pages_get_sales_and_not_what_services_tell_each_other() {
        let is_for_pages = |event_type| {
            matches!(Letter::event(&Draft::new(event_type, &json!({})), "/"), Letter::Event { for_pages: true, .. })
        };
        assert!(is_for_pages(SEAT_SOLD) && !is_for_pages(SEAT_RESERVED));
    }
}
