//! What one event looks like inside a segment: its frames, each encoded once, and an archived
//! record that says where they are and what the index needs.

use rkyv::rancor::Failure;
use rkyv::ser::Positional;
use rkyv::ser::allocator::Arena;
use rkyv::ser::writer::Buffer;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use crate::event::Event;
use crate::index::Fields;
use crate::interest::Transports;
use crate::publisher::Position;
use crate::segment::{Segment, SegmentWriter};
use crate::sse;
use crate::ws::encode::{self, OpCode};

/// A range of a segment, in bytes.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Offset of the first byte.
    pub offset: u32,
    /// Number of bytes; 0 where nothing was encoded.
    pub len: u32,
}

/// One event as shards see it.
#[derive(Archive, Serialize, Debug)]
pub struct Record<'a> {
    /// CloudEvents `type`.
    #[rkyv(with = InlineAsBox)]
    pub event_type: &'a str,
    /// CloudEvents `id`, as text.
    #[rkyv(with = InlineAsBox)]
    pub id: &'a str,
    /// Values found by the extractors; a list gives several entries with one position.
    #[rkyv(with = InlineAsBox)]
    pub fields: &'a [Field<'a>],
    /// Source partition, see [`Position`].
    pub partition: u32,
    /// Offset in that partition.
    pub offset: u64,
    /// When the source handed it over, in microseconds of [`crate::clock::now_us`].
    pub received_us: u64,
    /// The complete WebSocket text frame.
    pub ws: Range,
    /// The complete event of an event stream, inside one HTTP/1.1 chunk (RFC 9112 section 7.1).
    pub sse_chunk: Range,
    /// The same without the chunk's framing.
    pub sse: Range,
    /// The WebSocket text frame with the cursor in it, see [`crate::cursor`].
    pub ws_cursor: Range,
    /// The cursor's text.
    pub cursor: Range,
    /// The event's JSON text.
    pub body: Range,
}

/// An extracted value.
#[derive(Archive, Serialize, Debug)]
pub struct Field<'a> {
    /// Position of the field among its type's extractors.
    pub position: u16,
    /// Canonical encoding, see [`crate::value`].
    #[rkyv(with = InlineAsBox)]
    pub value: &'a [u8],
}

/// Room that the archived record may take beside the texts it holds, in bytes.
const RECORD_SLACK_BYTES: usize = 384;

/// Bytes to have free before [`write`] is called, so that it can't fail.
#[must_use]
pub fn space_needed(event: &Event<'_>, cursor: &str) -> usize {
    let fields: usize = event.fields.iter().map(|field| field.value.len() + 64).sum();
    let line_feeds = memchr::memchr2_iter(b'\n', b'\r', &event.body).count();
    let frames = 4 * event.body.len() + line_feeds * 8 + 3 * cursor.len();
    frames + 2 * event.event_type.len() + event.id.len() + fields + RECORD_SLACK_BYTES
}

/// Encodes what the wanted transports need and archives the record. Returns the record's range.
/// `cursor` stands for the position after the event, empty where there is none; `scratch` is reused memory.
///
/// Returns `None`, with the segment unchanged, when it doesn't fit.
pub fn write(
    writer: &mut SegmentWriter,
    event: &Event<'_>,
    position: Position,
    cursor: &str,
    received_us: u64,
    transports: Transports,
    scratch: &mut Scratch,
) -> Option<Range> {
    let mark = writer.mark();
    let range = try_write(writer, event, position, cursor, received_us, transports, scratch);
    if range.is_none() {
        writer.rewind(mark);
    }
    range
}

/// Memory that is reused from one event to the next.
#[derive(Default)]
pub struct Scratch {
    frame: Vec<u8>,
    with_cursor: Vec<u8>,
    archive: Vec<u8>,
    arena: Arena,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Scratch").finish_non_exhaustive()
    }
}

