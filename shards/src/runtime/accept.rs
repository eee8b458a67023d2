//! Listeners, and the first request head of every accepted socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::io::AsyncRead;
use glommio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::client::Client;
use super::open::{self, Opened};
use super::{SharedWorld, checks, stream};
use crate::clock;
use crate::head::{self, HeadLimits, HeadStatus};
use crate::proxy_protocol::{self, Parsed, Source};
use crate::shard::admission::Refused;
use crate::shard::connection::{Address, Closing};
use crate::shard::{Shard, socket};

/// Connections that may wait to be accepted, per shard.
const BACKLOG: i32 = 4096;
/// Connections accepted before the others get a turn.
const ACCEPTS_IN_A_ROW: usize = 32;
/// Pause after the process has run out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and its descriptor, which glommio doesn't tell.
pub(super) struct Listener {
    pub(super) fd: RawFd,
    pub(super) listener: TcpListener,
}

/// Binds every address with `SO_REUSEPORT`, so that the kernel spreads connections over the shards. `setting` is where the
/// port comes from.
pub(super) fn bind(addresses: &[SocketAddr], setting: &str) -> io::Result<Vec<Listener>> {
    addresses.iter().map(|address| bind_one(*address).map_err(|error| explain(*address, &error, setting))).collect()
}

