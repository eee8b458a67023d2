//! When a node writes a checkpoint, and what its live cursors refer to. A pure state machine: whoever has the log takes what is
//! due, writes it, and says what became of it.
//!
//! **How often.** Nothing is written while plain cursors are short. Else a checkpoint is due once cursors that refer to the last
//! one pass the same bound, or its record may be about to be deleted; one is in flight at most. With the bound of 700
//! characters, 1,000 partitions may go on by some 4,000 events: 25 records of 2.5 KiB a second at 100,000 events a second, or
//! 64 KiB. From 2,000 partitions on the bound grows with them, since the shortest such cursor does: 290 KiB a second, however
//! many there are. Until a record is acknowledged cursors go on growing from the one before; 1,024 characters are passed after some
//! 14,000 events, however they are distributed: an acknowledgement may take 100 ms at that rate.

use std::sync::Arc;

use super::nearby::MAX_RECENT;
use super::{Checkpoint, CursorWriter, Layout, Recent};

/// Cursors longer than this refer to checkpoints, in characters.
pub const MAX_PLAIN_CHARS: usize = 700;
/// A checkpoint is replaced after this time, in milliseconds, so that no cursor dies soon after it was given out.
const MAX_AGE_MS: u64 = 3_600_000;
/// Pause after a record was refused, in milliseconds.
const REFUSED_MS: u64 = 1_000;
/// Beyond this length a plain cursor may be shorter, in characters.
const LONG_CHARS: usize = 1_024;

/// The checkpoints of a node.
#[derive(Debug)]
pub struct Checkpointing {
    current: Option<Arc<Checkpoint>>,
    recent: Arc<Recent>,
    in_flight: Option<Arc<[u8]>>,
    /// The record that `current` was read from.
    last: Arc<[u8]>,
    /// The last cursor was longer than it should be.
    is_long: bool,
    taken_ms: u64,
    not_before_ms: u64,
    cursors: CursorWriter,
    plain: CursorWriter,
}

impl Default for Checkpointing {
    /// Never: every cursor is a plain one.
    fn default() -> Self {
        Self::beyond(usize::MAX)
    }
}

impl Checkpointing {
    /// For cursors beyond this length, in characters.
    #[must_use]
    pub fn beyond(max_plain_chars: usize) -> Self {
        Self {
            current: None,
            recent: Arc::new(Recent::new(max_plain_chars)),
            in_flight: None,
            last: Arc::default(),
            is_long: false,
            taken_ms: 0,
            not_before_ms: 0,
            cursors: CursorWriter::default(),
            plain: CursorWriter::default(),
        }
    }

    /// The last checkpoints, for clients that catch up.
    #[must_use]
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    /// The cursor of these next offsets by slot.
    pub fn write(&mut self, layout: &Layout, next: &[u64]) -> &str {
        let Some(current) = &self.current else {
            let text = self.cursors.write(layout, next);
            self.is_long = text.len() > self.recent.max_plain_chars;
            return text;
        };
        let text = self.cursors.write_from(layout, next, current, None);
        let partitions: usize = layout.sources().iter().map(|source| source.slots.len()).sum();
        self.is_long = text.len() > self.recent.max_plain_chars.max(partitions * 3 / 8);
        if text.len() > LONG_CHARS {
            let plain = self.plain.write(layout, next);
            if plain.len() < text.len() {
                return plain;
            }
        }
        text
    }

    /// What must be written to the log now, if anything; [`Self::written`] must follow.
    pub fn due(&mut self, layout: &Layout, next: &[u64], now_ms: u64) -> Option<Arc<[u8]>> {
        let is_old = self.current.is_some() && now_ms >= self.taken_ms + MAX_AGE_MS;
        let wanted = self.is_long || is_old;
        if !wanted || self.in_flight.is_some() || now_ms < self.not_before_ms || layout.is_opening() {
            return None;
        }
        self.is_long = false;
        if self.current.is_some() && self.plain.write(layout, next).len() <= self.recent.max_plain_chars {
            self.current = None;
            return None;
        }
        let record: Arc<[u8]> = self.plain.write_bytes(layout, next).into();
        if record == self.last && !is_old {
            return None;
        }
        self.in_flight = Some(Arc::clone(&record));
        self.taken_ms = now_ms;
        Some(record)
    }

    /// The record in flight is in the log at this offset, acknowledged, or was refused.
    pub fn written(&mut self, offset: Option<u64>, now_ms: u64) {
        let Some(record) = self.in_flight.take() else { return };
        match offset.map(|offset| Checkpoint::read(offset, &record)) {
            Some(Ok(checkpoint)) => {
                let checkpoint = Arc::new(checkpoint);
                self.last = record;
                self.recent = Arc::new(self.recent.with(Arc::clone(&checkpoint), MAX_RECENT));
                self.current = Some(checkpoint);
            }
            _ => {
                self.is_long = true;
                self.not_before_ms = now_ms + REFUSED_MS;
            }
        }
    }
}
