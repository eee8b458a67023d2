//! One audited client: it connects to some node, presents its cursor, reads, is cut off, and comes back to another.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::audit::Auditor;
use super::dice::Dice;
use super::fleet::Fleet;
use super::moves::Traveller;
use super::violation::{Violation, Wrong};
use crate::client::{Arrived, Ended, Next, Protocol};
use crate::endpoint::{Opening, key, percent_encode};
use crate::error::LoadError;
use crate::marker::{Mark, MarkFinder};
use crate::scenario::{Target, Transport};
use crate::wire::MAX_MESSAGE_BYTES;

/// The event that says that events are missing before the next.
const HISTORY_LOST: &[u8] = b"tidegate.history_lost";
/// The attribute that holds the cursor in a WebSocket's events.
const CURSOR_ATTRIBUTE: &[u8] = b"\"tidegatecursor\":\"";
const READ_BYTES: usize = 16 << 10;
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Notes of a client's trail.
const TRAIL_NOTES: usize = 24;
/// Shortest and longest wait before a client comes back, in milliseconds.
const BACK_MS: (u64, u64) = (20, 600);

/// One client.
pub(super) struct Client {
    fleet: Arc<Fleet>,
    number: u32,
    transport: Transport,
    /// Which of the streams of a partition it wants.
    group: u32,
    dice: Dice,
    auditor: Auditor,
    finder: MarkFinder,
    cursor: Option<String>,
    connections: u32,
    node: usize,
    is_ready: bool,
    is_warm: bool,
    is_done: bool,
    /// It knows how much there is to see.
    knows_goal: bool,
    /// Its ways back, where somebody watches them.
    traveller: Option<Traveller>,
    /// When it may come back, if the server has said so, in milliseconds.
    retry_ms: Option<u64>,
    /// What it did and saw last.
    trail: VecDeque<String>,
    /// Nothing has come on this connection yet.
    is_fresh: bool,
}

impl Client {
    pub(super) fn new(fleet: Arc<Fleet>, number: u32, dice: Dice) -> Self {
        let (transport, group) = fleet.role(number);
        Self {
            number,
            transport,
            group,
            dice,
            auditor: Auditor::new(fleet.partitions),
            finder: MarkFinder::new(),
            cursor: None,
            connections: 0,
            node: 0,
            is_ready: false,
            is_warm: false,
            is_done: false,
            knows_goal: false,
            traveller: fleet.moves.clone().map(|moves| Traveller::new(moves, group)),
            retry_ms: None,
            trail: VecDeque::new(),
            is_fresh: true,
            fleet,
        }
    }

    /// Lives until the fleet stops, then adds up what is missing.
    pub(super) async fn live(mut self) {
        let mut protocol = Protocol::new();
        while !self.fleet.stopping() {
            // Long polling has its cursor in its cookies, which the protocol's state keeps.
            if self.transport != Transport::Longpolling {
                protocol = Protocol::new();
            }
            self.node = self.fleet.next_node(&mut self.dice);
            self.connections += 1;
            self.traveller.iter().for_each(Traveller::connecting);
            let (number, node) = (self.connections, self.node);
            self.note(|| format!("connection {number} to node {node}"));
            self.is_fresh = true;
            let ended = self.connection(&mut protocol).await;
            self.note(|| match &ended {
                Ok(()) => "the connection is over".to_owned(),
                Err(cause) => cause.to_string(),
            });
            self.fleet.note_end(self.transport, &ended);
            self.traveller.iter_mut().for_each(Traveller::cut);
            let by_chance_ms = self.dice.between(BACK_MS.0, BACK_MS.1);
            let wait_ms = self.retry_ms.take().unwrap_or(by_chance_ms);
            tokio::select! {
                () = sleep(Duration::from_millis(wait_ms)) => {}
                () = self.fleet.stopped() => {}
            }
        }
        self.conclude();
    }

    fn conclude(&self) {
        let Some(goal) = self.fleet.goal() else { return };
        for (partition, expected, published) in self.auditor.short_of(goal.of_group(self.group)) {
            self.accuse(Wrong::Missing { partition, expected, published });
        }
        self.fleet.skipped.fetch_add(self.auditor.skipped(), Relaxed);
    }

