//! The bundled backend: answers every call of the load generator at once, or after a fixed delay, with the payload that
//! belongs to its number. One thread, one epoll queue.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::calls::number::{CallNumber, HEADER, Payload};
use crate::clock::Clock;
use crate::error::LoadError;
use crate::sys::{Epoll, Interest, PinnedToCpu, ReadyList};
use crate::wire::http::{field, whole_body};
use crate::wire::request::{RequestHead, parse_request};
use crate::wire::{MAX_MESSAGE_BYTES, WireError};

const LISTENER: u64 = u64::MAX;
const EVENTS_PER_WAIT: usize = 1_024;
const READ_BUFFER_BYTES: usize = 256 << 10;
/// The flag that ends it is looked at this often.
const WAIT: Duration = Duration::from_millis(50);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How the backend answers.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// Size of each answer's body; at least what the number takes (21).
    pub answer_bytes: usize,
    /// Each answer leaves so long after its request, in milliseconds.
    pub delay_ms: u64,
    /// CPU that its thread is bound to.
    pub cpu: Option<usize>,
}

/// A backend that listens.
#[derive(Debug)]
pub struct Backend {
    listener: TcpListener,
    options: BackendOptions,
}

impl Backend {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken, or not this machine's.
    pub fn bind(options: BackendOptions) -> Result<Self, LoadError> {
        let failed = |source| LoadError::System { what: format!("listening on {}", options.listen), source };
        let listener = TcpListener::bind(options.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, options })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system has lost the socket.
    pub fn address(&self) -> Result<SocketAddr, LoadError> {
        self.listener.local_addr().map_err(LoadError::system("getsockname"))
    }

