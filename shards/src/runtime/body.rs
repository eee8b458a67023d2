//! The bodies of answers: bytes, an event stream that hyper pulls, or what a backend sends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::SharedWorld;
use super::http::{Phase, Progress};
use super::proxy::http::BackendBody;
use crate::shard::connection::{Address, Closing};

/// Body of an answer.
pub(super) enum Body {
    /// All of it.
    Full(Option<Bytes>),
    /// Events as they come.
    Events(EventBody),
    /// A backend's.
    Backend(Box<BackendBody>),
}

/// A backend's body does not come to its end: the client's connection, or its stream of HTTP/2, must not either.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The connection to the backend broke, or what came is no body.
    #[error("the backend's body is broken: {0}")]
    Backend(hyper::Error),
    /// Nothing came for too long.
    #[error("the backend stopped within a body (PROXY_IDLE_TIMEOUT)")]
    Late,
}

impl Body {
    /// A body of these bytes.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    /// No body.
    pub(super) const fn empty() -> Self {
        Self::Full(None)
    }
}

/// An event stream; its connection goes when hyper drops it.
pub(super) struct EventBody {
    pub(super) world: SharedWorld,
    pub(super) address: Address,
    /// The client's connection, where the client has it for itself.
    pub(super) client: Option<Progress>,
}

impl Drop for EventBody {
    fn drop(&mut self) {
        self.world.shard.borrow_mut().remove(self.address);
        if let Some(client) = &self.client {
            client.enter(Phase::Idle);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(EventBody { world, address, .. }) => {
                let mut shard = world.shard.borrow_mut();
                if let Some(bytes) = shard.pull(*address) {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                match shard.connections().get_mut(*address) {
                    Some(connection) if connection.closing == Closing::No => {
                        connection.remember(cx.waker());
                        Poll::Pending
                    }
                    _ => Poll::Ready(None),
                }
            }
            Self::Backend(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Events(_) => false,
            Self::Backend(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
            Self::Backend(body) => body.size_hint(),
        }
    }
}
