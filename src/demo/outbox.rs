//! Events on their way to the gateway, in order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// A queue that keeps its oldest event until that is known to have arrived.
///
/// Its bound follows from who fills it: at most one event per seat until the hall is reset, which clears it, and figures
/// only while it is empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<VecDeque<Letter>>,
    filled: Notify,
}

/// One event in the queue.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// Tells letters apart where the queue was cleared meanwhile.
    number: u64,
    /// The `CloudEvent`'s JSON.
    pub(super) body: Bytes,
}

impl Outbox {
    /// Appends an event.
    pub(super) fn push(&self, body: Bytes) {
        let mut queue = self.lock();
        let number = queue.back().map_or(0, |last| last.number + 1);
        queue.push_back(Letter { number, body });
        self.filled.notify_one();
    }

    /// Appends an event that makes all before it pointless. The oldest stays: it may be under way just now.
    pub(super) fn supersede(&self, body: Bytes) {
        self.lock().truncate(1);
        self.push(body);
    }

    /// Number of events that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The oldest event, as soon as there is one. It stays in the queue.
    pub(super) async fn oldest(&self) -> Letter {
        loop {
            if let Some(letter) = self.lock().front() {
                return letter.clone();
            }
            self.filled.notified().await;
        }
    }

    /// Takes the letter out: it has arrived, or never will.
    pub(super) fn done(&self, letter: &Letter) {
        let mut queue = self.lock();
        if queue.front().is_some_and(|oldest| oldest.number == letter.number) {
            queue.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(outbox: &Outbox) -> Bytes {
        let letter = outbox.oldest().await;
        outbox.done(&letter);
        letter.body
    }

    #[tokio::test]
    async fn an_event_stays_the_oldest_until_it_is_done() {
        let outbox = Outbox::default();
        outbox.push("a".into());
        outbox.push("b".into());
        assert_eq!(outbox.oldest().await.body, "a");
        assert_eq!(take(&outbox).await, "a");
        assert_eq!(take(&outbox).await, "b");
        assert_eq!(outbox.len(), 0);
    }

    #[tokio::test]
    async fn a_superseding_event_removes_what_waits_behind_the_oldest() {
        let outbox = Outbox::default();
        for body in ["a", "b", "c"] {
            outbox.push(body.into());
        }
        let under_way = outbox.oldest().await;
        outbox.supersede("reset".into());
        outbox.done(&under_way);
        assert_eq!(take(&outbox).await, "reset");
        assert_eq!(outbox.len(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_waits_wakes_up_with_the_first_event() {
        let outbox = Outbox::default();
        let (body, ()) = tokio::join!(take(&outbox), async { outbox.push("a".into()) });
        assert_eq!(body, "a");
    }
}
