//! The two threads of a client: one reads answers and turns the wheel, the other serves delivery reports.

use std::sync::atomic::{AtomicBool, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext};

use super::home::Home;
use super::{Call, ClientMetrics, ClientSettings, Ended, Reply, Shared, refusal, unpack};
use crate::correlation::CorrelationId;
use crate::envelope::{AnswerMessage, Envelope, ReplyTo};
use crate::error::{Error, Kind};
use crate::kafka::events::{Report, Reports};
use crate::kafka::inbox::Message;
use crate::kafka::outlet::Outlet;
use crate::kafka::replies::ReplyReader;
use crate::kafka::topics::{self, TopicNeed};
use crate::kafka::turns::Turns;
use crate::kafka::{self, explain};
use crate::ledger::Ledger;
use crate::outcome::Failure;
use crate::wheel::TICK_MS;

const TICK: Duration = Duration::from_millis(TICK_MS);
/// Time for what is in librdkafka when a client ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The client's first thread: sets everything up, then reads answers until the end.
pub(super) fn run(settings: ClientSettings, ready: oneshot::Sender<Result<Arc<Shared>, Error>>) {
    let (shared, reader, home) = match set_up(&settings) {
        Ok(parts) => parts,
        Err(error) => {
            // Whoever wanted to connect may have gone.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let deliveries = Arc::clone(&shared);
    let spawned = thread::Builder::new().name("reactive-acks".to_owned()).spawn(move || {
        while !deliveries.stop.load(Ordering::Acquire) {
            deliveries.outlet.serve(2 * TICK);
        }
        deliveries.outlet.flush(FLUSH_TIMEOUT);
        leave(&deliveries);
    });
    if let Err(error) = spawned {
        let _ = ready.send(Err(Error::new(Kind::System, "can't start a thread").because(error)));
        return;
    }
    if ready.send(Ok(Arc::clone(&shared))).is_err() {
        shared.end();
    }
    read_answers(&shared, reader);
    drop(home);
    leave(&shared);
}

fn leave(shared: &Shared) {
    let mut ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
    ended.threads -= 1;
    if ended.threads == 0 {
        for waiting in ended.waiting.drain(..) {
            let _ = waiting.send(());
        }
    }
    drop(ended);
    shared.metrics.turned();
}

fn set_up(settings: &ClientSettings) -> Result<(Arc<Shared>, ReplyReader, Home), Error> {
    let deadline = Instant::now() + settings.connect_timeout;
    let connection = &settings.connection;
    let instance = getrandom::u64()
        .map_err(|error| Error::new(Kind::System, "the system gives no random number").because(error))?;
    let owner = Arc::<OnceLock<Weak<Shared>>>::default();
    let (delivery_timeout_ms, of_context) =
        (u64::try_from(settings.delivery_timeout.as_millis()).unwrap_or(u64::MAX), Arc::clone(&owner));
    let context = move |turns| Deliveries { owner: Arc::clone(&of_context), turns };
    let outlet = Outlet::new(connection.producer(delivery_timeout_ms), context)?;
    let need = TopicNeed {
        name: &settings.reply_topic,
        partitions: settings.reply_partitions,
        replication: settings.reply_replication,
    };
    let partitions = topics::ensure(connection, outlet.line().producer().client(), &need, deadline)?;
    if let Some(wanted) = settings.reply_partition.filter(|wanted| *wanted >= partitions) {
        let text =
            format!("the reply topic {} has {partitions} partitions; there is no {wanted}", settings.reply_topic);
        return Err(Error::new(Kind::Settings, text));
    }
    let home = Home::take(&connection.brokers, &settings.reply_topic, partitions, settings.reply_partition, instance);
    let mut config = connection.consumer();
    config.set("auto.offset.reset", "latest");
    let mut reader = ReplyReader::new(&config, &settings.reply_topic)
        .map_err(|error| explain("librdkafka refuses a setting of the consumer", error))?;
    // A service that answers the JSON envelope knows of no partition: its answers may come on any.
    let own = match settings.envelope {
        Envelope::Headers => home.partition..home.partition + 1,
        Envelope::Json => 0..i32::try_from(partitions).unwrap_or(i32::MAX),
    };
    for partition in own {
        let end = end_of(&outlet, &settings.reply_topic, partition, deadline)?;
        reader.start(partition, end).map_err(|error| explain("the reply partition can't be read", error))?;
    }
    let partition = (settings.envelope == Envelope::Headers).then_some(home.partition);
    let started = Instant::now();
    let shared = Arc::new(Shared {
        ledger: Mutex::new(Ledger::new(instance, settings.max_in_flight, settings.max_waiting(), 0)),
        outlet,
        metrics: ClientMetrics::default(),
        envelope: settings.envelope,
        instance,
        instance_text: format!("{instance:016x}"),
        reply_to: ReplyTo { topic: settings.reply_topic.clone(), partition },
        started,
        stop: AtomicBool::new(false),
        ended: Mutex::new(Ended { threads: 2, waiting: Vec::new() }),
    });
    owner.get_or_init(|| Arc::downgrade(&shared));
    Ok((shared, reader, home))
}

/// Offset that the next message of a partition gets.
fn end_of(outlet: &Outlet<Deliveries>, topic: &str, partition: i32, deadline: Instant) -> Result<i64, Error> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match outlet.line().producer().client().fetch_watermarks(topic, partition, left.max(TICK)) {
            Ok((_, end)) => return Ok(end),
            Err(error) if left.is_zero() => {
                return Err(explain("the end of the reply partition can't be found", error));
            }
            Err(_) => thread::sleep(TICK.min(left)),
        }
    }
}

