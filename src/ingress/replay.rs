//! Reads events from Kafka again for clients that come back: one thread, one consumer, and one pass for all that wait at the
//! same time, over the range that covers them all. What a shard needs of it goes through its replay lane; a full lane makes the
//! pass wait, Kafka keeps the events.

mod plan;
mod thread;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tidegate_shards::clock;
use tidegate_shards::cursor::{Loss, Reason};
use tidegate_shards::interest::Transports;
use tidegate_shards::publisher::Position;
use tidegate_shards::record::{self, Scratch};
use tidegate_shards::replay::{Joined, PassTicket, ReplayLane, ReplayRequest, Replayed};
use tidegate_shards::segment::SegmentWriter;

use self::plan::{Plan, Watermarks};
pub use self::thread::{ReplayThread, Replays};
use super::decoder::{Decoder, MessageError};
use super::kafka::consumer_config;
use super::metrics::IngressMetrics;
use super::native::{Batch, Consumer, Message};
use super::sleep;
use crate::config::KafkaSettings;
use crate::kafka::{LogContext, client_config};

/// While requests keep coming within this time, the pass waits for them, in milliseconds: clients that lost a node come back
/// together.
const GATHER_MS: u16 = 40;
/// The same where clients came while the last pass was read: there are many, whom one more pass can serve, if it is the last.
const CROWD_GATHER_MS: u16 = 250;
/// Longest wait of the first of them, in milliseconds.
const GATHER_MAX_MS: u64 = 2_000;
/// Time for one answer of Kafka.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a log may seem shorter than what was read of it, or not to be there, in milliseconds.
const SETTLE_MS: u64 = 10_000;
/// Pause before Kafka is asked again.
const RETRY: Duration = Duration::from_millis(250);
/// Messages taken from librdkafka at once.
const BATCH_MESSAGES: usize = 1_000;
/// Bytes of one segment of events that were read again.
const SEGMENT_BYTES: usize = 1 << 20;
/// Pause while a shard's lane is full.
const LANE_PAUSE: Duration = Duration::from_millis(1);
/// Pause while the schema of a message is asked for.
const SCHEMA_PAUSE: Duration = Duration::from_millis(20);
/// Longest sleep without a request, in milliseconds.
const IDLE_SLEEP_MS: u16 = 500;

/// The gateway is stopping.
#[derive(Clone, Copy, Debug)]
struct Stopped;

/// The thread's state.
#[derive(Debug)]
pub struct Replayer {
    settings: KafkaSettings,
    decoder: Decoder,
    replays: Arc<Replays>,
    lanes: Vec<ReplayLane>,
    metrics: Arc<IngressMetrics>,
    scratch: Scratch,
    segments: u64,
}

impl Replayer {
    /// For the shards behind `lanes`, in their order.
    #[must_use]
    pub fn new(
        settings: KafkaSettings,
        decoder: Decoder,
        replays: Arc<Replays>,
        lanes: Vec<ReplayLane>,
        metrics: Arc<IngressMetrics>,
    ) -> Self {
        Self { settings, decoder, replays, lanes, metrics, scratch: Scratch::default(), segments: 0 }
    }

    /// Serves until the gateway stops.
    pub fn run(mut self) {
        let mut clients: Option<(Consumer, BaseConsumer<LogContext>)> = None;
        let mut crowd = false;
        while !self.replays.stop.requested() {
            if self.replays.waiting.is_empty() {
                crowd = false;
                self.replays.sleep(IDLE_SLEEP_MS);
                continue;
            }
            let (consumer, asker) = match &mut clients {
                Some((consumer, asker)) => (consumer, asker),
                none => match self.connect() {
                    Ok(made) => {
                        let (consumer, asker) = none.insert(made);
                        (consumer, asker)
                    }
                    Err(error) => {
                        tracing::error!(%error, "events can't be read again: librdkafka refuses the settings");
                        return;
                    }
                },
            };
            let requests = self.gather(if crowd { CROWD_GATHER_MS } else { GATHER_MS });
            if self.pass(requests, consumer, asker).is_err() {
                return;
            }
            crowd = !self.replays.waiting.is_empty();
        }
    }

