//! Calls over HTTP: all connections on one epoll queue, at most one call under way on each.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::ledger::{Ledger, UnderWay};
use super::number::{CallNumber, HEADER, Payload};
use super::report::CallSecond;
use super::scenario::{CallLoad, HttpCalls};
use super::template::CallTemplate;
use super::{Phases, Samples};
use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::schedule::Schedule;
use crate::sys::{self, Epoll, Interest, ReadyList, Timer};
use crate::wire::http::{Framing, field, parse_head, whole_body};
use crate::wire::{MAX_MESSAGE_BYTES, WireError};

const READ_BUFFER_BYTES: usize = 256 << 10;
const EVENTS_PER_WAIT: usize = 1_024;
const WAIT: Duration = Duration::from_millis(20);
/// Calls that take too long are looked for this often.
const SWEEP_NS: u64 = 50_000_000;
/// A connection that was lost is opened again after this.
const REOPEN_NS: u64 = 10_000_000;
/// Token of the timer; connections have smaller ones.
const TIMER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    /// Bytes of an answer that is not yet whole.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    waits_to_write: bool,
    call: Option<UnderWay>,
}

/// What is done with a connection after its bytes were looked at.
#[derive(Debug, PartialEq)]
enum Next {
    Keep,
    Reopen,
}

pub(super) struct HttpCaller {
    template: CallTemplate,
    address: SocketAddr,
    /// Answers have no body.
    is_head: bool,
    schedule: Option<Schedule>,
    /// Calls of a closed loop.
    total: u64,
    phases: Phases,
    ledger: Ledger,
    clock: Clock,
    epoll: Epoll,
    timer: Timer,
    connections: Vec<Option<Connection>>,
    idle: Vec<u32>,
    /// Connections to open again, and when.
    cooling: VecDeque<(u64, u32)>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    swept_ns: u64,
}

impl HttpCaller {
    #[expect(clippy::too_many_arguments, reason = "each is one part of a run, made in one place")]
    pub(super) fn new(
        template: CallTemplate,
        endpoint: &Endpoint,
        calls: &HttpCalls,
        load: &CallLoad,
        schedule: Option<Schedule>,
        phases: Phases,
        ledger: Ledger,
        clock: Clock,
    ) -> Result<Self, LoadError> {
        let epoll = Epoll::new().map_err(LoadError::system("epoll_create1"))?;
        let timer = Timer::new().map_err(LoadError::system("timerfd_create"))?;
        epoll
            .add(timer.as_raw_fd(), TIMER, Interest { read: true, write: false })
            .map_err(LoadError::system("epoll_ctl"))?;
        Ok(Self {
            template,
            address: endpoint.address,
            is_head: calls.method == "HEAD",
            schedule,
            total: load.total.unwrap_or(u64::MAX),
            phases,
            ledger,
            clock,
            epoll,
            timer,
            connections: (0..load.concurrency).map(|_| None).collect(),
            idle: Vec::with_capacity(load.concurrency as usize),
            cooling: (0..load.concurrency).map(|index| (0, index)).collect(),
            buffer: vec![0; READ_BUFFER_BYTES],
            scratch: Vec::new(),
            swept_ns: 0,
        })
    }

    /// Runs until every call has its answer or has been given up.
    pub(super) fn run(
        mut self,
        samples: &mut Samples<'_>,
        progress: &mut dyn FnMut(&CallSecond),
    ) -> Result<Ledger, LoadError> {
        let mut list = ReadyList::with_capacity(EVENTS_PER_WAIT);
        let mut phases = self.phases;
        // Calls that the schedule wants may leave late, but not for ever.
        let last_ns = phases.measured_until_ns.saturating_add(phases.answer_timeout_ns);
        loop {
            let now_ns = self.clock.now_ns();
            if self.schedule.is_none() && self.ledger.counts.issued >= self.total && self.ledger.in_flight == 0 {
                phases.measured_until_ns = phases.measured_until_ns.min(now_ns);
                self.ledger.end_measuring(now_ns);
            }
            samples.take(now_ns, phases)?;
            self.reopen(now_ns);
            let all_left = self.dispatch(now_ns, last_ns)?;
            if all_left && self.ledger.in_flight == 0 && now_ns >= phases.measured_until_ns {
                break;
            }
            let count = self.epoll.wait(&mut list, WAIT).map_err(LoadError::system("epoll_wait"))?;
            for ready in (0..count).filter_map(|at| list.get(at)).filter(|ready| ready.token != TIMER) {
                let index = ready.token as u32;
                if ready.writable {
                    self.write(index);
                }
                if ready.readable {
                    self.read(index);
                }
            }
            self.sweep();
            if let Some(second) = self.ledger.end_second(self.clock.now_ns(), false) {
                progress(second);
            }
        }
        if let Some(schedule) = &self.schedule {
            self.ledger.counts.unsent = schedule.total() - self.ledger.counts.issued;
        }
        self.ledger.end_second(self.clock.now_ns(), true);
        Ok(self.ledger)
    }

