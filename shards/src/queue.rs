//! Output that waits for one connection: references into segments, or owned bytes, counted to the byte.

use std::collections::VecDeque;
use std::rc::Rc;

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

/// Frames in their order; the first may be partly sent.
#[derive(Debug, Default)]
pub struct Queue {
    frames: VecDeque<Frame>,
    sent_of_first: usize,
    bytes: usize,
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
        self.frames.is_empty()
    }

    /// Appends a frame of which `sent` bytes are out already.
    pub fn push(&mut self, frame: Frame, sent: usize) {
        let len = frame.bytes().len();
        debug_assert!(sent < len && (sent == 0 || self.frames.is_empty()));
        if self.frames.is_empty() {
            self.sent_of_first = sent;
        }
        self.bytes += len - sent;
        self.frames.push_back(frame);
    }

    /// Puts a control frame before all data that isn't partly sent.
    pub fn push_control(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        let place = usize::from(self.sent_of_first > 0);
        self.frames.insert(place.min(self.frames.len()), Frame::Owned(frame));
    }

    /// Copies unsent bytes from the front to `out`, which holds at most `limit_bytes` afterwards.
    pub fn gather(&self, out: &mut Vec<u8>, limit_bytes: usize) {
        let mut skip = self.sent_of_first;
        for frame in &self.frames {
            let bytes = &frame.bytes()[skip..];
            let room = limit_bytes.saturating_sub(out.len());
            out.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.len() >= room {
                return;
            }
            skip = 0;
        }
    }

    /// Forgets the first `sent` unsent bytes.
    pub fn consume(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while sent > 0 {
            let Some(first) = self.frames.front() else { return };
            let rest = first.bytes().len() - self.sent_of_first;
            if sent < rest {
                self.sent_of_first += sent;
                return;
            }
            sent -= rest;
            self.sent_of_first = 0;
            self.frames.pop_front();
        }
    }

    /// Takes the first frame whole; for outputs that never send parts.
    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes().len() - self.sent_of_first;
        self.sent_of_first = 0;
        Some(frame)
    }

    /// Copies what still refers to segments before `number`, so that these can be freed.
    pub fn evacuate(&mut self, number: u64) {
        for frame in &mut self.frames {
            if matches!(frame, Frame::Shared(segment, _) if segment.number() < number) {
                *frame = Frame::Owned(Bytes::copy_from_slice(frame.bytes()));
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::segment::SegmentWriter;

    fn owned(text: &'static str) -> Frame {
        Frame::Owned(Bytes::from_static(text.as_bytes()))
    }

    fn drain(queue: &mut Queue, step: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while !queue.is_empty() {
            let mut out = Vec::new();
            queue.gather(&mut out, 8);
            let sent = step.min(out.len());
            seen.extend_from_slice(&out[..sent]);
            queue.consume(sent);
        }
        assert_eq!(queue.bytes(), 0);
        seen
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes_at_a_time() {
        for step in 1..=16 {
            let mut writer = SegmentWriter::new(0, 64);
            let (offset, len) = writer.append(&[b"shared"]).unwrap();
            let mut queue = Queue::default();
            queue.push(owned("first"), 2);
            queue.push(Frame::Shared(Rc::new(Arc::clone(writer.segment())), Range { offset, len }), 0);
            queue.push(owned("last"), 0);
            assert_eq!(queue.bytes(), 3 + 6 + 4);
            assert_eq!(drain(&mut queue, step), b"rstsharedlast");
        }
    }

    #[test]
    fn a_control_frame_overtakes_data_but_never_splits_a_frame() {
        let mut queue = Queue::default();
        queue.push(owned("abc"), 1);
        queue.push(owned("def"), 0);
        queue.push_control(Bytes::from_static(b"P"));
        assert_eq!(drain(&mut queue, 100), b"bcPdef");
        queue.push(owned("abc"), 0);
        queue.push_control(Bytes::from_static(b"P"));
        assert_eq!(drain(&mut queue, 100), b"Pabc");
    }

    #[test]
    fn evacuated_frames_keep_their_bytes_and_let_the_segment_go() {
        let mut writer = SegmentWriter::new(3, 64);
        let (offset, len) = writer.append(&[b"old"]).unwrap();
        let segment = Arc::clone(writer.segment());
        drop(writer);
        let mut queue = Queue::default();
        queue.push(Frame::Shared(Rc::new(Arc::clone(&segment)), Range { offset, len }), 1);
        queue.evacuate(3);
        assert_eq!(Arc::strong_count(&segment), 2);
        queue.evacuate(4);
        assert_eq!(Arc::strong_count(&segment), 1);
        assert_eq!(drain(&mut queue, 100), b"ld");
    }
}
