//! One request, from the moment it was read until its answer is handed over.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, abortable};

use super::Shared;
use super::deliveries::Sent;
use super::metrics::ServerMetrics;
use crate::correlation::CorrelationId;
use crate::envelope::{AnswerMessage, Envelope, ReplyTo, RequestMessage};
use crate::headers::{Headers, names};
use crate::idempotency::{Admission, Fingerprint};
use crate::kafka::outlet::{HeaderList, Parcel};
use crate::kafka::{epoch_ms, kind_of};
use crate::outcome::Verdict;
use crate::payload::Payload;
use crate::pool::Job;
use crate::progress::Token;
use crate::service::{Outgoing, Refusal, Request, Work};

/// Between two attempts to hand an answer to a full librdkafka.
const FULL_INTERVAL: Duration = Duration::from_millis(2);

/// A request in the works.
#[derive(Debug)]
pub(super) struct Ticket {
    token: Token,
    correlation: Vec<u8>,
    reply_to: Option<ReplyTo>,
    envelope: Envelope,
    traceparent: Option<Vec<u8>>,
    received: Instant,
    answered: AtomicBool,
    timer: OnceLock<CorrelationId>,
    abort: OnceLock<AbortHandle>,
    fingerprint: Option<Fingerprint>,
}

/// Handlers of a batch of requests; they start together.
#[derive(Default)]
pub(super) struct Jobs {
    sync: Vec<Job>,
    tasks: Vec<Job>,
}

impl Jobs {
    pub(super) fn start(self, shared: &Shared) {
        shared.sync_pool.run(self.sync);
        shared.async_pool.run(self.tasks);
    }
}

/// Deals with a request that was read.
pub(super) fn begin(
    shared: &Arc<Shared>,
    token: Token,
    request: RequestMessage,
    envelope: Envelope,
    received: Instant,
    jobs: &mut Jobs,
) {
    let settings = &shared.settings;
    let time_left =
        request.deadline_ms.map(|deadline_ms| Duration::from_millis(deadline_ms.saturating_sub(epoch_ms())));
    let is_late = |deadline_ms: u64| {
        let tolerance_ms = u64::try_from(settings.clock_tolerance.as_millis()).unwrap_or(u64::MAX);
        deadline_ms.saturating_add(tolerance_ms) < epoch_ms()
    };
    if request.deadline_ms.is_some_and(is_late) {
        ServerMetrics::count(&shared.metrics.too_late);
        shared.settle(token);
        return;
    }
    let fingerprint = request
        .headers
        .get(names::IDEMPOTENCY_KEY)
        .map(|key| Fingerprint::new(&request.service, key, &request.payload.bytes));
    let ticket = Arc::new(Ticket {
        token,
        correlation: request.correlation,
        reply_to: request.reply_to,
        envelope,
        traceparent: request.headers.get(names::TRACEPARENT).map(<[u8]>::to_vec),
        received,
        answered: AtomicBool::new(false),
        timer: OnceLock::new(),
        abort: OnceLock::new(),
        fingerprint,
    });
    let Some(handler) = shared.service.find(&request.service) else {
        ServerMetrics::count(&shared.metrics.unknown_service);
        let message = format!("no service {:?} on the topic {}", request.service, settings.topic);
        return answer(shared, &ticket, refusal(Verdict::NoSuchService, message));
    };
    let handler_time = time_left.map_or(settings.handler_timeout, |left| {
        left.saturating_add(settings.clock_tolerance).min(settings.handler_timeout)
    });
    set_timer(shared, &ticket, handler_time);
    if let Some(fingerprint) = &ticket.fingerprint {
        let admission = shared.memory().admit(fingerprint, Arc::clone(&ticket));
        match admission {
            Admission::Handle(_) => {}
            Admission::Waits => {
                ServerMetrics::count(&shared.metrics.repeated);
                return;
            }
            Admission::Stored(stored, ticket) => {
                ServerMetrics::count(&shared.metrics.repeated);
                return answer(shared, &ticket, stored);
            }
            Admission::Reused(ticket) => {
                ServerMetrics::count(&shared.metrics.key_reused);
                let message = "the idempotency key was used for another payload";
                return answer(shared, &ticket, Refusal::bad_request(message).status(422).into_outgoing());
            }
        }
    }
    let letter = settings.dead_letters.is_some().then(|| (request.headers.clone(), request.payload.bytes.clone()));
    let request = Request { payload: request.payload, headers: request.headers, service: request.service, time_left };
    // A payload's type decodes itself: if that panics, the thread that reads requests must go on.
    match catch_unwind(AssertUnwindSafe(|| handler(request))) {
        Ok(Ok(Work::Sync(work))) => jobs.sync.push(sync_job(shared, ticket, work)),
        Ok(Ok(Work::Future(work))) => start_future(shared, ticket, work, jobs),
        Ok(Err(error)) => {
            ServerMetrics::count(&shared.metrics.undecodable);
            if let Some((headers, value)) = letter {
                bury(shared, None, &headers, &value, &error.to_string());
            }
            conclude(shared, &ticket, Refusal::bad_request(error.to_string()).into_outgoing());
        }
        Err(panic) => conclude(shared, &ticket, panicked(shared, &*panic)),
    }
}

