//! The client: a call goes out through the producer, its answer comes back through the reply reader, and the ledger brings
//! the two together.

mod home;
mod metrics;
mod settings;
mod threads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

pub use metrics::{ClientMetrics, ClientStatistics};
pub use settings::{ClientSettings, Overflow};

use crate::correlation::CorrelationId;
use crate::destination::Destination;
use crate::envelope::{AnswerMessage, Envelope, ReplyTo, RequestMessage};
use crate::error::{Error, Kind};
use crate::headers::{Headers, names};
use crate::kafka::outlet::{HeaderList, Outlet, Parcel};
use crate::kafka::{epoch_ms, explain, kind_of};
use crate::ledger::{Admission, Ledger};
use crate::outcome::{Failure, Outcome, interpret};
use crate::payload::{Decode, Encode};
use threads::Deliveries;

/// Calls services and gets their answers. Cheap to clone; all clones are one client.
///
/// Works on any executor: the work is done by two threads of its own.
#[derive(Clone, Debug)]
pub struct ReactiveClient {
    handle: Arc<Handle>,
}

/// Ends the client with its last clone.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What callers and the client's threads share.
#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger<Call>>,
    outlet: Outlet<Deliveries>,
    metrics: ClientMetrics,
    envelope: Envelope,
    instance: u64,
    instance_text: String,
    reply_to: ReplyTo,
    started: Instant,
    stop: AtomicBool,
    /// Those who wait for the end of the threads.
    ended: Mutex<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    threads: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

/// A call in flight.
#[derive(Debug)]
struct Call {
    wants_answer: bool,
    reply: oneshot::Sender<Reply>,
    begun: Instant,
    /// When it was handed to librdkafka.
    produced: Option<Instant>,
    /// When Kafka acknowledged it.
    acknowledged: Option<Instant>,
}

/// How a call in flight ended.
#[derive(Debug)]
enum Reply {
    Answer(AnswerMessage),
    Acknowledged,
    Failed(Failure),
}

impl ReactiveClient {
    /// Makes the reply topic if it is missing, takes a partition of it, and is ready for the first request when it returns.
    ///
    /// # Errors
    /// A setting can't be used, Kafka can't be reached within [`ClientSettings::connect_timeout`], or it refuses.
    pub async fn connect(settings: ClientSettings) -> Result<Self, Error> {
        settings.check()?;
        let (done, ready) = oneshot::channel();
        let spawned = std::thread::Builder::new().name("reactive-replies".to_owned()).spawn(move || {
            threads::run(settings, done);
        });
        spawned.map_err(|error| Error::new(Kind::System, "can't start a thread").because(error))?;
        let ended = || Error::new(Kind::System, "the client's thread ended before it was ready");
        let shared = ready.await.map_err(|_| ended())??;
        Ok(Self { handle: Arc::new(Handle(shared)) })
    }

    /// One call, one answer. `timeout` counts from the first poll. Dropping the future frees the place of the call.
    ///
    /// # Errors
    /// Every other way for a call to end, see [`Failure`].
    pub async fn request<Out: Decode>(
        &self,
        destination: &Destination,
        payload: impl Encode,
        headers: Headers,
        timeout: Duration,
    ) -> Outcome<Out> {
        match self.call(destination, payload, headers, timeout, true).await {
            Ok(Reply::Answer(answer)) => interpret(answer),
            Ok(Reply::Failed(failure)) | Err(failure) => Err(failure),
            Ok(Reply::Acknowledged) => Err(Failure::TimedOut),
        }
    }

    /// One way: done when Kafka has acknowledged the write.
    ///
    /// # Errors
    /// As [`request`](Self::request); [`Failure::Disconnected`] if Kafka did not acknowledge it in time.
    pub async fn send(
        &self,
        destination: &Destination,
        payload: impl Encode,
        headers: Headers,
        timeout: Duration,
    ) -> Result<(), Failure> {
        match self.call(destination, payload, headers, timeout, false).await {
            Ok(Reply::Failed(failure)) | Err(failure) => Err(failure),
            Ok(_) => Ok(()),
        }
    }

