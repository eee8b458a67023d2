//! The task of a connection in the lean path: it reads the first head, and of an event stream or a WebSocket it reads what the client sends, waits for
//! writability when the socket was full, and ends the connection. Events don't pass through it:
//! the mailbox's batch sends them straight to the socket.

use std::future::{Future, poll_fn};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::accept::{self, Arriving, First};
use super::client::Client;
use super::handshake::{Handshake, Shaken};
use super::open::Opened;
use super::{Registered, SharedWorld, http, spawn_http};
use crate::clock;
use crate::limits::places::Room;
use crate::shard::admission::Refused;
use crate::shard::connection::{Address, Closing};
use crate::shard::socket;

/// Time for the peer to read the last bytes and close, in milliseconds.
const LINGER_MS: u64 = 2_000;
/// Bytes that glommio may copy per try; the rest goes through the shard's own sends.
const PROBE_BYTES: usize = 16 * 1024;
/// Reads of one connection before others get a turn: a client that sends faster than it is read would keep them all waiting.
const READS_IN_A_ROW: usize = 4;

/// The task of a connection from its first byte on, unless hyper takes over. Written by hand and not as
/// an `async fn`: tens of thousands of them wait, and this is all they keep.
struct ConnectionTask {
    /// The socket and its entry in the shard, until hyper takes them.
    held: Option<(Registered, Client)>,
    phase: Phase,
}

/// What a connection's task is at.
enum Phase {
    /// The handshake of TLS.
    Handshake(Box<Handshake>),
    /// The first request head; what is known so far.
    Head(Arriving),
    /// Serving a stream.
    Stream(Opened),
    /// Waiting for the peer to close.
    Linger,
}

/// Starts the task of an accepted socket.
pub(super) fn start(world: &SharedWorld, stream: TcpStream, secure: bool) {
    let now_ms = clock::now_ms();
    let room = world.settings.limits.places.room();
    if room != Room::Free {
        world.shard.borrow().refuse(Refused::Full);
    }
    if room == Room::Overfull {
        socket::reset_on_close(stream.as_raw_fd());
        return;
    }
    if secure {
        if room == Room::Free {
            start_secure(world, stream, now_ms);
        }
        return;
    }
    let address = world.shard.borrow_mut().accepted(now_ms + world.settings.header_timeout_ms, now_ms);
    let registered = Registered::new(world, address);
    let arriving = if room == Room::Free { Arriving::new(world, address, &stream) } else { Err(Refused::Full) };
    let client = Client::plain(stream);
    let phase = match arriving {
        Ok(arriving) => Phase::Head(arriving),
        Err(refused) => {
            let _gone = client.send_last(&refused.to_response(&world.settings.cors.lines(None)));
            start_linger(world, &client, address);
            Phase::Linger
        }
    };
    glommio::spawn_local(ConnectionTask { held: Some((registered, client)), phase }).detach();
}

/// Starts the task of a socket of the TLS port. One that is refused can't be told why before the handshake.
fn start_secure(world: &SharedWorld, stream: TcpStream, now_ms: u64) {
    let Some(tls) = &world.settings.tls else { return };
    let Some(session) = Handshake::begin(world) else { return };
    let address = world.shard.borrow_mut().accepted(now_ms + tls.handshake_timeout_ms, now_ms);
    let registered = Registered::new(world, address);
    let Ok(arriving) = Arriving::new(world, address, &stream) else { return };
    let client = Client::secured(stream, session);
    if let Some(session) = client.tls() {
        world.shard.borrow_mut().secure(address, session);
    }
    let phase = Phase::Handshake(Box::new(Handshake::new(world, arriving)));
    glommio::spawn_local(ConnectionTask { held: Some((registered, client)), phase }).detach();
}

/// Starts the task of a stream that leaves hyper.
pub(super) fn go_on(registered: Registered, client: Client, opened: Opened) {
    let held = Some((registered, client));
    glommio::spawn_local(ConnectionTask { held, phase: Phase::Stream(opened) }).detach();
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.step(cx)));
        polled.unwrap_or_else(|_panic| {
            if let Some((registered, _)) = &self.held {
                registered.world.count_panic();
            }
            Poll::Ready(())
        })
    }
}

