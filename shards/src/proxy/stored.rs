//! Answers that outlive their request, for callers that come back for them (`prefer: respond-async`, `idempotency-key`).
//!
//! Two tables under one bound of bytes. *Answers* are named by the correlation id of their request: first running, then done.
//! *Claims* say which request was the first with an idempotency key, and what it looked like. What was used longest ago goes
//! first when there is no room; an answer that is still waited for never goes. A claim may live on another shard than the
//! answer that it leads to, so neither table assumes that the other has its half.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tidegate_reactive::correlation::CorrelationId;
use tidegate_reactive::wheel::TimerWheel;

use super::outbound::CorrelatedAnswer;

/// SHA-256 of what identifies a claim, or of what a request looks like.
pub type Digest = [u8; 32];

/// What an entry costs beside the answer's own bytes.
const ENTRY_BYTES: usize = 256;
/// What a header field costs beside its name and value.
const FIELD_BYTES: usize = 64;
/// Callers that may wait for one answer at the same time.
const MAX_WAITERS: usize = 256;

/// Somebody who waits for an answer.
pub trait Waiter {
    /// Whether nobody would get the answer any more.
    fn is_gone(&self) -> bool;
}

/// All stored answers and claims of a shard.
#[derive(Debug)]
pub struct Stored<W> {
    max_bytes: usize,
    life_ms: u64,
    bytes: usize,
    next: u64,
    entries: HashMap<u64, Entry<W>, ahash::RandomState>,
    answers: HashMap<CorrelationId, u64, ahash::RandomState>,
    claims: HashMap<Digest, u64, ahash::RandomState>,
    /// Entries that may go, by their last use.
    uses: BTreeMap<u64, u64>,
    wheel: TimerWheel,
    due: Vec<u64>,
}

#[derive(Debug)]
struct Entry<W> {
    content: Content<W>,
    bytes: usize,
    last_use: u64,
}

#[derive(Debug)]
enum Content<W> {
    Running { id: CorrelationId, waiters: Vec<W> },
    Done { id: CorrelationId, answer: CorrelatedAnswer },
    Claim { key: Digest, looks: Digest, id: CorrelationId },
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody had the key: it is the caller's now.
    First,
    /// The same request was made before under this id.
    Before(CorrelationId),
    /// The key belongs to a request that looks different.
    Different,
}

/// What is known of an answer.
#[derive(Debug)]
pub enum Look<W> {
    /// It isn't there yet; the waiter is kept.
    Running,
    /// Here it is; the waiter comes back.
    Done(CorrelatedAnswer, W),
    /// No such request, or its answer is no longer kept.
    Unknown(W),
    /// Too many wait for it already.
    Crowded(W),
}

