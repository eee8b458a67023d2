//! Who is let in: places of the node, connections of an address, connections in a minute; and what waits for all of a
//! shard's connections together.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Shard;
use super::connection::{Address, Closing, Output};
use crate::limits::places::{Held, Room};
use crate::rate::ConnectionRate;

/// Time that a client is asked to wait where it isn't known when there will be room, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The node holds as many as it may (`MAX_CONNECTIONS`).
    Full,
    /// The client's address holds as many as it may (`MAX_CONNECTIONS_PER_ADDRESS`).
    Address,
    /// Too many have come in this minute (`MAX_CONNECTIONS_PER_MINUTE`); the next one begins in so many seconds.
    Rate(u64),
}

impl Refused {
    /// Status code and reason phrase of the answer.
    #[must_use]
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Full => (503, "Service Unavailable"),
            Self::Address | Self::Rate(_) => (429, "Too Many Requests"),
        }
    }

    /// The answer's text, and the reason of a WebSocket's close frame.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Full => "This gateway holds as many connections as it may.",
            Self::Address => "Too many connections from this address.",
            Self::Rate(_) => "Reached maximum number of connections",
        }
    }

    /// Value of `retry-after`, in seconds.
    #[must_use]
    pub const fn retry_after_s(self) -> u64 {
        match self {
            Self::Full | Self::Address => RETRY_AFTER_S,
            Self::Rate(seconds) => seconds,
        }
    }

    /// The whole answer for a connection that has asked for nothing yet, or whose CORS lines are these.
    #[must_use]
    pub fn to_response(self, cors: &str) -> Vec<u8> {
        let ((status, phrase), reason, seconds) = (self.status(), self.reason(), self.retry_after_s());
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{cors}retry-after: {seconds}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{reason}",
            reason.len()
        )
        .into_bytes()
    }
}

/// What a shard knows of those it has let in.
#[derive(Debug)]
pub(super) struct Admission {
    rate: ConnectionRate,
    /// The connections that count for an address, by their slots; empty where addresses aren't counted.
    held: HashMap<u32, Held, ahash::RandomState>,
}

impl Admission {
    pub(super) fn new(max_per_minute: u32) -> Self {
        Self { rate: ConnectionRate::new(max_per_minute), held: HashMap::default() }
    }
}

impl Shard {
    /// Whether one more connection may be opened at `now_ms`; counts it in this minute if so. `client` is its address, where
    /// it doesn't count for that already.
    ///
    /// # Errors
    /// [`Refused`], counted.
    pub fn admit(&mut self, now_ms: u64, client: Option<IpAddr>) -> Result<(), Refused> {
        let refused = if client.is_some_and(|client| !self.settings.limits.places.has_room_for(client)) {
            Refused::Address
        } else if self.admission.rate.admit(now_ms) {
            return Ok(());
        } else {
            Refused::Rate(ConnectionRate::next_minute_s(now_ms))
        };
        self.refuse(refused);
        Err(refused)
    }

    /// As [`Self::admit`], for what takes a place of its own without being a socket: a session, a stream of HTTP/2.
    ///
    /// # Errors
    /// [`Refused`], counted.
    pub fn admit_detached(&mut self, now_ms: u64, client: Option<IpAddr>) -> Result<(), Refused> {
        if self.settings.limits.places.room() != Room::Free {
            self.refuse(Refused::Full);
            return Err(Refused::Full);
        }
        self.admit(now_ms, client)
    }

    /// Counts a connection that was refused.
    pub fn refuse(&self, refused: Refused) {
        let counter = match refused {
            Refused::Full => &self.metrics.connections_refused_full,
            Refused::Address => &self.metrics.connections_refused_address,
            Refused::Rate(_) => &self.metrics.connections_refused,
        };
        counter.add(1);
    }

    /// Lets the connection count for its client's address, until it goes.
    pub fn hold(&mut self, address: Address, client: IpAddr) {
        if let Some(held) = self.settings.limits.places.hold(client)
            && let Some(before) = self.admission.held.insert(address.slot, held)
        {
            self.settings.limits.places.release(before);
        }
    }

    /// Whether it does so already.
    #[must_use]
    pub fn is_held(&self, address: Address) -> bool {
        self.admission.held.contains_key(&address.slot)
    }

    /// A connection takes a place.
    pub(super) fn take_place(&self) {
        self.settings.limits.places.take();
    }

    /// A connection's place is free again.
    pub(super) fn leave_place(&mut self, address: Address) {
        self.settings.limits.places.give_back();
        if let Some(held) = self.admission.held.remove(&address.slot) {
            self.settings.limits.places.release(held);
        }
    }

    /// Bytes that wait for all clients together, and how many must not be passed when some of them go: seven eighths of the
    /// bound, since each look at all of them shall buy some time. `None` within the bound.
    fn too_much_waiting(&self) -> Option<u64> {
        let max_bytes = self.settings.limits.max_queued_bytes;
        let waiting = self.metrics.queue_bytes.get() + self.metrics.session_bytes.get();
        (waiting > max_bytes).then_some(max_bytes - max_bytes / 8)
    }

    /// Ends the slowest connections, those with most waiting, where the shard has more waiting than it may and most of it in
    /// their queues.
    pub(super) fn shed(&mut self) {
        let Some(target_bytes) = self.too_much_waiting() else { return };
        let stored_bytes = self.metrics.session_bytes.get();
        if self.metrics.queue_bytes.get() < stored_bytes {
            return;
        }
        let waiting = |connection: &super::connection::Connection| connection.queued_bytes() as u64;
        let mut slow: Vec<_> = self
            .connections
            .iter_mut()
            .filter(|(_, connection)| connection.closing != Closing::Now && connection.queued_bytes() > 0)
            .map(|(address, connection)| (Reverse(waiting(connection)), address.slot))
            .collect();
        slow.sort_unstable();
        for (_, slot) in slow {
            if self.metrics.queue_bytes.get() + stored_bytes <= target_bytes {
                return;
            }
            self.cut(slot);
            self.metrics.connections_shed.add(1);
        }
    }

    /// The same for long-polling sessions, those first whose clients have not called for longest. Not within a batch, whose
    /// events would stay.
    pub(super) fn shed_sessions(&mut self) {
        let Some(target_bytes) = self.too_much_waiting() else { return };
        let queued_bytes = self.metrics.queue_bytes.get();
        let mut sessions: Vec<_> = self
            .connections
            .iter_mut()
            .filter_map(|(address, connection)| match &connection.output {
                Output::Session(session) => Some((session.last_call_ms(), address.slot, address.generation)),
                _ => None,
            })
            .collect();
        sessions.sort_unstable();
        for (_, slot, generation) in sessions {
            let stored_bytes = self.metrics.session_bytes.get();
            if stored_bytes + queued_bytes <= target_bytes || stored_bytes < queued_bytes {
                return;
            }
            self.remove(Address { slot, generation });
            self.metrics.connections_shed.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let answer = |refused: Refused| String::from_utf8(refused.to_response("x: y\r\n")).unwrap();
        let full = answer(Refused::Full);
        assert!(full.starts_with("HTTP/1.1 503 Service Unavailable\r\nx: y\r\nretry-after: 5\r\n"), "{full}");
        let rate = answer(Refused::Rate(17));
        assert!(
            rate.starts_with("HTTP/1.1 429 Too Many Requests\r\n") && rate.contains("retry-after: 17\r\n"),
            "{rate}"
        );
        assert!(rate.ends_with("\r\n\r\nReached maximum number of connections"), "{rate}");
    }
}
