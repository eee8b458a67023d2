//! Answers of requests that must take effect once: a repeated request gets the stored answer.
//!
//! A key stands for one payload; with another one it is refused (draft-ietf-httpapi-idempotency-key-header, section 2.7).
//! Bounded in answers and in bytes; the oldest goes first.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

/// Service, key and hash of the payload of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    name: (String, Vec<u8>),
    payload: [u8; 32],
}

impl Fingerprint {
    /// The fingerprint of a request that carries `key`.
    #[must_use]
    pub fn new(service: &str, key: &[u8], payload: &[u8]) -> Self {
        Self { name: (service.to_owned(), key.to_vec()), payload: Sha256::digest(payload).into() }
    }
}

/// What to do with a request. `A` is an answer, `W` one who waits for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<A, W> {
    /// Nobody has asked for it yet: handle it, then [`finish`](Idempotency::finish) or [`abandon`](Idempotency::abandon).
    Handle(W),
    /// Somebody else's request is being handled; the waiter is handed out when it is done.
    Waits,
    /// This was the answer.
    Stored(A, W),
    /// The key was used for another payload.
    Reused(W),
}

#[derive(Debug)]
struct Entry<A, W> {
    payload: [u8; 32],
    state: State<A, W>,
}

#[derive(Debug)]
enum State<A, W> {
    Running(Vec<W>),
    Done { answer: A, bytes: usize },
}

/// The answers that are remembered.
#[derive(Debug)]
pub struct Idempotency<A, W> {
    entries: HashMap<(String, Vec<u8>), Entry<A, W>>,
    /// Those that are done, the oldest first.
    order: VecDeque<(String, Vec<u8>)>,
    bytes: usize,
    max_answers: usize,
    max_bytes: usize,
}

impl<A: Clone, W> Idempotency<A, W> {
    /// Remembers at most so many answers, of so many bytes together.
    #[must_use]
    pub fn new(max_answers: usize, max_bytes: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, max_answers, max_bytes }
    }

    /// Answers that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// A request came in.
    pub fn admit(&mut self, request: &Fingerprint, waiter: W) -> Admission<A, W> {
        let Some(entry) = self.entries.get_mut(&request.name) else {
            let entry = Entry { payload: request.payload, state: State::Running(Vec::new()) };
            self.entries.insert(request.name.clone(), entry);
            return Admission::Handle(waiter);
        };
        if entry.payload != request.payload {
            return Admission::Reused(waiter);
        }
        match &mut entry.state {
            State::Running(waiters) => {
                waiters.push(waiter);
                Admission::Waits
            }
            State::Done { answer, .. } => Admission::Stored(answer.clone(), waiter),
        }
    }

    /// It was answered with `answer` of so many bytes, which is remembered. Gives those who wait for it.
    pub fn finish(&mut self, request: &Fingerprint, answer: A, bytes: usize) -> Vec<W> {
        let Some(entry) = self.entries.get_mut(&request.name) else { return Vec::new() };
        let State::Running(waiters) = &mut entry.state else { return Vec::new() };
        let waiters = std::mem::take(waiters);
        entry.state = State::Done { answer, bytes };
        self.bytes += bytes;
        self.order.push_back(request.name.clone());
        while self.order.len() > self.max_answers || self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(Entry { state: State::Done { bytes, .. }, .. }) = self.entries.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
        waiters
    }

    /// It failed in a way that a repetition may mend: nothing is remembered. Gives those who wait for it.
    pub fn abandon(&mut self, request: &Fingerprint) -> Vec<W> {
        match self.entries.get(&request.name) {
            Some(Entry { state: State::Running(_), .. }) => {}
            _ => return Vec::new(),
        }
        match self.entries.remove(&request.name) {
            Some(Entry { state: State::Running(waiters), .. }) => waiters,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(key: &str, payload: &str) -> Fingerprint {
        Fingerprint::new("s", key.as_bytes(), payload.as_bytes())
    }

    fn cache() -> Idempotency<&'static str, u32> {
        Idempotency::new(2, 1_000)
    }

    #[test]
    fn a_repeated_request_gets_the_stored_answer() {
        let mut cache = cache();
        assert_eq!(cache.admit(&print("k", "p"), 1), Admission::Handle(1));
        assert_eq!(cache.finish(&print("k", "p"), "done", 4), [0; 0]);
        assert_eq!(cache.admit(&print("k", "p"), 2), Admission::Stored("done", 2));
    }

    #[test]
    fn a_key_is_refused_for_another_payload_and_free_for_another_service() {
        let mut cache = cache();
        cache.admit(&print("k", "p"), 1);
        assert_eq!(cache.admit(&print("k", "q"), 2), Admission::Reused(2));
        assert_eq!(cache.admit(&Fingerprint::new("t", b"k", b"q"), 3), Admission::Handle(3));
    }

    #[test]
    fn a_repetition_while_the_first_is_handled_waits_for_its_answer() {
        let mut cache = cache();
        cache.admit(&print("k", "p"), 1);
        assert_eq!(cache.admit(&print("k", "p"), 2), Admission::Waits);
        assert_eq!(cache.finish(&print("k", "p"), "done", 4), [2]);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let mut cache = cache();
        cache.admit(&print("k", "p"), 1);
        cache.admit(&print("k", "p"), 2);
        assert_eq!(cache.abandon(&print("k", "p")), [2]);
        assert_eq!(cache.admit(&print("k", "p"), 3), Admission::Handle(3));
    }

    #[test]
    fn the_oldest_answers_are_forgotten_first() {
        let mut cache = cache();
        for key in ["a", "b", "c"] {
            cache.admit(&print(key, "p"), 0);
            cache.finish(&print(key, "p"), "done", 4);
        }
        assert_eq!(cache.admit(&print("a", "p"), 1), Admission::Handle(1));
        assert_eq!(cache.admit(&print("c", "p"), 1), Admission::Stored("done", 1));
        cache.finish(&print("a", "p"), "large", 2_000);
        assert!(cache.is_empty());
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_may(steps in prop::collection::vec((0_u8..20, 0_usize..400, any::<bool>()), 0..200)) {
            let mut cache: Idempotency<usize, ()> = Idempotency::new(8, 1_000);
            for (key, bytes, fails) in steps {
                let request = print(&key.to_string(), "p");
                if cache.admit(&request, ()) == Admission::Handle(()) {
                    if fails { cache.abandon(&request); } else { cache.finish(&request, bytes, bytes); }
                }
                prop_assert!(cache.len() <= 8 && cache.bytes <= 1_000);
                prop_assert_eq!(cache.entries.len(), cache.len());
            }
        }
    }
}
