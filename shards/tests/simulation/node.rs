//! One node: ingress's publisher, the lanes, and shards; driven step by step.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use tidegate_shards::bell::Bell;
use tidegate_shards::checkpoints::{CheckpointSource, Found, Lookup};
use tidegate_shards::cursor::{Checkpoint, ResumeFrom, Vector};
use tidegate_shards::event::{EventLimits, decode_structured};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::interest::Transports;
use tidegate_shards::mailbox::{Inbox, lanes};
use tidegate_shards::metrics::ShardMetrics;
use tidegate_shards::publisher::{InterestLane, Position, Publisher};
use tidegate_shards::record::{self, Scratch};
use tidegate_shards::replay::{self, Joined, PassTicket, ReplayLane, ReplayRequest, ReplaySource, Replayed};
use tidegate_shards::segment::SegmentWriter;
use tidegate_shards::settings::ShardSettings;
use tidegate_shards::shard::Shard;
use tidegate_shards::shard::connection::{Address, Closing, Output};
use tidegate_shards::snapshot::Snapshotted;
use tidegate_shards::subscription::parse_list;

use crate::snapshots::Snapshots;

/// Bytes that may wait for one client: a few dozen events.
pub(crate) const MAX_QUEUE_BYTES: usize = 6_000;
/// One event, framed, is never larger.
pub(crate) const MAX_FRAME_BYTES: usize = 1_500;
/// Which topic the log is.
pub(crate) const INCARNATION: u128 = 7;
const SEGMENT_BYTES: usize = 4_096;
const HISTORY_BYTES: usize = 32_768;

/// The log that all nodes read: the texts of the events by partition and offset.
pub(crate) type Log = Vec<Vec<String>>;

/// The log in which all nodes keep checkpoints.
pub(crate) type Checkpoints = Vec<Arc<[u8]>>;

/// Checkpoints that shards look for.
#[derive(Debug, Default)]
struct Lookups(SegQueue<Lookup>);

impl CheckpointSource for Lookups {
    fn find(&self, lookup: Lookup) {
        self.0.push(lookup);
    }
}

/// What shards want to have read again.
#[derive(Debug, Default)]
struct Asked(SegQueue<ReplayRequest>);

impl ReplaySource for Asked {
    fn request(&self, request: ReplayRequest) {
        self.0.push(request);
    }
}

/// The lane through which events that were read again reach a shard.
struct Again {
    lane: ReplayLane,
    replayed: rtrb::Consumer<Replayed>,
    snapshots: rtrb::Consumer<Snapshotted>,
}

/// How large a node is, and what it keeps.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) shards: usize,
    pub(crate) mailbox_events: usize,
    /// Cursors longer than this refer to checkpoints.
    pub(crate) max_plain_chars: usize,
    /// Bytes for the newest events.
    pub(crate) snapshot_bytes: usize,
}

/// A node that runs.
pub(crate) struct Node {
    publisher: Publisher,
    shards: Vec<(Shard, Inbox)>,
    again: Vec<Again>,
    asked: Arc<Asked>,
    lookups: Arc<Lookups>,
    pub(crate) snapshots: Snapshots,
    /// Where the checkpoint in flight is, if it was not refused.
    in_flight: Option<Option<u64>>,
    segments: u64,
    /// The next offset of each partition; `None` until the node has found out where it begins.
    next: Vec<Option<u64>>,
    /// Partitions that there were when the node started.
    at_start: usize,
    /// Slots get their numbers in the order in which partitions are found.
    slots: Vec<usize>,
    extractors: Arc<Extractors>,
}

