//! Cursors: a position in every source partition, as a text that a client keeps and presents when it comes back.
//!
//! A cursor says "everything before these offsets": the vector of next offsets at the moment at which the node's ingress had
//! taken one event. Topics are named by fingerprints of their name and of their incarnation (Kafka's topic id, or the epoch of
//! a local hub), partitions by their number, so any node on the same Kafka understands it, also after a restart.
//!
//! The text is URL-safe base64 (RFC 4648 section 5, no padding) of: the version (one byte); per topic its two fingerprints (4
//! bytes each, little-endian), the number of partitions (LEB128), the lowest offset (LEB128) and, for several partitions, what
//! each is above it as Rice codes; at last a checksum (4 bytes). A partition whose position isn't known counts as offset 0 and
//! every known offset one more.
//!
//! **Length**: 30 characters for one partition. Rice codes take about `log2(mean distance from the lowest) + 1.5` bits per
//! partition, so 1,000 partitions take 3.4 KiB where their offsets lie within a million. No code does better for offsets that
//! know nothing of each other: 20 random bits are 20 bits. Where that is too long, a cursor refers to a vector that is kept
//! elsewhere, see [`checkpoint`], and says what has changed since ([`difference`]).
//!
//! **Forgery**: a cursor isn't signed, since nodes need share no key. Whoever makes one up gets what its subscriptions would
//! have got it at that position, no more; sizes are checked before memory is taken, offsets against what there is.

mod bits;
pub mod checkpoint;
#[cfg(test)]
mod checkpoint_tests;
pub mod difference;
mod layout;
mod nearby;
pub mod policy;
mod resume;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, Reference};
pub use difference::CheckpointedCursor;
pub use layout::{Layout, Positions, Slot, Source, Vector};
pub use nearby::{Footing, Recent};
pub use resume::{Loss, Reason, Resolved, ResumeFrom, is_beyond, resolve};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use bits::{BitReader, BitWriter};

/// The version of the format.
const VERSION: u8 = 1;
/// Longest text that is read, in bytes: more than 10,000 partitions take.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Bits of the quotient of a Rice code; longer ones are written plainly.
const MAX_QUOTIENT: u32 = 24;

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// Longer than [`MAX_TEXT_BYTES`].
    #[error("the cursor is too long")]
    TooLong,
    /// Not what [`Cursor::append`] writes: cut, changed, or something else.
    #[error("the text is no cursor of this gateway")]
    Malformed,
    /// Written by a version that this one doesn't know.
    #[error("the cursor is of another version of the gateway")]
    OtherVersion,
}

/// A cursor as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Positions by topic.
    pub topics: Vec<TopicOffsets>,
}

/// Positions in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Fingerprint of its name.
    pub name: u32,
    /// Fingerprint of its incarnation; 0 where it isn't known.
    pub incarnation: u32,
    /// Next offset by partition, `None` where it isn't known.
    pub next: Vec<Option<u64>>,
}

/// Writes cursors; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct CursorWriter {
    bytes: Vec<u8>,
    values: Vec<u64>,
    differences: difference::Scratch,
    text: String,
}

impl CursorWriter {
    /// The cursor of these next offsets by slot. Slots beyond the layout are left out. Empty without any source.
    pub fn write(&mut self, layout: &Layout, next: &[u64]) -> &str {
        self.text.clear();
        if layout.sources().is_empty() {
            return &self.text;
        }
        self.gather(layout, next);
        URL_SAFE_NO_PAD.encode_string(&self.bytes, &mut self.text);
        &self.text
    }

    /// The same as bytes: what a checkpoint is stored as.
    pub fn write_bytes(&mut self, layout: &Layout, next: &[u64]) -> &[u8] {
        self.gather(layout, next);
        &self.bytes
    }