    /// Takes no more calls, gives those in flight so much time, ends the rest as [`Failure::Cancelled`], and is done when
    /// the client's threads have ended.
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.handle.0;
        shared.ledger().close();
        let deadline = Instant::now() + grace;
        while shared.ledger().in_flight() > 0 && Instant::now() < deadline {
            // The threads' next turn; it looks again then.
            let (turn, turned) = oneshot::channel();
            shared.metrics.next_turn(turn);
            // Once this is set, there may be no further turn.
            if shared.stop.load(Ordering::Acquire) || turned.await.is_err() {
                break;
            }
        }
        shared.end();
        let (done, ended) = oneshot::channel();
        {
            let mut state = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if state.threads == 0 {
                return;
            }
            state.waiting.push(done);
        }
        // The threads are gone either way.
        let _ = ended.await;
    }

    /// Calls that are in flight.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.handle.0.ledger().in_flight()
    }

    /// Gauges, counters and histograms as they are now.
    #[must_use]
    pub fn statistics(&self) -> ClientStatistics {
        let (pending, waiting) = {
            let ledger = self.handle.0.ledger();
            (ledger.in_flight(), ledger.waiting())
        };
        self.handle.0.metrics.read(pending, waiting)
    }

    /// Topic and partition that answers come home to; no partition with [`Envelope::Json`], which reads all of them.
    #[must_use]
    pub fn reply_to(&self) -> &ReplyTo {
        &self.handle.0.reply_to
    }

    async fn call(
        &self,
        destination: &Destination,
        payload: impl Encode,
        headers: Headers,
        timeout: Duration,
        wants_answer: bool,
    ) -> Result<Reply, Failure> {
        let shared = &self.handle.0;
        let begun = Instant::now();
        let bad = |message: String| Failure::BadRequest { status: 400, message };
        headers.check().map_err(|error| bad(error.to_string()))?;
        let payload = payload.encode().map_err(|error| bad(error.to_string()))?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut request = RequestMessage {
            correlation: Vec::new(),
            service: destination.service().to_owned(),
            topic: destination.topic().to_owned(),
            reply_to: wants_answer.then(|| shared.reply_to.clone()),
            instance: wants_answer.then(|| shared.instance_text.clone()),
            deadline_ms: wants_answer.then(|| epoch_ms().saturating_add(timeout_ms)),
            headers,
            payload,
        };
        let (reply, replied) = oneshot::channel();
        let call = Call { wants_answer, reply, begun, produced: None, acknowledged: None };
        let (place, replied) = Place::take(shared, call, replied, timeout_ms).await?;
        if begun.elapsed() >= timeout {
            return Err(Failure::TimedOut);
        }
        request.correlation = place.id.to_text().into_bytes();
        shared.produce(&request, place.id)?;
        let reply = replied.await.map_err(|_| Failure::Cancelled)?;
        place.leave();
        Ok(reply)
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger<Call>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of the ledger's clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn produce(&self, request: &RequestMessage, id: CorrelationId) -> Result<(), Failure> {
        let mut list = HeaderList::with_capacity(HEADERS + request.headers.len());
        let value = request.encode(self.envelope, &mut |name, value| list.put(name, value));
        let value = value.map_err(|error| Failure::BadRequest { status: 400, message: error.to_string() })?;
        let parcel = Parcel {
            topic: &request.topic,
            partition: None,
            // One key goes to one partition, and so to one instance of the service, which knows its answer.
            key: request.headers.get(names::IDEMPOTENCY_KEY),
            headers: list.finish(),
            value: &value,
        };
        if let Some(call) = self.ledger().get_mut(id) {
            let now = Instant::now();
            self.metrics.queueing.record(now - call.begun);
            call.produced = Some(now);
        }
        self.outlet.send(parcel, pack(id)).map_err(|(error, _)| refusal(&error))
    }

    /// Ends every call as cancelled, and the threads.
    fn end(&self) {
        let mut calls = Vec::new();
        self.ledger().drain(|call| calls.push(call));
        for call in calls {
            // Its caller may have gone meanwhile.
            let _ = call.reply.send(Reply::Failed(Failure::Cancelled));
        }
        self.stop.store(true, Ordering::Release);
    }
}

/// The protocol's own headers of a request.
const HEADERS: usize = 8;

