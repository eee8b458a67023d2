//! Ordinary HTTP through hyper: HTTP/1.1 and, with prior knowledge, HTTP/2 (RFC 9113 section 3.3).
//!
//! A request for an event stream or a WebSocket that comes on a used HTTP/1.1 connection leaves
//! hyper again: the service notes a handoff, and the socket goes on in the lean path.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::io::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;

use super::body::Body;
use super::client::Client;
use super::multiplexed::{StreamSpawner, Streams};
use super::open::{self, Opening};
use super::proxy::http::tunnel::Tunnel;
use super::readiness::Socket;
use super::service::{self, Caller};
use super::{Registered, SharedWorld, accept, stream};
use crate::clock;
use crate::head::{Followed, Follower, HTTP2_PREFACE, MAX_HEADERS};
use crate::shard::connection::{Address, Closing};
use crate::shard::socket;

/// Bytes of a request head that hyper may buffer, with room for part of a body.
const MAX_BUFFER_BYTES: usize = 32 * 1024;
/// Requests that one HTTP/2 connection may have open.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// Bytes of request headers on HTTP/2.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;

/// What a connection's task goes on with in place of HTTP.
pub(super) enum Handed {
    /// A stream of events.
    Stream(Opening),
    /// A WebSocket with a backend.
    Tunnel(Tunnel),
}

/// Where the service leaves it.
pub(super) type Handoff = Rc<RefCell<Option<Handed>>>;

/// How far the request at hand is; shared by the service and the socket's adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// The next request's head has begun.
    Head,
    /// A request is being read or answered.
    Request,
    /// A request waits for something else than its client, as long as it takes.
    Waiting,
}

/// The service's view of its connection.
#[derive(Clone)]
pub(super) struct Progress {
    world: SharedWorld,
    address: Address,
    phase: Rc<RefCell<Phase>>,
}

impl Progress {
    /// Enters a phase and sets the deadline that belongs to it.
    pub(super) fn enter(&self, phase: Phase) {
        *self.phase.borrow_mut() = phase;
        let now_ms = clock::now_ms();
        let deadline_ms = match phase {
            Phase::Idle | Phase::Head | Phase::Request => now_ms + self.world.settings.header_timeout_ms,
            Phase::Waiting => u64::MAX - 1,
        };
        self.world.shard.borrow_mut().set_deadline(self.address, deadline_ms);
    }

    /// Ends the connection at this time, unless another phase begins before.
    pub(super) fn until(&self, deadline_ms: u64) {
        self.world.shard.borrow_mut().set_deadline(self.address, deadline_ms);
    }

    /// Bytes came from the client.
    fn received(&self) {
        let phase = *self.phase.borrow();
        match phase {
            Phase::Idle => self.enter(Phase::Head),
            Phase::Request => self.enter(Phase::Request),
            Phase::Head | Phase::Waiting => {}
        }
    }

    /// The client took bytes. What is left of an answer has its time anew: it may be large, and the client slow.
    fn sent(&self) {
        if *self.phase.borrow() == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }
}

/// Serves a connection whose first bytes are `read`. `peer` is the nearest address that is known.
pub(super) async fn serve(registered: Registered, stream: Client, read: Bytes, peer: Option<IpAddr>) {
    let Registered { world, address, .. } = &registered;
    let (world, address) = (Rc::clone(world), *address);
    let multiplexed = read.starts_with(HTTP2_PREFACE);
    let secure = stream.tls().is_some();
    let progress = Progress { world: Rc::clone(&world), address, phase: Rc::new(RefCell::new(Phase::Head)) };
    let follower = (!multiplexed).then(Follower::default);
    let stream = stream.map(|tcp| Socket::new(tcp, &world.readiness));
    let io = Io { stream, read, progress: progress.clone(), follower, held: false };
    if multiplexed {
        serve_http2(&world, address, io, progress, peer, secure).await;
    } else if let Some((mut stream, handed, rest)) = serve_http1(&world, address, io, progress, peer, secure).await {
        match handed {
            Handed::Stream(opening) => {
                continue_as_stream(registered, stream.map(Socket::into_stream), opening, rest).await
            }
            Handed::Tunnel(tunnel) => tunnel.carry(&world, address, &mut stream, rest).await,
        }
    }
}

