//! A node's snapshots: caches that follow the log at their own pace, and looks through them, step by step.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use tidegate_shards::event::{EventLimits, decode_structured};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::interest::Transports;
use tidegate_shards::publisher::Position;
use tidegate_shards::record::{self, Scratch};
use tidegate_shards::segment::SegmentWriter;
use tidegate_shards::snapshot::reading::{Caches, Readiness, Reading};
use tidegate_shards::snapshot::{SnapshotLane, SnapshotRequest, SnapshotSource, Snapshotted};

use crate::node::{INCARNATION, Log};

const SEGMENT_BYTES: usize = 2_048;
/// More entries than one step makes.
const STEP_ENTRIES: usize = 256;

/// Snapshots that shards ask for.
#[derive(Debug, Default)]
struct Wanted(SegQueue<SnapshotRequest>);

impl SnapshotSource for Wanted {
    fn request(&self, request: SnapshotRequest) {
        self.0.push(request);
    }
}

/// A look that is under way.
struct Look {
    reading: Reading,
    shards: Vec<usize>,
    writer: SegmentWriter,
    announced: bool,
}

/// The caches of a node, and who waits for them.
pub(crate) struct Snapshots {
    wanted: Arc<Wanted>,
    early: VecDeque<SnapshotRequest>,
    ready: VecDeque<SnapshotRequest>,
    caches: Caches,
    /// By partition, the next offset that the cache takes in.
    next: Vec<u64>,
    lanes: Vec<SnapshotLane>,
    look: Option<Look>,
    segments: u64,
    scratch: Scratch,
    extractors: Arc<Extractors>,
}

impl Snapshots {
    pub(crate) fn new(lanes: Vec<SnapshotLane>, limit_bytes: usize, extractors: &Arc<Extractors>) -> Self {
        let mut caches = Caches::new(std::iter::once(Some(limit_bytes)));
        caches.get_mut(0).unwrap().identify(INCARNATION);
        Self {
            wanted: Arc::default(),
            early: VecDeque::new(),
            ready: VecDeque::new(),
            caches,
            next: Vec::new(),
            lanes,
            look: None,
            segments: 0,
            scratch: Scratch::default(),
            extractors: Arc::clone(extractors),
        }
    }

    pub(crate) fn source(&self) -> Arc<dyn SnapshotSource> {
        Arc::clone(&self.wanted) as Arc<dyn SnapshotSource>
    }

    /// The cache takes up to so many events of a partition.
    pub(crate) fn follow(&mut self, log: &Log, partition: usize, most: usize) {
        self.next.resize(log.len(), 0);
        let cache = self.caches.get_mut(0).unwrap();
        for text in log[partition].iter().skip(self.next[partition] as usize).take(most) {
            let event = decode_structured(text.as_bytes(), &self.extractors, &EventLimits::default()).unwrap();
            let (offset, key) = (self.next[partition], event.subject.as_deref().unwrap());
            cache.put(partition as u32, offset, key.as_bytes(), &event.event_type, &event.body);
            self.next[partition] += 1;
        }
    }

    /// One step: a look begins, goes on, or ends. With `give_up`, who waits for the cache has to ask again.
    pub(crate) fn step(&mut self, give_up: bool) {
        while let Some(request) = self.wanted.0.pop() {
            self.early.push_back(request);
        }
        for _ in 0..self.early.len() {
            let Some(request) = self.early.pop_front() else { break };
            match self.caches.readiness(&request) {
                Readiness::Ready => self.ready.push_back(request),
                Readiness::Later if !give_up => self.early.push_back(request),
                Readiness::Later | Readiness::Never => {
                    push(&mut self.lanes[request.shard], Snapshotted::Again(vec![request.member]));
                }
            }
        }
        if self.lanes.iter().any(|lane| !lane.has_room(STEP_ENTRIES)) {
            return;
        }
        match self.look.take() {
            Some(look) => self.look = self.go_on(look),
            None => self.look = Reading::of(&mut self.ready).map(|reading| self.begin(reading)),
        }
    }

    fn begin(&mut self, reading: Reading) -> Look {
        let mut shards = Vec::new();
        for (shard, lane) in self.lanes.iter_mut().enumerate() {
            let members = reading.members.iter().filter(|(of, _)| *of == shard).map(|(_, member)| *member);
            let members: Vec<_> = members.collect();
            if !members.is_empty() {
                push(lane, Snapshotted::Begin(members));
                shards.push(shard);
            }
        }
        Look { reading, shards, writer: SegmentWriter::new(self.segments, SEGMENT_BYTES), announced: false }
    }

    fn go_on(&mut self, mut look: Look) -> Option<Look> {
        let mut found = Vec::new();
        let Some(slot) = look.reading.step(&self.caches, &mut found) else {
            self.segments = look.writer.segment().number() + 1;
            let complete = look.reading.is_complete(&self.caches);
            for shard in look.shards {
                push(&mut self.lanes[shard], Snapshotted::Done { complete });
            }
            return None;
        };
        for found in found {
            let event = decode_structured(&found.body, &self.extractors, &EventLimits::default()).unwrap();
            let position = Position { partition: slot as u32, offset: found.offset };
            let range = loop {
                let none = Transports::NONE;
                match record::write(&mut look.writer, &event, position, "", 0, none, &mut self.scratch) {
                    Some(range) => break range,
                    None => {
                        look.writer = SegmentWriter::new(look.writer.segment().number() + 1, SEGMENT_BYTES);
                        look.announced = false;
                    }
                }
            };
            for &shard in &look.shards {
                if !look.announced {
                    push(&mut self.lanes[shard], Snapshotted::Segment(Arc::clone(look.writer.segment())));
                }
                push(&mut self.lanes[shard], Snapshotted::Event(range));
            }
            look.announced = true;
        }
        Some(look)
    }
}

fn push(lane: &mut SnapshotLane, entry: Snapshotted) {
    assert!(lane.push(entry).is_ok(), "a step is smaller than the lane");
}