/// There is no room, even without everything that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl<W: Waiter> Stored<W> {
    /// Room for `max_bytes`, each answer kept for `life_ms`; the clock stands at `now_ms`.
    #[must_use]
    pub fn new(max_bytes: usize, life_ms: u64, now_ms: u64) -> Self {
        Self {
            max_bytes,
            life_ms,
            bytes: 0,
            next: 0,
            entries: HashMap::default(),
            answers: HashMap::default(),
            claims: HashMap::default(),
            uses: BTreeMap::new(),
            wheel: TimerWheel::new(now_ms),
            due: Vec::new(),
        }
    }

    /// Bytes in use, by its own reckoning.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Claims `key` for the request `id` that looks like `looks`.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn claim(&mut self, key: Digest, looks: Digest, id: CorrelationId, now_ms: u64) -> Result<Claimed, NoRoom> {
        if let Some(number) = self.claims.get(&key).copied()
            && let Some(Entry { content: Content::Claim { looks: before, id, .. }, .. }) = self.entries.get(&number)
        {
            let claimed = if *before == looks { Claimed::Before(*id) } else { Claimed::Different };
            self.touch(number);
            return Ok(claimed);
        }
        // A request may run for one life, and its answer is kept for another.
        let number = self.insert(Content::Claim { key, looks, id }, ENTRY_BYTES, now_ms + 2 * self.life_ms)?;
        self.touch(number);
        self.claims.insert(key, number);
        Ok(Claimed::First)
    }

    /// Takes a claim back if it is still that of `id`: its request came to nothing.
    pub fn release(&mut self, key: &Digest, id: CorrelationId) {
        if let Some(number) = self.claims.get(key).copied()
            && let Some(Entry { content: Content::Claim { id: holder, .. }, .. }) = self.entries.get(&number)
            && *holder == id
        {
            self.remove(number);
        }
    }

    /// Notes that the answer of `id`, a new request, will be asked for.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn open(&mut self, id: CorrelationId, now_ms: u64) -> Result<(), NoRoom> {
        if let Some(number) = self.answers.get(&id).copied() {
            self.remove(number);
        }
        let running = Content::Running { id, waiters: Vec::new() };
        let number = self.insert(running, ENTRY_BYTES, now_ms + 2 * self.life_ms)?;
        self.answers.insert(id, number);
        Ok(())
    }

    /// Asks for an answer; where it isn't there yet, `waiter` gets it when it comes.
    pub fn look(&mut self, id: CorrelationId, waiter: W) -> Look<W> {
        let Some(number) = self.answers.get(&id).copied() else { return Look::Unknown(waiter) };
        let Some(entry) = self.entries.get_mut(&number) else { return Look::Unknown(waiter) };
        match &mut entry.content {
            Content::Running { waiters, .. } => {
                if waiters.len() == MAX_WAITERS {
                    waiters.retain(|waiter| !waiter.is_gone());
                }
                if waiters.len() == MAX_WAITERS {
                    return Look::Crowded(waiter);
                }
                waiters.push(waiter);
                Look::Running
            }
            Content::Done { answer, .. } => {
                let answer = answer.clone();
                self.touch(number);
                Look::Done(answer, waiter)
            }
            Content::Claim { .. } => Look::Unknown(waiter),
        }
    }

    /// The answer of `id` is there: whoever waited is handed out. With `keep`, it stays for those who come later; one that
    /// is larger than all room is replaced by a 502 that says so.
    pub fn settle(&mut self, id: CorrelationId, answer: &CorrelatedAnswer, keep: bool, now_ms: u64) -> Vec<W> {
        let Some(number) = self.answers.get(&id).copied() else { return Vec::new() };
        if !matches!(self.entries.get(&number), Some(Entry { content: Content::Running { .. }, .. })) {
            return Vec::new();
        }
        let Some(Content::Running { waiters, .. }) = self.remove(number) else { return Vec::new() };
        if keep {
            let fits = size(answer) <= self.max_bytes;
            let answer = if fits { answer.clone() } else { too_large() };
            let bytes = size(&answer);
            if let Ok(number) = self.insert(Content::Done { id, answer }, bytes, now_ms + self.life_ms) {
                self.answers.insert(id, number);
                self.touch(number);
            }
        }
        waiters
    }

    /// Lets time pass: what has been kept long enough goes.
    pub fn tick(&mut self, now_ms: u64) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now_ms, &mut due);
        for number in due.drain(..) {
            self.remove(number);
        }
        self.due = due;
    }

    fn insert(&mut self, content: Content<W>, bytes: usize, until_ms: u64) -> Result<u64, NoRoom> {
        while self.bytes + bytes > self.max_bytes {
            let (_, oldest) = self.uses.pop_first().ok_or(NoRoom)?;
            self.remove(oldest);
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.entries.insert(number, Entry { content, bytes, last_use: u64::MAX });
        self.wheel.insert(until_ms, number);
        Ok(number)
    }

    /// The entry has been used just now, and may go when it is the oldest.
    fn touch(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        self.uses.remove(&entry.last_use);
        entry.last_use = self.next;
        self.next += 1;
        self.uses.insert(entry.last_use, number);
    }

    fn remove(&mut self, number: u64) -> Option<Content<W>> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.bytes;
        self.uses.remove(&entry.last_use);
        match &entry.content {
            Content::Running { id, .. } | Content::Done { id, .. } => self.answers.remove(id),
            Content::Claim { key, .. } => self.claims.remove(key),
        };
        Some(entry.content)
    }
}

fn size(answer: &CorrelatedAnswer) -> usize {
    let fields = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    ENTRY_BYTES + answer.body.len() + fields.sum::<usize>()
}