async fn serve_http1(
    world: &SharedWorld,
    address: Address,
    io: Io,
    progress: Progress,
    peer: Option<IpAddr>,
    secure: bool,
) -> Option<(Client<Socket>, Handed, Bytes)> {
    let handoff = Handoff::default();
    let events = Rc::<Cell<Option<Address>>>::default();
    let phase = Rc::clone(&progress.phase);
    let service = {
        let (world, handoff, events) = (Rc::clone(world), Rc::clone(&handoff), Rc::clone(&events));
        service_fn(move |request| {
            let caller =
                Caller { progress: progress.clone(), handoff: Some(Rc::clone(&handoff)), peer, secure, client: None };
            let events = Rc::clone(&events);
            Box::pin(service::answer(Rc::clone(&world), caller, request).inspect(move |answer| {
                if let Ok(Body::Events(body)) = answer.as_ref().map(|answer| answer.body()) {
                    events.set(Some(body.address));
                }
            }))
        })
    };
    let mut connection = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .half_close(false)
        .title_case_headers(false)
        .serve_connection(io, service);
    let mut torn = false;
    let mut late = false;
    let mut handed = poll_fn(|cx| {
        let closing = note_waker(world, address, cx);
        if closing == Closing::Now {
            late = *phase.borrow() == Phase::Head && is_late(world, address);
            return Poll::Ready(None);
        }
        let polled = connection.poll_without_shutdown(cx);
        if let Some(handed) = handoff.borrow_mut().take() {
            return Poll::Ready(Some(handed));
        }
        match polled {
            // hyper doesn't ask a stream of events for its end while the socket is full.
            Poll::Pending if events.get().is_some_and(|address| is_cut(world, address, cx)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(error)) => {
                if error.is_parse() {
                    world.shard.borrow().metrics().requests_malformed.add(1);
                }
                torn = error.is_user();
                Poll::Ready(None)
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    if late {
        accept::timed_out(&world.shard.borrow(), &parts.io.stream, true);
    }
    match handed.take() {
        Some(handed) => {
            let mut rest = parts.read_buf.to_vec();
            rest.extend_from_slice(&parts.io.read);
            Some((parts.io.stream, handed, rest.into()))
        }
        None if torn => {
            // A body that ends with the connection would look complete.
            socket::reset_on_close(parts.io.stream.fd());
            None
        }
        None => {
            let mut stream = parts.io.stream.map(Socket::into_stream);
            stream::linger(world, &mut stream, address).await;
            None
        }
    }
}

async fn continue_as_stream(registered: Registered, mut stream: Client, opening: Opening, rest: Bytes) {
    let (world, address) = (Rc::clone(&registered.world), registered.address);
    match open::open(&world, address, stream.fd(), opening) {
        Ok(mut opened) => {
            opened.feed(&world, address, &mut rest.to_vec());
            // A task of its own again: hyper's state goes with this one.
            stream::go_on(registered, stream, opened);
        }
        Err(refusal) => {
            if stream.send_last(&refusal).is_ok() {
                stream::linger(&world, &mut stream, address).await;
            }
        }
    }
}

async fn serve_http2(
    world: &SharedWorld,
    address: Address,
    io: Io,
    progress: Progress,
    peer: Option<IpAddr>,
    secure: bool,
) {
    let streams = Streams::new(world, address);
    let service = {
        let (world, streams) = (Rc::clone(world), Rc::clone(&streams));
        service_fn(move |request| {
            let caller = Caller { progress: progress.clone(), handoff: None, peer, secure, client: None };
            streams.begin().answered_by(service::answer(Rc::clone(&world), caller, request))
        })
    };
    let connection = http2::Builder::new(StreamSpawner(Rc::clone(&streams)))
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut told = false;
    poll_fn(|cx| {
        if note_waker(world, address, cx) == Closing::Now {
            if streams.are_idle() {
                // A client that is about to send a request learns that it won't be served here.
                connection.as_mut().graceful_shutdown();
                let _last_frame = connection.as_mut().poll(cx);
            }
            return Poll::Ready(());
        }
        if world.draining.get() && !std::mem::replace(&mut told, true) {
            // GOAWAY (RFC 9113 section 6.8); what has begun is answered.
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(|_ended| ())
    })
    .await;
}

/// Whether the connection ends because its deadline has passed.
fn is_late(world: &SharedWorld, address: Address) -> bool {
    let mut shard = world.shard.borrow_mut();
    shard.connections().get(address).is_some_and(|connection| connection.deadline_ms <= clock::now_ms())
}

pub(super) fn note_waker(world: &SharedWorld, address: Address, cx: &mut Context<'_>) -> Closing {
    let mut shard = world.shard.borrow_mut();
    let Some(connection) = shard.connections().get_mut(address) else { return Closing::Now };
    connection.remember(cx.waker());
    connection.closing
}

/// Whether the stream of events at this address ends as it is, whoever asks for its end or doesn't; else it is known whom to
/// wake then.
pub(super) fn is_cut(world: &SharedWorld, address: Address, cx: &mut Context<'_>) -> bool {
    let mut shard = world.shard.borrow_mut();
    let Some(connection) = shard.connections().get_mut(address) else { return false };
    connection.remember(cx.waker());
    connection.closing == Closing::Now
}

/// Runs what hyper starts for an HTTP/2 connection to a backend on the shard's executor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spawner;

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        glommio::spawn_local(future).detach();
    }
}

/// A client's socket as hyper wants it, with the bytes that were read before hyper was chosen.
struct Io {
    stream: Client<Socket>,
    /// Read and not yet passed on.
    read: Bytes,
    progress: Progress,
    /// Checks the heads; `None` on HTTP/2.
    follower: Option<Follower>,
    /// What follows may be another protocol: nothing is passed on until the request at hand has its answer.
    held: bool,
}

impl Io {
    /// Checks bytes on their way to hyper; how many may pass.
    fn check(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(follower) = &mut self.follower else { return Ok(bytes.len()) };
        match follower.feed(bytes) {
            Ok(Followed::All) => Ok(bytes.len()),
            Ok(Followed::UpTo(len)) => {
                self.held = true;
                Ok(len)
            }
            Err(error) => {
                self.progress.world.shard.borrow().metrics().requests_malformed.add(1);
                if matches!(*self.progress.phase.borrow(), Phase::Idle | Phase::Head) {
                    // No answer is under way that this one could be mixed up with.
                    let _gone = self.stream.send_last(error.to_response());
                }
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.held {
            if *self.progress.phase.borrow() != Phase::Idle {
                // hyper reads again once the answer is out.
                return Poll::Pending;
            }
            self.held = false;
        }
        if !self.read.is_empty() {
            let len = self.read.len().min(to.remaining());
            let piece = self.read.split_to(len);
            let passed = self.check(&piece)?;
            to.put_slice(&piece[..passed]);
            if passed < len {
                self.read = [&piece[passed..], &self.read].concat().into();
            }
            self.progress.received();
            return Poll::Ready(Ok(()));
        }
        let buffer = Rc::clone(&self.progress.world.read_buffer);
        let mut buffer = buffer.borrow_mut();
        let len = buffer.len().min(to.remaining());
        let received = match Pin::new(&mut self.stream).poll_read(cx, &mut buffer[..len]) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(received) => received?,
        };
        if received > 0 {
            let passed = self.check(&buffer[..received])?;
            to.put_slice(&buffer[..passed]);
            self.read = Bytes::copy_from_slice(&buffer[passed..received]);
            self.progress.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.progress.sent();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
