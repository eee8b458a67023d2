//! What a shard keeps of a connection, and the table of them.

use std::os::fd::RawFd;
use std::task::Waker;

use slab::Slab;

use super::session::LongPolling;
use crate::interest::Transports;
use crate::queue::{Queue, SlowClient};
use crate::tls::SharedSession;

/// Marks the end of a list of deliveries.
pub(super) const END: u32 = u32::MAX;

/// A slot of this shard's table and the generation that tells its tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Index in the table.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// Where a connection's bytes go.
#[derive(Debug)]
pub enum Output {
    /// A socket that still speaks HTTP: somebody else writes to it.
    Http,
    /// A WebSocket on this descriptor, which the connection's task owns.
    WebSocket(RawFd),
    /// An event stream on this descriptor; `chunked` for HTTP/1.1.
    EventStream {
        /// The descriptor.
        fd: RawFd,
        /// Each event is one chunk (RFC 9112 section 7.1).
        chunked: bool,
    },
    /// An event stream whose body hyper pulls.
    Pulled,
    /// A long-polling session; it has no socket of its own.
    Session(Box<LongPolling>),
}

impl Output {
    /// The transport as interest names it.
    #[must_use]
    pub fn transport(&self) -> Transports {
        match self {
            Self::Http => Transports::NONE,
            Self::WebSocket(_) => Transports::WS,
            Self::EventStream { .. } | Self::Pulled => Transports::SSE,
            Self::Session(_) => Transports::LONG_POLLING,
        }
    }

    /// The descriptor to send to, where there is one.
    #[must_use]
    pub fn fd(&self) -> Option<RawFd> {
        match self {
            Self::WebSocket(fd) | Self::EventStream { fd, .. } => Some(*fd),
            Self::Http | Self::Pulled | Self::Session(_) => None,
        }
    }
}

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// It lives.
    No,
    /// What waits is still sent, then the sending side is shut down.
    AfterFlush,
    /// It ends as it is.
    Now,
}

/// One connection. Kept small: there are many, most of them idle.
#[derive(Debug)]
pub struct Connection {
    /// Which tenant of the slot.
    pub generation: u32,
    /// First and last delivery of the batch at hand, see [`super::delivery`].
    pub(super) first: u32,
    pub(super) last: u32,
    /// The end of the connection.
    pub closing: Closing,
    /// What happens if it takes its output too slowly.
    pub slow: SlowClient,
    /// The socket took less than there was; its task waits for writability.
    pub blocked: bool,
    /// Its client asked for the cursor of each event (WebSocket, long polling).
    pub cursor: bool,
    /// It catches up and gets no live events yet, see [`super::replay`].
    pub(super) replaying: bool,
    /// The number of subscriptions that hold (for the gauge).
    pub subscriptions: u32,
    /// The request for subscriptions that counts; earlier ones are void.
    pub(super) ticket: u64,
    /// When the present phase is over, in milliseconds of [`crate::clock::now_ms`]; `u64::MAX` for never.
    pub deadline_ms: u64,
    /// Where the bytes go.
    pub output: Output,
    /// What waits to be sent.
    pub queue: Option<Box<Queue>>,
    /// Wakes the connection's task, or the body's.
    pub waker: Option<Waker>,
    /// Encrypts what goes to the socket; the connection's task has it too.
    pub tls: Option<SharedSession>,
}

impl Connection {
    /// The transport as interest names it.
    #[must_use]
    pub fn transport(&self) -> Transports {
        if self.cursor && matches!(self.output, Output::WebSocket(_)) {
            return Transports::WS_CURSOR;
        }
        self.output.transport()
    }

    /// Bytes that wait: plaintext in the queue, and what of it is encrypted already.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes()) + self.sealed_bytes()
    }

    /// Bytes that wait and are encrypted already.
    #[must_use]
    pub(super) fn sealed_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.borrow().counted)
    }

    /// Whether what is to be sent now must wait for something else.
    #[must_use]
    pub(super) fn is_waiting(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty()) || (self.blocked && self.tls.is_some())
    }

    /// Copies up to `limit_bytes` of what goes to the socket next to `out`.
    pub fn gather(&self, out: &mut Vec<u8>, limit_bytes: usize) {
        if let Some(tls) = &self.tls {
            let session = tls.borrow();
            let waiting = session.waiting();
            out.extend_from_slice(&waiting[..waiting.len().min(limit_bytes)]);
        } else if let Some(queue) = &self.queue {
            queue.gather(out, limit_bytes);
        }
    }

    /// Wakes the task.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Remembers the task to wake.
    pub fn remember(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// All connections of a shard.
#[derive(Debug, Default)]
pub struct Connections {
    slots: Slab<Connection>,
    next_generation: u32,
}

impl Connections {
    /// Adds a connection.
    pub fn insert(&mut self, output: Output, deadline_ms: u64) -> Address {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let slot = self.slots.insert(Connection {
            generation,
            first: END,
            last: END,
            closing: Closing::No,
            slow: SlowClient::Disconnect,
            blocked: false,
            cursor: false,
            replaying: false,
            subscriptions: 0,
            ticket: 0,
            deadline_ms,
            output,
            queue: None,
            waker: None,
            tls: None,
        });
        let slot = u32::try_from(slot).expect("invariant: a process has far fewer than 2^32 connections");
        Address { slot, generation }
    }

    /// The connection at this address, if that tenant still lives there.
    #[must_use]
    pub fn get(&self, address: Address) -> Option<&Connection> {
        self.slots.get(address.slot as usize).filter(|connection| connection.generation == address.generation)
    }

    /// As [`Self::get`], to change it.
    pub fn get_mut(&mut self, address: Address) -> Option<&mut Connection> {
        self.slots.get_mut(address.slot as usize).filter(|connection| connection.generation == address.generation)
    }

    /// Whoever lives in this slot.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)
    }

    /// Whoever lives in this slot.
    pub(super) fn at(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)
    }

    /// Takes the connection out.
    pub fn remove(&mut self, address: Address) -> Option<Connection> {
        self.get(address)?;
        Some(self.slots.remove(address.slot as usize))
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Address, &mut Connection)> {
        self.slots.iter_mut().map(|(slot, connection)| {
            let slot = u32::try_from(slot).expect("invariant: a process has far fewer than 2^32 connections");
            (Address { slot, generation: connection.generation }, connection)
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