fn too_large() -> CorrelatedAnswer {
    let body = Bytes::from_static(b"The answer was too large to be kept (PROXY_STORED_BYTES).");
    CorrelatedAnswer { status: StatusCode::BAD_GATEWAY, headers: HeaderMap::new(), body }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Caller {
        number: u32,
        gone: bool,
    }

    impl Waiter for Caller {
        fn is_gone(&self) -> bool {
            self.gone
        }
    }

    const LIFE_MS: u64 = 1_000;

    fn caller(number: u32) -> Caller {
        Caller { number, gone: false }
    }

    fn stored(max_bytes: usize) -> Stored<Caller> {
        Stored::new(max_bytes, LIFE_MS, 0)
    }

    fn id(slot: u32) -> CorrelationId {
        CorrelationId { instance: 1, slot, generation: 0 }
    }

    fn answer(body: &str) -> CorrelatedAnswer {
        let body = Bytes::copy_from_slice(body.as_bytes());
        CorrelatedAnswer { status: StatusCode::OK, headers: HeaderMap::new(), body }
    }

    fn body(stored: &mut Stored<Caller>, slot: u32) -> Option<Bytes> {
        match stored.look(id(slot), caller(0)) {
            Look::Done(answer, _) => Some(answer.body),
            _ => None,
        }
    }

    #[test]
    fn whoever_waits_gets_the_answer_and_whoever_comes_later_finds_it() {
        let mut stored = stored(10_000);
        stored.open(id(1), 0).unwrap();
        assert!(matches!(stored.look(id(1), caller(7)), Look::Running));
        assert_eq!(stored.settle(id(1), &answer("a"), true, 0), [caller(7)]);
        assert_eq!(body(&mut stored, 1).unwrap(), "a");
        assert!(stored.settle(id(1), &answer("b"), true, 0).is_empty(), "a second answer changes nothing");
        assert_eq!(body(&mut stored, 1).unwrap(), "a");
    }

    #[test]
    fn a_failure_reaches_those_who_wait_and_is_forgotten() {
        let mut stored = stored(10_000);
        stored.open(id(1), 0).unwrap();
        stored.look(id(1), caller(7));
        assert_eq!(stored.settle(id(1), &answer("failed"), false, 0).len(), 1);
        assert!(matches!(stored.look(id(1), caller(8)), Look::Unknown(_)));
        assert_eq!(stored.bytes(), 0);
    }

    #[test]
    fn an_answer_is_kept_for_its_life_and_no_longer() {
        let mut stored = stored(10_000);
        stored.open(id(1), 0).unwrap();
        stored.settle(id(1), &answer("a"), true, 500);
        stored.tick(1_450);
        assert!(body(&mut stored, 1).is_some());
        stored.tick(1_500);
        assert!(body(&mut stored, 1).is_none());
        assert_eq!(stored.bytes(), 0);
    }

    #[test]
    fn the_first_claim_wins_until_it_is_released() {
        let mut stored = stored(10_000);
        assert_eq!(stored.claim([1; 32], [9; 32], id(1), 0), Ok(Claimed::First));
        assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Ok(Claimed::Before(id(1))));
        assert_eq!(stored.claim([1; 32], [8; 32], id(2), 0), Ok(Claimed::Different));
        stored.release(&[1; 32], id(2));
        assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Ok(Claimed::Before(id(1))), "only its holder releases it");
        stored.release(&[1; 32], id(1));
        assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Ok(Claimed::First));
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut stored = stored(4 * (ENTRY_BYTES + 1));
        for slot in 0..3 {
            stored.open(id(slot), 0).unwrap();
            stored.settle(id(slot), &answer("x"), true, 0);
        }
        assert!(body(&mut stored, 0).is_some(), "0 has been used after 1 now");
        stored.open(id(3), 0).unwrap();
        stored.open(id(4), 0).unwrap();
        assert!(body(&mut stored, 1).is_none());
        assert!(body(&mut stored, 0).is_some() && body(&mut stored, 2).is_some());
    }

    #[test]
    fn answers_that_are_waited_for_are_never_pushed_out() {
        let mut stored = stored(2 * ENTRY_BYTES);
        stored.open(id(0), 0).unwrap();
        stored.open(id(1), 0).unwrap();
        assert_eq!(stored.open(id(2), 0), Err(NoRoom));
        assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Err(NoRoom));
        assert!(matches!(stored.look(id(0), caller(1)), Look::Running));
    }

    #[test]
    fn an_answer_that_fits_nowhere_is_replaced_by_one_that_says_so() {
        let mut stored = stored(1_000);
        stored.open(id(0), 0).unwrap();
        stored.settle(id(0), &answer(&"x".repeat(2_000)), true, 0);
        assert!(String::from_utf8_lossy(&body(&mut stored, 0).unwrap()).contains("PROXY_STORED_BYTES"));
    }

    #[test]
    fn callers_that_have_gone_make_room_for_others() {
        let mut stored = stored(10_000);
        stored.open(id(0), 0).unwrap();
        for number in 0..MAX_WAITERS as u32 {
            assert!(matches!(stored.look(id(0), Caller { number, gone: number > 0 }), Look::Running));
        }
        assert!(matches!(stored.look(id(0), caller(9)), Look::Running));
        assert_eq!(stored.settle(id(0), &answer("a"), true, 0), [caller(0), caller(9)]);
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_the_reckoning_is_exact(
            steps in proptest::collection::vec((0u8..5, 0u32..8, 0usize..400), 0..200),
        ) {
            let mut stored = stored(2_000);
            let mut now_ms = 0;
            for (kind, slot, len) in steps {
                match kind {
                    0 => { let _ = stored.open(CorrelationId { generation: u32::try_from(len).unwrap(), ..id(slot) }, now_ms); }
                    1 => { stored.settle(id(slot), &answer(&"x".repeat(len)), true, now_ms); }
                    2 => { let _ = stored.claim([u8::try_from(slot).unwrap(); 32], [0; 32], id(slot), now_ms); }
                    3 => { stored.look(id(slot), caller(slot)); }
                    _ => { now_ms += len as u64; stored.tick(now_ms); }
                }
                prop_assert!(stored.bytes() <= 2_000);
                prop_assert_eq!(stored.bytes(), stored.entries.values().map(|entry| entry.bytes).sum::<usize>());
                prop_assert_eq!(stored.entries.len(), stored.answers.len() + stored.claims.len());
            }
            stored.tick(now_ms + 3 * LIFE_MS);
            prop_assert_eq!((stored.bytes(), stored.entries.len(), stored.uses.len()), (0, 0, 0));
        }
    }
}