    /// Sends the calls that are due, as far as connections are free. True when no further one will leave.
    fn dispatch(&mut self, now_ns: u64, last_ns: u64) -> Result<bool, LoadError> {
        let Some(schedule) = self.schedule else {
            let total = self.total;
            let until_ns = self.phases.measured_until_ns;
            let is_over = |ledger: &Ledger| now_ns >= until_ns || ledger.counts.issued >= total;
            while !is_over(&self.ledger)
                && let Some(index) = self.idle.pop()
            {
                self.send(index, now_ns);
            }
            return Ok(is_over(&self.ledger));
        };
        let due = schedule.due(now_ns);
        while self.ledger.counts.issued < due && now_ns < last_ns {
            let Some(index) = self.idle.pop() else { break };
            self.send(index, schedule.intended_ns(self.ledger.counts.issued));
        }
        let next = self.ledger.counts.issued;
        if next < schedule.total() && next >= due {
            let wait_ns = schedule.intended_ns(next).saturating_sub(self.clock.now_ns());
            self.timer.set(Duration::from_nanos(wait_ns)).map_err(LoadError::system("timerfd_settime"))?;
        }
        Ok(next >= schedule.total() || now_ns >= last_ns)
    }

    fn send(&mut self, index: u32, intended_ns: u64) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        let call = self.ledger.issue(intended_ns, self.clock.now_ns());
        self.template.append(self.ledger.named(call.number), &mut connection.outbox);
        connection.call = Some(call);
        self.write(index);
    }

    /// Opens what is to be opened by now.
    fn reopen(&mut self, now_ns: u64) {
        while let Some((_, index)) = self.cooling.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            let opened = sys::connect(self.address, None, None).and_then(|stream| {
                self.epoll.add(stream.as_raw_fd(), u64::from(index), Interest { read: true, write: false })?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => {
                    let (inbox, outbox) = (Vec::new(), Vec::new());
                    let connection = Connection { stream, inbox, outbox, waits_to_write: false, call: None };
                    self.connections[index as usize] = Some(connection);
                    self.idle.push(index);
                }
                Err(error) => {
                    self.ledger.note(|| format!("connecting: {error}"));
                    self.cooling.push_back((now_ns + REOPEN_NS, index));
                }
            }
        }
    }

    /// Ends the connection; a call on it is missing. It is opened again, later if something was wrong with it.
    fn lose(&mut self, index: u32, delay_ns: u64, reason: impl FnOnce() -> String) {
        let Some(connection) = self.connections[index as usize].take() else { return };
        match connection.call {
            Some(call) => self.ledger.missing(call, reason),
            None => self.idle.retain(|idle| *idle != index),
        }
        self.ledger.counts.reconnected += 1;
        self.cooling.push_back((self.clock.now_ns() + delay_ns, index));
    }

    /// Sends what waits; a socket that is not yet connected, or full, is waited for.
    fn write(&mut self, index: u32) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        while !connection.outbox.is_empty() {
            match (&connection.stream).write(&connection.outbox) {
                Ok(sent) if sent == connection.outbox.len() => connection.outbox.clear(),
                Ok(sent) => drop(connection.outbox.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                // What the server said before it closed is read first.
                Err(_) => connection.outbox.clear(),
            }
        }
        let waits = !connection.outbox.is_empty();
        if waits != connection.waits_to_write {
            connection.waits_to_write = waits;
            let interest = Interest { read: true, write: waits };
            if let Err(error) = self.epoll.change(connection.stream.as_raw_fd(), u64::from(index), interest) {
                self.lose(index, REOPEN_NS, || format!("epoll_ctl: {error}"));
            }
        }
    }

    /// One read, and everything that follows from its bytes. More bytes make the socket ready again.
    fn read(&mut self, index: u32) {
        let Self { connections, buffer, ledger, scratch, idle, clock, .. } = self;
        let Some(connection) = connections[index as usize].as_mut() else { return };
        let (new, closed) = match (&connection.stream).read(buffer) {
            Ok(0) => (0, true),
            Ok(new) => (new, false),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => return self.lose(index, REOPEN_NS, || format!("reading: {error}")),
        };
        let now_ns = clock.now_ns();
        let mut bytes = std::mem::take(&mut connection.inbox);
        let is_whole_in_buffer = bytes.is_empty();
        if !is_whole_in_buffer {
            bytes.extend_from_slice(&buffer[..new]);
        }
        let arrived: &[u8] = if is_whole_in_buffer { &buffer[..new] } else { &bytes };
        let reading = Reading { is_head: self.is_head, closed, now_ns };
        match absorb(arrived, reading, connection, ledger, scratch) {
            Ok((used, had_call, next)) => {
                let left = arrived.len() - used;
                if left > MAX_MESSAGE_BYTES {
                    return self.lose(index, REOPEN_NS, || WireError::TooLarge.to_string());
                }
                if is_whole_in_buffer {
                    bytes.extend_from_slice(&buffer[used..new]);
                } else {
                    bytes.drain(..used);
                }
                connection.inbox = bytes;
                if had_call && connection.call.is_none() {
                    idle.push(index);
                }
                if next == Next::Reopen || closed {
                    self.lose(index, 0, || "the connection ended before the answer".to_owned());
                }
            }
            Err(error) => {
                // The call may have been answered before the bytes that no client can read.
                if connection.call.is_none() && !idle.contains(&index) {
                    idle.push(index);
                }
                self.lose(index, REOPEN_NS, || format!("unreadable answer: {error}"));
            }
        }
    }

    /// Gives up calls that take too long.
    fn sweep(&mut self) {
        let now_ns = self.clock.now_ns();
        if now_ns - self.swept_ns < SWEEP_NS {
            return;
        }
        self.swept_ns = now_ns;
        let timeout_ns = self.phases.answer_timeout_ns;
        let is_late = |connection: &Option<Connection>| {
            let call = connection.as_ref().and_then(|connection| connection.call);
            call.is_some_and(|call| now_ns.saturating_sub(call.sent_ns) >= timeout_ns)
        };
        let late: Vec<usize> = (0..self.connections.len()).filter(|&at| is_late(&self.connections[at])).collect();
        for index in late {
            self.lose(index as u32, 0, || format!("no answer within {:.1} s", timeout_ns as f64 / 1e9));
        }
    }
}

