//! The producer of a client or server, replaced should it ever fail for good.
//!
//! A message goes to librdkafka at once while little is under way. Otherwise it is held back until that has been
//! acknowledged, and goes together with all that came meanwhile: one write carries many messages under load, and a lone
//! message waits for nothing. Nothing is held back longer than [`HOLD`], so that a slow partition does not hold up others.
//! Those that go together share a partition as far as they are free to, a turn's worth of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::events::{Line, Reports};
use super::explain;
use super::turns::Turns;
use crate::error::Error;

/// Messages under way up to which another one goes at once.
const UNDER_WAY: usize = 4;
/// The longest that a message is held back.
const HOLD: Duration = Duration::from_millis(5);
/// Messages held back at most; beyond, librdkafka's queue counts as full.
const MAX_HELD: usize = 100_000;
/// A message larger than this is not held back: it fills a write alone, and its sender is told at once if it is too large.
const HELD_BYTES: usize = 16 << 10;
/// Messages of one turn at most, so that no partition, and no instance of a service behind it, gets too much at once.
const TURN_MESSAGES: usize = 256;

/// Makes the context of a producer.
type NewContext<C> = Box<dyn Fn(Turns) -> C + Send + Sync>;

/// A producer for messages whose delivery reports go to `C`.
pub(crate) struct Outlet<C: Reports + 'static> {
    line: RwLock<Arc<Line<C>>>,
    held: Mutex<HeldBack<C::DeliveryOpaque>>,
    /// Taken by who hands over several messages, so that their order holds.
    order: Mutex<()>,
    turns: Turns,
    config: ClientConfig,
    context: NewContext<C>,
}

/// Messages that wait until those under way are acknowledged, in their order.
struct HeldBack<M> {
    messages: VecDeque<Held<M>>,
    /// When the first of them came.
    since: Instant,
    /// They are being handed over; what comes meanwhile goes behind them.
    is_releasing: bool,
    /// Whoever serves looks again within [`HOLD`].
    is_watched: bool,
}

struct Held<M> {
    topic: Box<str>,
    partition: Option<i32>,
    key: Option<Box<[u8]>>,
    headers: OwnedHeaders,
    value: Box<[u8]>,
    mark: M,
}

impl<C: Reports + 'static> fmt::Debug for Outlet<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outlet").finish_non_exhaustive()
    }
}

/// A message to be written.
pub(crate) struct Parcel<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: OwnedHeaders,
    pub(crate) value: &'a [u8],
}

