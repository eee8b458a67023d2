//! Cursors that say what has changed since a checkpoint, or since one of two.
//!
//! After the version (one byte) come: the number of checkpoints (one byte, 1 or 2) and their names (offset as LEB128, print of 8
//! bytes); the number of topics of the first one that follow (LEB128), and for each, in its order, the number of partitions
//! (LEB128; 0 where the topic is not read, or was made anew), a shape (one byte), a base (zigzag, LEB128) and a code per
//! partition; then all other topics as in a plain cursor; at last the checksum.
//!
//! A code stands for the partition's value minus the checkpoint's, minus the base: as it is, which suits differences from the
//! lowest on, or as zigzag, which suits differences to both sides of the base. It is a Rice code; what is much larger than the
//! others is written as its length and its bits. With two checkpoints a bit before each code says which one it counts from.

use super::bits::{BitReader, BitWriter};
use super::checkpoint::{Checkpoint, Reference};
use super::layout::{Layout, Source};
use super::{Cursor, CursorError, TopicOffsets, append_leb128, append_topic, take, take_leb128, values_of};
use super::{checked, decode, take_topics};

/// The version of the format.
pub(super) const VERSION: u8 = 2;
/// Quotients of a Rice code from here on are written as length and bits.
const MAX_QUOTIENT: u32 = 16;
/// Set in a shape where codes are zigzag; its lower bits are the parameter of the Rice code.
const SIGNED: u8 = 0x80;
/// Bits per partition beyond which it pays to look for a better base.
const PLENTY_BITS: u64 = 3;

/// Memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    values: Vec<u64>,
    differences: Vec<i64>,
    seconds: Vec<bool>,
    sorted: Vec<i64>,
}

/// How the codes of a topic are written.
#[derive(Clone, Copy, Debug)]
struct Shape {
    signed: bool,
    low_bits: u32,
    base: i64,
}

impl Shape {
    fn code(self, difference: i64) -> u64 {
        let off = difference.wrapping_sub(self.base);
        if self.signed { zigzag(off) } else { off.cast_unsigned() }
    }

    fn difference(self, code: u64) -> i64 {
        let off = if self.signed { unzigzag(code) } else { code.cast_signed() };
        off.wrapping_add(self.base)
    }
}

/// Appends everything but the checksum.
pub(super) fn append(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    layout: &Layout,
    next: &[u64],
    first: &Checkpoint,
    second: Option<&Checkpoint>,
) {
    out.extend_from_slice(&[VERSION, 1 + u8::from(second.is_some())]);
    first.reference().append(out);
    if let Some(second) = second {
        second.reference().append(out);
    }
    append_leb128(first.topics.len() as u64, out);
    let prints = |source: &Source| (source.name_print(), source.incarnation_print());
    for topic in &first.topics {
        let same = |source: &&Source| prints(source) == (topic.name, topic.incarnation);
        scratch.values.clear();
        if let Some(source) = layout.sources().iter().find(same) {
            values_of(source, next, &mut scratch.values);
        }
        append_leb128(scratch.values.len() as u64, out);
        if !scratch.values.is_empty() {
            let second = second.map(|second| second.values_of(topic.name, topic.incarnation));
            append_codes(out, scratch, &topic.values, second);
        }
    }
    for source in layout.sources() {
        let (name, incarnation) = prints(source);
        if !first.topics.iter().any(|topic| (topic.name, topic.incarnation) == (name, incarnation)) {
            values_of(source, next, &mut scratch.values);
            append_topic(name, incarnation, &scratch.values, out);
        }
    }
}

