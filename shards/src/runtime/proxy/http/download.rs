//! The body of a backend's answer on its way to the client: one piece at a time, asked for by the client's connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::line::Line;
use super::pool::Lease;
use super::upload::Upload;
use crate::clock;
use crate::proxy::deadline::{Deadline, Ends};
use crate::proxy::forward;
use crate::runtime::body::Broken;
use crate::runtime::http::{Phase, Progress};

/// What an answer comes over; goes when the answer has ended or nobody wants it any more.
pub(super) enum Source {
    /// A connection of its own.
    Line(Box<Line>),
    /// A stream of an HTTP/2 connection, with the deadline for its next piece.
    Stream(Deadline),
}

impl Source {
    fn deadline(&self) -> &Deadline {
        match self {
            Self::Line(line) => &line.deadline,
            Self::Stream(deadline) => deadline,
        }
    }
}

/// What is needed until the answer has ended.
struct Open {
    incoming: Incoming,
    source: Source,
    lease: Lease,
}

/// Shared with the deadline, which ends the answer of a client that has stopped reading: on HTTP/2 nobody polls it then.
#[derive(Default)]
struct Held(RefCell<Option<Open>>);

impl Ends for Held {
    fn end(&self) {
        let ended = self.0.take();
        drop(ended);
    }
}

/// Body of a backend's answer.
pub(in crate::runtime) struct BackendBody {
    held: Rc<Held>,
    whole: bool,
    idle_ms: u64,
    /// The client's connection, where the client has it for itself.
    client: Option<Progress>,
    upload: Rc<Upload>,
}

impl BackendBody {
    pub(super) fn new(
        incoming: Incoming,
        source: Source,
        lease: Lease,
        idle_ms: u64,
        client: Option<Progress>,
        upload: Rc<Upload>,
    ) -> Self {
        let whole = incoming.is_end_stream();
        let open = Open { incoming, source, lease };
        let held = Rc::new(Held::default());
        let mut body = Self { held, whole, idle_ms, client, upload };
        body.moved(&open);
        if whole {
            body.ended(open);
        } else {
            let what: Rc<dyn Ends> = body.held.clone();
            open.source.deadline().ends(Rc::downgrade(&what));
            *body.held.0.borrow_mut() = Some(open);
        }
        body
    }

    /// A piece has come: the next one has its whole time.
    fn moved(&self, open: &Open) {
        let until_ms = clock::now_ms() + self.idle_ms;
        open.source.deadline().set(until_ms);
        if let Some(client) = &self.client {
            client.until(until_ms);
        }
    }

    /// The answer is whole: its connection can be used again, unless the request is still being sent.
    fn ended(&mut self, open: Open) {
        self.whole = true;
        let Open { source, lease, .. } = open;
        if let Source::Line(line) = source
            && self.upload.ended.get()
            && line.is_reusable()
        {
            lease.put_back(line);
        }
    }

    pub(in crate::runtime) fn is_end_stream(&self) -> bool {
        self.whole
    }

    pub(in crate::runtime) fn size_hint(&self) -> SizeHint {
        match &*self.held.0.borrow() {
            Some(open) => open.incoming.size_hint(),
            None if self.whole => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }

    pub(in crate::runtime) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.whole {
            return Poll::Ready(None);
        }
        // Out of the cell while it is used: what it is polled by may end it.
        let Some(mut open) = self.held.0.take() else { return Poll::Ready(Some(Err(Broken::Late))) };
        match open.poll(cx) {
            Poll::Pending => {
                *self.held.0.borrow_mut() = Some(open);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.moved(&open);
                if open.incoming.is_end_stream() {
                    open.settle(cx);
                    self.ended(open);
                } else {
                    *self.held.0.borrow_mut() = Some(open);
                }
                Poll::Ready(Some(Ok(clean(frame))))
            }
            Poll::Ready(None) => {
                open.settle(cx);
                self.ended(open);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(broken))) => Poll::Ready(Some(Err(broken))),
        }
    }
}

impl Open {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Broken::Backend)));
        }
        if let Source::Line(line) = &mut self.source {
            if line.drive(cx).is_ready() {
                // Dropping what is left of the connection tells the body that no more comes.
                line.end();
            }
            if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
                return Poll::Ready(frame.map(|frame| frame.map_err(Broken::Backend)));
            }
        }
        self.source.deadline().poll(cx).map(|()| Some(Err(Broken::Late)))
    }

    /// The last piece is here; lets the connection notice it too.
    fn settle(&mut self, cx: &mut Context<'_>) {
        if let Source::Line(line) = &mut self.source
            && !line.is_reusable()
        {
            let _over = line.drive(cx);
        }
    }
}

impl Drop for BackendBody {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            client.enter(Phase::Idle);
        }
    }
}

fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            forward::clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}