impl<C: Reports + 'static> Outlet<C> {
    /// `context` makes a context whose partitioner is what it is given.
    pub(crate) fn new(
        config: ClientConfig,
        context: impl Fn(Turns) -> C + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let turns = Turns::starting_at(getrandom::u32().unwrap_or_default());
        let line = create(&config, context(turns.clone()))?;
        let (messages, since) = (VecDeque::new(), Instant::now());
        let held = HeldBack { messages, since, is_releasing: false, is_watched: false };
        Ok(Self {
            line: RwLock::new(line),
            held: Mutex::new(held),
            order: Mutex::new(()),
            turns,
            config,
            context: Box::new(context),
        })
    }

    pub(crate) fn line(&self) -> Arc<Line<C>> {
        Arc::clone(&self.line.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn held(&self) -> MutexGuard<'_, HeldBack<C::DeliveryOpaque>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a message to librdkafka, or holds it back for a moment; what becomes of it is reported to the context.
    pub(crate) fn send(
        &self,
        parcel: Parcel<'_>,
        mark: C::DeliveryOpaque,
    ) -> Result<(), (KafkaError, C::DeliveryOpaque)> {
        let unsent = |unsent: Box<Unsent<'_, C>>| (unsent.0, unsent.1.delivery_opaque);
        let line = self.line();
        if parcel.value.len() > HELD_BYTES {
            self.release(&line, true);
            let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            return produce(&line, parcel, mark).map_err(unsent);
        }
        let mut held = self.held();
        if held.messages.is_empty() {
            if !held.is_releasing && line.under_way() < UNDER_WAY {
                drop(held);
                self.turns.next();
                return produce(&line, parcel, mark).map_err(unsent);
            }
            held.since = Instant::now();
        }
        if held.messages.len() >= MAX_HELD {
            return Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), mark));
        }
        held.messages.push_back(Held {
            topic: parcel.topic.into(),
            partition: parcel.partition,
            key: parcel.key.map(Into::into),
            headers: parcel.headers,
            value: parcel.value.into(),
            mark,
        });
        if !std::mem::replace(&mut held.is_watched, true) {
            line.wake();
        }
        Ok(())
    }

    /// Serves delivery reports, hands over what was held back, and replaces a producer that has failed for good (an
    /// idempotent one may, after a broker lost what it had acknowledged). Returns after the first reports.
    pub(crate) fn serve(&self, wait: Duration) {
        let line = self.line();
        let is_watched = {
            let mut held = self.held();
            held.is_watched = !held.messages.is_empty() || line.under_way() > 0;
            held.is_watched
        };
        line.serve(if is_watched { wait.min(HOLD) } else { wait });
        let Some((code, reason)) = line.producer().client().fatal_error() else {
            return self.release(&line, false);
        };
        match create(&self.config, (self.context)(self.turns.clone())) {
            Ok(fresh) => {
                tracing::error!(target: "tidegate::reactive", %code, reason, "the producer failed for good and is replaced");
                *self.line.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                // Dropping the old one purges it: what it still held is reported as failed.
            }
            Err(error) => tracing::error!(target: "tidegate::reactive", %error, "the producer can't be replaced yet"),
        }
    }

    /// Hands over what is held back, if it is time.
    fn release(&self, line: &Line<C>, at_once: bool) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let mut messages = {
            let mut held = self.held();
            if held.messages.is_empty() {
                return;
            }
            if !at_once && line.under_way() >= UNDER_WAY && held.since.elapsed() < HOLD {
                return;
            }
            held.is_releasing = true;
            std::mem::take(&mut held.messages)
        };
        for at in 0.. {
            let Some(Held { topic, partition, key, headers, value, mark }) = messages.pop_front() else { break };
            if at % TURN_MESSAGES == 0 {
                self.turns.next();
            }
            let parcel = Parcel { topic: &topic, partition, key: key.as_deref(), headers, value: &value };
            let Err(unsent) = produce(line, parcel, mark) else { continue };
            let (error, unsent) = *unsent;
            let (mark, headers) = (unsent.delivery_opaque, unsent.headers.unwrap_or_default());
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                messages.push_front(Held { topic, partition, key, headers, value, mark });
                break;
            }
            line.producer().client().context().report(&mut std::iter::once((Err(error), mark)));
        }
        let mut held = self.held();
        held.is_releasing = false;
        if !held.messages.is_empty() {
            held.since = Instant::now();
        }
        messages.append(&mut held.messages);
        if messages.is_empty() {
            messages.shrink_to(KEPT_HELD);
        }
        held.messages = messages;
    }

    /// Waits until everything has been reported, at most so long.
    pub(crate) fn flush(&self, wait: Duration) {
        let line = self.line();
        self.release(&line, true);
        if let Err(error) = line.producer().flush(wait) {
            tracing::warn!(target: "tidegate::reactive", %error, "messages were still unacknowledged at the stop");
        }
    }
}

/// Room for messages that is kept when none is held back.
const KEPT_HELD: usize = 1_024;

/// Why librdkafka did not take a message, and the message.
type Unsent<'a, C> = (KafkaError, BaseRecord<'a, [u8], [u8], <C as ProducerContext<Turns>>::DeliveryOpaque>);

fn produce<'a, C: Reports>(
    line: &Line<C>,
    parcel: Parcel<'a>,
    mark: C::DeliveryOpaque,
) -> Result<(), Box<Unsent<'a, C>>> {
    let mut record = BaseRecord::with_opaque_to(parcel.topic, mark).payload(parcel.value).headers(parcel.headers);
    if let Some(key) = parcel.key {
        record = record.key(key);
    }
    if let Some(partition) = parcel.partition {
        record = record.partition(partition);
    }
    line.producer().send(record).map_err(Box::new)
}

fn create<C: Reports>(config: &ClientConfig, context: C) -> Result<Arc<Line<C>>, Error> {
    Line::new(config, context)
        .map(Arc::new)
        .map_err(|error| explain("librdkafka refuses a setting of the producer", error))
}

/// Collects Kafka headers one by one.
#[derive(Debug)]
pub(crate) struct HeaderList(Option<OwnedHeaders>);

impl HeaderList {
    pub(crate) fn with_capacity(headers: usize) -> Self {
        Self(Some(OwnedHeaders::new_with_capacity(headers)))
    }

    pub(crate) fn put(&mut self, key: &str, value: &[u8]) {
        self.0 = self.0.take().map(|list| list.insert(Header { key, value: Some(value) }));
    }