fn append_codes(out: &mut Vec<u8>, scratch: &mut Scratch, first: &[u64], second: Option<&[u64]>) {
    let Scratch { values, differences, seconds, sorted } = scratch;
    let from =
        |known: &[u64], at: usize, value: u64| value.wrapping_sub(known.get(at).copied().unwrap_or(0)).cast_signed();
    differences.clear();
    seconds.clear();
    for (at, value) in values.iter().enumerate() {
        let mut difference = from(first, at, *value);
        if let Some(second) = second {
            let other = from(second, at, *value);
            let nearer = other.unsigned_abs() < difference.unsigned_abs();
            seconds.push(nearer);
            if nearer {
                difference = other;
            }
        }
        differences.push(difference);
    }
    let shape = shape_of(differences, sorted);
    out.push(shape.low_bits as u8 | if shape.signed { SIGNED } else { 0 });
    append_leb128(zigzag(shape.base), out);
    let mut writer = BitWriter::new(out);
    for (at, difference) in differences.iter().enumerate() {
        if let Some(second) = seconds.get(at) {
            writer.push(u64::from(*second), 1);
        }
        let code = shape.code(*difference);
        let quotient = code >> shape.low_bits;
        if quotient < u64::from(MAX_QUOTIENT) {
            writer.ones(quotient as u32);
            writer.push(0, 1);
            writer.push(code, shape.low_bits);
        } else {
            let length = u64::BITS - code.leading_zeros();
            writer.ones(MAX_QUOTIENT);
            writer.push(u64::from(length - 1), 6);
            writer.push(code, length);
        }
    }
    writer.finish();
}

fn shape_of(differences: &[i64], sorted: &mut Vec<i64>) -> Shape {
    let lowest = differences.iter().copied().min().unwrap_or(0);
    let plain = Shape { signed: false, low_bits: 0, base: lowest };
    let (low_bits, bits) = Tally::of(differences, plain).best();
    let plain = Shape { low_bits, ..plain };
    if bits <= PLENTY_BITS * differences.len() as u64 {
        return plain;
    }
    sorted.clear();
    sorted.extend_from_slice(differences);
    let middle = sorted.len() / 2;
    let (_, median, _) = sorted.select_nth_unstable(middle);
    let signed = Shape { signed: true, low_bits: 0, base: *median };
    let (low_bits, signed_bits) = Tally::of(differences, signed).best();
    if signed_bits < bits { Shape { low_bits, ..signed } } else { plain }
}

/// Codes counted by their lengths in bits, from which the length of all follows for any parameter, nearly.
struct Tally {
    counts: [u64; 65],
    sums: [u64; 65],
    longest: usize,
}

impl Tally {
    fn of(differences: &[i64], shape: Shape) -> Self {
        let mut tally = Self { counts: [0; 65], sums: [0; 65], longest: 0 };
        for difference in differences {
            let code = shape.code(*difference);
            let length = (u64::BITS - code.leading_zeros()) as usize;
            tally.counts[length] += 1;
            tally.sums[length] = tally.sums[length].saturating_add(code);
            tally.longest = tally.longest.max(length);
        }
        tally
    }

    /// The best parameter, and the bits that all codes take with it.
    fn best(&self) -> (u32, u64) {
        let choices = (0..self.longest.clamp(1, 63)).map(|low_bits| (low_bits as u32, self.bits(low_bits)));
        choices.min_by_key(|(_, bits)| *bits).unwrap_or((0, 0))
    }

    fn bits(&self, low_bits: usize) -> u64 {
        let of_length = |length: usize| {
            let (count, fixed) = (self.counts[length], low_bits as u64 + 1);
            match length.saturating_sub(low_bits) {
                0 => count * fixed,
                // The quotient has more bits than MAX_QUOTIENT - 1.
                above if above > 4 => count * (u64::from(MAX_QUOTIENT) + 6 + length as u64),
                _ => count * fixed + (self.sums[length] >> low_bits),
            }
        };
        (0..=self.longest).map(of_length).sum()
    }
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn unzigzag(code: u64) -> i64 {
    (code >> 1).cast_signed() ^ -((code & 1).cast_signed())
}

/// A cursor that refers to checkpoints, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointedCursor {
    first: Reference,
    second: Option<Reference>,
    topics: Vec<Vec<Difference>>,
    others: Vec<TopicOffsets>,
}