    fn gather(&mut self, layout: &Layout, next: &[u64]) {
        self.bytes.clear();
        self.bytes.push(VERSION);
        for source in layout.sources() {
            values_of(source, next, &mut self.values);
            append_topic(source.name_print(), source.incarnation_print(), &self.values, &mut self.bytes);
        }
        let sum = checksum(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
    }

    /// The cursor of these next offsets as what has changed since `first`; partitions that are nearer to `second` are told
    /// from there.
    pub fn write_from(
        &mut self,
        layout: &Layout,
        next: &[u64],
        first: &Checkpoint,
        second: Option<&Checkpoint>,
    ) -> &str {
        self.text.clear();
        self.bytes.clear();
        difference::append(&mut self.bytes, &mut self.differences, layout, next, first, second);
        let sum = checksum(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        URL_SAFE_NO_PAD.encode_string(&self.bytes, &mut self.text);
        &self.text
    }
}

/// What stands for each partition of a source: one more than its next offset, 0 where that isn't known.
fn values_of(source: &Source, next: &[u64], values: &mut Vec<u64>) {
    let value =
        |slot: &Option<u32>| slot.and_then(|slot| next.get(slot as usize)).map_or(0, |next| next.saturating_add(1));
    values.clear();
    values.extend(source.slots.iter().map(value));
}

fn append_topic(name: u32, incarnation: u32, values: &[u64], out: &mut Vec<u8>) {
    out.extend_from_slice(&name.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    append_leb128(values.len() as u64, out);
    let lowest = values.iter().copied().min().unwrap_or(0);
    append_leb128(lowest, out);
    if values.len() < 2 {
        return;
    }
    let sum: u128 = values.iter().map(|value| u128::from(value - lowest)).sum();
    let mean = u64::try_from(sum / values.len() as u128).unwrap_or(u64::MAX);
    let low_bits = 63_u32.saturating_sub(mean.leading_zeros());
    out.push(u8::try_from(low_bits).unwrap_or(63));
    let mut writer = BitWriter::new(out);
    for value in values {
        let above = value - lowest;
        let quotient = above >> low_bits;
        match u32::try_from(quotient) {
            Ok(quotient) if quotient < MAX_QUOTIENT => {
                writer.ones(quotient);
                writer.push(0, 1);
                writer.push(above & ((1 << low_bits) - 1), low_bits);
            }
            _ => {
                writer.ones(MAX_QUOTIENT);
                writer.push(above, 64);
            }
        }
    }
    writer.finish();
}

impl Cursor {
    /// Reads a cursor.
    ///
    /// # Errors
    /// [`CursorError`]; never takes more memory than a small multiple of the text.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        Self::from_bytes(&decode(text)?)
    }

    /// Reads what [`CursorWriter::write_bytes`] has written.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CursorError> {
        let (version, mut rest) = checked(bytes)?;
        if version != VERSION {
            return Err(CursorError::OtherVersion);
        }
        take_topics(&mut rest).map(|topics| Self { topics })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, CursorError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(CursorError::TooLong);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)
}

/// The version, and what stands between it and the checksum.
fn checked(bytes: &[u8]) -> Result<(u8, &[u8]), CursorError> {
    let (content, sum) = bytes.split_last_chunk::<4>().ok_or(CursorError::Malformed)?;
    let (version, rest) = content.split_first().ok_or(CursorError::Malformed)?;
    if checksum(content) != u32::from_le_bytes(*sum) {
        return Err(CursorError::Malformed);
    }
    Ok((*version, rest))
}

/// All topics up to the end.
fn take_topics(rest: &mut &[u8]) -> Result<Vec<TopicOffsets>, CursorError> {
    let mut topics: Vec<TopicOffsets> = Vec::new();
    while !rest.is_empty() {
        let topic = take_topic(rest).ok_or(CursorError::Malformed)?;
        if topics.iter().any(|known| known.name == topic.name) {
            return Err(CursorError::Malformed);
        }
        topics.push(topic);
    }
    Ok(topics)
}

fn take_topic(rest: &mut &[u8]) -> Option<TopicOffsets> {
    let name = u32::from_le_bytes(take(rest)?);
    let incarnation = u32::from_le_bytes(take(rest)?);
    let count = usize::try_from(take_leb128(rest)?).ok()?;
    let lowest = take_leb128(rest)?;
    let known = |value: u64| value.checked_sub(1);
    if count < 2 {
        let next = (0..count).map(|_| known(lowest)).collect();
        return Some(TopicOffsets { name, incarnation, next });
    }
    let [low_bits] = take::<1>(rest)?;
    let low_bits = u32::from(low_bits);
    // Each code takes a bit at least, so the count can't ask for more memory than the text gives.
    if low_bits > 63 || count > rest.len() * 8 {
        return None;
    }
    let mut reader = BitReader::new(rest);
    let mut next = Vec::with_capacity(count);
    for _ in 0..count {
        let quotient = reader.ones(MAX_QUOTIENT)?;
        let above = if quotient == MAX_QUOTIENT {
            reader.take(64)?
        } else {
            u64::from(quotient).checked_mul(1 << low_bits)?.checked_add(reader.take(low_bits)?)?
        };
        next.push(known(lowest.checked_add(above)?));
    }
    *rest = reader.rest();
    Some(TopicOffsets { name, incarnation, next })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn append_leb128(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_leb128(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(rest)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// FNV-1a with 32 bits: tells a cut or changed text from a whole one, and nothing more.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