    fn connect(&self) -> KafkaResult<(Consumer, BaseConsumer<LogContext>)> {
        let mut config = consumer_config(&self.settings);
        config.set("enable.partition.eof", "true");
        let consumer = Consumer::new(&config, &self.settings.source_topics, &self.replays.bell)?;
        let mut config = client_config(&self.settings);
        config.set("allow.auto.create.topics", "false").set("topic.metadata.refresh.interval.ms", "-1");
        Ok((consumer, config.create_with_context(LogContext)?))
    }

    /// All requests that wait, and those that come soon after them: until none has come for `quiet_ms`.
    fn gather(&self, quiet_ms: u16) -> Vec<ReplayRequest> {
        let until_ms = clock::now_ms() + GATHER_MAX_MS;
        let mut requests = Vec::new();
        loop {
            let before = requests.len();
            requests.extend(std::iter::from_fn(|| self.replays.waiting.pop()));
            let over = requests.len() == before || clock::now_ms() >= until_ms || self.replays.stop.requested();
            if over {
                return requests;
            }
            std::thread::sleep(Duration::from_millis(u64::from(quiet_ms)));
        }
    }

    fn pass(
        &mut self,
        mut requests: Vec<ReplayRequest>,
        consumer: &mut Consumer,
        asker: &BaseConsumer<LogContext>,
    ) -> Result<(), Stopped> {
        for request in &mut requests {
            if let Some(since_ms) = request.since_ms {
                self.find_times(request, since_ms, asker)?;
            }
        }
        let mut plan = Plan::new(&requests);
        for slot in plan.doubtful() {
            let Some(place) = plan.layout.slot(slot) else { continue };
            let topic = self.settings.source_topics[place.source].clone();
            let watermarks = self.watermarks(&plan, slot, &topic, number(place.partition), asker)?;
            plan.know(slot, watermarks);
        }
        self.metrics.replay_passes.add(1);
        let ticket = PassTicket::default();
        let mut joined: Vec<Vec<Joined>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for request in requests {
            let losses = plan.losses(&request);
            let from = request.since_ms.is_some().then_some(request.from);
            let ticket = ticket.clone();
            joined[request.shard].push(Joined { address: request.address, from, losses, ticket });
        }
        let mut shards = Vec::new();
        for (shard, joined) in joined.into_iter().enumerate().filter(|(_, joined)| !joined.is_empty()) {
            shards.push(shard);
            self.push(shard, Replayed::Begin(joined))?;
        }
        self.read(&mut plan, &shards, &ticket, consumer, asker)?;
        for &shard in &shards {
            for loss in plan.shortened() {
                self.push(shard, Replayed::Lost(loss))?;
            }
            self.push(shard, Replayed::Done(Arc::clone(&plan.to)))?;
            self.lanes[shard].flush();
        }
        Ok(())
    }

    /// A partition's watermarks. A broker that has just come back says for a moment that its log ends before events it has
    /// given out already: that is waited for.
    fn watermarks(
        &self,
        plan: &Plan,
        slot: usize,
        topic: &str,
        partition: i32,
        asker: &BaseConsumer<LogContext>,
    ) -> Result<Watermarks, Stopped> {
        let until_ms = clock::now_ms() + SETTLE_MS;
        loop {
            match asker.fetch_watermarks(topic, partition, ANSWER_TIMEOUT) {
                Ok((low, high)) => {
                    let watermarks = Watermarks { low: unsigned(low), high: unsigned(high) };
                    if plan.is_whole(slot, watermarks) || clock::now_ms() >= until_ms {
                        return Ok(watermarks);
                    }
                }
                Err(error) if is_gone(&error) && clock::now_ms() >= until_ms => return Ok(plan.gone(slot)),
                Err(error) => tracing::info!(topic, partition, %error, "events can't be read again yet"),
            }
            self.pause()?;
        }
    }

