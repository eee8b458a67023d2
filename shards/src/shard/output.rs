//! What goes out to one connection, what waits for it, and what happens when too much does.

use bytes::Bytes;

use super::connection::{Address, Closing};
use super::own_events::{self, Framed};
use super::{Shard, socket};
use crate::queue::{Content, Frame, Overfull, Queue, SlowClient};

/// Bytes gathered into one send.
const SEND_BYTES: usize = 256 * 1024;

impl Shard {
    /// What is to happen if this connection's client is too slow.
    pub fn set_slow_client(&mut self, address: Address, policy: SlowClient) {
        if let Some(connection) = self.connections.get_mut(address) {
            connection.slow = policy;
        }
    }

    /// Sends bytes of this connection alone, after what waits.
    pub fn send(&mut self, address: Address, bytes: Bytes) {
        if let Some((slot, cork)) = &mut self.cork
            && *slot == address.slot
        {
            cork.extend_from_slice(&bytes);
            return;
        }
        let Some(connection) = self.connections.get_mut(address) else { return };
        if connection.closing == Closing::Now {
            // What waited has gone: nothing may stand in its place.
            return;
        }
        let waiting = connection.is_waiting();
        let sent = match connection.output.fd() {
            Some(_) if !waiting && connection.tls.is_some() => match self.send_sealed(address, &bytes) {
                Ok(_) => return,
                Err(_) => return self.close(address, Closing::Now),
            },
            Some(fd) if !waiting => match socket::send(fd, &bytes) {
                Ok(sent) => {
                    self.metrics.sends.add(1);
                    self.metrics.sent_bytes.add(sent as u64);
                    sent
                }
                Err(_) => return self.close(address, Closing::Now),
            },
            _ => 0,
        };
        if sent < bytes.len() {
            self.enqueue(address.slot, Frame::Owned(bytes), sent, Content::Own);
        }
    }

