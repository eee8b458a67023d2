//! Requests whose answer comes from elsewhere: a slot among the pending ones, named by a signed id, until an answer finds it,
//! its deadline passes, or its caller goes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::http::{Response, StatusCode};
use futures_channel::oneshot;
use hyper::body::Incoming;
use tidegate_reactive::correlation::CorrelationId;

use super::http::detached::{self, Detached};
use super::http::{Forwarded, forward_correlated};
use super::stored::{self, Asked, Unusable};
use super::{Call, reported};
use crate::clock;
use crate::proxy::counts::Outcome;
use crate::proxy::deadline::Deadline;
use crate::proxy::endpoint::ResponseFrom;
use crate::proxy::outbound::CorrelatedAnswer;
use crate::runtime::SharedWorld;
use crate::runtime::body::Body;
use crate::runtime::http::Phase;
use crate::runtime::service::{Answer, Caller, busy, read_body, text, with_status};

/// How long a request waits at most until the response topics are being read; a start takes that long.
const MAX_WAIT_FOR_TOPICS_MS: u64 = 3_000;
/// Longest wait for an acknowledgement; the producer gives up well before.
const ACKNOWLEDGED_MS: u64 = 30_000;
/// Time between two looks whether they are.
const LOOK_MS: u64 = 50;

/// A request that waits for its answer. Dropping it frees its slot: an answer that comes later finds nobody.
pub(super) struct Waiting {
    world: SharedWorld,
    id: CorrelationId,
    answer: oneshot::Receiver<CorrelatedAnswer>,
}

/// As many requests wait as may (`PROXY_MAX_PENDING`).
pub(super) struct Crowded;

impl Waiting {
    /// Takes a slot until `deadline_ms`.
    ///
    /// # Errors
    /// Too many requests wait already.
    pub(super) fn register(world: &SharedWorld, deadline_ms: u64) -> Result<Self, Crowded> {
        let waiting = Self::hold(world)?;
        waiting.until(deadline_ms);
        Ok(waiting)
    }

    /// Takes a slot that has no deadline yet, see [`Self::until`].
    fn hold(world: &SharedWorld) -> Result<Self, Crowded> {
        let (sender, answer) = oneshot::channel();
        let id = world.proxy.pending.borrow_mut().hold(sender).map_err(|_| Crowded)?;
        Ok(Self { world: Rc::clone(world), id, answer })
    }

    /// Gives the slot its deadline.
    fn until(&self, deadline_ms: u64) {
        self.world.proxy.pending.borrow_mut().expire_at(self.id, deadline_ms);
    }

    /// Its name on this node.
    pub(super) fn id(&self) -> CorrelationId {
        self.id
    }

    /// Its name for others.
    pub(super) fn text(&self) -> String {
        self.world.settings.proxy.correlation_key.seal(self.id)
    }

    /// The answer; `None` when it didn't come in time, or the node stops.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<CorrelatedAnswer>> {
        Pin::new(&mut self.answer).poll(cx).map(Result::ok)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let sender = self.world.proxy.pending.borrow_mut().remove(self.id);
        drop(sender);
    }
}

/// Waits for `future` until the deadline.
pub(super) async fn before<T>(deadline: &Deadline, mut future: impl Future<Output = T> + Unpin) -> Option<T> {
    poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => deadline.poll(cx).map(|()| None),
    })
    .await
}

/// How long an endpoint's requests wait for their answers, or for Kafka's acknowledgement, in milliseconds.
pub(super) fn timeout_ms(world: &SharedWorld, response_from: ResponseFrom) -> u64 {
    let settings = &world.settings.proxy;
    match response_from {
        ResponseFrom::Http => ACKNOWLEDGED_MS,
        ResponseFrom::HttpAsync => settings.http_async_timeout_ms,
        ResponseFrom::Kafka => settings.kafka_timeout_ms,
    }
}