/// The circumstances of a look at arrived bytes.
#[derive(Clone, Copy)]
struct Reading {
    is_head: bool,
    closed: bool,
    now_ns: u64,
}

/// Takes whole answers from `bytes`: how many bytes were used, whether a call was under way, and what comes next.
fn absorb(
    bytes: &[u8],
    reading: Reading,
    connection: &mut Connection,
    ledger: &mut Ledger,
    scratch: &mut Vec<u8>,
) -> Result<(usize, bool, Next), WireError> {
    let (mut used, had_call) = (0, connection.call.is_some());
    while used < bytes.len() {
        let rest = &bytes[used..];
        let Some(head) = parse_head(rest)? else { break };
        if head.status == 101 {
            return Err(WireError::Head);
        }
        if head.status < 200 {
            used += head.head_bytes;
            continue;
        }
        let framing = if reading.is_head { Framing::Length(0) } else { head.framing };
        let Some((body, body_bytes)) = whole_body(framing, &rest[head.head_bytes..], reading.closed, scratch)? else {
            break;
        };
        used += head.head_bytes + body_bytes;
        let Some(call) = connection.call.take() else {
            ledger.unasked();
            return Ok((used, had_call, Next::Reopen));
        };
        let named = ledger.named(call.number);
        let payload = if reading.is_head { in_head(&rest[..head.head_bytes], named) } else { Payload::of(body, named) };
        ledger.answered(call, head.status, payload, reading.now_ns);
        // What has not been sent of a request that is answered already would be taken for the next one.
        if head.close || framing == Framing::UntilClose || !connection.outbox.is_empty() {
            return Ok((used, had_call, Next::Reopen));
        }
    }
    Ok((used, had_call, Next::Keep))
}

/// Whose answer it is by its header, where there is no body.
fn in_head(head: &[u8], expected: CallNumber) -> Payload {
    match field(head, HEADER).and_then(CallNumber::at_front) {
        Some(found) if found == expected => Payload::Own,
        Some(found) => Payload::Foreign(found),
        None => Payload::Broken,
    }
}
