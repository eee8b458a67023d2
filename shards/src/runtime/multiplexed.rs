//! The requests of one HTTP/2 connection: while none is open the connection has its deadline, as between two requests of
//! HTTP/1.1; and a client that keeps taking requests back before they are answered is sent away. Each of those costs a
//! request, perhaps at a backend too, and costs the client two small frames (CVE-2023-44487, "rapid reset").
//!
//! Each stream has windows of its own, which its client may leave shut. hyper waits for them and asks for nothing meanwhile,
//! so the task of a stream looks for itself whether that has lasted too long, and resets this stream alone.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Response;
use http_body::{Frame, SizeHint};

use super::SharedWorld;
use super::body::{Body, Broken};
use super::http::is_cut;
use crate::clock;
use crate::limits::rate::{Bucket, Rate};
use crate::proxy::deadline::Deadline;
use crate::shard::connection::{Address, Closing};

/// Time in which a client may take back as many requests as it may.
const RESETS_MS: u64 = 60_000;
/// Bytes of an answer that hyper gets at a time: what it has been given it holds for as long as the client likes.
const PIECE_BYTES: usize = 16 * 1024;

/// What one connection has open.
pub(super) struct Streams {
    world: SharedWorld,
    address: Address,
    open: Cell<usize>,
    resets: Cell<Bucket>,
    /// Of the stream that has begun, until its task is started.
    begun: Cell<Option<Rc<Given>>>,
}

impl Streams {
    pub(super) fn new(world: &SharedWorld, address: Address) -> Rc<Self> {
        Rc::new(Self {
            world: Rc::clone(world),
            address,
            open: Cell::new(0),
            resets: Cell::default(),
            begun: Cell::default(),
        })
    }

    /// Nothing is open.
    pub(super) fn are_idle(&self) -> bool {
        self.open.get() == 0
    }

    /// A request has come.
    pub(super) fn begin(self: &Rc<Self>) -> OpenStream {
        self.open.set(self.open.get() + 1);
        self.world.shard.borrow_mut().set_deadline(self.address, u64::MAX - 1);
        let given = Rc::<Given>::default();
        self.begun.set(Some(Rc::clone(&given)));
        OpenStream { streams: Rc::clone(self), given, answered: false }
    }

    fn end(&self, answered: bool) {
        self.open.set(self.open.get() - 1);
        let mut shard = self.world.shard.borrow_mut();
        if self.are_idle() {
            shard.set_deadline(self.address, self.deadline_ms());
        }
        let lives = shard.connections().get(self.address).is_some_and(|connection| connection.closing == Closing::No);
        if answered || !lives {
            return;
        }
        let max = self.world.settings.limits.max_http2_resets;
        let mut resets = self.resets.get();
        if Rate::new(max, RESETS_MS, max.into()).take(&mut resets, clock::now_us()).is_err() {
            shard.metrics().connections_resetting.add(1);
            shard.close(self.address, Closing::Now);
        }
        self.resets.set(resets);
    }

    /// The socket has taken bytes of an answer, which may be one that hyper has for itself by now.
    fn moved(&self) {
        if self.are_idle() {
            self.world.shard.borrow_mut().set_deadline(self.address, self.deadline_ms());
        }
    }

    /// When a client that does nothing from now on has taken too long.
    fn deadline_ms(&self) -> u64 {
        clock::now_ms() + self.world.settings.header_timeout_ms
    }
}

/// What a stream's client is given.
#[derive(Default)]
struct Given {
    /// Events, which end as the shard says.
    events: Cell<Option<Address>>,
    /// An answer that is there as a whole: it is for the client to take it.
    whole: Cell<bool>,
    /// Until when it must have taken more of that; `None` as long as it does so at once.
    until: RefCell<Option<Deadline>>,
}

impl Given {
    /// Whether the stream is over although hyper waits for its client; else it is known whom to wake.
    fn is_over(&self, streams: &Streams, cx: &mut Context<'_>) -> bool {
        if let Some(address) = self.events.get() {
            return is_cut(&streams.world, address, cx);
        }
        if !self.whole.get() {
            return false;
        }
        let mut until = self.until.borrow_mut();
        until.get_or_insert_with(|| streams.world.proxy.deadlines.at(streams.deadline_ms())).poll(cx).is_ready()
    }

    /// The client has made room for more.
    fn moved(&self, streams: &Streams) {
        if let Some(until) = &*self.until.borrow() {
            until.set(streams.deadline_ms());
        }
    }
}

/// Runs the streams of one connection on the shard's executor.
#[derive(Clone)]
pub(super) struct StreamSpawner(pub(super) Rc<Streams>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamSpawner {
    fn execute(&self, future: F) {
        let streams = Rc::clone(&self.0);
        // hyper starts the task of a stream, and none other, right after its request has begun.
        let given = streams.begun.take().unwrap_or_default();
        glommio::spawn_local(StreamTask { streams, given, future: Box::pin(future) }).detach();
    }
}

/// The task of one stream.
struct StreamTask<F> {
    streams: Rc<Streams>,
    given: Rc<Given>,
    /// hyper's side of it; dropping it resets the stream (RST_STREAM, RFC 9113 section 6.4).
    future: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { streams, given, future } = self.get_mut();
        if future.as_mut().poll(cx).is_ready() || given.is_over(streams, cx) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// One request, until the last byte of its answer is handed over, or nobody wants it any more.
pub(super) struct OpenStream {
    streams: Rc<Streams>,
    given: Rc<Given>,
    answered: bool,
}

impl OpenStream {
    /// Answers it.
    pub(super) async fn answered_by<E>(
        mut self,
        answer: impl Future<Output = Result<Response<Body>, E>>,
    ) -> Result<Response<StreamBody>, E> {
        let answer = answer.await?;
        self.answered = true;
        match answer.body() {
            Body::Full(_) => self.given.whole.set(true),
            Body::Events(events) => self.given.events.set(Some(events.address)),
            // It has deadlines of its own.
            Body::Backend(_) => {}
        }
        Ok(answer.map(|body| StreamBody { body, open: self }))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.end(self.answered);
    }
}

/// Body of an answer on HTTP/2.
pub(super) struct StreamBody {
    body: Body,
    open: OpenStream,
}

impl http_body::Body for StreamBody {
    type Data = Piece;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Broken>>> {
        let Self { body, open: OpenStream { streams, given, .. } } = self.get_mut();
        given.moved(streams);
        let frame = match body {
            Body::Full(Some(bytes)) if bytes.len() > PIECE_BYTES => {
                Poll::Ready(Some(Ok(Frame::data(bytes.split_to(PIECE_BYTES)))))
            }
            body => Pin::new(body).poll_frame(cx),
        };
        let piece = |bytes| Piece { bytes, streams: Rc::clone(streams) };
        frame.map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that hyper has been given.
pub(super) struct Piece {
    bytes: Bytes,
    streams: Rc<Streams>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.streams.moved();
    }
}
