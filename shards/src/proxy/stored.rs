//! Answers that outlive their request, for callers that come back for them (`prefer: respond-async`, `idempotency-key`).
//!
//! Two tables under one bound of bytes. *Answers* are named by the correlation id of their request: first running, then done.
//! *Claims* say which request was the first with an idempotency key, and what it looked like. What was used longest ago goes
//! first when there is no room; an answer that is still waited for never goes. A claim may live on another shard than the
//! answer that it leads to, so neither table assumes that the other has its half.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures_channel::oneshot;
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

/// What one shard asks another's store.
#[derive(Debug)]
pub enum StoreCall {
    /// [`Stored::claim`].
    Claim {
        /// The idempotency key, with what it is unique in.
        key: Digest,
        /// What the request looks like.
        looks: Digest,
        /// The request.
        id: CorrelationId,
        /// Resolves with what became of it.
        reply: oneshot::Sender<Result<Claimed, NoRoom>>,
    },
    /// [`Stored::release`].
    Release {
        /// The key.
        key: Digest,
        /// Whose it has to be.
        id: CorrelationId,
    },
    /// [`Stored::look`].
    Look {
        /// The request.
        id: CorrelationId,
        /// Wait for an answer that isn't there yet.
        wait: bool,
        /// Resolves with what is there, or when the answer comes.
        reply: oneshot::Sender<Kept>,
    },
}

/// What a store has of an answer.
#[derive(Clone, Debug)]
pub enum Kept {
    /// All of it.
    Answer(CorrelatedAnswer),
    /// It isn't there yet.
    Running,
    /// There is no such request, or its answer is no longer kept.
    Unknown,
    /// Too many wait for it already.
    Crowded,
}

impl Waiter for oneshot::Sender<Kept> {
    fn is_gone(&self) -> bool {
        self.is_canceled()
    }
}

impl Stored<oneshot::Sender<Kept>> {
    /// Does what another shard, or this one, asks for.
    pub fn call(&mut self, call: StoreCall, now_ms: u64) {
        match call {
            StoreCall::Claim { key, looks, id, reply } => {
                let _nobody_waits_any_more = reply.send(self.claim(key, looks, id, now_ms));
            }
            StoreCall::Release { key, id } => self.release(&key, id),
            StoreCall::Look { id, wait, reply } => {
                let (kept, reply) = match self.look(id, wait, reply) {
                    Look::Waiting => return,
                    Look::Running(reply) => (Kept::Running, reply),
                    Look::Done(answer, reply) => (Kept::Answer(answer), reply),
                    Look::Unknown(reply) => (Kept::Unknown, reply),
                    Look::Crowded(reply) => (Kept::Crowded, reply),
                };
                let _nobody_waits_any_more = reply.send(kept);
            }
        }
    }
}

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
    Waiting,
    /// It isn't there yet; the waiter doesn't want to wait and comes back.
    Running(W),
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

    /// Asks for an answer; where it isn't there yet, and `wait` is set, `waiter` gets it when it comes.
    pub fn look(&mut self, id: CorrelationId, wait: bool, waiter: W) -> Look<W> {
        let Some(number) = self.answers.get(&id).copied() else { return Look::Unknown(waiter) };
        let Some(entry) = self.entries.get_mut(&number) else { return Look::Unknown(waiter) };
        match &mut entry.content {
            Content::Running { .. } if !wait => Look::Running(waiter),
            Content::Running { waiters, .. } => {
                if waiters.len() == MAX_WAITERS {
                    waiters.retain(|waiter| !waiter.is_gone());
                }
                if waiters.len() == MAX_WAITERS {
                    return Look::Crowded(waiter);
                }
                waiters.push(waiter);
                Look::Waiting
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
mod tests;