/// A call's place among those in flight; given up when dropped.
struct Place {
    shared: Arc<Shared>,
    id: CorrelationId,
    left: bool,
}

impl Place {
    async fn take(
        shared: &Arc<Shared>,
        call: Call,
        replied: oneshot::Receiver<Reply>,
        timeout_ms: u64,
    ) -> Result<(Self, oneshot::Receiver<Reply>), Failure> {
        let deadline_ms = shared.now_ms().saturating_add(timeout_ms);
        let place = |id| Self { shared: Arc::clone(shared), id, left: false };
        let admission = shared.ledger().admit(call, deadline_ms);
        match admission {
            Admission::Entered(id) => Ok((place(id), replied)),
            Admission::Closed => Err(Failure::Cancelled),
            Admission::Overloaded => {
                ClientMetrics::count(&shared.metrics.overloaded);
                Err(Failure::Overloaded)
            }
            Admission::Waits(id, receiver) => {
                let mut waiting = Waiting { shared, id, receiver: Some(receiver) };
                let receiver = waiting.receiver.as_mut().expect("invariant: it was just put there");
                match receiver.await {
                    Ok(id) => {
                        waiting.receiver = None;
                        Ok((place(id), replied))
                    }
                    // No place in time, or the client ends: the reply says which.
                    Err(_) => match replied.await {
                        Ok(Reply::Failed(failure)) => Err(failure),
                        _ => Err(Failure::Cancelled),
                    },
                }
            }
        }
    }

    /// The call has been taken out by whoever answered it.
    fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left && self.shared.ledger().remove(self.id).is_some() {
            ClientMetrics::count(&self.shared.metrics.given_up);
        }
    }
}

/// A call that waits for its place; it may be given one in the moment it is dropped.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    id: CorrelationId,
    receiver: Option<oneshot::Receiver<CorrelationId>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else { return };
        let mut ledger = self.shared.ledger();
        if let Ok(Some(id)) = receiver.try_recv() {
            ledger.remove(id);
        } else {
            ledger.give_up(self.id);
        }
    }
}

/// An id as the mark of a message in librdkafka; the instance is our own.
fn pack(id: CorrelationId) -> usize {
    let packed = u64::from(id.slot) << 32 | u64::from(id.generation);
    usize::try_from(packed).unwrap_or_default()
}

fn unpack(instance: u64, mark: usize) -> CorrelationId {
    let half = |shift: u32| u32::try_from(mark as u64 >> shift & u64::from(u32::MAX)).unwrap_or_default();
    CorrelationId { instance, slot: half(32), generation: half(0) }
}

/// What it means to the caller that Kafka or librdkafka did not take a request.
fn refusal(error: &KafkaError) -> Failure {
    let Some(code) = error.rdkafka_error_code() else {
        return Failure::BadRequest { status: 400, message: error.to_string() };
    };
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Failure::NoSuchService { message: format!("the topic does not exist: {code}") }
        }
        Code::InvalidTopic => Failure::BadRequest { status: 400, message: code.to_string() },
        _ => match kind_of(code) {
            Kind::TooLarge => Failure::BadRequest { status: 413, message: code.to_string() },
            Kind::Full => Failure::Overloaded,
            _ => Failure::Disconnected(explain("Kafka did not take the request", error.clone())),
        },
    }
}

#[cfg(target_pointer_width = "32")]
compile_error!("the mark of a message needs 64 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_message_names_its_call() {
        let id = CorrelationId { instance: 9, slot: 0xdead_beef, generation: u32::MAX };
        assert_eq!(unpack(9, pack(id)), id);
    }

    #[test]
    fn what_kafka_refuses_is_the_callers_fault_only_where_a_retry_does_not_help() {
        let failure = |code| refusal(&KafkaError::MessageProduction(code));
        assert!(matches!(failure(Code::MessageSizeTooLarge), Failure::BadRequest { status: 413, .. }));
        assert!(matches!(failure(Code::UnknownTopicOrPartition), Failure::NoSuchService { .. }));
        assert!(matches!(failure(Code::QueueFull), Failure::Overloaded));
        let Failure::Disconnected(error) = failure(Code::MessageTimedOut) else { panic!("not disconnected") };
        assert!(error.retry_helps());
    }
}
