//! The receiving thread: all clients' sockets on one epoll queue, one large read buffer for all.

use std::io::{ErrorKind, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::audit::SequenceAudit;
use crate::client::{Arrived, Next, Protocol};
use crate::clock::Clock;
use crate::endpoint::Opening;
use crate::error::LoadError;
use crate::latency;
use crate::report::Second;
use crate::socket::{Socket, TlsClients};
use crate::sys::{self, Epoll, Interest, ReadyList};
use crate::tally::{Counts, Progress, Tally};
use crate::wire::MAX_MESSAGE_BYTES;

const READ_BUFFER_BYTES: usize = 256 << 10;
const SMALLEST_READ_BYTES: usize = 64 << 10;
const EVENTS_PER_WAIT: usize = 1_024;
/// Receive buffer of clients that will stop reading: small, so that they soon press back on the server.
const SLOW_RECEIVE_BUFFER_BYTES: usize = 32 << 10;
const WAIT: Duration = Duration::from_millis(20);
const SECOND_NS: u64 = 1_000_000_000;

/// What the receiving thread and the others tell each other.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) ready: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) closed_by_server: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) probes: AtomicU64,
    pub(crate) last_delivery_ns: AtomicU64,
    pub(crate) measured_from_ns: AtomicU64,
    pub(crate) slow_clients_stop: AtomicBool,
    pub(crate) stop: AtomicBool,
    pub(crate) first_failure: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn note_failure(&self, reason: impl FnOnce() -> String) {
        if let Ok(mut first) = self.first_failure.lock() {
            first.get_or_insert_with(reason);
        }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.first_failure.lock().ok().and_then(|first| first.clone())
    }
}

/// What the receiving thread has to do.
pub(crate) struct ReceiverPlan {
    pub(crate) opening: Opening,
    pub(crate) ready_marker: String,
    pub(crate) run: u32,
    /// Every client has a stream of its own.
    pub(crate) keyed: bool,
    /// Connections in all.
    pub(crate) total: u64,
    /// Connections at the same time.
    pub(crate) concurrency: u32,
    /// Connections that are being opened at the same time.
    pub(crate) opening_limit: u32,
    /// Leave as soon as the subscription is confirmed; the time until then is the latency.
    pub(crate) leave_when_ready: bool,
    /// Leave by reset.
    pub(crate) reset: bool,
    /// The first clients, so many, stop reading when told.
    pub(crate) slow: u32,
    /// Loopback addresses to connect from; empty: the system chooses.
    pub(crate) sources: Vec<Ipv4Addr>,
}

/// What the receiving thread has seen.
pub(crate) struct Received {
    /// Stream and audit of every client that has been reading all the time.
    pub(crate) audits: Vec<(u32, SequenceAudit)>,
    /// Latency before and after the slow clients stopped.
    pub(crate) latency: [Histogram<u64>; 2],
    pub(crate) counts: Counts,
    pub(crate) series: Vec<Second>,
    /// Slow clients whose connection the server has ended.
    pub(crate) slow_disconnected: u64,
}

struct Client {
    socket: Socket,
    protocol: Protocol,
    left_over: Vec<u8>,
    outgoing: Vec<u8>,
    waits_to_write: bool,
    progress: Progress,
    opened_ns: u64,
}

pub(crate) struct Receiver<'a> {
    plan: ReceiverPlan,
    shared: &'a Shared,
    tls: Option<TlsClients>,
    clock: Clock,
    epoll: Epoll,
    clients: Vec<Option<Client>>,
    free: Vec<u32>,
    opened: u64,
    pending: u32,
    open: u32,
    buffer: Vec<u8>,
    tally: Tally,
    totals: [Histogram<u64>; 2],
    slow_stopped: bool,
    slow_disconnected: u64,
    series: Vec<Second>,
    second_from_ns: u64,
    second_deliveries: u64,
    progress: mpsc::Sender<Second>,
    audits: Vec<(u32, SequenceAudit)>,
}

