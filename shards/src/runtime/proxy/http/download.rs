//! The body of a backend's answer on its way to the client: one piece at a time, asked for by the client's connection.

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
use crate::proxy::deadline::Deadline;
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

/// Body of a backend's answer.
pub(in crate::runtime) struct BackendBody {
    incoming: Incoming,
    /// `None` once the answer has ended.
    held: Option<(Source, Lease)>,
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
        let mut body = Self { incoming, held: Some((source, lease)), idle_ms, client, upload };
        body.moved();
        if body.incoming.is_end_stream() {
            body.ended();
        }
        body
    }

    /// A piece has come: the next one has its whole time.
    fn moved(&mut self) {
        let until_ms = clock::now_ms() + self.idle_ms;
        if let Some((source, _)) = &self.held {
            source.deadline().set(until_ms);
        }
        if let Some(client) = &self.client {
            client.until(until_ms);
        }
    }

    /// The answer is whole: its connection can be used again, unless the request is still being sent.
    fn ended(&mut self) {
        if let Some((Source::Line(line), lease)) = self.held.take()
            && self.upload.ended.get()
            && line.is_reusable()
        {
            lease.put_back(line);
        }
    }

    pub(in crate::runtime) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(in crate::runtime) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(in crate::runtime) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.moved();
                    if self.incoming.is_end_stream() {
                        self.settle(cx);
                    }
                    return Poll::Ready(Some(Ok(clean(frame))));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.held = None;
                    return Poll::Ready(Some(Err(Broken::Backend(error))));
                }
                Poll::Ready(None) => {
                    self.settle(cx);
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            let Some((source, _)) = &mut self.held else { return Poll::Pending };
            if let Source::Line(line) = source
                && !driven
            {
                driven = true;
                if line.drive(cx).is_ready() {
                    // Dropping what is left of the connection tells the body that no more comes.
                    line.end();
                }
                continue;
            }
            if source.deadline().poll(cx).is_ready() {
                self.held = None;
                return Poll::Ready(Some(Err(Broken::Late)));
            }
            return Poll::Pending;
        }
    }

    /// The last piece is here; lets the connection notice it too.
    fn settle(&mut self, cx: &mut Context<'_>) {
        if let Some((Source::Line(line), _)) = &mut self.held
            && !line.is_reusable()
        {
            let _over = line.drive(cx);
        }
        self.ended();
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