    fn accuse(&self, wrong: Wrong) {
        self.fleet.violations.add(Violation::Client {
            at_s: self.fleet.violations.at_s(),
            client: self.number,
            transport: self.transport,
            node: self.node,
            connection: self.connections,
            wrong,
            trail: self.trail.iter().cloned().collect(),
        });
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trail.len() == TRAIL_NOTES {
            self.trail.pop_front();
        }
        self.trail.push_back(format!("{:.3} s: {}", self.fleet.violations.at_s(), what()));
    }

    /// One connection, from its request to its end.
    async fn connection(&mut self, protocol: &mut Protocol) -> Result<(), Cause> {
        let address = self.fleet.links[self.node];
        let opening = self.opening()?;
        let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await.map_err(|_| Cause::Silence)??;
        stream.set_nodelay(true)?;
        let mut exchange = Exchange { stream, buffer: Vec::new(), left_over: 0 };
        let mut out = Vec::new();
        protocol.request(&opening, self.number, &mut out);
        loop {
            if !out.is_empty() {
                exchange.stream.write_all(&out).await?;
                out.clear();
            }
            let closed = tokio::select! {
                read = timeout(self.fleet.patience, exchange.read()) => read.map_err(|_| Cause::Silence)??,
                () = self.fleet.stopped() => return Ok(()),
                // Who has everything by then hears nothing more that would make it look.
                () = self.fleet.has_goal(), if !self.knows_goal => {
                    self.knows_goal = true;
                    self.take_stock();
                    continue;
                }
            };
            let left_over = exchange.left_over;
            let arrived = Arrived { bytes: &mut exchange.buffer, left_over, closed };
            let number = self.number;
            let (rest, next) = protocol.absorb(arrived, &opening, number, &mut out, |message| self.message(message))?;
            exchange.keep(rest);
            if next == Next::Reconnect {
                return Ok(());
            }
        }
    }

    /// The request of the next connection; the cursor goes into the header or into the query.
    fn opening(&mut self) -> Result<Opening, LoadError> {
        let fleet = Arc::clone(&self.fleet);
        let subscriptions =
            serde_json::json!([{ "eventType": fleet.event_type, "oneOf": [{ "key": key(self.group) }] }]).to_string();
        let mut url = format!(
            "http://{}/_rig/v1/connection/{}?subscriptions={}",
            fleet.links[self.node],
            self.transport.name(),
            percent_encode(&subscriptions)
        );
        let mut headers = Vec::new();
        if self.transport != Transport::Sse {
            url.push_str("&cursor=true");
        }
        if let Some(cursor) = self.cursor.clone() {
            self.note(|| format!("presents {cursor}"));
            if self.transport == Transport::Sse && self.dice.below(2) == 0 {
                headers.push(format!("last-event-id: {cursor}"));
            } else {
                url.push_str("&lastEventId=");
                url.push_str(&percent_encode(&cursor));
            }
        }
        let target = Target { headers, ..Target::new(&url, self.transport) };
        Opening::new(&target, &fleet.event_type, false)
    }

