//! The body of a request on its way to a backend: one piece at a time, asked for by the backend's connection.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::proxy::forward;

/// How far a request's body is; shared by the body and the exchange.
#[derive(Default)]
pub(super) struct Upload {
    /// Nothing more will be asked for.
    pub(super) ended: Cell<bool>,
    /// The client owes the next piece.
    pub(super) starved: Cell<bool>,
    /// Set with every piece.
    pub(super) moved: Cell<bool>,
    /// Bytes that have come since somebody took them from here.
    pub(super) received: Cell<u64>,
    /// What the client sent is no body.
    pub(super) broken: Cell<bool>,
    /// The client waits for the backend's `100 Continue` (RFC 9110 section 10.1.1), and so does the body.
    held: Cell<bool>,
    /// Set by the `100 Continue`; hyper wants to be able to send it to another thread.
    continued: Arc<AtomicBool>,
    /// The backend's connection, while the body is held.
    waker: Cell<Option<Waker>>,
}

impl Upload {
    /// Holds the body until the backend asks for it.
    pub(super) fn hold(&self, request: &mut Request<RequestBody>) {
        self.held.set(true);
        let continued = Arc::clone(&self.continued);
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                continued.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Whether the body waits for the backend.
    pub(super) fn is_held(&self) -> bool {
        self.held.get() && !self.continued.load(Ordering::Relaxed)
    }

    /// Lets a held body go without having been asked for.
    pub(super) fn release(&self) {
        self.held.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Body of a request.
pub(super) enum RequestBody {
    /// None.
    Empty,
    /// Read before; taken when it is sent.
    Whole(Option<Bytes>),
    /// As it comes from the client.
    Streaming(Streaming),
}

/// See [`RequestBody::Streaming`].
pub(super) struct Streaming {
    incoming: Incoming,
    upload: Rc<Upload>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, upload: &Rc<Upload>) -> Self {
        if incoming.is_end_stream() {
            upload.ended.set(true);
            return Self::Empty;
        }
        Self::Streaming(Streaming { incoming, upload: Rc::clone(upload) })
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.upload.ended.set(true);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Streaming { incoming, upload } = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Whole(body) => return Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Streaming(streaming) => streaming,
        };
        if upload.is_held() {
            upload.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        upload.starved.set(true);
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        upload.starved.set(false);
        upload.moved.set(true);
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(match frame.into_trailers() {
                Ok(mut trailers) => {
                    forward::clean_trailers(&mut trailers);
                    Frame::trailers(trailers)
                }
                Err(data) => {
                    let bytes = data.data_ref().map_or(0, |data| data.len() as u64);
                    upload.received.set(upload.received.get() + bytes);
                    data
                }
            }),
            Err(error) => {
                upload.broken.set(true);
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Streaming(Streaming { incoming, .. }) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Streaming(Streaming { incoming, .. }) => incoming.size_hint(),
        }
    }
}
