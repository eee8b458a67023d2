//! From a batch of events to one send per connection.
//!
//! While a batch is taken from the mailbox, each match costs one small entry in a list that hangs
//! off its connection. At the end of the batch every dirty connection's frames are gathered into
//! one buffer and sent with one call; connections with the same frames share the gathering.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::{Address, Closing, END, Output};
use super::session::StoredEvent;
use super::stored_text::StoredText;
use super::{Shard, socket};
use crate::clock;
use crate::event::conflation_key;
use crate::mailbox::Mail;
use crate::queue::{Content, Frame, SegmentHold, SlowClient};
use crate::record::{self, Range};
use crate::segment::Segment;
use crate::sse;

/// Bytes gathered into one send.
const SEND_BYTES: usize = 256 * 1024;
/// Deliveries after which a batch is flushed although there is more mail.
const BATCH_DELIVERIES: usize = 64 * 1024;
/// Older segments that waiting frames may keep alive before they are copied.
pub(super) const OLDER_SEGMENTS: usize = 8;

/// One event of the batch.
#[derive(Debug)]
struct BatchEvent {
    segment: SegmentHold,
    record: Range,
    ws: Range,
    sse: Range,
    sse_chunk: Range,
    ws_cursor: Range,
    received_us: u64,
    /// A copy of the text, made when the first long-polling session needs it.
    stored: OnceCell<StoredEvent>,
    /// What the event is about, found when the first client that conflates needs it.
    key: OnceCell<Option<u64>>,
}

/// One event for one connection; a link of the connection's list.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    event: u32,
    next: u32,
}

/// Which of an event's frames an output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    WebSocket,
    WebSocketCursor,
    EventStream,
    EventStreamChunk,
}

impl BatchEvent {
    fn range(&self, encoding: Encoding) -> Range {
        match encoding {
            Encoding::WebSocket => self.ws,
            Encoding::WebSocketCursor => self.ws_cursor,
            Encoding::EventStream => self.sse,
            Encoding::EventStreamChunk => self.sse_chunk,
        }
    }

    fn bytes(&self, encoding: Encoding) -> &[u8] {
        let range = self.range(encoding);
        self.segment.bytes(range.offset, range.len)
    }

    fn key(&self, hasher: &ahash::RandomState) -> Option<u64> {
        *self.key.get_or_init(|| {
            let record = record::read(&self.segment, self.record);
            let body = record.body.get();
            if body.len > 0 {
                conflation_key(&record.event_type, self.segment.bytes(body.offset, body.len), hasher)
            } else {
                conflation_key(&record.event_type, &sse::body_of(self.bytes(Encoding::EventStream)), hasher)
            }
        })
    }

    fn frame(&self, encoding: Encoding) -> Frame {
        Frame::Shared(Rc::clone(&self.segment), self.range(encoding))
    }
}

/// The batch at hand and the memory it reuses.
#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<BatchEvent>,
    deliveries: Vec<Delivery>,
    dirty: Vec<u32>,
    matched: Vec<u32>,
    /// The events of the connection that is being flushed.
    run: Vec<u32>,
    /// What `gathered` holds: connections with the same run share it.
    gathered_run: Vec<u32>,
    gathered_encoding: Option<Encoding>,
    gathered: Vec<u8>,
}