fn read_answers(shared: &Shared, mut reader: ReplyReader) {
    let mut next_turn = Instant::now() + TICK;
    while !shared.stop.load(Ordering::Acquire) {
        let now = Instant::now();
        if now >= next_turn {
            next_turn = now + TICK;
            reader.serve();
            expire(shared);
            shared.metrics.turned();
        }
        // librdkafka counts whole milliseconds, and 0 is not to wait at all.
        let wait = (next_turn - now).max(Duration::from_millis(1));
        let batch: Vec<_> = reader.read(wait).filter_map(|message| Some((ours(shared, &message)?, message))).collect();
        if batch.is_empty() {
            continue;
        }
        let arrived = Instant::now();
        for (call, message) in take_calls(shared, batch) {
            deliver(shared, call, &message, arrived);
        }
    }
}

/// The calls that a batch of answers is for, taken out in one go.
fn take_calls<'a>(shared: &Shared, batch: Vec<(CorrelationId, Message<'a>)>) -> Vec<(Call, Message<'a>)> {
    let answers = batch.len();
    let mut ledger = shared.ledger();
    let take = |(id, message)| {
        let wants_answer = ledger.get_mut(id).is_some_and(|call| call.wants_answer);
        Some((if wants_answer { ledger.remove(id) } else { None }?, message))
    };
    let calls: Vec<_> = batch.into_iter().filter_map(take).collect();
    shared.metrics.late.fetch_add((answers - calls.len()) as u64, Relaxed);
    calls
}

/// The id in a message, if it is an answer to this client; counts what it is otherwise.
fn ours(shared: &Shared, message: &Message<'_>) -> Option<CorrelationId> {
    let metrics = &shared.metrics;
    if let Some(code) = message.error() {
        tracing::debug!(target: "tidegate::reactive", %code, "reading answers");
        return None;
    }
    let value = message.value();
    metrics.read_bytes.fetch_add(value.len() as u64, Relaxed);
    let text = AnswerMessage::correlation_of(message.headers(), value);
    let Some(id) = text.and_then(|text| CorrelationId::from_text(&text)) else {
        ClientMetrics::count(&metrics.malformed);
        return None;
    };
    if id.instance != shared.instance {
        ClientMetrics::count(&metrics.foreign);
        return None;
    }
    metrics.own_bytes.fetch_add(value.len() as u64, Relaxed);
    Some(id)
}

fn deliver(shared: &Shared, call: Call, message: &Message<'_>, arrived: Instant) {
    let metrics = &shared.metrics;
    let reply = match AnswerMessage::decode(message.headers(), message.value()) {
        Ok(answer) => {
            let total = arrived - call.begun;
            metrics.round_trip.record(total);
            if let (Some(produced), Some(serving_us)) = (call.produced, answer.serving_us) {
                let serving = Duration::from_micros(serving_us);
                let acknowledged = call.acknowledged.unwrap_or(produced);
                metrics.serving.record(serving);
                metrics.returning.record(arrived.saturating_duration_since(acknowledged).saturating_sub(serving));
            }
            ClientMetrics::count(&metrics.answered);
            Reply::Answer(answer)
        }
        Err(error) => {
            ClientMetrics::count(&metrics.malformed);
            let message = format!("the answer can't be read: {error}");
            Reply::Failed(Failure::HandlerFailed { status: 500, message })
        }
    };
    // Its caller may have gone meanwhile.
    let _ = call.reply.send(reply);
}

fn expire(shared: &Shared) {
    let (mut unanswered, mut unplaced) = (Vec::new(), Vec::new());
    shared.ledger().expire(shared.now_ms(), |call| unanswered.push(call), |call| unplaced.push(call));
    for call in unanswered {
        ClientMetrics::count(&shared.metrics.timed_out);
        let failure = match call.acknowledged {
            Some(_) => Failure::TimedOut,
            None => {
                Failure::Disconnected(Error::new(Kind::Unreachable, "Kafka did not acknowledge the request in time"))
            }
        };
        let _ = call.reply.send(Reply::Failed(failure));
    }
    for call in unplaced {
        ClientMetrics::count(&shared.metrics.overloaded);
        let _ = call.reply.send(Reply::Failed(Failure::Overloaded));
    }
}

/// Receives what became of each request's message.
#[derive(Debug)]
pub(super) struct Deliveries {
    owner: Arc<OnceLock<Weak<Shared>>>,
    turns: Turns,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidegate::reactive", %error, reason, "librdkafka reports");
    }
}

impl ProducerContext<Turns> for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        self.report(&mut std::iter::once((result, mark)));
    }

    fn get_custom_partitioner(&self) -> Option<&Turns> {
        Some(&self.turns)
    }
}

impl Reports for Deliveries {
    fn report(&self, reports: &mut dyn Iterator<Item = Report<Self>>) {
        let Some(shared) = self.owner.get().and_then(Weak::upgrade) else { return };
        let now = Instant::now();
        let mut ended = Vec::new();
        let mut ledger = shared.ledger();
        for (result, mark) in reports {
            let id = unpack(shared.instance, mark);
            let Some(call) = ledger.get_mut(id) else { continue };
            let reply = match result {
                Ok(()) => {
                    call.acknowledged = Some(now);
                    if let Some(produced) = call.produced {
                        shared.metrics.producing.record(now - produced);
                    }
                    if call.wants_answer {
                        continue;
                    }
                    Reply::Acknowledged
                }
                Err(error) => {
                    ClientMetrics::count(&shared.metrics.undelivered);
                    Reply::Failed(refusal(&error))
                }
            };
            ended.extend(ledger.remove(id).map(|call| (call, reply)));
        }
        drop(ledger);
        for (call, reply) in ended {
            // Its caller may have gone meanwhile.
            let _ = call.reply.send(reply);
        }
    }
}
