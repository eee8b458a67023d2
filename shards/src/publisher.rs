//! The ingress side of the event path: interest, segments and the queues to the shards.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::SegQueue;

use crate::clock;
use crate::cursor::policy::Checkpointing;
use crate::cursor::{Loss, Positions, Vector};
use crate::event::Event;
use crate::interest::{Interest, InterestChange, Transports};
use crate::mailbox::{EventLane, Kept, Mail, Place};
use crate::record::{self, Scratch};
use crate::replay::ReplayLane;
use crate::segment::{Segment, SegmentWriter};
use crate::snapshot::SnapshotLane;

/// Where an event stands in its source; per source partition, offsets rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Index of the source partition on this node (ingress numbers its topic partitions; the local hub is 0).
    pub partition: u32,
    /// Offset in that partition.
    pub offset: u64,
}

/// A shard's queue is full: stop polling the source and try again once the bell rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Changes of interest on their way to ingress. Unbounded by itself; what can wait in it is bounded
/// by the subscriptions that the node's connections may hold.
pub type InterestLane = Arc<SegQueue<InterestChange>>;

/// How long a type is kept in the ring after nobody wants it any more, in milliseconds.
const KEEP_UNWANTED_MS: u64 = 60_000;
/// How often shards that get no events hear where the node is, in milliseconds.
const POSITION_MS: u64 = 1_000;

/// What a shard waits for.
#[derive(Debug)]
enum Unanswered {
    InterestKnown(u64),
    Kept { ticket: u64, event_types: Box<[Box<str>]> },
    Lost(Loss),
}

/// Owned by the ingress thread.
#[derive(Debug)]
pub struct Publisher {
    interest: Interest,
    changes: InterestLane,
    lanes: Vec<EventLane>,
    replay_lanes: Vec<ReplayLane>,
    snapshot_lanes: Vec<SnapshotLane>,
    unanswered: VecDeque<(usize, Unanswered)>,
    writer: SegmentWriter,
    segment_bytes: usize,
    history: VecDeque<Arc<Segment>>,
    history_bytes: usize,
    history_limit_bytes: usize,
    last: Option<Place>,
    positions: Positions,
    /// The positions as they were when they were last needed as a whole.
    now: Vector,
    /// By slot, the end of the newest gap in what the source gave: the ring proves nothing about what came before.
    gaps: Vec<u64>,
    /// Version of the layout that each shard knows.
    layouts_known: Vec<u64>,
    /// Every event goes into the ring, wanted or not.
    keeps_all: bool,
    checkpoints: Checkpointing,
    cursor: String,
    told_ms: u64,
    told: Vec<u64>,
    scratch: Scratch,
}