impl Node {
    /// A node that doesn't know yet what there is to read.
    pub(crate) fn start(size: Size, log: &Log, extractors: &Arc<Extractors>, now_ms: u64) -> Self {
        let settings = Arc::new(ShardSettings {
            extractors: Arc::clone(extractors),
            max_queue_bytes: MAX_QUEUE_BYTES,
            max_connections_per_minute: u32::MAX,
            ..ShardSettings::default()
        });
        let interest = InterestLane::default();
        let bell = Bell::new().unwrap();
        let (mut event_lanes, mut all, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let asked = Arc::<Asked>::default();
        let lookups = Arc::<Lookups>::default();
        let mut snapshot_lanes = Vec::new();
        for number in 0..size.shards {
            let (events, _control, inbox) = lanes(size.mailbox_events);
            event_lanes.push(events);
            let metrics = Arc::<ShardMetrics>::default();
            let interest = Arc::clone(&interest);
            let (lane, replayed) = replay::lane(&inbox.waker);
            let (snapshot_lane, snapshots) = replay::lane(&inbox.waker);
            snapshot_lanes.push(snapshot_lane);
            again.push(Again { lane, replayed, snapshots });
            let mut shard = Shard::new(number, Arc::clone(&settings), metrics, interest, bell.clone(), now_ms);
            shard.set_replay_source(Some(Arc::clone(&asked) as Arc<dyn ReplaySource>));
            shard.set_checkpoint_source(Some(Arc::clone(&lookups) as Arc<dyn CheckpointSource>));
            all.push((shard, inbox));
        }
        let snapshots = Snapshots::new(snapshot_lanes, size.snapshot_bytes, extractors);
        all.iter_mut().for_each(|(shard, _)| shard.set_snapshot_source(Some(snapshots.source())));
        let mut publisher = Publisher::new(event_lanes, interest, SEGMENT_BYTES, HISTORY_BYTES);
        publisher.keep_checkpoints(size.max_plain_chars);
        publisher.positions().opening();
        publisher.positions().name_source(0, "events", INCARNATION);
        Self {
            publisher,
            shards: all,
            again,
            asked,
            lookups,
            snapshots,
            in_flight: None,
            segments: 0,
            next: vec![None; log.len()],
            at_start: log.len(),
            slots: Vec::new(),
            extractors: Arc::clone(extractors),
        }
    }

    pub(crate) fn one_more_partition(&mut self) {
        self.next.push(None);
    }

    /// The next offset of each partition; `None` where it isn't known yet. A partition that appears while the node runs is read
    /// from its beginning.
    pub(crate) fn next_to_read(&self) -> impl Iterator<Item = Option<u64>> {
        let at_start = self.at_start;
        self.next.iter().enumerate().map(move |(partition, next)| next.or((partition >= at_start).then_some(0)))
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Ingress finds out that it begins to read this partition, at its end if it was there at the start; true if it had not
    /// before.
    fn find(&mut self, log: &Log, partition: usize) -> bool {
        if self.next[partition].is_some() {
            return false;
        }
        let from = if partition < self.at_start { log[partition].len() as u64 } else { 0 };
        self.next[partition] = Some(from);
        self.publisher.positions().start(self.slots.len() as u32, 0, partition as u32, from);
        self.slots.push(partition);
        if self.next[..self.at_start].iter().all(Option::is_some) {
            self.publisher.positions().opened();
        }
        true
    }

    /// Ingress hears of interest, then takes up to so many events of a partition; fewer where a mailbox is full.
    pub(crate) fn ingest(&mut self, log: &Log, partition: usize, most: usize) {
        self.publisher.apply_interest();
        if self.find(log, partition) {
            return;
        }
        let slot = self.slots.iter().position(|found| *found == partition).unwrap() as u32;
        for _ in 0..most {
            let offset = self.next[partition].unwrap();
            let Some(text) = log[partition].get(offset as usize) else { break };
            let event = decode_structured(text.as_bytes(), &self.extractors, &EventLimits::default()).unwrap();
            if self.publisher.wants(&event.event_type) {
                let position = Position { partition: slot, offset };
                if self.publisher.publish(&event, position, 0).is_err() {
                    break;
                }
            } else {
                self.publisher.positions().advance(slot, offset + 1);
            }
            self.next[partition] = Some(offset + 1);
        }
        self.publisher.flush();
    }

    /// The checkpoint in flight is acknowledged, or was refused; if the next one is due, it is written.
    pub(crate) fn checkpoint(&mut self, checkpoints: &mut Checkpoints, refuse: bool, now_ms: u64) {
        if let Some(offset) = self.in_flight.take() {
            self.publisher.checkpoint_written(offset, now_ms);
        }
        if let Some(record) = self.publisher.checkpoint_due(now_ms) {
            checkpoints.push(record);
            self.in_flight = Some((!refuse).then_some(checkpoints.len() as u64 - 1));
        }
    }

    /// A shard hears of the checkpoints that it has looked for.
    fn look_up(&mut self, number: usize, checkpoints: &Checkpoints) {
        for _ in 0..self.lookups.0.len() {
            let Some(lookup) = self.lookups.0.pop() else { break };
            if lookup.shard != number {
                self.lookups.0.push(lookup);
                continue;
            }
            let reference = lookup.reference;
            let checkpoint = Checkpoint::read(reference.offset, &checkpoints[reference.offset as usize]).unwrap();
            assert_eq!(checkpoint.reference(), reference, "cursors name what was acknowledged");
            self.shards[number].0.checkpoint_found(&Found { reference, checkpoint: Some(Arc::new(checkpoint)) });
        }
    }

    /// A shard takes up to so much of its mail, and sends what it has gathered.
    pub(crate) fn take_mail(&mut self, shard: usize, most: usize) {
        let (shard, inbox) = &mut self.shards[shard];
        for _ in 0..most {
            let Ok(mail) = inbox.events.pop() else { break };
            shard.take_mail(mail);
        }
        shard.flush_batch();
    }

    /// One pass over the log for all clients of a shard that have asked; then the shard takes what it brings.
    pub(crate) fn catch_up(&mut self, number: usize, log: &Log, checkpoints: &Checkpoints) {
        self.look_up(number, checkpoints);
        let waiting: Vec<ReplayRequest> = std::iter::from_fn(|| self.asked.0.pop()).collect();
        let (requests, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|request| request.shard == number);
        others.into_iter().for_each(|request| self.asked.0.push(request));
        if !requests.is_empty() {
            self.read_again(number, log, &requests);
        }
        let shard = &mut self.shards[number].0;
        let again = &mut self.again[number];
        shard.take_snapshots(&mut again.snapshots, || 0);
        shard.take_replayed(&mut again.replayed, || 0);
        shard.walk_on(|| 0);
    }

    fn read_again(&mut self, number: usize, log: &Log, requests: &[ReplayRequest]) {
        let push = |entry| assert!(self.again[number].lane.push(entry).is_ok(), "the lane is larger than any log here");
        let mut push = push;
        let ticket = PassTicket::default();
        let joined = |request: &ReplayRequest| {
            let (address, ticket) = (request.address, ticket.clone());
            Joined { ticket, address, from: None, losses: Vec::new() }
        };
        push(Replayed::Begin(requests.iter().map(joined).collect()));
        let mut writer = SegmentWriter::new(self.segments, 1 << 20);
        self.segments += 1;
        push(Replayed::Segment(Arc::clone(writer.segment())));
        let mut scratch = Scratch::default();
        let mut ends = Vec::new();
        for (slot, events) in self.slots.iter().map(|partition| &log[*partition]).enumerate() {
            // Who asked before a slot was found doesn't know it.
            let from = requests.iter().map(|request| request.from.get(slot).copied().unwrap_or(0)).min().unwrap();
            let to = requests.iter().map(|request| request.to.get(slot).copied().unwrap_or(0)).max().unwrap();
            for offset in from..to {
                let text = &events[offset as usize];
                let event = decode_structured(text.as_bytes(), &self.extractors, &EventLimits::default()).unwrap();
                let position = Position { partition: slot as u32, offset };
                let range = record::write(&mut writer, &event, position, "", 0, Transports::NONE, &mut scratch);
                push(Replayed::Event(range.expect("the segment is larger than any log here")));
            }
            ends.push(to);
        }
        push(Replayed::Done(Vector::new(ends)));
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        for (shard, _) in &mut self.shards {
            shard.tick(now_ms);
        }
    }

    /// Opens an event stream whose frames are pulled.
    pub(crate) fn open(&mut self, shard: usize, subscriptions: &str, cursor: Option<&str>, now_ms: u64) -> Address {
        let shard = &mut self.shards[shard].0;
        let address = shard.open_detached(Output::Pulled, |_| "token".to_owned(), now_ms);
        let list = parse_list(subscriptions).unwrap();
        match cursor {
            Some(cursor) => shard.resume(address, &list, ResumeFrom::parse(cursor), None),
            None => shard.set_subscriptions(address, &list, None),
        }
        shard.opened(address);
        address
    }

    /// The next frame for this client, if there is one.
    pub(crate) fn pull(&mut self, shard: usize, address: Address) -> Option<Bytes> {
        self.shards[shard].0.pull(address)
    }

    /// Whether the shard has ended, or wants to end, this connection.
    pub(crate) fn has_ended(&mut self, shard: usize, address: Address) -> bool {
        match self.shards[shard].0.connections().get(address) {
            None => true,
            Some(connection) => match connection.closing {
                Closing::No => false,
                Closing::AfterFlush => connection.queued_bytes() == 0,
                Closing::Now => true,
            },
        }
    }

    pub(crate) fn remove(&mut self, shard: usize, address: Address) {
        self.shards[shard].0.remove(address);
    }

    /// Nobody may hold more than its bound; what the metric says waits is what waits.
    pub(crate) fn check_bounds(&mut self) {
        for (shard, _) in &mut self.shards {
            let mut waiting = 0;
            for (_, connection) in shard.connections().iter_mut() {
                let bytes = connection.queued_bytes();
                assert!(bytes <= MAX_QUEUE_BYTES + MAX_FRAME_BYTES, "{bytes} bytes wait for one client");
                waiting += bytes as u64;
            }
            assert_eq!(shard.metrics().queue_bytes.get(), waiting, "the metric of waiting bytes");
        }
    }

    /// When everybody has gone, nothing is left of them.
    pub(crate) fn check_empty(&mut self) {
        for (shard, inbox) in &mut self.shards {
            assert!(inbox.events.pop().is_err(), "mail was left");
            assert_eq!(shard.connections().len(), 0, "connections");
            let metrics = shard.metrics();
            for gauge in
                [&metrics.connections_sse, &metrics.connections_http, &metrics.subscriptions, &metrics.queue_bytes]
                    .into_iter()
                    .chain([&metrics.snapshotting])
            {
                assert_eq!(gauge.get(), 0, "a gauge is not back at zero");
            }
        }
    }
}
