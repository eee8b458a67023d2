//! Checkpoints: vectors of next offsets that are kept in a log, so that cursors can refer to them instead of repeating them.
//!
//! A record of that log holds the bytes of a plain cursor. A cursor names it by its offset and by a hash of these bytes, so a
//! record that took its place later (the log was made anew, or cut) is told from it. Only records that the log has acknowledged
//! are referred to.

use super::{Cursor, CursorError, append_leb128, take, take_leb128};

/// Names a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where its record is in the log.
    pub offset: u64,
    /// FNV-1a of its record, with 64 bits.
    pub print: u64,
}

impl Reference {
    pub(super) fn append(self, out: &mut Vec<u8>) {
        append_leb128(self.offset, out);
        out.extend_from_slice(&self.print.to_le_bytes());
    }

    pub(super) fn take(rest: &mut &[u8]) -> Option<Self> {
        let offset = take_leb128(rest)?;
        Some(Self { offset, print: u64::from_le_bytes(take(rest)?) })
    }
}

/// A vector that is kept in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Checkpoint {
    reference: Reference,
    pub(super) topics: Vec<TopicValues>,
    /// Of all values: positions of one node follow each other in this order.
    pub(super) total: u128,
}

/// The positions of one topic, each as one more than the next offset; 0 where that isn't known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TopicValues {
    pub(super) name: u32,
    pub(super) incarnation: u32,
    pub(super) values: Vec<u64>,
}

impl Checkpoint {
    /// Reads the record at this offset of the log.
    ///
    /// # Errors
    /// The record holds no plain cursor.
    pub fn read(offset: u64, record: &[u8]) -> Result<Self, CursorError> {
        let cursor = Cursor::from_bytes(record)?;
        let value = |next: Option<u64>| next.map_or(0, |next| next.saturating_add(1));
        let topics: Vec<TopicValues> = cursor
            .topics
            .into_iter()
            .map(|topic| TopicValues {
                name: topic.name,
                incarnation: topic.incarnation,
                values: topic.next.into_iter().map(value).collect(),
            })
            .collect();
        let total = topics.iter().flat_map(|topic| &topic.values).map(|value| u128::from(*value)).sum();
        Ok(Self { reference: Reference { offset, print: print(record) }, topics, total })
    }

    /// Its name.
    #[must_use]
    pub fn reference(&self) -> Reference {
        self.reference
    }

    pub(super) fn values_of(&self, name: u32, incarnation: u32) -> &[u64] {
        let same = |topic: &&TopicValues| topic.name == name && topic.incarnation == incarnation;
        self.topics.iter().find(same).map_or(&[], |topic| &topic.values)
    }
}

fn print(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
