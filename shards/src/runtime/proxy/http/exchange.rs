//! One request sent and the head of its answer awaited.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};

use super::line::Line;
use super::upload::{RequestBody, Upload};
use crate::clock;
use crate::proxy::deadline::Deadline;

/// How long a body waits for the backend's `100 Continue`: not every backend knows it.
const CONTINUE_MS: u64 = 1_000;

/// Times of an exchange, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) first_byte_ms: u64,
    pub(super) idle_ms: u64,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The backend took too long.
    Late,
    /// The client took too long with its body.
    ClientLate,
    /// What the client sent as a body is none.
    ClientBroken,
    /// The connection broke, or what came is no answer.
    Broken {
        /// The request's body, if nothing of the request was sent.
        unsent: Option<RequestBody>,
        /// Nothing has come back.
        unanswered: bool,
        /// Why.
        reason: String,
    },
}

/// Sends a request over HTTP/1.1 and waits for its answer.
pub(super) async fn over_line(
    line: &mut Line,
    request: Request<RequestBody>,
    upload: &Upload,
    limits: Limits,
) -> Result<Response<Incoming>, Failure> {
    line.received.set(false);
    let mut answer = pin!(line.sender.try_send_request(request));
    let mut clock = Clock::new(upload, limits);
    poll_fn(|cx| {
        let _still_open = line.drive(cx);
        if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
            return Poll::Ready(answered.map_err(|error| broken(error, upload, !line.received.get())));
        }
        if line.is_over_unannounced() {
            line.end();
            if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                return Poll::Ready(answered.map_err(|error| broken(error, upload, !line.received.get())));
            }
        }
        clock.turn(upload, &line.deadline, cx).map(|()| Err(late(upload)))
    })
    .await
}

/// Sends a request over HTTP/2 and waits for its answer.
pub(super) async fn over_stream(
    sender: &mut http2::SendRequest<RequestBody>,
    request: Request<RequestBody>,
    upload: &Upload,
    deadline: &Deadline,
    limits: Limits,
) -> Result<Response<Incoming>, Failure> {
    let mut answer = pin!(sender.try_send_request(request));
    let mut clock = Clock::new(upload, limits);
    poll_fn(|cx| {
        if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
            return Poll::Ready(answered.map_err(|error| broken(error, upload, true)));
        }
        clock.turn(upload, deadline, cx).map(|()| Err(late(upload)))
    })
    .await
}

/// Moves the deadline: by every piece of the body, then once more for the answer.
struct Clock {
    limits: Limits,
    started: bool,
    held: bool,
    waiting: bool,
}

impl Clock {
    fn new(upload: &Upload, limits: Limits) -> Self {
        upload.moved.set(false);
        Self { limits, started: false, held: false, waiting: false }
    }

    /// Ready when the time is over.
    fn turn(&mut self, upload: &Upload, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if upload.ended.get() {
                if !self.waiting {
                    self.waiting = true;
                    deadline.set(clock::now_ms() + self.limits.first_byte_ms);
                }
            } else if upload.moved.replace(false) || !self.started || self.held != upload.is_held() {
                self.started = true;
                self.held = upload.is_held();
                let time_ms = if self.held { CONTINUE_MS.min(self.limits.idle_ms) } else { self.limits.idle_ms };
                deadline.set(clock::now_ms() + time_ms);
            }
            if deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !upload.is_held() {
                return Poll::Ready(());
            }
            upload.release();
        }
    }
}

fn late(upload: &Upload) -> Failure {
    if !upload.ended.get() && upload.starved.get() { Failure::ClientLate } else { Failure::Late }
}

fn broken(mut error: TrySendError<Request<RequestBody>>, upload: &Upload, unanswered: bool) -> Failure {
    if upload.broken.get() {
        return Failure::ClientBroken;
    }
    let unsent = error.take_message().map(Request::into_body);
    let error = error.into_error();
    let reason =
        std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    Failure::Broken { unsent, unanswered, reason }
}