/// Waits, a bounded time, until an answer to a request that leaves now would be seen.
///
/// # Errors
/// The 503 for when it would not.
pub(super) async fn until_answers_arrive(world: &SharedWorld, response_from: ResponseFrom) -> Result<(), Answer> {
    if response_from != ResponseFrom::Kafka {
        return Ok(());
    }
    let Some(requests) = &world.sinks.requests else {
        return Err(text(StatusCode::SERVICE_UNAVAILABLE, super::kafka::NO_KAFKA));
    };
    let until_ms = clock::now_ms() + MAX_WAIT_FOR_TOPICS_MS;
    while !requests.receives_answers() {
        let now_ms = clock::now_ms();
        if now_ms >= until_ms {
            return Err(super::kafka::retry_later("Answers can't be received from Kafka at the moment."));
        }
        let look = world.proxy.deadlines.at(now_ms + LOOK_MS);
        poll_fn(|cx| look.poll(cx)).await;
    }
    Ok(())
}

/// A request to a backend that answers 202 and sends the answer later.
pub(super) async fn over_http(world: &SharedWorld, caller: &Caller, call: &Call<'_>, body: Incoming) -> Answer {
    let response_from = call.endpoint.response_from;
    if caller.handoff.is_some() {
        caller.progress.enter(Phase::Waiting);
    }
    if let Err(refusal) = until_answers_arrive(world, response_from).await {
        return refusal;
    }
    let key = match stored::idempotency_key(world, &call.parts.headers) {
        Ok(key) => key,
        Err(Unusable) => return text(StatusCode::BAD_REQUEST, stored::UNUSABLE),
    };
    let settings = &world.settings.proxy;
    let asked = Asked::read(world, &call.parts.headers);
    let timeout_ms = timeout_ms(world, response_from);
    if let Some(key) = key {
        return repeatable(world, caller, call, body, key, asked, timeout_ms).await;
    }
    let Ok(mut waiting) = Waiting::hold(world) else { return busy() };
    let correlation = waiting.text();
    // Until the backend has said that the answer comes later, that call's own deadlines count: an upload takes its time.
    if let Forwarded::Answer(answer) = forward_correlated(world, caller, call, body, &correlation).await {
        return answer;
    }
    if caller.handoff.is_some() {
        // With the 202 an answer of the backend has ended, but not the request.
        caller.progress.enter(Phase::Waiting);
    }
    let life_ms = if asked.detached { settings.stored_ms } else { timeout_ms };
    waiting.until(clock::now_ms() + life_ms);
    if asked.detached {
        return stored::keep_waiting(world, waiting, asked, timeout_ms).await;
    }
    poll_fn(|cx| waiting.poll(cx)).await.map_or_else(late, respond)
}

/// As [`over_http`], for a request that its client may repeat: it is made once, whatever becomes of the client, and its answer kept.
async fn repeatable(
    world: &SharedWorld,
    caller: &Caller,
    call: &Call<'_>,
    body: Incoming,
    key: &str,
    asked: Asked,
    timeout_ms: u64,
) -> Answer {
    let body = match read_body(world, caller, body, world.settings.max_body_bytes).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if caller.handoff.is_some() {
        caller.progress.enter(Phase::Waiting);
    }
    stored::exchange(world, call, &body, Some(key), asked, timeout_ms, |waiting| {
        let request = Detached::new(world, call, &body, waiting);
        Ok(async move {
            match request {
                Some(request) => request.run().await,
                None => detached::impossible(),
            }
        })
    })
    .await
}

/// The answer of a service, as the client gets it.
pub(super) fn respond(answer: CorrelatedAnswer) -> Answer {
    let CorrelatedAnswer { status, headers, body } = answer;
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    reported(response, Outcome::Ok)
}

/// No answer came in time.
pub(super) fn late() -> Answer {
    with_status(StatusCode::GATEWAY_TIMEOUT)
}
