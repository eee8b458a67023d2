//! What a shard tells its clients of its own accord: that the connection lives, where the stream stands, and its own events.

use bytes::Bytes;

use super::connection::{Address, Closing, Output};
use super::{HEARTBEAT_CHUNK, Shard, own_events};
use crate::queue::SlowClient;
use crate::record;
use crate::sse;
use crate::ws::encode::{self, OpCode};

/// Heartbeats without a byte taken, after which a client that is allowed to be slow, or catches up, is gone.
const MAX_IDLE_HEARTBEATS: u8 = 4;

impl Shard {
    /// The cursor of everything that this shard has taken from ingress.
    pub(super) fn current_cursor(&self) -> Option<&str> {
        match &self.segment {
            Some(segment) if self.cursor_range.len > 0 => {
                std::str::from_utf8(segment.bytes(self.cursor_range.offset, self.cursor_range.len)).ok()
            }
            _ => self.position.as_deref(),
        }
    }

    /// Sends one of Tidegate's own events.
    pub(super) fn send_own_event(&mut self, address: Address, event_type: &str, data: &str) {
        self.send_own_event_at(address, event_type, data, "");
    }

    /// Sends one of Tidegate's own events with the cursor that holds once the client has seen it; empty for none.
    pub(super) fn send_own_event_at(&mut self, address: Address, event_type: &str, data: &str, cursor: &str) {
        let Some(connection) = self.connections.get(address) else { return };
        if connection.closing != Closing::No {
            return;
        }
        let body = own_events::encode(event_type, data);
        let id = (!cursor.is_empty()).then_some(cursor);
        let mut bytes = Vec::with_capacity(body.len() + 64);
        match &connection.output {
            Output::WebSocket(_) if connection.cursor => {
                record::cursor_frame(body.as_bytes(), cursor, &mut Vec::new(), &mut bytes);
            }
            Output::WebSocket(_) => {
                encode::append_header(OpCode::Text, body.len(), &mut bytes);
                bytes.extend_from_slice(body.as_bytes());
            }
            Output::EventStream { chunked: true, .. } => {
                let mut event = Vec::with_capacity(body.len() + 64);
                sse::append_event(event_type, id, body.as_bytes(), &mut event);
                bytes.extend_from_slice(format!("{:x}\r\n", event.len()).as_bytes());
                bytes.extend_from_slice(&event);
                bytes.extend_from_slice(b"\r\n");
            }
            Output::EventStream { .. } | Output::Pulled => {
                sse::append_event(event_type, id, body.as_bytes(), &mut bytes);
            }
            Output::Session(_) => return self.store_own_event(address, event_type, body, cursor),
            Output::Http => return,
        }
        self.send(address, bytes.into());
    }

    /// Shows that the connection lives. An event stream's client is told the present cursor too, in an event without data,
    /// which a browser doesn't dispatch (WHATWG HTML, section 9.2.6): who gets few events comes back with a young cursor.
    /// No second heartbeat waits behind a first one. A client whose events are left out, or that catches up as fast as
    /// it reads, must take something at times: otherwise it would be kept for ever.
    pub(super) fn heartbeat(&mut self, address: Address) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        if let Some(queue) = connection.queue.as_mut().filter(|queue| !queue.is_empty())
            && (connection.slow != SlowClient::Disconnect || connection.replaying)
        {
            if queue.note_heartbeat() >= MAX_IDLE_HEARTBEATS {
                self.metrics.connections_slow.add(1);
                return self.close(address, Closing::Now);
            }
            if queue.has_control() {
                return;
            }
        }
        let Some(connection) = self.connections.get(address) else { return };
        let cursor = if connection.replaying { None } else { self.current_cursor() };
        match connection.output {
            Output::WebSocket(_) => self.send_control(address, Bytes::from_static(encode::PING)),
            Output::EventStream { chunked: true, .. } => {
                let id = cursor.map(|cursor| format!("id: {cursor}\n\n"));
                let id = id.map(|id| format!("{:x}\r\n{id}\r\n", id.len()));
                self.send_control(address, Bytes::from_static(HEARTBEAT_CHUNK));
                if let Some(id) = id {
                    self.send(address, id.into());
                }
            }
            Output::EventStream { .. } | Output::Pulled => {
                let id = cursor.map(|cursor| format!("id: {cursor}\n\n"));
                self.send_control(address, Bytes::from_static(sse::HEARTBEAT));
                if let Some(id) = id {
                    self.send(address, id.into());
                }
            }
            Output::Http | Output::Session(_) => {}
        }
    }
}
