//! Requests into Kafka topics.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use hyper::body::Incoming;
use jiff::Timestamp;
use tidegate_reactive::correlation::CorrelationId;

use super::correlated::{Waiting, late, respond, timeout_ms, until_answers_arrive};
use super::stored::{self, Asked, Unusable};
use super::{Call, reported};
use crate::clock;
use crate::proxy::counts::Outcome;
use crate::proxy::endpoint::{KafkaTarget, ResponseFrom, Target};
use crate::proxy::outbound::{CorrelatedAnswer, RequestMessage, RequestSink};
use crate::proxy::request_event::{self, Expected, NotAnEvent, Request};
use crate::runtime::SharedWorld;
use crate::runtime::http::Phase;
use crate::runtime::service::{Answer, Caller, busy, preflight, read_body, text, uncached};
use crate::submit::SubmitError;

/// What a client reads where there is no Kafka at all.
pub(super) const NO_KAFKA: &str = "This endpoint needs Kafka, and this gateway has none (KAFKA_BROKERS).";
/// RIG's answer once Kafka has a request.
const ACCEPTED: &str = "Accepted.";

/// Produces the request to the endpoint's topic, and waits for its answer where the endpoint has one.
pub(super) async fn request(world: &SharedWorld, caller: &Caller, call: &Call<'_>, body: Incoming) -> Answer {
    let Target::Kafka(target) = &call.endpoint.target else {
        return text(StatusCode::BAD_GATEWAY, "Bad gateway.");
    };
    if call.parts.method == Method::OPTIONS {
        return preflight("*", "content-type,authorization", false);
    }
    let Some(sink) = &world.sinks.requests else { return text(StatusCode::SERVICE_UNAVAILABLE, NO_KAFKA) };
    let body = match read_body(world, caller, body, world.settings.proxy.max_kafka_body_bytes).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if caller.handoff.is_some() {
        caller.progress.enter(Phase::Waiting);
    }
    let key = match stored::idempotency_key(world, &call.parts.headers) {
        Ok(key) => key,
        Err(Unusable) => return text(StatusCode::BAD_REQUEST, stored::UNUSABLE),
    };
    let produced = Produced { world, sink, target, call, body: &body };
    let response_from = call.endpoint.response_from;
    if let Err(refusal) = until_answers_arrive(world, response_from).await {
        return refusal;
    }
    let awaited = response_from != ResponseFrom::Http;
    let mut asked = Asked::read(world, &call.parts.headers);
    // Nobody comes back for an acknowledgement.
    asked.detached &= awaited;
    let timeout_ms = timeout_ms(world, response_from);
    if key.is_some() || asked.detached {
        return stored::exchange(world, call, &body, key, asked, timeout_ms, |waiting| {
            produced.exchange(awaited.then_some(waiting), world.settings.proxy.stored_ms).map(Exchange::run)
        })
        .await;
    }
    let waiting = awaited.then(|| Waiting::register(world, clock::now_ms() + timeout_ms)).transpose();
    let Ok(waiting) = waiting else { return busy() };
    match produced.exchange(waiting, timeout_ms) {
        Ok(exchange) => exchange.run().await.into_answer(),
        Err(reason) => text(StatusCode::BAD_REQUEST, reason.to_string()),
    }
}

/// What a message is made of.
struct Produced<'a> {
    world: &'a SharedWorld,
    sink: &'a Arc<dyn RequestSink>,
    target: &'a KafkaTarget,
    call: &'a Call<'a>,
    body: &'a [u8],
}

impl Produced<'_> {
    /// The message, ready to go; `waiting` is for its answer, and ends after `timeout_ms`.
    fn exchange(&self, waiting: Option<Waiting>, timeout_ms: u64) -> Result<Exchange, NotAnEvent> {
        let Self { world, sink, target, call, body } = self;
        let correlation = waiting.as_ref().map_or_else(|| unanswerable(world), Waiting::text);
        let reply_to = sink.reply_address();
        let expected = waiting.is_some().then(|| Expected {
            endpoint: &call.endpoint.id,
            deadline_unix_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0) + timeout_ms,
            reply_to: reply_to.as_deref(),
        });
        let request = Request {
            method: &call.parts.method,
            uri: &call.parts.uri,
            headers: &call.parts.headers,
            add_headers: &call.endpoint.add_headers,
            path: call.path,
            query: call.query,
            captures: call.captures,
            peer: call.client,
            secure: call.secure,
        };
        let message = request_event::message(target, &request, &correlation, expected, body)?;
        Ok(Exchange { sink: Arc::clone(sink), message, waiting })
    }
}

/// RIG names every request; the name of one that nobody waits for leads nowhere.
fn unanswerable(world: &SharedWorld) -> String {
    let instance = world.settings.proxy.instance + world.number as u64;
    world.settings.proxy.correlation_key.seal(CorrelationId { instance, slot: u32::MAX, generation: 0 })
}