impl Shard {
    /// Takes one entry of the event lane.
    pub fn take_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Segment(segment) => self.next_segment(segment),
            Mail::Event(range) => self.match_event(range),
            Mail::InterestKnown(ticket) => {
                // What was matched before must go out before the subscriptions are declared in force.
                self.flush_batch();
                self.interest_known(ticket);
            }
            Mail::Position(cursor) => {
                self.position = Some(cursor);
                self.cursor_range = Range::default();
            }
            Mail::Layout(layout) => self.replays.layout = layout,
            Mail::Lost(loss) => {
                self.flush_batch();
                self.tell_all_of_loss(&loss);
            }
            Mail::Kept(kept) => {
                self.flush_batch();
                self.kept(*kept);
            }
        }
        if self.batch.deliveries.len() >= BATCH_DELIVERIES {
            self.flush_batch();
        }
    }

    fn next_segment(&mut self, segment: Arc<Segment>) {
        let number = segment.number();
        if self.cursor_range.len > 0 {
            self.position = self.current_cursor().map(Arc::from);
            self.cursor_range = Range::default();
        }
        self.replays.floor = self.place();
        self.last_record = None;
        if let Some(current) = self.segment.replace(Rc::new(segment)) {
            self.older_segments.push_back(Rc::downgrade(&current));
        }
        if let Some(segment) = &self.segment {
            self.replays.follow(segment);
        }
        self.older_segments.retain(|older| older.strong_count() > 0);
        if self.older_segments.len() > OLDER_SEGMENTS {
            for (_, connection) in self.connections.iter_mut() {
                if let Some(queue) = &mut connection.queue {
                    queue.evacuate(number.saturating_sub(1));
                }
            }
        }
    }

    fn match_event(&mut self, range: Range) {
        let Some(segment) = self.segment.clone() else { return };
        self.metrics.events_received.add(1);
        let record = record::read(&segment, range);
        self.last_record = Some(range);
        let cursor = record.cursor.get();
        if cursor.len > 0 {
            self.cursor_range = cursor;
        }
        let mut matched = std::mem::take(&mut self.batch.matched);
        self.index.matches(&record.event_type, record, &mut matched);
        if !matched.is_empty() {
            let event = u32::try_from(self.batch.events.len()).expect("invariant: a batch is bounded");
            for slot in matched.drain(..) {
                self.append_delivery(slot, event);
            }
            let (ws, sse, sse_chunk) = (record.ws.get(), record.sse.get(), record.sse_chunk.get());
            let received_us = record.received_us.to_native();
            let segment = Rc::clone(&segment);
            self.batch.events.push(BatchEvent {
                segment,
                record: range,
                ws,
                sse,
                sse_chunk,
                ws_cursor: record.ws_cursor.get(),
                received_us,
                stored: OnceCell::new(),
                key: OnceCell::new(),
            });
        }
        self.batch.matched = matched;
    }

    fn append_delivery(&mut self, slot: u32, event: u32) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        let batch = &mut self.batch;
        let delivery = u32::try_from(batch.deliveries.len()).expect("invariant: a batch is bounded");
        if connection.first == END {
            connection.first = delivery;
            batch.dirty.push(slot);
        } else {
            batch.deliveries[connection.last as usize].next = delivery;
        }
        connection.last = delivery;
        batch.deliveries.push(Delivery { event, next: END });
    }

    /// Sends all that the batch has gathered, one send per connection.
    pub fn flush_batch(&mut self) {
        if self.batch.events.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.metrics.batch_events.record(batch.events.len() as u64, 1);
        self.metrics.deliveries.add(batch.deliveries.len() as u64);
        let dirty = std::mem::take(&mut batch.dirty);
        for &slot in &dirty {
            self.flush_connection(slot, &mut batch);
        }
        let now_us = clock::now_us();
        for event in &batch.events {
            self.metrics.fan_out_us.record(now_us.saturating_sub(event.received_us), 1);
        }
        batch.dirty = dirty;
        batch.dirty.clear();
        batch.events.clear();
        batch.deliveries.clear();
        batch.gathered_encoding = None;
        self.batch = batch;
        self.shed_sessions();
    }

    fn flush_connection(&mut self, slot: u32, batch: &mut Batch) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        let mut link = std::mem::replace(&mut connection.first, END);
        connection.last = END;
        batch.run.clear();
        while link != END {
            let delivery = batch.deliveries[link as usize];
            batch.run.push(delivery.event);
            link = delivery.next;
        }
        if connection.closing != Closing::No {
            return;
        }
        let address = Address { slot, generation: connection.generation };
        let waiting = connection.is_waiting();
        let web_socket = if connection.cursor { Encoding::WebSocketCursor } else { Encoding::WebSocket };
        match connection.output {
            Output::WebSocket(_) if !waiting => self.send_run(address, web_socket, batch),
            Output::WebSocket(_) => self.queue_run(slot, web_socket, batch, 0, 0),
            Output::EventStream { chunked, .. } => {
                let encoding = if chunked { Encoding::EventStreamChunk } else { Encoding::EventStream };
                if waiting {
                    self.queue_run(slot, encoding, batch, 0, 0);
                } else {
                    self.send_run(address, encoding, batch);
                }
            }
            Output::Pulled => self.queue_run(slot, Encoding::EventStream, batch, 0, 0),
            Output::Session(_) => {
                for &event in &batch.run {
                    let event = &batch.events[event as usize];
                    let record = record::read(&event.segment, event.record);
                    let stored = event.stored.get_or_init(|| {
                        let body = record.body.get();
                        StoredText::new(
                            String::from_utf8_lossy(event.segment.bytes(body.offset, body.len)),
                            &self.metrics,
                        )
                    });
                    let cursor = record.cursor.get();
                    let cursor = event.segment.bytes(cursor.offset, cursor.len);
                    self.store_event(address, &record.id, stored, std::str::from_utf8(cursor).unwrap_or_default());
                }
            }
            Output::Http => {}
        }
    }

    /// Sends the run with one call where the socket takes it, and queues the rest.
    fn send_run(&mut self, address: Address, encoding: Encoding, batch: &mut Batch) {
        let mut done = 0;
        while done < batch.run.len() {
            let (taken, sent) = match self.send_part(address, encoding, batch, done) {
                Ok(part) => part,
                Err(_) => return self.close(address, Closing::Now),
            };
            if let Some((whole, sent_of_next)) = sent {
                return self.queue_run(address.slot, encoding, batch, done + whole, sent_of_next);
            }
            done += taken;
        }
    }

    /// Sends frames from `from` on, up to the bytes of one send. Returns how many were tried and,
    /// where not all went out, how many went whole and how much of the next.
    #[allow(clippy::type_complexity)]
    fn send_part(
        &mut self,
        address: Address,
        encoding: Encoding,
        batch: &mut Batch,
        from: usize,
    ) -> io::Result<(usize, Option<(usize, usize)>)> {
        let Some(connection) = self.connections.get(address) else { return Ok((batch.run.len(), None)) };
        let Some(fd) = connection.output.fd() else { return Ok((batch.run.len(), None)) };
        let sealed = connection.tls.is_some();
        let mut taken = 0;
        let mut total = 0;
        for &event in &batch.run[from..] {
            let len = batch.events[event as usize].bytes(encoding).len();
            if taken > 0 && total + len > SEND_BYTES {
                break;
            }
            taken += 1;
            total += len;
        }
        let run = &batch.run[from..from + taken];
        let bytes = if let [event] = run {
            batch.events[*event as usize].bytes(encoding)
        } else {
            if batch.gathered_encoding != Some(encoding) || batch.gathered_run != run {
                batch.gathered.clear();
                for &event in run {
                    batch.gathered.extend_from_slice(batch.events[event as usize].bytes(encoding));
                }
                batch.gathered_encoding = Some(encoding);
                batch.gathered_run.clear();
                batch.gathered_run.extend_from_slice(run);
            }
            &batch.gathered
        };
        if sealed {
            let all_out = self.send_sealed(address, bytes)?;
            return Ok((taken, (!all_out).then_some((taken, 0))));
        }
        let sent = socket::send(fd, bytes)?;
        self.metrics.sends.add(1);
        self.metrics.sent_bytes.add(sent as u64);
        if sent == total {
            return Ok((taken, None));
        }
        let mut rest = sent;
        let mut whole = 0;
        for &event in run {
            let len = batch.events[event as usize].bytes(encoding).len();
            if rest < len {
                break;
            }
            rest -= len;
            whole += 1;
        }
        Ok((taken, Some((whole, rest))))
    }

    /// Queues the run from `from` on; `sent` bytes of its first frame are out.
    fn queue_run(&mut self, slot: u32, encoding: Encoding, batch: &Batch, from: usize, mut sent: usize) {
        let slow = self.connections.at(slot).map(|connection| connection.slow);
        for &event in &batch.run[from..] {
            let event = &batch.events[event as usize];
            let frame = event.frame(encoding);
            if frame.bytes().len() > sent {
                let key = if slow == Some(SlowClient::Conflate) { event.key(&self.keys) } else { None };
                self.enqueue(slot, frame, sent, Content::Event(key));
            }
            sent = 0;
        }
    }
}
