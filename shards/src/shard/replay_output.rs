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

/// Bytes that may wait for all clients of a shard together before those that catch up, and have not taken what they
/// got, must wait.
pub(super) const MAX_WAITING_BYTES: u64 = 64 << 20;
/// Bytes that are gathered for one client before they are sent within a turn; a quarter of what may wait for it, if
/// that is less.
pub(super) const MAX_GATHERED_BYTES: usize = 256 * 1024;
/// The same for all clients of a turn together.
const MAX_GATHERED_BYTES_OF_ALL: usize = 16 << 20;

impl Shard {
    /// Bytes that may wait for a client when it goes on with catching up.
    pub(super) fn room_to_go_on(&self) -> usize {
        if self.is_crowded() { 0 } else { self.settings.max_queue_bytes / 8 }
    }

    /// Does so much wait for the shard's clients that only those catch up who take what they get?
    fn is_crowded(&self) -> bool {
        self.metrics.queue_bytes.get() > MAX_WAITING_BYTES
    }

    /// Appends a record to what goes out to a client, which has everything before `next` in a slot by it; with none, no cursor is
    /// told. False where the output has no room: the client is parked.
    pub(super) fn append_to(
        &mut self,
        slot: u32,
        segment: &Segment,
        record: &record::ArchivedRecord<'_>,
        next: Option<(usize, u64)>,
    ) -> bool {
        let is_crowded = self.is_crowded();
        let Some(client) = self.replays.clients.get_mut(&slot) else { return false };
        let Some(connection) = self.connections.get(client.address) else { return false };
        let full = match &connection.output {
            Output::Session(session) => session.unseen() >= MAX_BUFFERED_EVENTS / 2,
            _ => {
                // What this turn has gathered says nothing of how fast the client reads.
                let queued = connection.queued_bytes();
                queued + client.out.len() > self.settings.max_queue_bytes / 2 || (queued > 0 && is_crowded)
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
        self.replays.gathered_bytes += frame.len();
        if client.out.len() >= MAX_GATHERED_BYTES.min(self.settings.max_queue_bytes / 4)
            || self.replays.gathered_bytes >= MAX_GATHERED_BYTES_OF_ALL
        {
            self.flush_replays();
        }
        true
    }

    /// Sends what this turn has gathered.
    pub(super) fn flush_replays(&mut self) {
        self.replays.gathered_bytes = 0;
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