/// A message on its way, and who waits for the answer. It needs no connection: dropping it gives up, running it in a task of
/// its own goes on without the client.
pub(super) struct Exchange {
    sink: Arc<dyn RequestSink>,
    message: RequestMessage,
    waiting: Option<Waiting>,
}

/// How an exchange ended.
pub(super) enum Ended {
    /// Kafka has the message, and no answer is expected.
    Accepted,
    /// The service has answered.
    Answered(CorrelatedAnswer),
    /// No answer came in time.
    Late,
    /// Kafka hasn't taken the message.
    NotTaken(SubmitError),
    /// The backend has not done what was asked for; the answer says so, and the request may be made again.
    Refused(CorrelatedAnswer),
}

impl Exchange {
    /// Produces the message and waits.
    pub(super) async fn run(self) -> Ended {
        let Self { sink, message, waiting } = self;
        let mut acknowledged = sink.produce(message);
        let Some(mut waiting) = waiting else {
            return match acknowledged.await.unwrap_or(Err(SubmitError::ShuttingDown)) {
                Ok(()) => Ended::Accepted,
                Err(error) => Ended::NotTaken(error),
            };
        };
        let mut taken = false;
        poll_fn(|cx| {
            // An answer proves that the message arrived, so it counts before its acknowledgement.
            if let Poll::Ready(answer) = waiting.poll(cx) {
                let out_of_reach = || SubmitError::Unreachable("no acknowledgement in time".to_owned());
                return Poll::Ready(match answer {
                    Some(answer) => Ended::Answered(answer),
                    None if taken => Ended::Late,
                    None => Ended::NotTaken(out_of_reach()),
                });
            }
            if !taken && let Poll::Ready(result) = Pin::new(&mut acknowledged).poll(cx) {
                if let Err(error) = result.unwrap_or(Err(SubmitError::ShuttingDown)) {
                    return Poll::Ready(Ended::NotTaken(error));
                }
                taken = true;
            }
            Poll::Pending
        })
        .await
    }
}

impl Ended {
    /// As the client that waited gets it.
    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::Accepted => uncached(text(StatusCode::ACCEPTED, ACCEPTED)),
            Self::Answered(answer) | Self::Refused(answer) => respond(answer),
            Self::Late => late(),
            Self::NotTaken(error) => not_taken(&error),
        }
    }

    /// As it is stored, and whether it shall be: what Kafka hasn't taken may be tried again.
    pub(super) fn into_stored(self) -> (CorrelatedAnswer, bool) {
        let own = |status, body| CorrelatedAnswer { status, headers: HeaderMap::new(), body };
        match self {
            Self::Accepted => (own(StatusCode::ACCEPTED, Bytes::from_static(ACCEPTED.as_bytes())), true),
            Self::Answered(answer) => (answer, true),
            Self::Refused(answer) => (answer, false),
            Self::Late => (own(StatusCode::GATEWAY_TIMEOUT, Bytes::new()), true),
            Self::NotTaken(error) => {
                let (status, reason, retry) = refusal(&error);
                let mut answer = own(status, reason.into());
                if retry {
                    answer.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                (answer, false)
            }
        }
    }
}

/// Status and text for a message that Kafka hasn't taken, and whether a retry helps.
fn refusal(error: &SubmitError) -> (StatusCode, String, bool) {
    match error {
        SubmitError::Refused(reason) => {
            (StatusCode::BAD_GATEWAY, format!("Kafka refused the request: {reason}."), false)
        }
        SubmitError::Unreachable(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("Kafka can't be reached: {reason}."), true)
        }
        SubmitError::Misfit(reason) => (StatusCode::BAD_REQUEST, format!("Bad request: {reason}."), false),
        SubmitError::NoSchema(reason) => {
            (StatusCode::BAD_GATEWAY, format!("The request can't be written in Avro: {reason}."), false)
        }
        SubmitError::RegistryUnreachable(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("The schema registry can't be reached: {reason}."), true)
        }
        SubmitError::Overloaded | SubmitError::ShuttingDown => {
            (StatusCode::SERVICE_UNAVAILABLE, "The gateway is overloaded. Try again in a second.".to_owned(), true)
        }
    }
}

fn not_taken(error: &SubmitError) -> Answer {
    let answer = match refusal(error) {
        (_, reason, true) if !matches!(error, SubmitError::Overloaded) => retry_later(reason),
        (status, reason, false) => text(status, reason),
        _ => busy(),
    };
    let outcome = if matches!(error, SubmitError::Misfit(_)) { Outcome::BadRequest } else { Outcome::Unreachable };
    reported(answer, outcome)
}

/// A 503 after which a retry helps.
pub(super) fn retry_later(reason: impl Into<Bytes>) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