fn bind_one(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` alone takes IPv4 too.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let fd = socket.into_raw_fd();
    // SAFETY: the descriptor is a listening socket that nobody else owns any more.
    Ok(Listener { fd, listener: unsafe { TcpListener::from_raw_fd(fd) } })
}

fn explain(address: SocketAddr, error: &io::Error, setting: &str) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another process listens there; stop it, or choose another {setting}"),
        io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine doesn't have that address".to_owned(),
        _ => format!("check {setting}"),
    };
    io::Error::new(error.kind(), format!("can't listen on {address}: {error}; {advice}"))
}

/// The listeners' addresses, with port 0 resolved.
pub(super) fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|bound| bound.listener.local_addr().ok()).collect()
}

/// Accepts until the listener has been shut down, or the process ends: a pending accept must never be dropped. `secure`
/// connections begin with a TLS handshake.
pub(super) async fn accept(world: SharedWorld, listener: TcpListener, secure: bool) {
    let mut in_a_row = 0;
    loop {
        match listener.shared_accept().await {
            Ok(accepted) => {
                in_a_row += 1;
                let stream = accepted.bind_to_executor();
                if !world.stopping.get() {
                    stream::start(&world, stream, secure);
                }
            }
            Err(_) if world.listeners.borrow().is_empty() => return,
            Err(error) => {
                tracing::warn!(
                    shard = world.number, %error,
                    "a connection could not be accepted; if this goes on, raise the limit of open files (ulimit -n)"
                );
                glommio::timer::sleep(EXHAUSTED_PAUSE).await;
            }
        }
        if in_a_row >= ACCEPTS_IN_A_ROW {
            in_a_row = 0;
            glommio::executor().yield_now().await;
        }
    }
}

/// A connection whose first request head has not come yet.
#[derive(Default)]
pub(super) struct Arriving {
    /// What has come of it.
    partial: Vec<u8>,
    /// Whose it is, where that must be known.
    origin: Option<Box<Origin>>,
}

/// Where a connection comes from.
struct Origin {
    /// The nearest address that is known: the socket's, or what a header of the PROXY protocol has said.
    peer: Option<IpAddr>,
    /// Such a header comes first.
    announced: bool,
}

impl Arriving {
    /// Looks where an accepted socket comes from, and counts it for that address.
    ///
    /// # Errors
    /// [`Refused`] where the address holds as many connections as it may.
    pub(super) fn new(world: &SharedWorld, address: Address, stream: &TcpStream) -> Result<Self, Refused> {
        let limits = &world.settings.limits;
        if !limits.needs_address() {
            return Ok(Self::default());
        }
        let peer = peer_of(stream);
        let announced = limits.proxy_protocol && peer.is_some_and(|peer| limits.trusted.contains(peer));
        if !announced {
            count(world, address, peer)?;
        }
        Ok(Self { partial: Vec::new(), origin: Some(Box::new(Origin { peer, announced })) })
    }

    /// Reads the header of the PROXY protocol where one comes first; `bytes` are all that have come so far.
    pub(super) fn announced(&mut self, world: &SharedWorld, address: Address, bytes: &[u8]) -> Announced {
        let Some(origin) = self.origin.as_mut().filter(|origin| origin.announced) else { return Announced::Until(0) };
        match proxy_protocol::parse(bytes) {
            Ok(Parsed::Partial) => Announced::Partial,
            Ok(Parsed::Header { len, source }) => {
                origin.announced = false;
                match source {
                    Source::Client(client) => origin.peer = Some(client),
                    Source::Proxy => {}
                    Source::Unknown => origin.peer = None,
                }
                count(world, address, origin.peer).map_or_else(Announced::Refused, |()| Announced::Until(len))
            }
            Err(error) => {
                world.shard.borrow().metrics().requests_malformed.add(1);
                tracing::debug!(shard = world.number, %error, "a connection from a trusted proxy was dropped");
                Announced::Broken
            }
        }
    }

    /// The nearest address that is known.
    pub(super) fn peer(&self, stream: &TcpStream) -> Option<IpAddr> {
        self.origin.as_ref().map_or_else(|| peer_of(stream), |origin| origin.peer)
    }
}

/// What the first bytes say about where a connection comes from.
pub(super) enum Announced {
    /// More must come.
    Partial,
    /// Nothing more: the client's own bytes begin here.
    Until(usize),
    /// That there are too many of it.
    Refused(Refused),
    /// Nonsense.
    Broken,
}

fn peer_of(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().ok().map(|address| address.ip().to_canonical())
}

/// Counts a connection for its address. Those of a trusted proxy are its clients': they count once it says whose they are.
fn count(world: &SharedWorld, address: Address, peer: Option<IpAddr>) -> Result<(), Refused> {
    let limits = &world.settings.limits;
    let Some(peer) = peer.filter(|peer| !limits.trusted.contains(*peer)) else { return Ok(()) };
    let mut shard = world.shard.borrow_mut();
    if !limits.places.has_room_for(peer) {
        shard.refuse(Refused::Address);
        return Err(Refused::Address);
    }
    shard.hold(address, peer);
    Ok(())
}

/// What the first bytes of a connection turned out to be.
pub(super) enum First {
    /// Closed, broken, or too slow.
    Gone,
    /// Answered; what is left is to end it.
    Refused,
    /// An event stream or a WebSocket, opened.
    Stream(Opened),
    /// For hyper, with the bytes read so far.
    Http(Bytes),
}

/// Reads until the first request head is complete. An incomplete one is kept in `arriving`.
pub(super) fn poll_first(
    world: &SharedWorld,
    client: &mut Client,
    address: Address,
    arriving: &mut Arriving,
    cx: &mut Context<'_>,
) -> Poll<First> {
    let mut buffer = world.read_buffer.borrow_mut();
    // The socket is tried first: a request is often there already, and glommio would wait for a poll.
    let mut tried = client.tls().is_some();
    loop {
        {
            let mut shard = world.shard.borrow_mut();
            match shard.connections().get_mut(address) {
                Some(connection) if connection.closing == Closing::No => connection.remember(cx.waker()),
                Some(connection) => {
                    let late = connection.deadline_ms <= clock::now_ms();
                    if late {
                        timed_out(&shard, client, !arriving.partial.is_empty());
                    }
                    return Poll::Ready(First::Gone);
                }
                None => return Poll::Ready(First::Gone),
            }
        }
        let received = if tried {
            match Pin::new(&mut *client).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(received) => received,
            }
        } else {
            tried = true;
            match socket::receive(client.fd(), &mut buffer) {
                Ok(None) => continue,
                Ok(Some(received)) => Ok(received),
                Err(error) => Err(error),
            }
        };
        let received = match received {
            Ok(0) | Err(_) => return Poll::Ready(First::Gone),
            Ok(received) => received,
        };
        let first = if arriving.partial.is_empty() {
            first_bytes(world, address, client, &mut buffer[..received], arriving)
        } else {
            arriving.partial.extend_from_slice(&buffer[..received]);
            let mut whole = std::mem::take(&mut arriving.partial);
            first_bytes(world, address, client, &mut whole, arriving)
        };
        if let Some(first) = first {
            return Poll::Ready(first);
        }
    }
}

/// A request head has not come in time; a client that has begun one is told so.
pub(super) fn timed_out<S: AsRawFd>(shard: &Shard, client: &Client<S>, begun: bool) {
    const ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    shard.metrics().connections_timed_out.add(1);
    if begun {
        let _gone = client.send_last(ANSWER);
    }
}

/// Looks at the bytes so far. An incomplete head is kept in `arriving`.
fn first_bytes(
    world: &SharedWorld,
    address: Address,
    client: &Client,
    bytes: &mut [u8],
    arriving: &mut Arriving,
) -> Option<First> {
    let begins = match arriving.announced(world, address, bytes) {
        Announced::Partial => {
            arriving.partial.extend_from_slice(bytes);
            return None;
        }
        Announced::Until(begins) => begins,
        Announced::Refused(refused) => {
            return Some(refuse(client, &refused.to_response(&world.settings.cors.lines(None))));
        }
        Announced::Broken => return Some(First::Gone),
    };
    let bytes = &mut bytes[begins..];
    let Arriving { partial, origin } = arriving;
    let peer = origin.as_ref().and_then(|origin| origin.peer);
    let (opening, head_len) = match head::parse(bytes, &HeadLimits::default()) {
        Ok(HeadStatus::Partial) => {
            partial.extend_from_slice(bytes);
            return None;
        }
        Ok(HeadStatus::Http2) => return Some(First::Http(Bytes::copy_from_slice(bytes))),
        Err(error) => {
            world.shard.borrow().metrics().requests_malformed.add(1);
            return Some(refuse(client, error.to_response()));
        }
        // The answer comes from elsewhere: hyper waits, this path doesn't.
        Ok(HeadStatus::Complete(head)) if checks::must_ask(world, head.query) => {
            return Some(First::Http(Bytes::copy_from_slice(bytes)));
        }
        Ok(HeadStatus::Complete(head)) => match open::opening(world, &head, peer) {
            Some(opening) => (opening, head.head_len),
            None => return Some(First::Http(Bytes::copy_from_slice(bytes))),
        },
    };
    Some(match opening.and_then(|opening| open::open(world, address, client.fd(), opening)) {
        Ok(mut opened) => {
            opened.feed(world, address, &mut bytes[head_len..]);
            First::Stream(opened)
        }
        Err(response) => refuse(client, &response),
    })
}

fn refuse(client: &Client, response: &[u8]) -> First {
    match client.send_last(response) {
        Ok(()) => First::Refused,
        Err(_) => First::Gone,
    }
}