impl Publisher {
    /// A publisher for the shards behind `lanes`, in their order.
    #[must_use]
    pub fn new(lanes: Vec<EventLane>, changes: InterestLane, segment_bytes: usize, history_limit_bytes: usize) -> Self {
        let keep_ms = if history_limit_bytes > 0 { KEEP_UNWANTED_MS } else { 0 };
        Self {
            interest: Interest::new(lanes.len(), keep_ms),
            changes,
            layouts_known: vec![0; lanes.len()],
            lanes,
            replay_lanes: Vec::new(),
            snapshot_lanes: Vec::new(),
            unanswered: VecDeque::new(),
            writer: SegmentWriter::new(0, segment_bytes),
            segment_bytes,
            history: VecDeque::new(),
            history_bytes: 0,
            history_limit_bytes,
            last: None,
            positions: Positions::default(),
            now: Vector::default(),
            gaps: Vec::new(),
            keeps_all: false,
            checkpoints: Checkpointing::default(),
            cursor: String::new(),
            told_ms: 0,
            told: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Puts every event into the ring, as a hub must that nobody else keeps events for. Without effect where there is no
    /// memory for a ring.
    pub fn keep_all(&mut self) {
        self.keeps_all = self.history_limit_bytes > 0;
    }

    /// Lets cursors beyond this length refer to checkpoints, in characters. Whoever says so writes what is due.
    pub fn keep_checkpoints(&mut self, max_plain_chars: usize) {
        self.checkpoints = Checkpointing::beyond(max_plain_chars);
    }

    /// The checkpoint that must be written now, if there is one; [`Self::checkpoint_written`] must follow. Call once per turn
    /// of the loop.
    pub fn checkpoint_due(&mut self, now_ms: u64) -> Option<Arc<[u8]>> {
        self.checkpoints.due(self.positions.layout(), self.positions.next(), now_ms)
    }

    /// The checkpoint is in the log at this offset, acknowledged, or was refused.
    pub fn checkpoint_written(&mut self, offset: Option<u64>, now_ms: u64) {
        self.checkpoints.written(offset, now_ms);
        // Shards that get no events hear of the shorter cursor.
        self.told.clear();
    }

    /// Gives the publisher the replay lanes to keep until [`Self::take_replay_lanes`].
    pub(crate) fn with_replay_lanes(mut self, lanes: Vec<ReplayLane>) -> Self {
        self.replay_lanes = lanes;
        self
    }

    /// The same with snapshot lanes.
    pub(crate) fn with_snapshot_lanes(mut self, lanes: Vec<SnapshotLane>) -> Self {
        self.snapshot_lanes = lanes;
        self
    }

    /// The snapshot lanes of all shards, for whoever gives snapshots; none where nobody does.
    #[must_use]
    pub fn take_snapshot_lanes(&mut self) -> Vec<SnapshotLane> {
        std::mem::take(&mut self.snapshot_lanes)
    }

    /// The replay lanes of all shards, for whoever reads events again.
    #[must_use]
    pub fn take_replay_lanes(&mut self) -> Vec<ReplayLane> {
        std::mem::take(&mut self.replay_lanes)
    }

    /// The source partitions and how far they are.
    pub fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    /// Applies the changes of interest that shards have sent since the last call. Call once per turn of the loop.
    pub fn apply_interest(&mut self) {
        while let Some(change) = self.changes.pop() {
            match change {
                InterestChange::Add { shard, event_type, transports, ticket } => {
                    let now = self.now();
                    self.interest.add(shard, event_type, transports, &now);
                    self.unanswered.push_back((shard, Unanswered::InterestKnown(ticket)));
                }
                InterestChange::Resume { shard, event_types, transports, ticket } => {
                    let now = self.now();
                    for event_type in &event_types {
                        self.interest.add(shard, event_type.clone(), transports, &now);
                    }
                    self.unanswered.push_back((shard, Unanswered::Kept { ticket, event_types }));
                }
                InterestChange::Remove { shard, event_type } => {
                    self.interest.remove(shard, &event_type, clock::now_ms());
                }
            }
        }
        if self.interest.has_unwanted() {
            self.interest.expire(clock::now_ms());
        }
        for _ in 0..self.unanswered.len() {
            let Some((shard, answer)) = self.unanswered.pop_front() else { break };
            // Before a partition's position is known, nobody can say from which event on a subscription is in force.
            let too_early = matches!(answer, Unanswered::InterestKnown(_)) && self.positions.layout().is_opening();
            if !too_early && self.lanes[shard].has_room(3) {
                self.tell_position(shard);
                let mail = match answer {
                    Unanswered::InterestKnown(ticket) => Mail::InterestKnown(ticket),
                    Unanswered::Kept { ticket, event_types } => Mail::Kept(Box::new(self.kept(ticket, &event_types))),
                    Unanswered::Lost(loss) => Mail::Lost(Box::new(loss)),
                };
                self.lanes[shard].push_other(mail);
            } else {
                self.unanswered.push_back((shard, answer));
            }
        }
        self.flush();
    }

    /// The positions of this moment, shared by all who need them before the next message.
    fn now(&mut self) -> Vector {
        if *self.now != self.positions.next() {
            self.now = Vector::new(self.positions.next().to_vec());
        }
        Vector::clone(&self.now)
    }

    fn kept(&mut self, ticket: u64, event_types: &[Box<str>]) -> Kept {
        let now = self.now();
        let mut ring: Vec<_> = self.history.iter().cloned().collect();
        ring.push(Arc::clone(self.writer.segment()));
        let start = ring[0].start();
        let layout = self.positions.layout();
        // A partition that appeared after the ring's beginning is in it from its first message on.
        let mut complete_from: Vec<u64> = (0..now.len())
            .map(|slot| start.get(slot).copied().unwrap_or_else(|| layout.slot(slot).map_or(0, |slot| slot.first)))
            .collect();
        for (from, gap) in complete_from.iter_mut().zip(&self.gaps) {
            *from = (*from).max(*gap);
        }
        if !self.keeps_all {
            for since in event_types.iter().filter_map(|event_type| self.interest.kept_since(event_type)) {
                for (from, since) in complete_from.iter_mut().zip(since.iter()) {
                    *from = (*from).max(*since);
                }
            }
        }
        let checkpoints = Arc::clone(self.checkpoints.recent());
        Kept { ticket, layout: Arc::clone(layout), now, ring, complete_from, last: self.last, checkpoints }
    }

    /// The source no longer has events that it never gave: all clients are told.
    pub fn lose(&mut self, loss: &Loss) {
        let Some(slot) = loss.slot else { return };
        if self.gaps.len() <= slot {
            self.gaps.resize(slot + 1, 0);
        }
        self.gaps[slot] = self.gaps[slot].max(loss.to);
        self.unanswered.extend((0..self.lanes.len()).map(|shard| (shard, Unanswered::Lost(loss.clone()))));
    }

    /// Tells a shard where the node is; needs room for two.
    fn tell_position(&mut self, shard: usize) {
        self.tell_layout(shard);
        let text = self.checkpoints.write(self.positions.layout(), self.positions.next());
        if !text.is_empty() {
            self.lanes[shard].push_other(Mail::Position(text.into()));
        }
    }

    fn tell_layout(&mut self, shard: usize) {
        if self.layouts_known[shard] != self.positions.version() {
            self.layouts_known[shard] = self.positions.version();
            self.lanes[shard].push_other(Mail::Layout(Arc::clone(self.positions.layout())));
        }
    }

    /// Tells all shards where the node is, so that clients who get few events don't have to come back with old cursors.
    /// Does so once a second, and only where something has moved.
    pub fn tell_positions(&mut self, now_ms: u64) {
        if now_ms < self.told_ms + POSITION_MS {
            return;
        }
        self.told_ms = now_ms;
        if self.told == self.positions.next() {
            return;
        }
        self.told.clear();
        self.told.extend_from_slice(self.positions.next());
        for shard in 0..self.lanes.len() {
            if self.lanes[shard].has_room(3) {
                self.tell_position(shard);
            }
        }
        self.flush();
    }

    /// Has any shard a subscriber for this type?
    #[must_use]
    pub fn has_subscribers(&self, event_type: &str) -> bool {
        self.interest.of(event_type).is_some_and(|(transports, _)| !transports.is_empty())
    }

    /// Must events of this type be published?
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.keeps_all || self.interest.wants(event_type)
    }

    /// Archives the event into the current segment, if anybody wants it or it must be kept, and queues it for every interested
    /// shard.
    /// `received_us`: monotonic microseconds at which the source handed it over ([`crate::clock::now_us`]).
    ///
    /// # Errors
    /// [`Full`] when an interested shard's queue is full: nothing was published, call again with the same event.
    pub fn publish(&mut self, event: &Event<'_>, position: Position, received_us: u64) -> Result<(), Full> {
        let (transports, shards) = match self.interest.of(&event.event_type) {
            Some(wanted) => wanted,
            None if self.keeps_all => (Transports::NONE, &[][..]),
            None => {
                self.positions.advance(position.partition, position.offset + 1);
                return Ok(());
            }
        };
        let interested = || shards.iter().enumerate().filter(|(_, wish)| !wish.is_empty()).map(|(shard, _)| shard);
        let version = self.positions.version();
        let room = |shard: usize| if self.layouts_known[shard] == version { 2 } else { 3 };
        if interested().any(|shard| !self.lanes[shard].has_room(room(shard))) {
            return Err(Full);
        }
        self.positions.advance(position.partition, position.offset + 1);
        self.cursor.clear();
        if transports.intersects(CARRY_CURSORS) {
            self.cursor.push_str(self.checkpoints.write(self.positions.layout(), self.positions.next()));
        }
        let cursor = &*self.cursor;
        let write = |writer: &mut SegmentWriter, scratch: &mut Scratch| {
            record::write(writer, event, position, cursor, received_us, transports, scratch)
        };
        let range = match write(&mut self.writer, &mut self.scratch) {
            Some(range) => range,
            None => {
                let capacity = self.segment_bytes.max(record::space_needed(event, cursor));
                // The event at hand is the first after the new segment's start.
                self.positions.advance(position.partition, position.offset);
                let number = self.writer.segment().number() + 1;
                let next = SegmentWriter::starting_at(number, capacity, self.positions.next());
                self.positions.advance(position.partition, position.offset + 1);
                let full = std::mem::replace(&mut self.writer, next);
                self.history_bytes += full.segment().capacity();
                self.history.push_back(Arc::clone(full.segment()));
                while self.history_bytes > self.history_limit_bytes {
                    let Some(oldest) = self.history.pop_front() else { break };
                    self.history_bytes -= oldest.capacity();
                }
                match write(&mut self.writer, &mut self.scratch) {
                    Some(range) => range,
                    None => {
                        debug_assert!(false, "a fresh segment of the announced size takes the event");
                        return Ok(());
                    }
                }
            }
        };
        self.last = Some(Place { segment: self.writer.segment().number(), offset: range.offset });
        for shard in interested() {
            if self.layouts_known[shard] != version {
                self.layouts_known[shard] = version;
                self.lanes[shard].push_other(Mail::Layout(Arc::clone(self.positions.layout())));
            }
            self.lanes[shard].push_event(self.writer.segment(), range);
        }
        Ok(())
    }

    /// Ends a batch: rings the bell of every shard that got mail since the last flush.
    pub fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.flush();
        }
    }
}