/// A partition's position, counted from the second checkpoint or the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Difference {
    second: bool,
    by: i64,
}

impl CheckpointedCursor {
    /// Reads a cursor.
    ///
    /// # Errors
    /// [`CursorError`]; never takes more memory than a small multiple of the text's bits.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let bytes = decode(text)?;
        let (version, mut rest) = checked(&bytes)?;
        if version != VERSION {
            return Err(CursorError::OtherVersion);
        }
        let (first, second, topics) = take_differences(&mut rest).ok_or(CursorError::Malformed)?;
        Ok(Self { first, second, topics, others: take_topics(&mut rest)? })
    }

    /// The checkpoints that it refers to.
    pub fn references(&self) -> impl Iterator<Item = Reference> + '_ {
        std::iter::once(self.first).chain(self.second)
    }

    /// The plain cursor that it stands for; `find` gives the checkpoints that [`Self::references`] names. `None` where these
    /// don't fit it, or one is not given.
    pub fn resolve<'a>(&self, mut find: impl FnMut(Reference) -> Option<&'a Checkpoint>) -> Option<Cursor> {
        let first = find(self.first)?;
        let second = match self.second {
            Some(second) => Some(find(second)?),
            None => None,
        };
        if self.topics.len() != first.topics.len() {
            return None;
        }
        let mut topics = self.others.clone();
        for (differences, known) in self.topics.iter().zip(&first.topics).filter(|(changed, _)| !changed.is_empty()) {
            if topics.iter().any(|topic| topic.name == known.name) {
                return None;
            }
            let others = second.map_or(&[][..], |second| second.values_of(known.name, known.incarnation));
            let next = |(at, difference): (usize, &Difference)| {
                let values = if difference.second { others } else { &known.values };
                values.get(at).copied().unwrap_or(0).wrapping_add_signed(difference.by).checked_sub(1)
            };
            let next = differences.iter().enumerate().map(next).collect();
            topics.push(TopicOffsets { name: known.name, incarnation: known.incarnation, next });
        }
        Some(Cursor { topics })
    }
}

type Differences = (Reference, Option<Reference>, Vec<Vec<Difference>>);

fn take_differences(rest: &mut &[u8]) -> Option<Differences> {
    let [references @ 1..=2] = take::<1>(rest)? else { return None };
    let first = Reference::take(rest)?;
    let second = if references == 2 { Some(Reference::take(rest)?) } else { None };
    let count = usize::try_from(take_leb128(rest)?).ok()?;
    // Each topic takes a byte at least.
    if count > rest.len() {
        return None;
    }
    let topics = (0..count).map(|_| take_codes(rest, second.is_some())).collect::<Option<_>>()?;
    Some((first, second, topics))
}

fn take_codes(rest: &mut &[u8], two: bool) -> Option<Vec<Difference>> {
    let count = usize::try_from(take_leb128(rest)?).ok()?;
    if count == 0 {
        return Some(Vec::new());
    }
    let [shape] = take::<1>(rest)?;
    let low_bits = u32::from(shape & !SIGNED);
    let shape = Shape { signed: shape & SIGNED != 0, low_bits, base: unzigzag(take_leb128(rest)?) };
    if low_bits > 63 || count > rest.len() * 8 {
        return None;
    }
    let mut reader = BitReader::new(rest);
    let mut differences = Vec::with_capacity(count);
    for _ in 0..count {
        let second = two && reader.take(1)? == 1;
        let quotient = reader.ones(MAX_QUOTIENT)?;
        let code = if quotient == MAX_QUOTIENT {
            let length = reader.take(6)? as u32 + 1;
            reader.take(length)?
        } else {
            u64::from(quotient).checked_mul(1 << low_bits)?.checked_add(reader.take(low_bits)?)?
        };
        differences.push(Difference { second, by: shape.difference(code) });
    }
    *rest = reader.rest();
    Some(differences)
}