type Answering = Pin<Box<dyn Future<Output = Outgoing> + Send>>;

fn start_future(shared: &Arc<Shared>, ticket: Arc<Ticket>, work: Answering, jobs: &mut Jobs) {
    let (future, abort) = abortable(AssertUnwindSafe(work).catch_unwind());
    ticket.abort.get_or_init(|| abort);
    let (owner, started) = (Arc::clone(shared), Arc::clone(&ticket));
    let task = Box::pin(async move {
        match future.await {
            Ok(result) => conclude(&owner, &started, result.unwrap_or_else(|panic| panicked(&owner, &*panic))),
            Err(_) => conclude(&owner, &started, timed_out()),
        }
    });
    match &shared.settings.spawn {
        // Executors may panic too, such as one that has been shut down.
        Some(spawn) => {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| spawn(task))) {
                conclude(shared, &ticket, panicked(shared, &*panic));
            }
        }
        None => jobs.tasks.push(shared.async_pool.task(task)),
    }
}

fn sync_job(shared: &Arc<Shared>, ticket: Arc<Ticket>, work: Box<dyn FnOnce() -> Outgoing + Send>) -> Job {
    let owner = Arc::clone(shared);
    Box::new(move || {
        if ticket.answered.load(Ordering::Acquire) {
            return conclude(&owner, &ticket, timed_out());
        }
        let result = catch_unwind(AssertUnwindSafe(work));
        conclude(&owner, &ticket, result.unwrap_or_else(|panic| panicked(&owner, &*panic)));
    })
}

fn set_timer(shared: &Shared, ticket: &Arc<Ticket>, time: Duration) {
    let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let deadline_ms = shared.now_ms().saturating_add(time_ms);
    if let Ok(id) = shared.timers().insert(Arc::clone(ticket), deadline_ms) {
        ticket.timer.get_or_init(|| id);
    }
}

/// The handler of a request has had its time: its future is dropped. A sync one can't be stopped; what it answers later is
/// only remembered.
pub(super) fn give_up(shared: &Arc<Shared>, ticket: &Arc<Ticket>) {
    ServerMetrics::count(&shared.metrics.timed_out);
    answer(shared, ticket, timed_out());
    if let Some(abort) = ticket.abort.get() {
        abort.abort();
    }
}

/// The handler has ended: its answer is remembered if it should be, and goes to all who asked for it.
fn conclude(shared: &Arc<Shared>, ticket: &Arc<Ticket>, outgoing: Outgoing) {
    if let Some(fingerprint) = &ticket.fingerprint {
        let waiting = match outgoing.verdict {
            None | Some(Verdict::BadRequest) => {
                let bytes = outgoing.payload.bytes.len() + REMEMBERED_BYTES;
                shared.memory().finish(fingerprint, outgoing.clone(), bytes)
            }
            Some(_) => shared.memory().abandon(fingerprint),
        };
        for other in waiting {
            answer(shared, &other, outgoing.clone());
        }
    }
    answer(shared, ticket, outgoing);
}

/// What a remembered answer costs beside its body, about.
const REMEMBERED_BYTES: usize = 512;