/// The transports whose frames carry cursors.
const CARRY_CURSORS: Transports = Transports::SSE.union(Transports::WS_CURSOR).union(Transports::LONG_POLLING);

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::mailbox::{Inbox, lanes};

    fn event(event_type: &'static str) -> Event<'static> {
        Event {
            event_type: Cow::Borrowed(event_type),
            id: Cow::Borrowed("1"),
            subject: None,
            body: Cow::Borrowed(br#"{"specversion":"1.0","type":"a","id":"1","source":"/"}"#),
            fields: Vec::new(),
        }
    }

    fn publisher(capacity: usize) -> (Publisher, Vec<Inbox>, InterestLane) {
        let (left, _, left_inbox) = lanes(capacity);
        let (right, _, right_inbox) = lanes(capacity);
        let changes = InterestLane::default();
        let publisher = Publisher::new(vec![left, right], Arc::clone(&changes), 4096, 16_384);
        (publisher, vec![left_inbox, right_inbox], changes)
    }

    fn add(changes: &InterestLane, shard: usize, event_type: &str, ticket: u64) {
        let event_type = event_type.into();
        changes.push(InterestChange::Add { shard, event_type, transports: Transports::WS, ticket });
    }

    #[test]
    fn only_interested_shards_get_an_event_and_hear_that_their_interest_is_known() {
        let (mut publisher, mut inboxes, changes) = publisher(8);
        add(&changes, 1, "a", 42);
        publisher.apply_interest();
        assert!(publisher.wants("a") && !publisher.wants("b"));
        publisher.publish(&event("a"), Position { partition: 0, offset: 0 }, 0).unwrap();
        publisher.publish(&event("b"), Position { partition: 0, offset: 1 }, 0).unwrap();
        assert!(inboxes[0].events.pop().is_err());
        assert!(matches!(inboxes[1].events.pop(), Ok(Mail::InterestKnown(42))));
        assert!(matches!(inboxes[1].events.pop(), Ok(Mail::Segment(_))));
        assert!(matches!(inboxes[1].events.pop(), Ok(Mail::Event(_))));
        assert!(inboxes[1].events.pop().is_err());
    }

    #[test]
    fn a_full_queue_is_back_pressure_and_nothing_is_published_in_part() {
        let (mut publisher, mut inboxes, changes) = publisher(4);
        add(&changes, 0, "a", 1);
        add(&changes, 1, "a", 2);
        publisher.apply_interest();
        inboxes[1].events.pop().unwrap();
        let position = Position { partition: 0, offset: 0 };
        publisher.publish(&event("a"), position, 0).unwrap();
        assert_eq!(publisher.publish(&event("a"), position, 0), Err(Full));
        while inboxes[0].events.pop().is_ok() {}
        publisher.publish(&event("a"), position, 0).unwrap();
        let on_right = std::iter::from_fn(|| inboxes[1].events.pop().ok()).count();
        assert_eq!(on_right, 3, "one segment, two events");
    }

    #[test]
    fn segments_roll_and_the_history_stays_within_its_bytes() {
        let (mut publisher, mut inboxes, changes) = publisher(64);
        add(&changes, 0, "a", 1);
        publisher.apply_interest();
        let mut segments = 0;
        for offset in 0..500 {
            publisher.publish(&event("a"), Position { partition: 0, offset }, 0).unwrap();
            while let Ok(mail) = inboxes[0].events.pop() {
                segments += usize::from(matches!(mail, Mail::Segment(_)));
            }
        }
        assert!(segments > 10, "{segments}");
        assert!(publisher.history_bytes <= 16_384 && !publisher.history.is_empty());
    }
}