fn try_write(
    writer: &mut SegmentWriter,
    event: &Event<'_>,
    position: Position,
    cursor: &str,
    received_us: u64,
    transports: Transports,
    scratch: &mut Scratch,
) -> Option<Range> {
    let mut ws = Range::default();
    let mut body = Range::default();
    let mut cursor_range = Range::default();
    if transports.contains(Transports::WS) || transports.contains(Transports::LONG_POLLING) {
        scratch.frame.clear();
        encode::append_header(OpCode::Text, event.body.len(), &mut scratch.frame);
        let (offset, len) = writer.append(&[&scratch.frame, &event.body])?;
        let header = u32::try_from(scratch.frame.len()).ok()?;
        ws = Range { offset, len };
        body = Range { offset: offset + header, len: len - header };
    }
    let (mut sse_chunk, mut sse) = (Range::default(), Range::default());
    if transports.contains(Transports::SSE) {
        scratch.frame.clear();
        let id = (!cursor.is_empty()).then_some(cursor);
        sse::append_event(&event.event_type, id, &event.body, &mut scratch.frame);
        let head = format!("{:x}\r\n", scratch.frame.len());
        let (offset, len) = writer.append(&[head.as_bytes(), &scratch.frame, b"\r\n"])?;
        let head = u32::try_from(head.len()).ok()?;
        sse_chunk = Range { offset, len };
        sse = Range { offset: offset + head, len: len - head - 2 };
        if id.is_some() {
            let before = u32::try_from("event: \nid: ".len() + event.event_type.len()).ok()?;
            cursor_range = Range { offset: sse.offset + before, len: u32::try_from(cursor.len()).ok()? };
        }
        if body.len == 0 && memchr::memchr2(b'\n', b'\r', &event.body).is_none() {
            let len = u32::try_from(event.body.len()).ok()?;
            body = Range { offset: sse.offset + sse.len - 2 - len, len };
        }
    }
    let mut ws_cursor = Range::default();
    if transports.contains(Transports::WS_CURSOR) {
        scratch.with_cursor.clear();
        cursor_frame(&event.body, cursor, &mut scratch.with_cursor, &mut scratch.frame);
        let (offset, len) = writer.append(&[&scratch.frame])?;
        ws_cursor = Range { offset, len };
    }
    if body.len == 0 {
        let (offset, len) = writer.append(&[&event.body])?;
        body = Range { offset, len };
    }
    // Also where the frame has it: a shard takes it from here for what it tells of its own accord.
    if cursor_range.len == 0 && transports.intersects(Transports::LONG_POLLING.union(Transports::WS_CURSOR)) {
        let (offset, len) = writer.append(&[cursor.as_bytes()])?;
        cursor_range = Range { offset, len };
    }
    let fields: Vec<Field<'_>> =
        event.fields.iter().map(|field| Field { position: field.position, value: &field.value }).collect();
    let record = Record {
        event_type: &event.event_type,
        id: &event.id,
        fields: &fields,
        partition: position.partition,
        offset: position.offset,
        received_us,
        ws,
        sse_chunk,
        sse,
        ws_cursor,
        cursor: cursor_range,
        body,
    };
    writer.align();
    scratch.archive.resize(space_needed(event, cursor), 0);
    let buffer = Buffer::from(scratch.archive.as_mut_slice());
    let written =
        rkyv::api::low::to_bytes_in_with_alloc::<_, _, Failure>(&record, buffer, scratch.arena.acquire()).ok()?.pos();
    let (offset, len) = writer.append(&[&scratch.archive[..written]])?;
    let range = Range { offset, len };
    writer.commit(range)?;
    Some(range)
}

/// A WebSocket text frame of an event with its cursor as the attribute `tidegatecursor` (the last member, so that it counts
/// where the event had one already). `text` is reused memory.
pub fn cursor_frame(body: &[u8], cursor: &str, text: &mut Vec<u8>, frame: &mut Vec<u8>) {
    text.clear();
    match memchr::memrchr(b'}', body) {
        Some(end) if !cursor.is_empty() => {
            text.extend_from_slice(&body[..end]);
            text.extend_from_slice(b",\"tidegatecursor\":\"");
            text.extend_from_slice(cursor.as_bytes());
            text.extend_from_slice(b"\"}");
        }
        _ => text.extend_from_slice(body),
    }
    frame.clear();
    encode::append_header(OpCode::Text, text.len(), frame);
    frame.extend_from_slice(text);
}

/// Reads a record in place.
#[must_use]
pub fn read(segment: &Segment, range: Range) -> &ArchivedRecord<'_> {
    let bytes = segment.bytes(range.offset, range.len);
    // SAFETY: the bytes were archived as a `Record` by `write` in this process, at an offset aligned
    // to 16 bytes, and are immutable since; the range came with them through the queue.
    unsafe { rkyv::access_unchecked::<ArchivedRecord<'_>>(bytes) }
}

impl ArchivedRange {
    /// The plain form.
    #[must_use]
    pub fn get(&self) -> Range {
        Range { offset: self.offset.to_native(), len: self.len.to_native() }
    }
}