    pub(crate) fn finish(self) -> OwnedHeaders {
        self.0.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rdkafka::ClientContext;
    use rdkafka::bindings::rd_kafka_test_fatal_error;
    use rdkafka::producer::DeliveryResult;
    use rdkafka::types::RDKafkaRespErr;

    use super::super::events::Report;
    use super::*;

    /// Writes down which messages were reported.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<usize>>>);

    impl ClientContext for Log {}

    impl ProducerContext<Turns> for Log {
        type DeliveryOpaque = usize;

        fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
            self.report(&mut std::iter::once((result.as_ref().map(drop).map_err(|(error, _)| error.clone()), mark)));
        }
    }

    impl Reports for Log {
        fn report(&self, reports: &mut dyn Iterator<Item = Report<Self>>) {
            self.0.lock().unwrap().extend(reports.map(|(_, mark)| mark));
        }
    }

    /// Settings of a producer whose broker never says a word; hold on to the broker.
    fn nowhere() -> (TcpListener, ClientConfig) {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = ClientConfig::new();
        let address = silent.local_addr().unwrap().to_string();
        config.set("bootstrap.servers", address).set("enable.idempotence", "true");
        (silent, config)
    }

    fn parcel(value: &[u8]) -> Parcel<'_> {
        Parcel { topic: "t", partition: None, key: None, headers: OwnedHeaders::new(), value }
    }

    #[test]
    fn a_message_waits_only_while_enough_are_under_way_and_never_for_long() {
        let (_silent, config) = nowhere();
        let outlet = Outlet::new(config, |_| Log::default()).unwrap();
        for mark in 0..UNDER_WAY {
            outlet.send(parcel(b"x"), mark).unwrap();
        }
        assert_eq!((outlet.line().under_way(), outlet.held().messages.len()), (UNDER_WAY, 0));
        outlet.send(parcel(b"x"), 7).unwrap();
        outlet.send(parcel(b"x"), 8).unwrap();
        assert_eq!((outlet.line().under_way(), outlet.held().messages.len()), (UNDER_WAY, 2));
        while !outlet.held().messages.is_empty() {
            outlet.serve(HOLD);
        }
        assert_eq!(outlet.line().under_way(), UNDER_WAY + 2);
    }

    #[test]
    fn a_large_message_goes_behind_those_that_were_held_back_and_a_too_large_one_is_refused_at_once() {
        let (_silent, config) = nowhere();
        let outlet = Outlet::new(config, |_| Log::default()).unwrap();
        for mark in 0..=UNDER_WAY {
            outlet.send(parcel(b"x"), mark).unwrap();
        }
        outlet.send(parcel(&[b'x'; HELD_BYTES + 1]), 9).unwrap();
        assert_eq!((outlet.line().under_way(), outlet.held().messages.len()), (UNDER_WAY + 2, 0));
        let (error, mark) = outlet.send(parcel(&vec![b'x'; 2_000_000]), 10).unwrap_err();
        assert_eq!((error.rdkafka_error_code(), mark), (Some(RDKafkaErrorCode::MessageSizeTooLarge), 10));
    }

    #[test]
    fn every_message_is_reported_once_also_one_that_was_held_back_when_a_full_queue_made_room() {
        let log = Log::default();
        let (_silent, mut config) = nowhere();
        config.set("queue.buffering.max.messages", "6").set("message.timeout.ms", "300");
        let context = log.clone();
        let outlet = Outlet::new(config, move |_| context.clone()).unwrap();
        for mark in 0..20 {
            outlet.send(parcel(b"x"), mark).unwrap();
        }
        while log.0.lock().unwrap().len() < 20 {
            outlet.serve(HOLD);
        }
        let mut reported = log.0.lock().unwrap().clone();
        reported.sort_unstable();
        assert_eq!(reported, (0..20).collect::<Vec<_>>());
        assert_eq!((outlet.line().under_way(), outlet.held().messages.len()), (0, 0));
    }

    #[test]
    fn a_producer_that_failed_for_good_is_replaced() {
        let (_silent, config) = nowhere();
        let outlet = Outlet::new(config, |_| Log::default()).unwrap();
        let first = outlet.line();
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client is live and the text ends with a zero.
        unsafe { rd_kafka_test_fatal_error(first.producer().client().native_ptr(), error, c"a test".as_ptr()) };
        assert!(first.producer().client().fatal_error().is_some());
        outlet.serve(Duration::ZERO);
        assert!(outlet.line().producer().client().fatal_error().is_none());
        assert!(outlet.send(parcel(b"x"), 0).is_ok());
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_is_an_error_that_names_it() {
        let mut config = ClientConfig::new();
        config.set("no.such.setting", "1");
        let error = Outlet::new(config, |_| Log::default()).unwrap_err();
        assert!(error.to_string().contains("no.such.setting"), "{error}");
        assert_eq!(error.kind(), crate::error::Kind::Settings);
    }
}
