//! Shared memory for events: an append-only block that ingress fills and nobody changes afterwards.
//!
//! One [`SegmentWriter`] owns the unwritten tail. A range becomes visible to other threads only by
//! its offset, which travels through a queue with release and acquire ordering; from then on it is
//! never written again. So readers share plain bytes without any synchronisation of their own.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

/// Alignment of a segment and of every record in it, in bytes; enough for any archived type.
pub const ALIGNMENT: usize = 16;

/// A block of event records, shared read-only by the shards.
#[derive(Debug)]
pub struct Segment {
    number: u64,
    memory: NonNull<u8>,
    capacity: usize,
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
}

impl SegmentWriter {
    /// Allocates an empty segment.
    #[must_use]
    pub fn new(number: u64, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(ALIGNMENT);
        let layout = Segment::layout(capacity);
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { segment: Arc::new(Segment { number, memory, capacity }), used: 0 }
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