    /// Moves a request to the first offsets since a time.
    fn find_times(
        &self,
        request: &mut ReplayRequest,
        since_ms: i64,
        asker: &BaseConsumer<LogContext>,
    ) -> Result<(), Stopped> {
        let mut times = TopicPartitionList::new();
        for (_, place) in request.layout.slots() {
            let topic = &self.settings.source_topics[place.source];
            // A partition's number and a time are always valid.
            let _ = times.add_partition_offset(topic, number(place.partition), Offset::Offset(since_ms.max(0)));
        }
        let found = self.first_offsets(&times, asker)?;
        for (slot, place) in request.layout.slots() {
            let topic = &self.settings.source_topics[place.source];
            let found = found.find_partition(topic, number(place.partition));
            let offset = found.filter(|found| found.error().is_ok()).map(|found| found.offset());
            if let (Some(from), Some(to)) = (request.from.get_mut(slot), request.to.get(slot)) {
                *from = match offset {
                    Some(Offset::Offset(offset)) => unsigned(offset),
                    _ => *to,
                };
            }
        }
        Ok(())
    }

    /// The first offset of each partition since its time. Asks until Kafka knows it of all that there are; a partition without an
    /// answer is given back with its time in place of an offset, and an error.
    fn first_offsets(
        &self,
        times: &TopicPartitionList,
        asker: &BaseConsumer<LogContext>,
    ) -> Result<TopicPartitionList, Stopped> {
        let until_ms = clock::now_ms() + SETTLE_MS;
        loop {
            match asker.offsets_for_times(times.clone(), ANSWER_TIMEOUT) {
                Ok(found) => {
                    let settled = clock::now_ms() >= until_ms;
                    let trouble = found.elements().into_iter().find_map(|element| {
                        let error = element.error().err().filter(|error| !(settled && is_gone(error)))?;
                        Some((element.topic().to_owned(), element.partition(), error))
                    });
                    let Some((topic, partition, error)) = trouble else { return Ok(found) };
                    tracing::info!(topic, partition, %error, "events can't be read again yet");
                }
                Err(error) => tracing::info!(%error, "events can't be read again yet"),
            }
            self.pause()?;
        }
    }

    /// Before Kafka is asked again.
    fn pause(&self) -> Result<(), Stopped> {
        if self.replays.stop.requested() {
            return Err(Stopped);
        }
        std::thread::sleep(RETRY);
        Ok(())
    }

    fn read(
        &mut self,
        plan: &mut Plan,
        shards: &[usize],
        ticket: &PassTicket,
        consumer: &mut Consumer,
        asker: &BaseConsumer<LogContext>,
    ) -> Result<(), Stopped> {
        for (slot, from) in plan.ranges() {
            self.start(plan, slot, from, consumer);
        }
        let mut writer = SegmentWriter::new(self.segments, SEGMENT_BYTES);
        let mut announced = false;
        let mut batch = Batch::with_capacity(BATCH_MESSAGES);
        while !plan.is_complete() {
            consumer.consume(&mut batch);
            for message in batch.iter() {
                let Some(source) = consumer.topic_index(&message) else { continue };
                let Some(slot) = plan.slot_of(source, message.partition()) else { continue };
                if let Some(error) = message.error() {
                    self.trouble(plan, slot, error, message.offset(), shards, asker)?;
                    continue;
                }
                self.metrics.replay_messages.add(1);
                if plan.take(slot, message.offset()) {
                    self.hand_over(plan, slot, &message, shards, &mut writer, &mut announced)?;
                }
            }
            let abandoned = if ticket.is_last() { plan.give_up() } else { Vec::new() };
            for slot in plan.finished().into_iter().chain(abandoned) {
                if let Some(place) = plan.layout.slot(slot) {
                    consumer.stop(place.source, place.partition);
                }
            }
            for (slot, from) in plan.restarts() {
                self.start(plan, slot, from, consumer);
            }
            shards.iter().for_each(|shard| self.lanes[*shard].flush());
            if batch.is_empty() && !plan.is_complete() {
                consumer.serve();
                self.wait_for_messages();
            }
            if self.replays.stop.requested() {
                return Err(Stopped);
            }
        }
        drop(batch);
        self.segments = writer.segment().number() + 1;
        Ok(())
    }

