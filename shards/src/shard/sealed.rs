//! Sending through TLS. What is encrypted can't be reordered any more, so a connection that is behind keeps plaintext in
//! its queue, where control frames overtake and events are shared, and one piece of it at a time as ciphertext in its
//! session. Each byte counts once: in the queue, or as ciphertext.

use std::io;
use std::rc::Rc;

use super::connection::{Address, Closing};
use super::{Shard, socket};
use crate::tls::SharedSession;

/// Plaintext that is encrypted at a time while the socket is full.
const PIECE_BYTES: usize = 64 * 1024;

impl Shard {
    /// From now on the connection's bytes go through this session.
    pub fn secure(&mut self, address: Address, session: &SharedSession) {
        if let Some(connection) = self.connections.get_mut(address) {
            connection.tls = Some(Rc::clone(session));
        }
    }

    /// Encrypts `bytes` and sends them; what the socket doesn't take waits. Returns whether all is out.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn send_sealed(&mut self, address: Address, bytes: &[u8]) -> io::Result<bool> {
        let Some(connection) = self.connections.get(address) else { return Ok(true) };
        let (Some(fd), Some(tls)) = (connection.output.fd(), &connection.tls) else { return Ok(true) };
        let mut session = tls.borrow_mut();
        session.seal(bytes, &mut self.sealed).map_err(io::Error::other)?;
        let sent = socket::send(fd, &self.sealed)?;
        session.keep(&self.sealed[sent..]);
        drop(session);
        self.metrics.sends.add(1);
        self.metrics.sent_bytes.add(sent as u64);
        self.settle_sealed(address);
        Ok(sent == self.sealed.len())
    }

    /// Brings the counts of waiting bytes up to what the connection's session holds by now.
    pub fn settle_sealed(&mut self, address: Address) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        let Some(tls) = &connection.tls else { return };
        let mut session = tls.borrow_mut();
        let waiting = session.waiting().len();
        let before = std::mem::replace(&mut session.counted, waiting);
        drop(session);
        self.metrics.queue_bytes.add(waiting as u64);
        self.metrics.queue_bytes.subtract(before as u64);
        if waiting > 0 {
            if !connection.blocked {
                connection.blocked = true;
                connection.wake();
            }
            self.enforce_bound(address.slot);
            self.shed();
        }
    }

    /// Whether a connection with TLS waits for room although nothing of it is encrypted: its session has said something in
    /// between and sent all at once, so that nobody will be woken, and what waits as plaintext can go on.
    pub fn can_go_on(&mut self, address: Address) -> bool {
        let Some(connection) = self.connections.get_mut(address) else { return false };
        connection.blocked && connection.tls.as_ref().is_some_and(|tls| tls.borrow().waiting().is_empty())
    }

    /// [`Shard::flush_queue`] of a connection with TLS.
    pub(super) fn flush_sealed(&mut self, address: Address) -> bool {
        let flushed = self.flush_pieces(address);
        self.settle_sealed(address);
        let Some(connection) = self.connections.get_mut(address) else { return true };
        match flushed {
            Ok(true) => {
                connection.blocked = false;
                connection.queue = None;
                true
            }
            Ok(false) => false,
            Err(_) => {
                connection.closing = Closing::Now;
                false
            }
        }
    }

    /// Sends what waits, piece by piece, until the socket is full. Returns whether all is out.
    fn flush_pieces(&mut self, address: Address) -> io::Result<bool> {
        let Some(connection) = self.connections.get_mut(address) else { return Ok(true) };
        let (Some(fd), Some(tls)) = (connection.output.fd(), &connection.tls) else { return Ok(true) };
        let mut session = tls.borrow_mut();
        let mut piece = Vec::new();
        loop {
            if session.waiting().is_empty() {
                let Some(queue) = connection.queue.as_mut().filter(|queue| !queue.is_empty()) else { return Ok(true) };
                piece.clear();
                queue.gather(&mut piece, PIECE_BYTES);
                session.seal(&piece, &mut self.sealed).map_err(io::Error::other)?;
                queue.consume(piece.len());
                self.metrics.queue_bytes.subtract(piece.len() as u64);
                session.keep(&self.sealed);
            }
            let sent = socket::send(fd, session.waiting())?;
            if sent > 0 {
                if let Some(queue) = connection.queue.as_mut() {
                    queue.note_progress();
                }
                self.metrics.sends.add(1);
                self.metrics.sent_bytes.add(sent as u64);
            }
            session.sent(sent);
            if !session.waiting().is_empty() {
                return Ok(false);
            }
        }
    }
}
