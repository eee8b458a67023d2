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
use crate::limits::pace::Pace;
use crate::proxy::deadline::Deadline;

/// How long a body waits for the backend's `100 Continue`: not every backend knows it.
const CONTINUE_MS: u64 = 1_000;

/// Times of an exchange, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) first_byte_ms: u64,
    pub(super) idle_ms: u64,
    /// The slowest a body may come on average, in bytes a second; 0 for as slow as it likes.
    pub(super) min_body_bytes_per_s: u64,
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
    pace: Pace,
    /// Until when the body may be silent.
    silent_until_ms: u64,
    started: bool,
    held: bool,
    waiting: bool,
}

impl Clock {
    fn new(upload: &Upload, limits: Limits) -> Self {
        upload.moved.set(false);
        let pace = Pace::new(clock::now_ms(), limits.idle_ms, limits.min_body_bytes_per_s);
        Self { limits, pace, silent_until_ms: 0, started: false, held: false, waiting: false }
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
                let now_ms = clock::now_ms();
                self.pace.received(upload.received.take());
                self.silent_until_ms = now_ms + self.limits.idle_ms;
                deadline.set(if self.held {
                    now_ms + CONTINUE_MS.min(self.limits.idle_ms)
                } else {
                    self.pace.deadline_ms(now_ms)
                });
            }
            if deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if upload.is_held() {
                upload.release();
            } else if upload.ended.get() || upload.starved.get() || clock::now_ms() >= self.silent_until_ms {
                return Poll::Ready(());
            } else {
                // It is the backend that doesn't ask for more.
                deadline.set(self.silent_until_ms);
            }
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
