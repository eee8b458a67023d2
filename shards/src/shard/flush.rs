//! Sending what waits for one connection, once its socket has room again.

use super::connection::{Address, Closing};
use super::{Shard, socket};

/// Bytes gathered into one send.
const SEND_BYTES: usize = 256 * 1024;

impl Shard {
    /// Sends what waits until the socket is full. Returns whether all is out.
    pub fn flush_queue(&mut self, address: Address) -> bool {
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
}