    /// Sends a control frame ahead of the data that waits.
    pub fn send_control(&mut self, address: Address, bytes: Bytes) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        match connection.queue.as_mut().filter(|queue| !queue.is_empty()) {
            Some(queue) => {
                self.metrics.queue_bytes.add(bytes.len() as u64);
                queue.push_control(bytes);
                self.enforce_bound(address.slot);
                self.shed();
            }
            None => self.send(address, bytes),
        }
    }

    /// Queues a frame of which `sent` bytes are out.
    pub(super) fn enqueue(&mut self, slot: u32, frame: Frame, sent: usize, content: Content) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.closing == Closing::Now {
            // Nobody will send it; the rest of a batch must not pile up behind the bound.
            return;
        }
        let queue = connection.queue.get_or_insert_with(|| Box::new(Queue::default()));
        let before = queue.bytes();
        let conflated = queue.push(frame, sent, content);
        count_bytes(&self.metrics, before, queue.bytes());
        self.metrics.events_conflated.add(conflated);
        connection.blocked = connection.output.fd().is_some();
        connection.wake();
        self.enforce_bound(slot);
        self.shed();
    }

    /// Brings what waits for a connection down to what may wait, as its policy says, or ends it.
    pub(super) fn enforce_bound(&mut self, slot: u32) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.closing == Closing::Now {
            return;
        }
        // What is encrypted can't be left out any more: where events can, the rest of the queue keeps half of the room.
        let max_bytes = self.settings.max_queue_bytes;
        let sealed_bytes = connection.sealed_bytes();
        let overfull = connection.slow == SlowClient::Disconnect && sealed_bytes > max_bytes;
        let kept_bytes = if connection.slow == SlowClient::Disconnect { 0 } else { max_bytes / 2 };
        let left_out = match &mut connection.queue {
            _ if overfull => Err(Overfull),
            Some(queue) => {
                let before = queue.bytes();
                let left_out = queue.enforce(connection.slow, max_bytes.saturating_sub(sealed_bytes).max(kept_bytes));
                count_bytes(&self.metrics, before, queue.bytes());
                left_out
            }
            None => return,
        };
        match left_out {
            Ok(left_out) => {
                self.metrics.events_dropped.add(left_out.dropped);
                self.metrics.events_conflated.add(left_out.conflated);
            }
            Err(_) => {
                self.cut(slot);
                self.metrics.connections_slow.add(1);
            }
        }
    }

    /// Ends a connection as it is. What waits for it goes at once, and not when its task has noticed: it would count against
    /// the others until then.
    pub(super) fn cut(&mut self, slot: u32) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        self.metrics.queue_bytes.subtract(connection.queued_bytes() as u64);
        connection.queue = None;
        if let Some(tls) = &connection.tls {
            tls.borrow_mut().forget_waiting();
        }
        connection.closing = Closing::Now;
        connection.wake();
    }

    /// Writes the notice of events that were left out, if one is due.
    fn write_notice(&mut self, address: Address) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        let Some(queue) = &mut connection.queue else { return };
        let Some(count) = queue.unnoticed() else { return };
        let data = own_events::dropped_data(count);
        if let Framed::Bytes(notice) = own_events::framed(&connection.output, own_events::DROPPED, &data) {
            let before = queue.bytes();
            queue.set_notice(count, notice.into());
            count_bytes(&self.metrics, before, queue.bytes());
        }
    }

    /// Sends what waits until the socket is full. Returns whether all is out.
    pub fn flush_queue(&mut self, address: Address) -> bool {
        self.write_notice(address);
        let Some(connection) = self.connections.get_mut(address) else { return true };
        if connection.tls.is_some() && connection.output.fd().is_some() {
            return self.flush_sealed(address);
        }
        let (Some(fd), Some(queue)) = (connection.output.fd(), connection.queue.as_mut()) else { return true };
        let mut out = Vec::new();
        while !queue.is_empty() {
            out.clear();
            queue.gather(&mut out, SEND_BYTES);
            match socket::send(fd, &out) {
                Ok(0) => break,
                Ok(sent) => {
                    queue.consume(sent);
                    self.metrics.sends.add(1);
                    self.metrics.sent_bytes.add(sent as u64);
                    self.metrics.queue_bytes.subtract(sent as u64);
                    if sent < out.len() {
                        break;
                    }
                }
                Err(_) => {
                    connection.closing = Closing::Now;
                    return false;
                }
            }
        }
        let done = queue.is_empty();
        if done {
            connection.blocked = false;
            connection.queue = None;
        }
        done
    }

    /// Somebody else sent this much of what waits.
    pub fn sent(&mut self, address: Address, sent: usize) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        if let Some(tls) = &connection.tls {
            tls.borrow_mut().sent(sent);
            if let Some(queue) = connection.queue.as_mut() {
                queue.note_progress();
            }
            self.metrics.sends.add(1);
            self.metrics.sent_bytes.add(sent as u64);
            return self.settle_sealed(address);
        }
        let Some(queue) = connection.queue.as_mut() else { return };
        queue.consume(sent);
        self.metrics.sends.add(1);
        self.metrics.sent_bytes.add(sent as u64);
        self.metrics.queue_bytes.subtract(sent as u64);
    }

    /// Takes the next frame of a pulled event stream.
    pub fn pull(&mut self, address: Address) -> Option<Bytes> {
        self.write_notice(address);
        let connection = self.connections.get_mut(address)?;
        let frame = connection.queue.as_mut()?.pop()?;
        let bytes = match frame {
            Frame::Owned(bytes) => bytes,
            shared @ Frame::Shared(..) => Bytes::copy_from_slice(shared.bytes()),
        };
        self.metrics.queue_bytes.subtract(bytes.len() as u64);
        self.metrics.sent_bytes.add(bytes.len() as u64);
        Some(bytes)
    }
}

fn count_bytes(metrics: &crate::metrics::ShardMetrics, before: usize, after: usize) {
    metrics.queue_bytes.add((after as u64).wrapping_sub(before as u64));
}