impl Fields for ArchivedRecord<'_> {
    fn len(&self) -> usize {
        self.fields.len()
    }

    fn get(&self, index: usize) -> (u16, &[u8]) {
        let field = &self.fields[index];
        (field.position.to_native(), &field.value)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::event::FieldValue;

    fn event() -> Event<'static> {
        Event {
            event_type: Cow::Borrowed("seat.sold"),
            id: Cow::Borrowed("7"),
            subject: None,
            body: Cow::Borrowed(br#"{"specversion":"1.0","type":"seat.sold","id":"7","source":"/"}"#),
            fields: vec![FieldValue { position: 1, value: Box::from(*b"s1") }],
        }
    }

    #[test]
    fn a_record_gives_back_every_frame_and_field() {
        let event = event();
        let mut writer = SegmentWriter::new(0, 4096);
        let position = Position { partition: 3, offset: 99 };
        let mut scratch = Scratch::default();
        for _ in 0..3 {
            let range = write(&mut writer, &event, position, "", 5, Transports::ALL, &mut scratch).unwrap();
            let segment = writer.segment();
            let record = read(segment, range);
            assert_eq!(&*record.event_type, "seat.sold");
            assert_eq!(&*record.id, "7");
            assert_eq!((record.partition.to_native(), record.offset.to_native()), (3, 99));
            assert_eq!(Fields::len(record), 1);
            assert_eq!(record.get(0), (1, &b"s1"[..]));
            let bytes = |range: Range| segment.bytes(range.offset, range.len);
            assert_eq!(bytes(record.body.get()), &*event.body);
            assert_eq!(&bytes(record.ws.get())[..2], [0x81, u8::try_from(event.body.len()).unwrap()]);
            let sse = String::from_utf8(bytes(record.sse.get()).to_vec()).unwrap();
            assert!(sse.starts_with("event: seat.sold\ndata: {") && sse.ends_with("\n\n"), "{sse:?}");
            let chunk = String::from_utf8(bytes(record.sse_chunk.get()).to_vec()).unwrap();
            assert_eq!(chunk, format!("{:x}\r\n{sse}\r\n", sse.len()));
        }
    }

    #[test]
    fn only_the_wanted_frames_are_encoded() {
        let mut writer = SegmentWriter::new(0, 4096);
        let range = write(
            &mut writer,
            &event(),
            Position { partition: 0, offset: 0 },
            "abc",
            0,
            Transports::SSE,
            &mut Scratch::default(),
        )
        .unwrap();
        let record = read(writer.segment(), range);
        assert_eq!(record.ws.get().len, 0);
        let text = |range: Range| std::str::from_utf8(writer.segment().bytes(range.offset, range.len)).unwrap();
        assert!(text(record.sse.get()).starts_with("event: seat.sold\nid: abc\ndata: "));
        assert_eq!(text(record.cursor.get()), "abc");
        assert_eq!(text(record.body.get()).as_bytes(), &*event().body);
    }

    #[test]
    fn whoever_gets_cursors_leaves_them_with_the_record() {
        for transport in [Transports::SSE, Transports::LONG_POLLING, Transports::WS_CURSOR, Transports::WS] {
            let mut writer = SegmentWriter::new(0, 4096);
            let position = Position { partition: 0, offset: 0 };
            let range = write(&mut writer, &event(), position, "abc", 0, transport, &mut Scratch::default()).unwrap();
            let Range { offset, len } = read(writer.segment(), range).cursor.get();
            let expected = if transport == Transports::WS { "" } else { "abc" };
            assert_eq!(writer.segment().bytes(offset, len), expected.as_bytes(), "{transport:?}");
        }
    }

    #[test]
    fn the_cursor_becomes_the_last_attribute_of_the_event_in_a_websocket() {
        let (mut text, mut frame) = (Vec::new(), Vec::new());
        cursor_frame(br#"{"id":"1"} "#, "abc", &mut text, &mut frame);
        assert_eq!(&frame[2..], br#"{"id":"1","tidegatecursor":"abc"}"#);
    }

    #[test]
    fn a_full_segment_refuses_and_stays_as_it_was() {
        let mut writer = SegmentWriter::new(0, 160);
        let before = writer.mark();
        let position = Position { partition: 0, offset: 0 };
        assert!(write(&mut writer, &event(), position, "", 0, Transports::ALL, &mut Scratch::default()).is_none());
        assert_eq!(writer.mark(), before);
    }

    #[test]
    fn the_announced_space_is_enough_for_bodies_full_of_line_feeds() {
        let mut event = event();
        event.body = Cow::Owned(b"{\n\r\n\r}".repeat(50));
        let mut writer = SegmentWriter::new(0, space_needed(&event, ""));
        let position = Position { partition: 0, offset: 0 };
        assert!(write(&mut writer, &event, position, "", 0, Transports::ALL, &mut Scratch::default()).is_some());
    }
}