    /// Answers until `stop` is set. A connection that speaks no HTTP is closed and ends nothing else.
    ///
    /// # Errors
    /// The system refused the queue of events, or the CPU.
    pub fn run(self, stop: &AtomicBool) -> Result<(), LoadError> {
        let pin = |cpu| PinnedToCpu::pin(cpu).map_err(LoadError::system(format!("binding to CPU {cpu}")));
        let _pinned = self.options.cpu.map(pin).transpose()?;
        let epoll = Epoll::new().map_err(LoadError::system("epoll_create1"))?;
        let read = Interest { read: true, write: false };
        epoll.add(self.listener.as_raw_fd(), LISTENER, read).map_err(LoadError::system("epoll_ctl"))?;
        let mut server = Server {
            listener: self.listener,
            options: self.options,
            epoll,
            clock: Clock::start(),
            connections: Vec::new(),
            free: Vec::new(),
            accepted: 0,
            buffer: vec![0; READ_BUFFER_BYTES],
            scratch: Vec::new(),
            delayed: VecDeque::new(),
        };
        let mut list = ReadyList::with_capacity(EVENTS_PER_WAIT);
        while !stop.load(Relaxed) {
            let wait = server.time_to_next();
            let count = server.epoll.wait(&mut list, wait).map_err(LoadError::system("epoll_wait"))?;
            for ready in (0..count).filter_map(|at| list.get(at)) {
                match ready.token {
                    LISTENER => server.accept(),
                    token => server.serve(token as usize, ready.readable, ready.writable),
                }
            }
            server.release();
        }
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    /// Tells it from the one that had its slot before.
    serial: u64,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    waits_to_write: bool,
    /// Closed once everything has been sent.
    ends: bool,
}

/// Bytes that leave later.
struct Delayed {
    due_ns: u64,
    slot: usize,
    serial: u64,
    bytes: Vec<u8>,
    ends: bool,
}

struct Server {
    listener: TcpListener,
    options: BackendOptions,
    epoll: Epoll,
    clock: Clock,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    accepted: u64,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// In the order in which they are due, as the delay is the same for all.
    delayed: VecDeque<Delayed>,
}

impl Server {
    fn accept(&mut self) {
        // What can't be accepted now makes the listener ready again.
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                continue;
            }
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            if self.epoll.add(stream.as_raw_fd(), slot as u64, Interest { read: true, write: false }).is_err() {
                self.free.push(slot);
                continue;
            }
            self.accepted += 1;
            let (inbox, outbox) = (Vec::new(), Vec::new());
            let serial = self.accepted;
            self.connections[slot] =
                Some(Connection { stream, serial, inbox, outbox, waits_to_write: false, ends: false });
        }
    }

    fn serve(&mut self, slot: usize, readable: bool, writable: bool) {
        if writable {
            self.write(slot);
        }
        if readable && self.read(slot).is_err() {
            self.close(slot);
        }
    }

    /// One read, and the answers to all requests that are whole then.
    fn read(&mut self, slot: usize) -> Result<(), WireError> {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let new = match (&connection.stream).read(&mut self.buffer) {
            Ok(0) => return Err(WireError::Head),
            Ok(new) => new,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(_) => return Err(WireError::Head),
        };
        if connection.ends {
            return Ok(());
        }
        connection.inbox.extend_from_slice(&self.buffer[..new]);
        let (mut used, mut answers, mut ends) = (0, Vec::new(), false);
        while !ends && let Some(head) = parse_request(&connection.inbox[used..])? {
            let behind = &connection.inbox[used + head.head_bytes..];
            let Some((body, body_bytes)) = whole_body(head.framing, behind, false, &mut self.scratch)? else {
                if head.expects_continue && behind.is_empty() {
                    connection.outbox.extend_from_slice(CONTINUE);
                }
                break;
            };
            let request = &connection.inbox[used..used + head.head_bytes];
            answer(request, head, body, self.options.answer_bytes, &mut answers);
            ends = head.close;
            used += head.head_bytes + body_bytes;
        }
        connection.inbox.drain(..used);
        if connection.inbox.len() > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLarge);
        }
        if self.options.delay_ms > 0 && !answers.is_empty() {
            let due_ns = self.clock.now_ns() + self.options.delay_ms * 1_000_000;
            self.delayed.push_back(Delayed { due_ns, slot, serial: connection.serial, bytes: answers, ends });
        } else if connection.outbox.is_empty() {
            (connection.outbox, connection.ends) = (answers, ends);
        } else {
            connection.outbox.extend_from_slice(&answers);
            connection.ends = ends;
        }
        self.write(slot);
        Ok(())
    }

    fn write(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        while !connection.outbox.is_empty() {
            match (&connection.stream).write(&connection.outbox) {
                Ok(sent) if sent == connection.outbox.len() => connection.outbox.clear(),
                Ok(sent) => drop(connection.outbox.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.close(slot),
            }
        }
        let waits = !connection.outbox.is_empty();
        if connection.ends && !waits {
            return self.close(slot);
        }
        if waits != connection.waits_to_write {
            connection.waits_to_write = waits;
            let interest = Interest { read: !waits, write: waits };
            if self.epoll.change(connection.stream.as_raw_fd(), slot as u64, interest).is_err() {
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: usize) {
        if self.connections.get_mut(slot).and_then(Option::take).is_some() {
            self.free.push(slot);
        }
    }

    fn time_to_next(&self) -> Duration {
        let Some(next) = self.delayed.front() else { return WAIT };
        // Rounded up: epoll counts whole milliseconds, and an answer never leaves early.
        let wait_ms = next.due_ns.saturating_sub(self.clock.now_ns()).div_ceil(1_000_000);
        Duration::from_millis(wait_ms).min(WAIT)
    }

    /// Sends what has waited long enough.
    fn release(&mut self) {
        let now_ns = self.clock.now_ns();
        while let Some(delayed) = self.delayed.pop_front_if(|delayed| delayed.due_ns <= now_ns) {
            let connection = self.connections.get_mut(delayed.slot).and_then(Option::as_mut);
            if let Some(connection) = connection.filter(|connection| connection.serial == delayed.serial) {
                connection.outbox.extend_from_slice(&delayed.bytes);
                connection.ends |= delayed.ends;
                self.write(delayed.slot);
            }
        }
    }
}

/// Appends the answer to one request: its own payload, or 400 where head and body don't belong together.
fn answer(request: &[u8], head: RequestHead, body: &[u8], answer_bytes: usize, out: &mut Vec<u8>) {
    let number = field(request, HEADER).and_then(CallNumber::at_front);
    let refusal = match number {
        None => Some("The header x-load-number is missing.\n"),
        Some(number) if !body.is_empty() && Payload::of(body, number) != Payload::Own => {
            Some("The body does not belong to the head.\n")
        }
        Some(_) => None,
    };
    let close = if head.close { "connection: close\r\n" } else { "" };
    if let Some(reason) = refusal {
        let length = reason.len();
        append(out, &format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\n{close}\r\n"));
        if !head.is_head {
            append(out, reason);
        }
    } else if let Some(number) = number {
        let length = answer_bytes.max(crate::calls::number::NUMBER_BYTES);
        append(out, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ");
        append(out, &length.to_string());
        append(out, "\r\nx-load-number: ");
        number.append_text(out);
        append(out, "\r\n");
        append(out, close);
        append(out, "\r\n");
        if !head.is_head {
            number.append_payload(answer_bytes, out);
        }
    }
}

fn append(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "00000001-000000000003";

    fn answer_to(request: &str) -> String {
        let head = parse_request(request.as_bytes()).unwrap().unwrap();
        let mut out = Vec::new();
        answer(&request.as_bytes()[..head.head_bytes], head, &request.as_bytes()[head.head_bytes..], 24, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_number_comes_back_in_the_head_and_at_the_front_of_the_body() {
        let text = answer_to(&format!("GET / HTTP/1.1\r\nx-load-number: {NUMBER}\r\n\r\n"));
        assert!(text.contains(&format!("\r\nx-load-number: {NUMBER}\r\n")) && text.contains("content-length: 24\r\n"));
        assert!(text.ends_with(&format!("\r\n\r\n{NUMBER}ddd")), "{text}");
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let text = answer_to(&format!("HEAD / HTTP/1.0\r\nx-load-number: {NUMBER}\r\n\r\n"));
        assert!(text.contains("content-length: 24\r\n") && text.ends_with("connection: close\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_body_of_another_call_and_a_call_without_number_are_refused() {
        let mixed = answer_to(&format!(
            "POST / HTTP/1.1\r\nx-load-number: {NUMBER}\r\ncontent-length: 21\r\n\r\n00000001-000000000004"
        ));
        assert!(mixed.starts_with("HTTP/1.1 400 ") && mixed.contains("does not belong"), "{mixed}");
        assert!(answer_to("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }
}