impl ConnectionTask {
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some((Registered { world, address }, stream)) = &mut self.held else { return Poll::Ready(()) };
            let address = *address;
            match &mut self.phase {
                Phase::Handshake(handshake) => match ready!(handshake.poll(stream, address, cx)) {
                    Shaken::Done(arriving) => self.phase = Phase::Head(arriving),
                    Shaken::Gone => return Poll::Ready(()),
                    Shaken::Refused => {
                        start_linger(world, stream, address);
                        self.phase = Phase::Linger;
                    }
                },
                Phase::Head(arriving) => match ready!(accept::poll_first(world, stream, address, arriving, cx)) {
                    First::Gone => return Poll::Ready(()),
                    First::Stream(opened) => self.phase = Phase::Stream(opened),
                    First::Refused => {
                        start_linger(world, stream, address);
                        self.phase = Phase::Linger;
                    }
                    First::Http(bytes) => {
                        let world = Rc::clone(world);
                        let peer = arriving.peer(stream.socket());
                        if let Some((registered, stream)) = self.held.take() {
                            spawn_http(&world, http::serve(registered, stream, bytes, peer));
                        }
                    }
                },
                Phase::Stream(opened) => match ready!(poll_stream(world, address, stream, opened, cx)) {
                    Closing::AfterFlush => {
                        start_linger(world, stream, address);
                        self.phase = Phase::Linger;
                    }
                    Closing::No | Closing::Now => return Poll::Ready(()),
                },
                Phase::Linger => return poll_linger(world, stream, address, cx),
            }
        }
    }
}

fn poll_stream(
    world: &SharedWorld,
    address: Address,
    stream: &mut Client,
    opened: &mut Opened,
    cx: &mut Context<'_>,
) -> Poll<Closing> {
    for _ in 0..READS_IN_A_ROW {
        let blocked = {
            let mut shard = world.shard.borrow_mut();
            let Some(connection) = shard.connections().get_mut(address) else { return Poll::Ready(Closing::Now) };
            match connection.closing {
                Closing::Now => return Poll::Ready(Closing::Now),
                Closing::AfterFlush if !connection.blocked => return Poll::Ready(Closing::AfterFlush),
                _ => {}
            }
            connection.remember(cx.waker());
            connection.blocked
        };
        if blocked && poll_flush(world, address, stream, cx) {
            continue;
        }
        let mut buffer = world.read_buffer.borrow_mut();
        let received = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
        if stream.tls().is_some() {
            // TLS may have had something to say, and the socket no room for it.
            world.shard.borrow_mut().settle_sealed(address);
        }
        match received {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Closing::Now),
            Poll::Ready(Ok(received)) => opened.feed(world, address, &mut buffer[..received]),
            Poll::Pending if world.shard.borrow_mut().can_go_on(address) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Sends what waits. False when the socket is full again and the task will be woken.
fn poll_flush(world: &SharedWorld, address: Address, stream: &mut Client, cx: &mut Context<'_>) -> bool {
    loop {
        let mut shard = world.shard.borrow_mut();
        if shard.flush_queue(address) {
            return true;
        }
        let Some(connection) = shard.connections().get_mut(address) else { return true };
        if connection.closing == Closing::Now {
            return true;
        }
        let mut probe = Vec::new();
        connection.gather(&mut probe, PROBE_BYTES);
        if probe.is_empty() {
            return true;
        }
        // The socket is full: this asks io_uring for writability, or sends if there is room by now.
        match Pin::new(stream.socket()).poll_write(cx, &probe) {
            Poll::Pending => return false,
            Poll::Ready(Ok(sent)) => shard.sent(address, sent),
            Poll::Ready(Err(_)) => {
                shard.close(address, Closing::Now);
                return true;
            }
        }
    }
}

/// Ends the sending side and reads until the peer has closed too, so that the last bytes arrive:
/// closing a socket with unread bytes would reset it.
pub(super) async fn linger(world: &SharedWorld, stream: &mut Client, address: Address) {
    start_linger(world, stream, address);
    poll_fn(|cx| poll_linger(world, stream, address, cx)).await;
}

fn start_linger(world: &SharedWorld, stream: &Client, address: Address) {
    stream.finish();
    world.shard.borrow_mut().set_linger(address, clock::now_ms() + LINGER_MS);
}

fn poll_linger(world: &SharedWorld, stream: &mut Client, address: Address, cx: &mut Context<'_>) -> Poll<()> {
    for _ in 0..READS_IN_A_ROW {
        {
            let mut shard = world.shard.borrow_mut();
            match shard.connections().get_mut(address) {
                Some(connection) if connection.closing != Closing::Now => connection.remember(cx.waker()),
                _ => return Poll::Ready(()),
            }
        }
        let mut buffer = world.read_buffer.borrow_mut();
        match Pin::new(stream.socket()).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
