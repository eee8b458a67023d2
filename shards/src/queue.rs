//! Output that waits for one connection: references into segments, or owned bytes, counted to the byte; and what is left out
//! of it when a client is too slow.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use ahash::RandomState;
use bytes::Bytes;

use crate::record::Range;
use crate::segment::Segment;

/// A shard's own, non-atomic reference to a segment.
pub type SegmentHold = Rc<std::sync::Arc<Segment>>;

/// A frame on its way out.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Bytes of a segment, shared by all connections.
    Shared(SegmentHold, Range),
    /// Bytes of this connection alone.
    Owned(Bytes),
}

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(segment, range) => segment.bytes(range.offset, range.len),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What a frame is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Belongs to the connection itself: never left out.
    Own,
    /// An event. A newer one with the same key tells all that it tells; without a key it stands for itself.
    Event(Option<u64>),
}

/// What happens to a client that has more waiting than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlowClient {
    /// It is disconnected, and comes back for what it has missed.
    #[default]
    Disconnect,
    /// The oldest events are left out, and a notice says how many.
    Drop,
    /// Of the events with one key only the newest waits. If that isn't enough, as [`Self::Drop`].
    Conflate,
}

impl SlowClient {
    /// Its name in settings and queries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Drop => "drop",
            Self::Conflate => "conflate",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Disconnect, Self::Drop, Self::Conflate].into_iter().find(|one| one.name() == name)
    }
}

/// What was left out to keep a queue within its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Events of which the client gets a notice.
    pub dropped: u64,
    /// Events that a newer one stands for.
    pub conflated: u64,
}

/// The queue holds too much, and nothing that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overfull;

/// Bytes that the notice of what was left out takes at most.
pub const MAX_NOTICE_BYTES: usize = 512;

/// Places of events that are left out may be kept until they are more than this, and more than the others.
const MAX_GAPS: usize = 1_024;

#[derive(Debug)]
struct Entry {
    /// `None` where the event has been left out.
    frame: Option<Frame>,
    content: Content,
}

/// Frames in their order: what is partly sent, control frames, the notice of what was left out, and the others.
#[derive(Debug, Default)]
pub struct Queue {
    partly_sent: Option<Frame>,
    sent: usize,
    control: VecDeque<Bytes>,
    notice: Option<(u64, Bytes)>,
    /// Events left out, and not yet in the notice.
    dropped: u64,
    /// Begins with a frame that is there, if there is any.
    entries: VecDeque<Entry>,
    /// Number of the first entry, counted from the queue's beginning.
    first: u64,
    gaps: usize,
    /// Number of the newest entry by key, once the queue has reached its bound and is conflated.
    newest: Option<HashMap<u64, u64, RandomState>>,
    bytes: usize,
    idle_heartbeats: u8,
}