    fn wait_for_messages(&self) {
        self.replays.bell.arm();
        if let Err(error) = sleep::until_readable([self.replays.bell.fd()], 5) {
            tracing::error!(%error, "the replay thread can't sleep");
        }
        self.replays.bell.disarm();
    }

    fn start(&self, plan: &Plan, slot: usize, from: u64, consumer: &mut Consumer) {
        let Some(place) = plan.layout.slot(slot) else { return };
        if let Err(error) = consumer.start(place.source, place.partition, from) {
            let topic = &self.settings.source_topics[place.source];
            tracing::error!(topic, partition = place.partition, from, %error, "events can't be read again");
        }
    }

    /// What librdkafka reports in place of a message.
    fn trouble(
        &mut self,
        plan: &mut Plan,
        slot: usize,
        error: RDKafkaErrorCode,
        offset: u64,
        shards: &[usize],
        asker: &BaseConsumer<LogContext>,
    ) -> Result<(), Stopped> {
        match error {
            RDKafkaErrorCode::PartitionEOF => plan.end(slot, offset),
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition => {
                let Some(place) = plan.layout.slot(slot) else { return Ok(()) };
                let topic = self.settings.source_topics[place.source].clone();
                let partition = number(place.partition);
                let watermarks = self.watermarks(plan, slot, &topic, partition, asker)?;
                plan.know(slot, watermarks);
                plan.restart(slot);
                for &shard in shards {
                    let loss = Loss { reason: Reason::Expired, slot: Some(slot), from: 0, to: watermarks.low };
                    self.push(shard, Replayed::Lost(loss))?;
                }
            }
            error => tracing::debug!(%error, "Kafka reports an error while events are read again"),
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        plan: &Plan,
        slot: usize,
        message: &Message<'_>,
        shards: &[usize],
        writer: &mut SegmentWriter,
        announced: &mut bool,
    ) -> Result<(), Stopped> {
        // What is no event was counted and logged when it was read first.
        let decoded = loop {
            match self.decoder.decode(message, |event_type| plan.types.contains(event_type)) {
                Err(MessageError::SchemaAsked) if self.replays.stop.requested() => return Err(Stopped),
                Err(MessageError::SchemaAsked) => std::thread::sleep(SCHEMA_PAUSE),
                decoded => break decoded,
            }
        };
        let Ok(Some(event)) = decoded else { return Ok(()) };
        let position = Position { partition: u32::try_from(slot).unwrap_or(u32::MAX), offset: message.offset() };
        let range = loop {
            let now_us = clock::now_us();
            let written = record::write(writer, &event, position, "", now_us, Transports::NONE, &mut self.scratch);
            if let Some(range) = written {
                break range;
            }
            let capacity = SEGMENT_BYTES.max(2 * record::space_needed(&event, ""));
            *writer = SegmentWriter::new(writer.segment().number() + 1, capacity);
            *announced = false;
        };
        for &shard in shards {
            if !*announced {
                self.push(shard, Replayed::Segment(Arc::clone(writer.segment())))?;
            }
            self.push(shard, Replayed::Event(range))?;
        }
        *announced = true;
        Ok(())
    }

    /// Queues an entry for a shard, and waits for room.
    fn push(&mut self, shard: usize, mut entry: Replayed) -> Result<(), Stopped> {
        while let Err(refused) = self.lanes[shard].push(entry) {
            entry = refused;
            self.lanes[shard].flush();
            if self.replays.stop.requested() {
                return Err(Stopped);
            }
            std::thread::sleep(LANE_PAUSE);
        }
        Ok(())
    }
}

/// Does Kafka say that there is no such partition?
fn is_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownPartition | UnknownTopic | UnknownTopicOrPartition))
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