/// Sends the answer of a request, unless it had one.
fn answer(shared: &Arc<Shared>, ticket: &Ticket, outgoing: Outgoing) {
    if ticket.answered.swap(true, Ordering::AcqRel) {
        return;
    }
    if let Some(timer) = ticket.timer.get() {
        shared.timers().remove(*timer);
    }
    if outgoing.verdict == Some(Verdict::HandlerFailed) {
        ServerMetrics::count(&shared.metrics.failed);
    }
    let serving = ticket.received.elapsed();
    shared.metrics.serving.record(serving);
    let Some(reply_to) = &ticket.reply_to else { return shared.settle(ticket.token) };
    let mut headers = outgoing.headers;
    if let Some(traceparent) = ticket.traceparent.as_ref().filter(|_| headers.get(names::TRACEPARENT).is_none()) {
        headers.insert(names::TRACEPARENT, traceparent.clone());
    }
    let mut message = AnswerMessage {
        correlation: ticket.correlation.clone(),
        reply_topic: reply_to.topic.clone(),
        status: outgoing.status,
        verdict: outgoing.verdict,
        serving_us: Some(u64::try_from(serving.as_micros()).unwrap_or(u64::MAX)),
        headers,
        payload: outgoing.payload,
    };
    let Err(reason) = send(shared, ticket, reply_to, &message) else { return };
    // The caller must not wait for an answer that can't be sent: it gets the reason instead.
    let Outgoing { status, verdict, headers, payload } =
        Refusal::failed(format!("the answer can't be sent: {reason}")).into_outgoing();
    message = AnswerMessage { status, verdict, headers, payload, ..message };
    if let Err(reason) = send(shared, ticket, reply_to, &message) {
        ServerMetrics::count(&shared.metrics.unanswered);
        tracing::warn!(target: "tidegate::reactive", reason, topic = reply_to.topic, "an answer can't be sent");
        shared.settle(ticket.token);
    }
}

/// Hands an answer to librdkafka; the reason if it can't be sent at all.
fn send(shared: &Shared, ticket: &Ticket, reply_to: &ReplyTo, message: &AnswerMessage) -> Result<(), String> {
    let mut sent = Box::new(Sent { token: Some(ticket.token), is_answer: true, at: Instant::now() });
    loop {
        let mut list = HeaderList::with_capacity(ANSWER_HEADERS + message.headers.len());
        let value = message.encode(ticket.envelope, &mut |name, value| list.put(name, value));
        let value = value.map_err(|error| error.to_string())?;
        let parcel = Parcel {
            topic: &reply_to.topic,
            partition: reply_to.partition.filter(|partition| *partition >= 0),
            key: None,
            headers: list.finish(),
            value: &value,
        };
        match shared.outlet.send(parcel, sent) {
            Ok(()) => return Ok(()),
            Err((error, unsent)) => {
                let is_full = error.rdkafka_error_code().is_some_and(|code| kind_of(code) == crate::error::Kind::Full);
                if !is_full || shared.drained.load(Ordering::Acquire) {
                    return Err(error.to_string());
                }
                sent = unsent;
                std::thread::sleep(FULL_INTERVAL);
            }
        }
    }
}

const ANSWER_HEADERS: usize = 5;

/// Puts a message into the dead-letter topic; what `token` names is done when Kafka has it.
pub(super) fn bury(shared: &Shared, token: Option<Token>, headers: &Headers, value: &[u8], reason: &str) {
    let Some(topic) = &shared.settings.dead_letters else {
        return token.into_iter().for_each(|token| shared.settle(token));
    };
    let mut list = HeaderList::with_capacity(headers.len() + 1);
    headers.iter().for_each(|(name, value)| list.put(name, value));
    list.put(names::REASON, reason.as_bytes());
    let parcel = Parcel { topic, partition: None, key: None, headers: list.finish(), value };
    let sent = Box::new(Sent { token, is_answer: false, at: Instant::now() });
    if let Err((error, _)) = shared.outlet.send(parcel, sent) {
        tracing::warn!(target: "tidegate::reactive", %error, topic, "a dead letter can't be written");
        token.into_iter().for_each(|token| shared.settle(token));
    }
}

fn timed_out() -> Outgoing {
    refusal(Verdict::TimedOut, "the handler took too long".to_owned())
}

/// The offset of a request could not be committed before it was handled.
pub(super) fn refuse_uncommitted(shared: &Arc<Shared>, token: Token, request: RequestMessage, envelope: Envelope) {
    ServerMetrics::count(&shared.metrics.uncommitted);
    let ticket = Ticket {
        token,
        correlation: request.correlation,
        reply_to: request.reply_to,
        envelope,
        traceparent: None,
        received: Instant::now(),
        answered: AtomicBool::new(false),
        timer: OnceLock::new(),
        abort: OnceLock::new(),
        fingerprint: None,
    };
    answer(shared, &ticket, refusal(Verdict::Overloaded, "the request could not be committed first".to_owned()));
}

fn refusal(verdict: Verdict, message: String) -> Outgoing {
    let payload = Payload { content_type: "text/plain; charset=utf-8".into(), bytes: message.into_bytes() };
    Outgoing { status: verdict.status(), verdict: Some(verdict), headers: Headers::new(), payload }
}

fn panicked(shared: &Shared, panic: &(dyn Any + Send)) -> Outgoing {
    ServerMetrics::count(&shared.metrics.panicked);
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Refusal::failed(format!("the handler panicked: {}", text.unwrap_or_default())).into_outgoing()
}