impl Queue {
    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partly_sent.is_none()
            && self.control.is_empty()
            && self.notice.is_none()
            && self.dropped == 0
            && self.entries.is_empty()
    }

    /// Appends a frame of which `sent` bytes are out already. Returns how many events it takes the place of: 1 or 0.
    pub fn push(&mut self, frame: Frame, sent: usize, content: Content) -> u64 {
        let len = frame.bytes().len();
        debug_assert!(sent < len && (sent == 0 || self.is_empty()));
        self.bytes += len - sent;
        if sent > 0 {
            self.partly_sent = Some(frame);
            self.sent = sent;
            return 0;
        }
        let number = self.first + self.entries.len() as u64;
        self.entries.push_back(Entry { frame: Some(frame), content });
        let older = match (content, &mut self.newest) {
            (Content::Event(Some(key)), Some(newest)) => newest.insert(key, number),
            _ => None,
        };
        older.map_or(0, |older| u64::from(self.leave_out(older)))
    }

    /// Puts a control frame before all data that isn't partly sent.
    pub fn push_control(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.control.push_back(frame);
    }

    /// Leaves out events until at most `max_bytes` wait, with room for the notice where one is needed.
    ///
    /// # Errors
    /// [`Overfull`], where the client is to be disconnected: what may be left out is not enough.
    pub fn enforce(&mut self, policy: SlowClient, max_bytes: usize) -> Result<LeftOut, Overfull> {
        let mut left_out = LeftOut::default();
        if !self.exceeds(max_bytes) {
            return Ok(left_out);
        }
        if policy == SlowClient::Disconnect {
            return Err(Overfull);
        }
        if policy == SlowClient::Conflate && self.newest.is_none() {
            left_out.conflated = self.conflate();
        }
        if self.exceeds(max_bytes) {
            // The notice stands for these from now on: its room counts.
            if let Some((count, notice)) = self.notice.take() {
                self.bytes -= notice.len();
                self.dropped += count;
            }
            let mut at = 0;
            while self.bytes + MAX_NOTICE_BYTES > max_bytes {
                let is_event = |entry: &Entry| entry.frame.is_some() && matches!(entry.content, Content::Event(_));
                let Some(found) = self.entries.range(at..).position(is_event) else { return Err(Overfull) };
                // What lies before it stays, and is not looked at again.
                at += found;
                let before = self.entries.len();
                self.leave_out(self.first + at as u64);
                at = at.saturating_sub(before - self.entries.len());
                left_out.dropped += 1;
                self.dropped += 1;
            }
        }
        self.close_gaps();
        Ok(left_out)
    }

    fn exceeds(&self, max_bytes: usize) -> bool {
        let notice = if self.dropped > 0 { MAX_NOTICE_BYTES } else { 0 };
        self.bytes + notice > max_bytes
    }

    /// Keeps the newest entry of each key. Returns how many are left out.
    fn conflate(&mut self) -> u64 {
        let mut newest = HashMap::<u64, u64, RandomState>::default();
        let mut older = Vec::new();
        for (number, entry) in (self.first..).zip(&self.entries) {
            if let (Some(_), Content::Event(Some(key))) = (&entry.frame, entry.content) {
                older.extend(newest.insert(key, number));
            }
        }
        self.newest = Some(newest);
        older.into_iter().map(|number| u64::from(self.leave_out(number))).sum()
    }

    /// Leaves out the entry with this number; false if it is not there any more.
    fn leave_out(&mut self, number: u64) -> bool {
        let Some(at) = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return false };
        let Some(entry) = self.entries.get_mut(at) else { return false };
        let Some(frame) = entry.frame.take() else { return false };
        let content = entry.content;
        self.bytes -= frame.bytes().len();
        self.forget(content, number);
        self.gaps += 1;
        self.trim();
        true
    }

    /// The entry with this number is no longer the newest of its key.
    fn forget(&mut self, content: Content, number: u64) {
        if let (Content::Event(Some(key)), Some(newest)) = (content, &mut self.newest)
            && newest.get(&key) == Some(&number)
        {
            newest.remove(&key);
        }
    }

    /// Forgets gaps at the front.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.frame.is_none()) {
            self.entries.pop_front();
            self.first += 1;
            self.gaps -= 1;
        }
    }

    /// Forgets all gaps if they are many, so that a queue which is conflated for long stays small.
    fn close_gaps(&mut self) {
        if self.gaps <= MAX_GAPS || self.gaps <= self.entries.len() / 2 {
            return;
        }
        self.entries.retain(|entry| entry.frame.is_some());
        self.gaps = 0;
        if self.newest.is_some() {
            self.conflate();
        }
    }

    /// Whether events were left out that no notice tells of yet; gives how many, the present notice's included.
    #[must_use]
    pub fn unnoticed(&self) -> Option<u64> {
        (self.dropped > 0).then(|| self.dropped + self.notice.as_ref().map_or(0, |(count, _)| *count))
    }

    /// Puts the notice of [`Self::unnoticed`] events before all others, in place of one that isn't sent yet. It has at most
    /// [`MAX_NOTICE_BYTES`].
    pub fn set_notice(&mut self, count: u64, notice: Bytes) {
        debug_assert!(notice.len() <= MAX_NOTICE_BYTES);
        self.dropped = 0;
        self.bytes += notice.len();
        if let Some((_, old)) = self.notice.replace((count, notice)) {
            self.bytes -= old.len();
        }
    }

    /// A heartbeat is due. Returns how many have been since the client last took a byte, this one included.
    pub fn note_heartbeat(&mut self) -> u8 {
        self.idle_heartbeats = self.idle_heartbeats.saturating_add(1);
        self.idle_heartbeats
    }

    /// The client took a byte that had left the queue before.
    pub fn note_progress(&mut self) {
        self.idle_heartbeats = 0;
    }

    /// Whether a control frame waits.
    #[must_use]
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Copies unsent bytes from the front to `out`, which holds at most `limit_bytes` afterwards.
    pub fn gather(&self, out: &mut Vec<u8>, limit_bytes: usize) {
        let mut add = |bytes: &[u8]| {
            let room = limit_bytes.saturating_sub(out.len());
            out.extend_from_slice(&bytes[..bytes.len().min(room)]);
            bytes.len() < room
        };
        let partly_sent = self.partly_sent.iter().map(|frame| &frame.bytes()[self.sent..]);
        let first = partly_sent.chain(self.control.iter().map(|frame| &**frame));
        let first = first.chain(self.notice.iter().map(|(_, notice)| &**notice));
        let entries = self.entries.iter().filter_map(|entry| entry.frame.as_ref()).map(Frame::bytes);
        for bytes in first.chain(entries) {
            if !add(bytes) {
                return;
            }
        }
    }

    /// Forgets the first `sent` unsent bytes.
    pub fn consume(&mut self, mut sent: usize) {
        self.bytes -= sent;
        self.idle_heartbeats = 0;
        while sent > 0 {
            if self.partly_sent.is_none() {
                self.partly_sent = self.next();
                self.sent = 0;
            }
            let Some(first) = &self.partly_sent else { return };
            let rest = first.bytes().len() - self.sent;
            if sent < rest {
                self.sent += sent;
                return;
            }
            sent -= rest;
            self.partly_sent = None;
        }
    }

    /// Takes the first frame whole; for outputs that never send parts.
    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.next()?;
        self.bytes -= frame.bytes().len();
        self.idle_heartbeats = 0;
        Some(frame)
    }

    /// Takes the first frame that isn't partly sent.
    fn next(&mut self) -> Option<Frame> {
        if let Some(control) = self.control.pop_front() {
            return Some(Frame::Owned(control));
        }
        if let Some((_, notice)) = self.notice.take() {
            return Some(Frame::Owned(notice));
        }
        let entry = self.entries.pop_front()?;
        self.forget(entry.content, self.first);
        self.first += 1;
        self.trim();
        entry.frame
    }

    /// Copies what still refers to segments before `number`, so that these can be freed.
    pub fn evacuate(&mut self, number: u64) {
        for frame in self.partly_sent.iter_mut().chain(self.entries.iter_mut().filter_map(|entry| entry.frame.as_mut()))
        {
            if matches!(frame, Frame::Shared(segment, _) if segment.number() < number) {
                *frame = Frame::Owned(Bytes::copy_from_slice(frame.bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
