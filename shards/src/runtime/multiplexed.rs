//! The requests of one HTTP/2 connection: while none is open the connection has its deadline, as between two requests of
//! HTTP/1.1; and a client that keeps taking requests back before they are answered is sent away. Each of those costs a
//! request, perhaps at a backend too, and costs the client two small frames (CVE-2023-44487, "rapid reset").

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::SharedWorld;
use super::body::{Body, Broken};
use crate::clock;
use crate::limits::rate::{Bucket, Rate};
use crate::shard::connection::{Address, Closing};

/// Time in which a client may take back as many requests as it may.
const RESETS_MS: u64 = 60_000;

/// What one connection has open.
pub(super) struct Streams {
    world: SharedWorld,
    address: Address,
    open: Cell<usize>,
    resets: Cell<Bucket>,
}

impl Streams {
    pub(super) fn new(world: &SharedWorld, address: Address) -> Rc<Self> {
        Rc::new(Self { world: Rc::clone(world), address, open: Cell::new(0), resets: Cell::default() })
    }

    /// Nothing is open.
    pub(super) fn are_idle(&self) -> bool {
        self.open.get() == 0
    }

    /// A request has come.
    pub(super) fn begin(self: &Rc<Self>) -> OpenStream {
        self.open.set(self.open.get() + 1);
        self.world.shard.borrow_mut().set_deadline(self.address, u64::MAX - 1);
        OpenStream { streams: Rc::clone(self), answered: false }
    }

    fn end(&self, answered: bool) {
        self.open.set(self.open.get() - 1);
        let mut shard = self.world.shard.borrow_mut();
        if self.are_idle() {
            shard.set_deadline(self.address, clock::now_ms() + self.world.settings.header_timeout_ms);
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
}

/// One request, until the last byte of its answer is handed over, or nobody wants it any more.
pub(super) struct OpenStream {
    streams: Rc<Streams>,
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
        Ok(answer.map(|body| StreamBody { body, _open: self }))
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
    _open: OpenStream,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