    /// One event of a stream, or the answer of one poll.
    fn message(&mut self, message: &[u8]) {
        if memchr::memmem::find(message, b"rig.subscriptions_set").is_some() {
            if !std::mem::replace(&mut self.is_ready, true) {
                self.fleet.ready.fetch_add(1, Relaxed);
            }
            self.traveller.iter_mut().for_each(|traveller| traveller.confirmed(&self.auditor));
        }
        if self.transport == Transport::Sse
            && let Some(retry_ms) = retry_ms(message)
        {
            self.retry_ms = Some(retry_ms);
        }
        let mut rest = message;
        while let Some(at) = memchr::memmem::find(rest, HISTORY_LOST) {
            self.events(&rest[..at]);
            self.note(|| String::from_utf8_lossy(message).into_owned());
            self.auditor.history_lost();
            self.fleet.history_lost.fetch_add(1, Relaxed);
            // An event stream names the type twice in one event.
            rest = if self.transport == Transport::Longpolling { &rest[at + HISTORY_LOST.len()..] } else { &[] };
        }
        self.events(rest);
        let cursor = match self.transport {
            Transport::Sse => event_id(message),
            Transport::Ws => attribute(message, CURSOR_ATTRIBUTE),
            Transport::Longpolling => None,
        };
        if let Some(cursor) = cursor.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            self.cursor = Some(cursor.to_owned());
        }
    }

    fn events(&mut self, bytes: &[u8]) {
        let mut marks: Vec<Mark> = Vec::new();
        self.finder.each(bytes, |mark| marks.push(mark));
        for mark in marks {
            if mark.run != self.fleet.run {
                continue;
            }
            let (partition, group) = (mark.stream / self.fleet.groups, mark.stream % self.fleet.groups);
            self.fleet.deliveries.fetch_add(1, Relaxed);
            let judged = if group == self.group {
                self.auditor.observe(partition, mark.sequence)
            } else {
                Err(Wrong::Foreign { partition })
            };
            if std::mem::take(&mut self.is_fresh) {
                self.note(|| format!("the first event: {} of partition {partition}", mark.sequence));
            }
            if let Err(wrong) = judged {
                self.accuse(wrong);
            }
        }
        if !self.is_warm && self.auditor.has_reached((0..self.fleet.partitions).map(|_| 1)) {
            self.is_warm = true;
            self.fleet.warm.fetch_add(1, Relaxed);
        }
        self.traveller.iter_mut().for_each(|traveller| traveller.look(&self.auditor));
        self.take_stock();
    }

    /// Counts itself among those that have everything, once it has.
    fn take_stock(&mut self) {
        if !self.is_done
            && let Some(goal) = self.fleet.goal()
            && self.auditor.has_reached(goal.of_group(self.group))
        {
            self.is_done = true;
            self.fleet.done.fetch_add(1, Relaxed);
        }
    }
}

/// Why a connection was over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("{0}")]
    Ended(#[from] Ended),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing came for too long")]
    Silence,
    #[error("{0}")]
    Load(#[from] LoadError),
}

/// A connection and the bytes that are not finished.
struct Exchange {
    stream: TcpStream,
    buffer: Vec<u8>,
    left_over: usize,
}

impl Exchange {
    /// Adds what has come; true at the end of the stream.
    async fn read(&mut self) -> io::Result<bool> {
        loop {
            self.stream.readable().await?;
            if self.left_over > MAX_MESSAGE_BYTES {
                return Err(io::Error::other("a message is larger than the 16 MiB that a client holds"));
            }
            self.buffer.resize(self.left_over + READ_BYTES, 0);
            match self.stream.try_read(&mut self.buffer[self.left_over..]) {
                Ok(read) => {
                    self.buffer.truncate(self.left_over + read);
                    return Ok(read == 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps these bytes in front of the next; an idle connection holds no memory.
    fn keep(&mut self, rest: std::ops::Range<usize>) {
        self.left_over = rest.len();
        self.buffer = self.buffer[rest].to_vec();
    }
}

/// The `id` of an event of a stream (HTML Living Standard, section 9.2.6).
fn event_id(event: &[u8]) -> Option<&[u8]> {
    let line = event.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"id:"))?;
    Some(line.trim_ascii())
}

/// The time after which a client shall come back, alone in its event.
fn retry_ms(event: &[u8]) -> Option<u64> {
    std::str::from_utf8(event.strip_prefix(b"retry:")?).ok()?.trim().parse().ok()
}

/// The text behind `start` up to the next quotation mark.
fn attribute<'a>(event: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::rfind(event, start)? + start.len();
    let rest = &event[at..];
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_where_each_transport_has_them() {
        assert_eq!(event_id(b"event: a\nid: abc\ndata: {}\n\n"), Some(&b"abc"[..]));
        assert_eq!(event_id(b"event: a\ndata: id:\n\n"), None);
        assert_eq!(attribute(br#"{"id":"1","tidegatecursor":"x-y"}"#, CURSOR_ATTRIBUTE), Some(&b"x-y"[..]));
        assert_eq!(attribute(br#"{"id":"1"}"#, CURSOR_ATTRIBUTE), None);
    }

    #[test]
    fn the_time_to_come_back_is_read_from_an_event_of_its_own() {
        assert_eq!(retry_ms(b"retry: 1250\n\n"), Some(1_250));
        assert_eq!(retry_ms(b"id: 1\ndata: retry: 7\n\n"), None);
    }
}
