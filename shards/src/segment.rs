//! Shared memory for events: an append-only block that ingress fills and nobody changes afterwards.
//!
//! One [`SegmentWriter`] owns the unwritten tail. A range becomes visible to other threads only by
//! its offset, which travels through a queue with release and acquire ordering; from then on it is
//! never written again. So readers share plain bytes without any synchronisation of their own.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::record::Range;

/// Bytes of a segment per entry of its directory; a record takes more.
const BYTES_PER_ENTRY: usize = 128;

/// Alignment of a segment and of every record in it, in bytes; enough for any archived type.
pub const ALIGNMENT: usize = 16;

/// A block of event records, shared read-only by the shards.
#[derive(Debug)]
pub struct Segment {
    number: u64,
    memory: NonNull<u8>,
    capacity: usize,
    /// Next offsets by slot before the first record.
    start: Box<[u64]>,
    /// Where the records are, in their order; 0 where there is none yet.
    directory: Box<[AtomicU64]>,
}

// SAFETY: the memory is owned by this value; bytes below the writer's mark are never written again,
// and bytes above it are touched by the single `SegmentWriter` only.
unsafe impl Send for Segment {}
// SAFETY: as above: shared access is to immutable bytes.
unsafe impl Sync for Segment {}

impl Segment {
    /// Running number of the segment on this node.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the block.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Next offsets by slot (see [`crate::cursor`]) before the first record.
    #[must_use]
    pub fn start(&self) -> &[u64] {
        &self.start
    }

    /// Where the record with this index lies; `None` where there is none yet.
    #[must_use]
    pub fn record(&self, index: usize) -> Option<Range> {
        let entry = self.directory.get(index)?.load(Ordering::Acquire);
        let (offset, len) = ((entry >> 32) as u32, (entry & u64::from(u32::MAX)) as u32);
        (entry != 0).then_some(Range { offset, len })
    }

    /// A range that the writer has published.
    ///
    /// # Panics
    /// When the range lies outside of the block.
    #[must_use]
    pub(crate) fn bytes(&self, offset: u32, len: u32) -> &[u8] {
        let (offset, len) = (offset as usize, len as usize);
        assert!(offset + len <= self.capacity, "invariant: a published range lies inside its segment");
        // SAFETY: the range is inside the allocation (checked above) and was initialised before its
        // offset was published; callers get offsets from the queue or from a record only.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(offset), len) }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity.max(ALIGNMENT), ALIGNMENT)
            .expect("invariant: a segment is far below isize::MAX")
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout in `SegmentWriter::new`, freed once.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// The one writer of a segment.
#[derive(Debug)]
pub struct SegmentWriter {
    segment: Arc<Segment>,
    used: usize,
    records: usize,
}

impl SegmentWriter {
    /// Allocates an empty segment.
    #[must_use]
    pub fn new(number: u64, capacity: usize) -> Self {
        Self::starting_at(number, capacity, &[])
    }

    /// Allocates an empty segment for the records after these next offsets by slot.
    #[must_use]
    pub fn starting_at(number: u64, capacity: usize, start: &[u64]) -> Self {
        let capacity = capacity.next_multiple_of(ALIGNMENT);
        let layout = Segment::layout(capacity);
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        let entries = capacity / BYTES_PER_ENTRY + 1;
        let directory = std::iter::repeat_with(AtomicU64::default).take(entries).collect();
        let segment = Segment { number, memory, capacity, start: start.into(), directory };
        Self { segment: Arc::new(segment), used: 0, records: 0 }
    }

    /// The segment, to be shared with readers.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.segment.capacity - self.used
    }

    /// Copies `parts` one after the other to the tail and returns the offset of the first byte and
    /// the length of all, or `None` when they don't fit.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Option<(u32, u32)> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > self.remaining() {
            return None;
        }
        let start = self.used;
        for part in parts {
            // SAFETY: the destination lies inside the allocation (checked above) and above every
            // published range, so nobody else reads or writes it; `part` can't overlap it.
            unsafe {
                let tail = self.segment.memory.as_ptr().add(self.used);
                std::ptr::copy_nonoverlapping(part.as_ptr(), tail, part.len());
            }
            self.used += part.len();
        }
        Some((u32::try_from(start).ok()?, u32::try_from(len).ok()?))
    }

    /// Enters a whole record in the directory, from where any thread may read it. `None` when the directory is full.
    pub(crate) fn commit(&mut self, record: Range) -> Option<()> {
        let entry = self.segment.directory.get(self.records)?;
        entry.store((u64::from(record.offset) << 32) | u64::from(record.len), Ordering::Release);
        self.records += 1;
        Some(())
    }

    /// Moves the tail to the next multiple of [`ALIGNMENT`], as an archived record needs it.
    pub(crate) fn align(&mut self) {
        self.used = self.used.next_multiple_of(ALIGNMENT).min(self.segment.capacity);
    }

    /// Takes back what was appended since `mark`; nothing of it may have been published.
    pub(crate) fn rewind(&mut self, mark: usize) {
        self.used = mark.min(self.used);
    }

    /// The tail's offset.
    pub(crate) fn mark(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_bytes_are_read_back_by_offset() {
        let mut writer = SegmentWriter::new(7, 64);
        let first = writer.append(&[b"ab", b"cd"]).unwrap();
        writer.align();
        let second = writer.append(&[b"xyz"]).unwrap();
        assert_eq!((first, second), ((0, 4), (16, 3)));
        assert_eq!(writer.segment().bytes(0, 4), b"abcd");
        assert_eq!(writer.segment().bytes(16, 3), b"xyz");
        assert_eq!(writer.segment().number(), 7);
    }

    #[test]
    fn committed_records_are_found_in_their_order() {
        let mut writer = SegmentWriter::starting_at(1, 256, &[5, 6]);
        let segment = Arc::clone(writer.segment());
        assert_eq!((segment.start(), segment.record(0)), (&[5, 6][..], None));
        for offset in 0..3 {
            assert!(writer.commit(Range { offset, len: 9 }).is_some());
        }
        assert_eq!(segment.record(2), Some(Range { offset: 2, len: 9 }));
        assert_eq!(segment.record(3), None);
        assert!(writer.commit(Range { offset: 3, len: 9 }).is_none(), "the directory is full");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_the_segment_as_it_was() {
        let mut writer = SegmentWriter::new(0, 16);
        assert!(writer.append(&[&[0; 17]]).is_none());
        assert_eq!(writer.remaining(), 16);
        assert!(writer.append(&[&[1; 16]]).is_some());
        assert!(writer.append(&[b"x"]).is_none());
    }

    #[test]
    fn readers_on_other_threads_see_what_was_published() {
        let mut writer = SegmentWriter::new(0, 1 << 16);
        let (sender, receiver) = std::sync::mpsc::channel::<(Arc<Segment>, u32, u32)>();
        let reader = std::thread::spawn(move || {
            receiver.iter().map(|(segment, offset, len)| segment.bytes(offset, len).to_vec()).collect::<Vec<_>>()
        });
        for value in 0_u8..200 {
            let (offset, len) = writer.append(&[&[value; 100]]).unwrap();
            sender.send((Arc::clone(writer.segment()), offset, len)).unwrap();
        }
        drop(sender);
        let seen = reader.join().unwrap();
        assert!(seen.iter().enumerate().all(|(i, bytes)| bytes.iter().all(|b| usize::from(*b) == i)));
    }
}
