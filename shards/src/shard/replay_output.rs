//! How events reach clients that catch up: gathered per client, and sent at the end of a turn.

use super::Shard;
use super::connection::{Closing, Output};
use super::replay::PARKED_MS;
use super::session::StoredEvent;
use super::stored_text::StoredText;
use crate::longpoll::MAX_BUFFERED_EVENTS;
use crate::record;
use crate::segment::Segment;
use crate::ws::encode::{self, OpCode};
use crate::{metrics, sse};

/// Bytes that may wait for all clients of a shard together before those that catch up must wait.
const MAX_WAITING_BYTES: u64 = 64 << 20;

impl Shard {
    /// Appends a record to what goes out to a client, which has everything before `next` in a slot by it; with none, no cursor is
    /// told. False where the output has no room: the client is parked.
    pub(super) fn append_to(
        &mut self,
        slot: u32,
        segment: &Segment,
        record: &record::ArchivedRecord<'_>,
        next: Option<(usize, u64)>,
    ) -> bool {
        let Some(client) = self.replays.clients.get_mut(&slot) else { return false };
        let Some(connection) = self.connections.get(client.address) else { return false };
        let waiting = connection.queued_bytes() + client.out.len();
        let full = match &connection.output {
            Output::Session(session) => session.unseen() >= MAX_BUFFERED_EVENTS / 2,
            _ => {
                waiting > self.settings.max_queue_bytes / 2
                    || (waiting > 0 && self.metrics.queue_bytes.get() > MAX_WAITING_BYTES)
            }
        };
        if full || connection.closing != Closing::No {
            self.park(slot, self.now_ms + PARKED_MS);
            return false;
        }
        let cursor = match next {
            Some((at, next)) => {
                client.next[at] = next;
                let (cursors, recent) = (&mut self.replays.cursors, &self.replays.checkpoints.recent);
                cursors.write_near(&self.replays.layout, &client.next, &mut client.footing, recent)
            }
            None => "",
        };
        let id = next.is_some().then_some(cursor);
        let body = record.body.get();
        let body = segment.bytes(body.offset, body.len);
        let (frame, text) = (&mut self.replays.frame, &mut self.replays.text);
        frame.clear();
        match &connection.output {
            Output::WebSocket(_) if connection.cursor => record::cursor_frame(body, cursor, text, frame),
            Output::WebSocket(_) => encode::append_frame(OpCode::Text, body, frame),
            Output::EventStream { chunked: true, .. } => {
                text.clear();
                sse::append_event(&record.event_type, id, body, text);
                frame.extend_from_slice(format!("{:x}\r\n", text.len()).as_bytes());
                frame.extend_from_slice(text);
                frame.extend_from_slice(b"\r\n");
            }
            Output::EventStream { .. } | Output::Pulled => {
                sse::append_event(&record.event_type, id, body, frame);
            }
            Output::Session(_) => {
                let (cursor, address) = (cursor.to_owned(), client.address);
                let body: StoredEvent = StoredText::new(String::from_utf8_lossy(body), &self.metrics);
                self.metrics.replayed.add(1);
                self.store_event(address, &record.id, &body, &cursor);
                return true;
            }
            Output::Http => return false,
        }
        count(&self.metrics);
        if client.out.is_empty() {
            self.replays.dirty.push(slot);
        }
        client.out.extend_from_slice(frame);
        true
    }

    /// Sends what this turn has gathered.
    pub(super) fn flush_replays(&mut self) {
        let mut dirty = std::mem::take(&mut self.replays.dirty);
        for slot in dirty.drain(..) {
            let Some(client) = self.replays.clients.get_mut(&slot) else { continue };
            let (address, out) = (client.address, std::mem::take(&mut client.out));
            self.send(address, out.into());
        }
        self.replays.dirty = dirty;
    }
}

fn count(metrics: &metrics::ShardMetrics) {
    metrics.replayed.add(1);
    metrics.deliveries.add(1);
}
