//! Serves the requests that wait: all that ask for the same types share one look through the caches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate_shards::clock;
use tidegate_shards::event::{EventLimits, decode_structured};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::interest::Transports;
use tidegate_shards::publisher::Position;
use tidegate_shards::record::{self, Scratch};
use tidegate_shards::segment::SegmentWriter;
use tidegate_shards::snapshot::cache::Found;
use tidegate_shards::snapshot::reading::{Readiness, Reading};
use tidegate_shards::snapshot::{SnapshotLane, SnapshotRequest, Snapshotted};

use super::Snapshots;

/// Bytes of one segment of a snapshot's events.
const SEGMENT_BYTES: usize = 256 << 10;
/// Pause while a shard's lane is full.
const LANE_PAUSE: Duration = Duration::from_millis(1);
/// How long a cache may take to come to a client's position before the client asks again, in milliseconds.
const RENEW_MS: u64 = 60_000;

/// The gateway is stopping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped;

#[derive(Debug)]
pub(super) struct Server {
    snapshots: Arc<Snapshots>,
    extractors: Arc<Extractors>,
    limits: EventLimits,
    lanes: Vec<SnapshotLane>,
    /// Requests whose position the caches have not come to, and since when they wait.
    early: Vec<(SnapshotRequest, u64)>,
    scratch: Scratch,
    segments: u64,
}

impl Server {
    pub(super) fn new(
        snapshots: Arc<Snapshots>,
        extractors: Arc<Extractors>,
        limits: EventLimits,
        lanes: Vec<SnapshotLane>,
    ) -> Self {
        Self { snapshots, extractors, limits, lanes, early: Vec::new(), scratch: Scratch::default(), segments: 0 }
    }

    /// Serves until the gateway stops, with caches that somebody else fills.
    pub(super) fn run(&mut self) {
        while !self.snapshots.stop.requested() {
            if self.serve().is_err() {
                return;
            }
            self.snapshots.sleep(|| false);
        }
    }

    /// Serves all requests that can be.
    pub(super) fn serve(&mut self) -> Result<(), Stopped> {
        loop {
            let now_ms = clock::now_ms();
            let mut ready = VecDeque::new();
            let new = std::iter::from_fn(|| self.snapshots.waiting.pop()).map(|request| (request, now_ms));
            let requests: Vec<_> = std::mem::take(&mut self.early).into_iter().chain(new).collect();
            for (request, since_ms) in requests {
                let readiness = self.snapshots.caches().readiness(&request);
                match readiness {
                    Readiness::Ready => ready.push_back(request),
                    Readiness::Later if now_ms < since_ms + RENEW_MS => self.early.push((request, since_ms)),
                    Readiness::Later | Readiness::Never => {
                        self.push(request.shard, Snapshotted::Again(vec![request.member]))?;
                        self.lanes[request.shard].flush();
                    }
                }
            }
            if ready.is_empty() {
                return Ok(());
            }
            while let Some(reading) = Reading::of(&mut ready) {
                self.read(reading)?;
            }
        }
    }

    fn read(&mut self, mut reading: Reading) -> Result<(), Stopped> {
        let mut members: Vec<Vec<_>> = self.lanes.iter().map(|_| Vec::new()).collect();
        reading.members.iter().for_each(|(shard, member)| members[*shard].push(*member));
        let mut shards = Vec::new();
        for (shard, members) in members.into_iter().enumerate().filter(|(_, members)| !members.is_empty()) {
            shards.push(shard);
            self.push(shard, Snapshotted::Begin(members))?;
        }
        let mut writer = SegmentWriter::new(self.segments, SEGMENT_BYTES);
        let (mut found, mut announced) = (Vec::new(), false);
        loop {
            let slot = reading.step(&self.snapshots.caches(), &mut found);
            let Some(slot) = slot else { break };
            for found in found.drain(..) {
                self.hand_over(slot, &found, &shards, &mut writer, &mut announced)?;
            }
            shards.iter().for_each(|shard| self.lanes[*shard].flush());
        }
        self.segments = writer.segment().number() + 1;
        let complete =
            reading.is_complete(&self.snapshots.caches()) && self.snapshots.all_cached(reading.event_types());
        for &shard in &shards {
            self.push(shard, Snapshotted::Done { complete })?;
            self.lanes[shard].flush();
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        slot: usize,
        found: &Found,
        shards: &[usize],
        writer: &mut SegmentWriter,
        announced: &mut bool,
    ) -> Result<(), Stopped> {
        // It was decoded with the same limits before; what it became may be longer by its new form alone.
        let limits = EventLimits { max_body_bytes: usize::MAX, ..self.limits };
        let Ok(event) = decode_structured(&found.body, &self.extractors, &limits) else { return Ok(()) };
        let position = Position { partition: u32::try_from(slot).unwrap_or(u32::MAX), offset: found.offset };
        let range = loop {
            let (now_us, none) = (clock::now_us(), Transports::NONE);
            if let Some(range) = record::write(writer, &event, position, "", now_us, none, &mut self.scratch) {
                break range;
            }
            let capacity = SEGMENT_BYTES.max(2 * record::space_needed(&event, ""));
            *writer = SegmentWriter::new(writer.segment().number() + 1, capacity);
            *announced = false;
        };
        for &shard in shards {
            if !*announced {
                self.push(shard, Snapshotted::Segment(Arc::clone(writer.segment())))?;
            }
            self.push(shard, Snapshotted::Event(range))?;
        }
        *announced = true;
        Ok(())
    }

    /// Queues an entry for a shard, and waits for room.
    fn push(&mut self, shard: usize, mut entry: Snapshotted) -> Result<(), Stopped> {
        while let Err(refused) = self.lanes[shard].push(entry) {
            entry = refused;
            self.lanes[shard].flush();
            if self.snapshots.stop.requested() {
                return Err(Stopped);
            }
            std::thread::sleep(LANE_PAUSE);
        }
        Ok(())
    }
}
