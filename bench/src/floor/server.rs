//! A server that does what must be done for the load generator's clients and nothing else: it accepts, answers every
//! request for a connection with the same bytes, and sends published events to everybody as they are.

use std::collections::HashSet;
use std::io::{self, Read};
use std::net::TcpListener;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use tidegate_shards::ws::encode::{self, OpCode};

use super::pace::{Pace, Schedule};
use super::requests::take_requests;
use super::sockets::send_all;

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 256 * 1024;
/// Time between two looks at the schedule of a paced floor.
const PACE_INTERVAL: Duration = Duration::from_millis(1);
/// What tells the load generator that a subscription is in force.
const READY: &[u8] = br#"{"type":"rig.subscriptions_set"}"#;
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: 6d1oSfI1SyqcZK0d4WUQTnZVI5M=\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n\"\"";

/// How published events leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One send for each event and connection.
    Each,
    /// One send per connection for all events that had arrived.
    Coalesced,
}

/// One that speaks on the other side.
enum Peer {
    /// Nothing said yet.
    New,
    /// Gets events.
    Client,
    /// Sends events; holds what is not yet a whole request.
    Publisher(Vec<u8>),
}

struct Connection {
    stream: TcpStream,
    peer: Peer,
}

/// The server's state.
struct Server {
    poll: Poll,
    listener: mio::net::TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    clients: Vec<usize>,
    buffer: Vec<u8>,
    /// Frames that arrived in this turn.
    frames: Vec<Vec<u8>>,
    greeting: Vec<u8>,
}

/// Serves until the process ends.
///
/// # Errors
/// The system refused the queue of events. Broken connections are closed and end nothing else.
pub fn serve(listener: TcpListener, delivery: Delivery, pace: Option<Pace>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut greeting = UPGRADED.to_vec();
    encode::append_frame(OpCode::Text, READY, &mut greeting);
    let mut server = Server {
        poll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        clients: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
        frames: Vec::new(),
        greeting,
    };
    let mut schedule = pace.map(Schedule::new);
    let mut events = Events::with_capacity(1024);
    loop {
        let timeout = schedule.as_ref().map(|_| PACE_INTERVAL);
        match server.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept()?,
                Token(slot) => server.read(slot, event.is_read_closed()),
            }
        }
        server.deliver(delivery);
        if let Some(schedule) = &mut schedule {
            server.send_due(schedule);
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            stream.set_nodelay(true)?;
            self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE)?;
            self.connections[slot] = Some(Connection { stream, peer: Peer::New });
        }
    }

    fn read(&mut self, slot: usize, to_the_end: bool) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        loop {
            let bytes = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.close(slot),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(slot),
            };
            let received = &self.buffer[..bytes];
            if matches!(connection.peer, Peer::New) {
                connection.peer =
                    if received.starts_with(b"POST ") { Peer::Publisher(Vec::new()) } else { Peer::Client };
                if matches!(connection.peer, Peer::Client) {
                    self.clients.push(slot);
                    if send_all(&connection.stream, &self.greeting).is_err() {
                        return self.close(slot);
                    }
                }
            }
            if let Peer::Publisher(unread) = &mut connection.peer {
                unread.extend_from_slice(received);
                let answers = take_requests(unread, &mut self.frames);
                if send_all(&connection.stream, &ACCEPTED.repeat(answers)).is_err() {
                    return self.close(slot);
                }
            }
            // A short read has emptied the socket (epoll(7)), unless its end is already there too.
            if bytes < self.buffer.len() && !to_the_end {
                return;
            }
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(Connection { peer: Peer::Client, .. }) = self.connections[slot].take() {
            // Clients leave in about the order in which they came.
            if let Some(at) = self.clients.iter().position(|client| *client == slot) {
                self.clients.remove(at);
            }
        }
        self.free.push(slot);
    }

    /// Sends this turn's events to every client.
    fn deliver(&mut self, delivery: Delivery) {
        let frames = match delivery {
            Delivery::Each => std::mem::take(&mut self.frames),
            Delivery::Coalesced if self.frames.is_empty() => return,
            Delivery::Coalesced => vec![std::mem::take(&mut self.frames).concat()],
        };
        let mut broken = HashSet::new();
        for frame in &frames {
            for &slot in &self.clients {
                if !broken.contains(&slot) && !self.send(slot, frame) {
                    broken.insert(slot);
                }
            }
        }
        for slot in broken {
            self.close(slot);
        }
    }

    /// Sends what the schedule wants by now, each event to the next client.
    fn send_due(&self, schedule: &mut Schedule) {
        for number in schedule.due(self.clients.len()) {
            // One that can't be sent to is closed when its end is read.
            self.send(self.clients[number % self.clients.len()], schedule.frame());
        }
    }

    fn send(&self, slot: usize, frame: &[u8]) -> bool {
        let Some(connection) = self.connections[slot].as_ref() else { return false };
        send_all(&connection.stream, frame).is_ok()
    }
}
