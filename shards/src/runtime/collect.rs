//! Reading a request's whole body, within a size and a time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};

use super::SharedWorld;
use crate::clock;
use crate::limits::pace::Pace;

/// The answer to a client whose body comes too slowly.
pub(super) const BODY_LATE: &str = "The body did not arrive in time.";

/// Why a body could not be read.
pub(super) enum Unread {
    /// It came too slowly.
    Late,
    /// It is larger than it may be.
    TooLarge,
    /// The connection broke, or what came is no body.
    Broken,
}

/// Reads a body of `max_bytes` at most.
pub(super) async fn collect(world: &SharedWorld, mut body: Incoming, max_bytes: usize) -> Result<Bytes, Unread> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(Unread::TooLarge);
    }
    let settings = &world.settings;
    let now_ms = clock::now_ms();
    let mut pace = Pace::new(now_ms, settings.header_timeout_ms, settings.limits.min_body_bytes_per_s);
    let deadline = world.proxy.deadlines.at(pace.deadline_ms(now_ms));
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => deadline.poll(cx).map(|()| None),
        });
        let data = match frame.await {
            None => return Err(Unread::Late),
            Some(None) => break,
            Some(Some(Err(_))) => return Err(Unread::Broken),
            Some(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        if first.len() + whole.len() + data.len() > max_bytes {
            return Err(Unread::TooLarge);
        }
        pace.received(data.len() as u64);
        deadline.set(pace.deadline_ms(clock::now_ms()));
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            // Most bodies come in one piece, which needs no copy.
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