impl<'a> Receiver<'a> {
    pub(crate) fn new(
        plan: ReceiverPlan,
        shared: &'a Shared,
        clock: Clock,
        progress: mpsc::Sender<Second>,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            epoll: Epoll::new().map_err(LoadError::system("epoll_create1"))?,
            clients: (0..plan.concurrency).map(|_| None).collect(),
            free: (0..plan.concurrency).rev().collect(),
            opened: 0,
            pending: 0,
            open: 0,
            buffer: vec![0; READ_BUFFER_BYTES],
            tally: Tally::new(plan.run, &plan.ready_marker),
            totals: [latency::histogram(), latency::histogram()],
            slow_stopped: false,
            slow_disconnected: 0,
            series: Vec::new(),
            second_from_ns: clock.now_ns(),
            second_deliveries: 0,
            progress,
            audits: Vec::new(),
            tls: plan.opening.tls()?,
            plan,
            shared,
            clock,
        })
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) -> Result<Received, LoadError> {
        let mut list = ReadyList::with_capacity(EVENTS_PER_WAIT);
        while !self.shared.stop.load(Relaxed) {
            self.open_more();
            let count = self.epoll.wait(&mut list, WAIT).map_err(LoadError::system("epoll_wait"))?;
            self.tally.measured_from_ns = self.shared.measured_from_ns.load(Relaxed);
            for ready in (0..count).filter_map(|at| list.get(at)) {
                let index = ready.token as u32;
                if ready.writable {
                    self.write(index);
                }
                if ready.readable {
                    self.read(index);
                }
            }
            self.publish_counts();
            if !self.slow_stopped && self.shared.slow_clients_stop.load(Relaxed) {
                self.stop_slow_clients();
            }
            if self.clock.now_ns() - self.second_from_ns >= SECOND_NS {
                self.end_second();
            }
        }
        self.end_second();
        if self.slow_stopped {
            self.count_ended_slow_clients();
        }
        for client in std::mem::take(&mut self.clients).into_iter().flatten() {
            self.keep_audit(client.progress);
        }
        Ok(Received {
            audits: self.audits,
            latency: self.totals,
            counts: self.tally.counts,
            series: self.series,
            slow_disconnected: self.slow_disconnected,
        })
    }

    fn open_more(&mut self) {
        while self.opened < self.plan.total && self.pending < self.plan.opening_limit {
            let Some(index) = self.free.pop() else { break };
            self.opened += 1;
            self.open += 1;
            self.pending += 1;
            let stream = if self.plan.keyed { index } else { 0 };
            let progress = Progress { audited: index >= self.plan.slow, ..Progress::new(stream) };
            self.start(index, Protocol::new(), progress);
        }
    }

    /// Opens a connection for client `index` and sends its request.
    fn start(&mut self, index: u32, protocol: Protocol, progress: Progress) {
        let opened_ns = self.clock.now_ns();
        let source =
            (!self.plan.sources.is_empty()).then(|| self.plan.sources[self.opened as usize % self.plan.sources.len()]);
        let address = self.plan.opening.address();
        let receive_buffer_bytes = (index < self.plan.slow).then_some(SLOW_RECEIVE_BUFFER_BYTES);
        let stream = match sys::connect(address, source, receive_buffer_bytes) {
            Ok(stream) => stream,
            Err(error) => return self.lost(index, progress, || format!("connecting to {address}: {error}")),
        };
        let interest = Interest { read: true, write: false };
        if let Err(error) = self.epoll.add(stream.as_raw_fd(), u64::from(index), interest) {
            return self.lost(index, progress, || format!("epoll_ctl: {error}"));
        }
        let socket = match &self.tls {
            None => Socket::Plain(stream),
            Some(tls) => match tls.wrap(stream) {
                Ok(socket) => socket,
                Err(error) => return self.lost(index, progress, || format!("TLS: {error}")),
            },
        };
        let mut outgoing = Vec::new();
        protocol.request(&self.plan.opening, index, &mut outgoing);
        let (left_over, waits_to_write) = (Vec::new(), false);
        self.clients[index as usize] =
            Some(Client { socket, protocol, left_over, outgoing, waits_to_write, progress, opened_ns });
        self.write(index);
    }

    /// Sends what waits; a socket that is not yet connected, or full, is waited for.
    fn write(&mut self, index: u32) {
        let Some(client) = self.clients[index as usize].as_mut() else { return };
        while !client.outgoing.is_empty() {
            match client.socket.write(&client.outgoing) {
                // TLS has no more room; it goes on when the socket has.
                Ok(0) => break,
                Ok(sent) => drop(client.outgoing.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return self.end(index, || format!("sending: {error}")),
            }
        }
        if client.outgoing.is_empty() {
            client.outgoing = Vec::new();
        }
        if let Err(error) = client.socket.flush() {
            return self.end(index, || format!("sending: {error}"));
        }
        let waits = !client.outgoing.is_empty() || client.socket.wants_write();
        if waits != client.waits_to_write {
            client.waits_to_write = waits;
            let interest = Interest { read: true, write: waits };
            if let Err(error) = self.epoll.change(client.socket.tcp().as_raw_fd(), u64::from(index), interest) {
                self.end(index, || format!("epoll_ctl: {error}"));
            }
        }
    }

    /// One read, and everything that follows from its bytes. More bytes make the socket ready again.
    fn read(&mut self, index: u32) {
        if self.slow_stopped && index < self.plan.slow {
            return self.end(index, || "the server ended a slow client".to_owned());
        }
        let Self { clients, buffer, tally, plan, clock, .. } = self;
        let Some(client) = clients[index as usize].as_mut() else { return };
        let kept = client.left_over.len();
        if kept + SMALLEST_READ_BYTES > buffer.len() {
            if kept > MAX_MESSAGE_BYTES + SMALLEST_READ_BYTES {
                return self.end(index, || "a message is larger than 16 MiB".to_owned());
            }
            buffer.resize((kept + SMALLEST_READ_BYTES).next_power_of_two(), 0);
        }
        buffer[..kept].copy_from_slice(&client.left_over);
        let (new, closed) = match client.socket.read(&mut buffer[kept..]) {
            Ok(0) => (0, true),
            Ok(new) => (new, false),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if client.socket.wants_write() && !client.waits_to_write {
                    self.write(index);
                }
                return;
            }
            Err(error) => return self.end(index, || format!("reading: {error}")),
        };
        let now_ns = clock.now_ns();
        let was_ready = client.progress.ready;
        let arrived = Arrived { bytes: &mut buffer[..kept + new], left_over: kept, closed };
        let (protocol, progress, outgoing) = (&mut client.protocol, &mut client.progress, &mut client.outgoing);
        let absorbed = protocol.absorb(arrived, &plan.opening, index, outgoing, |payload| {
            tally.message(progress, payload, now_ns);
        });
        let has_output = (!client.outgoing.is_empty() || client.socket.wants_write()) && !client.waits_to_write;
        let became_ready = !was_ready && client.progress.ready;
        match absorbed {
            Ok((rest, next)) => {
                if kept > 0 || !rest.is_empty() {
                    client.left_over.clear();
                    client.left_over.extend_from_slice(&buffer[rest]);
                    if client.left_over.is_empty() {
                        client.left_over = Vec::new();
                    }
                }
                if became_ready && self.became_ready(index, now_ns) {
                    return;
                }
                if next == Next::Reconnect {
                    self.reconnect(index);
                } else if has_output {
                    self.write(index);
                }
            }
            Err(ended) => self.end(index, || ended.to_string()),
        }
    }

    /// Counts a client as ready; true if it leaves for that reason.
    fn became_ready(&mut self, index: u32, now_ns: u64) -> bool {
        self.pending -= 1;
        self.shared.ready.fetch_add(1, Relaxed);
        if !self.plan.leave_when_ready {
            return false;
        }
        if let Some(client) = self.clients[index as usize].take() {
            self.tally.interval.saturating_record(((now_ns - client.opened_ns) / 1_000).max(1));
            if self.plan.reset {
                let _ = socket2::SockRef::from(client.socket.tcp()).set_linger(Some(Duration::ZERO));
            }
        }
        self.open -= 1;
        self.free.push(index);
        true
    }

    fn reconnect(&mut self, index: u32) {
        if let Some(client) = self.clients[index as usize].take() {
            self.start(index, client.protocol, client.progress);
        }
    }

    /// The connection of client `index` is over, and not by its own wish.
    fn end(&mut self, index: u32, reason: impl FnOnce() -> String) {
        if let Some(client) = self.clients[index as usize].take() {
            self.lost(index, client.progress, reason);
        }
    }

    fn lost(&mut self, index: u32, progress: Progress, reason: impl FnOnce() -> String) {
        self.open -= 1;
        if index < self.plan.slow && self.slow_stopped {
            self.slow_disconnected += 1;
            return;
        }
        self.shared.note_failure(reason);
        if progress.ready {
            self.shared.closed_by_server.fetch_add(1, Relaxed);
            self.keep_audit(progress);
        } else {
            self.pending -= 1;
            self.shared.failed.fetch_add(1, Relaxed);
        }
        if self.plan.leave_when_ready {
            self.free.push(index);
        }
    }

    fn keep_audit(&mut self, progress: Progress) {
        if progress.ready && progress.audited && !self.plan.leave_when_ready {
            self.audits.push((progress.stream, progress.audit));
        }
    }

    fn publish_counts(&self) {
        self.shared.accepted.store(self.tally.counts.accepted, Relaxed);
        self.shared.probes.store(self.tally.counts.probes, Relaxed);
        self.shared.last_delivery_ns.store(self.tally.counts.last_delivery_ns, Relaxed);
    }

    /// From here on the slow clients' sockets are never read; only their end is noticed.
    fn stop_slow_clients(&mut self) {
        self.roll_interval();
        self.slow_stopped = true;
        for index in 0..self.plan.slow {
            let Some(client) = self.clients[index as usize].as_ref() else { continue };
            let nothing = Interest { read: false, write: false };
            if let Err(error) = self.epoll.change(client.socket.tcp().as_raw_fd(), u64::from(index), nothing) {
                self.end(index, || format!("epoll_ctl: {error}"));
            }
        }
    }

    /// The end of a connection stands behind the bytes that nobody has read: reads them all, for a second at most.
    fn count_ended_slow_clients(&mut self) {
        let until_ns = self.clock.now_ns() + SECOND_NS;
        let mut waiting: Vec<Client> =
            self.clients.iter_mut().take(self.plan.slow as usize).filter_map(Option::take).collect();
        while !waiting.is_empty() && self.clock.now_ns() < until_ns {
            let mut has_read = false;
            waiting.retain_mut(|client| match client.socket.tcp().read(&mut self.buffer) {
                Ok(1..) => {
                    has_read = true;
                    true
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => true,
                Ok(0) | Err(_) => {
                    self.slow_disconnected += 1;
                    false
                }
            });
            if !has_read {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn roll_interval(&mut self) {
        let total = &mut self.totals[usize::from(self.slow_stopped)];
        total.add(&self.tally.interval).expect("invariant: both histograms have the same bounds");
        self.tally.interval.reset();
    }

    fn end_second(&mut self) {
        let now_ns = self.clock.now_ns();
        let counts = &self.tally.counts;
        let elapsed_s = (now_ns - self.second_from_ns).max(1) as f64 / SECOND_NS as f64;
        let events = if self.plan.leave_when_ready { self.shared.ready.load(Relaxed) } else { counts.deliveries };
        let second = Second {
            at_s: now_ns as f64 / SECOND_NS as f64,
            open: u64::from(self.open),
            rate_per_s: (events - self.second_deliveries) as f64 / elapsed_s,
            p99_us: self.tally.interval.value_at_quantile(0.99),
            missing: counts.missing,
            duplicates: counts.duplicates,
        };
        (self.second_from_ns, self.second_deliveries) = (now_ns, events);
        self.roll_interval();
        self.series.push(second.clone());
        let _ = self.progress.send(second);
    }
}
