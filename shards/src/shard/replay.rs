//! Clients that catch up: what a shard keeps of each, and how events that they have missed reach them.
//!
//! A client that comes back is filed in an index of its own, not in the live one, until it has everything that the live stream
//! has brought to this shard. Its events come from a **pass** (read again from the source) and, at last, from a **walk** through
//! the ring. All clients of a pass, and all of a walk, share it: each record is matched once. Every client has its own next
//! offsets, so what it has is never sent twice, whatever a pass or walk begins with. At the end of a walk, with nothing between
//! the ring and the mailbox, its clients become live.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;

use super::connection::{Address, Output};
use super::snapshot::Pending;
use super::{Shard, own_events};
use crate::cursor::{CursorWriter, Footing, Layout, Loss, Vector};
use crate::index::Index;
use crate::longpoll::MAX_BUFFERED_EVENTS;
use crate::mailbox::Place;
use crate::queue::SegmentHold;
use crate::record::{self, Range};
use crate::replay::{PassTicket, ReplaySource, Replayed};
use crate::segment::Segment;
use crate::subscription::CompiledSubscription;

/// Longest turn of a walk, in microseconds: live events wait for no more.
const TURN_US: u64 = 1_000;
/// Records of a walk between two looks at the clock.
const RECORDS_PER_LOOK: usize = 32;
/// Entries of the replay lane that are taken in one turn.
const ENTRIES_PER_TURN: usize = 256;
/// How soon a client that can't go on is looked at again, in milliseconds.
pub(super) const PARKED_MS: u64 = 50;

/// Where a client that catches up gets its events from at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for an answer, of ingress or of the source.
    Asked,
    /// From a pass over the source.
    Pass,
    /// It waits for the next walk.
    Queued,
    /// From a walk through the ring.
    Walk,
    /// It waits for its snapshot, or gets it.
    Snapshot,
    /// Its output is full, it is ahead of this node, the node doesn't know its partitions yet, or a checkpoint is looked up: it
    /// asks again at this time, in milliseconds.
    Parked(u64),
}

/// A client that catches up.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: Address,
    pub(super) stage: Stage,
    /// Next offsets by slot that it has not got.
    pub(super) next: Vec<u64>,
    /// What it becomes live with.
    pub(super) subscriptions: Vec<CompiledSubscription>,
    pub(super) types: Box<[Box<str>]>,
    /// Offsets that are gone are no loss: it asked for what there is.
    pub(super) earliest: bool,
    /// The source has looked whether its positions exist.
    pub(super) confirmed: bool,
    /// It has seen events that this node has not read yet.
    pub(super) ahead: bool,
    /// Records before this time (microseconds of [`crate::clock`]) aren't for it.
    pub(super) since_us: u64,
    /// Where in time the source shall begin, in milliseconds since 1970.
    pub(super) since_ms: Option<i64>,
    /// What its cursors refer to.
    pub(super) footing: Footing,
    /// The initial state that it has not got yet.
    pub(super) snapshot: Option<Box<Pending>>,
    /// It came without a cursor, and gets none before it has its snapshot: cut off, it must ask for all of it again.
    pub(super) hides_cursor: bool,
    /// That it takes part in a pass.
    pass: Option<PassTicket>,
    /// It goes on where it was, by a cursor that it presented.
    pub(super) resumes: bool,
    /// What goes out at the end of this turn.
    pub(super) out: Vec<u8>,
}

impl Client {
    pub(super) fn new(address: Address, subscriptions: Vec<CompiledSubscription>, types: Box<[Box<str>]>) -> Self {
        Self {
            address,
            stage: Stage::Asked,
            next: Vec::new(),
            subscriptions,
            types,
            earliest: false,
            confirmed: false,
            ahead: false,
            since_us: 0,
            since_ms: None,
            footing: Footing::default(),
            snapshot: None,
            hides_cursor: false,
            pass: None,
            resumes: false,
            out: Vec::new(),
        }
    }
}

/// Clients by their slots.
pub(super) type Clients = HashMap<u32, Box<Client>, RandomState>;

/// A walk through the ring for all clients that are [`Stage::Walk`].
#[derive(Debug)]
struct Walk {
    /// The first is the one at hand.
    ring: VecDeque<SegmentHold>,
    record: usize,
    members: Vec<Address>,
}

/// All clients of a shard that catch up.
#[derive(Debug, Default)]
pub(super) struct Replays {
    pub(super) source: Option<Arc<dyn ReplaySource>>,
    pub(super) layout: Arc<Layout>,
    pub(super) index: Index,
    pub(super) clients: Clients,
    /// Tickets that ingress has been asked with, and the slot each is for.
    pub(super) asked: HashMap<u64, Address, RandomState>,
    pub(super) first: HashMap<u32, Box<super::resume::First>, RandomState>,
    /// Everything up to here has been taken from the mailbox, if that is more than the last event says.
    pub(super) floor: Option<Place>,
    /// Clients that wait for the next walk, with the ring as it was for the last of them.
    waiting: Vec<Address>,
    ring: Vec<SegmentHold>,
    walk: Option<Walk>,
    /// The segment of the pass.
    segment: Option<SegmentHold>,
    passing: Vec<Address>,
    pub(super) parked: usize,
    pub(super) checkpoints: super::checkpoints::Checkpoints,
    pub(super) cursors: CursorWriter,
    matched: Vec<u32>,
    pub(super) dirty: Vec<u32>,
    /// Bytes that wait for the end of this turn.
    pub(super) gathered_bytes: usize,
    pub(super) frame: Vec<u8>,
    pub(super) text: Vec<u8>,
}

impl Replays {
    /// A new segment of live events.
    pub(super) fn follow(&mut self, segment: &SegmentHold) {
        let newer = |last: Option<&SegmentHold>| last.is_none_or(|last| last.number() < segment.number());
        if let Some(walk) = &mut self.walk
            && newer(walk.ring.back())
        {
            walk.ring.push_back(SegmentHold::clone(segment));
        }
        if !self.waiting.is_empty() && newer(self.ring.last()) {
            self.ring.push(SegmentHold::clone(segment));
        }
    }

    /// The client takes part in the next walk through this ring.
    pub(super) fn walk_next(&mut self, slot: u32, ring: &[Arc<Segment>]) {
        if let Some(client) = self.clients.get_mut(&slot) {
            client.stage = Stage::Queued;
            self.waiting.push(client.address);
            for segment in ring {
                if let Err(at) = self.ring.binary_search_by_key(&segment.number(), |known| known.number()) {
                    self.ring.insert(at, SegmentHold::new(Arc::clone(segment)));
                }
            }
        }
    }

    /// The cursor of a client's position; empty where it gets none yet.
    pub(super) fn cursor_of(&mut self, slot: u32) -> String {
        let Some(client) = self.clients.get_mut(&slot).filter(|client| !client.hides_cursor) else {
            return String::new();
        };
        let recent = &self.checkpoints.recent;
        self.cursors.write_near(&self.layout, &client.next, &mut client.footing, recent).to_owned()
    }

    /// Begins the walk that clients wait for: at the newest segment that leaves nothing out for any of them.
    fn begin_walk(&mut self) {
        let mut members = std::mem::take(&mut self.waiting);
        // A slot may have another tenant by now, and a client other plans.
        let waits = |client: &Client, address| client.address == address && client.stage == Stage::Queued;
        members.retain(|address| self.clients.get(&address.slot).is_some_and(|client| waits(client, *address)));
        let ring = std::mem::take(&mut self.ring);
        if members.is_empty() {
            return;
        }
        let mut clients = members.iter().filter_map(|address| self.clients.get(&address.slot));
        let mut lowest: Vec<u64> = clients.next().map_or_else(Vec::new, |client| client.next.clone());
        for client in clients {
            lowest.truncate(client.next.len());
            lowest.iter_mut().zip(&client.next).for_each(|(lowest, next)| *lowest = (*lowest).min(*next));
        }
        let leaves_nothing_out = |segment: &SegmentHold| {
            let start = segment.start();
            // Of a slot that one of them has not heard of yet, it has nothing.
            let lowest = |at: usize| lowest.get(at).copied().unwrap_or(0);
            !start.is_empty() && start.iter().enumerate().all(|(at, start)| lowest(at) >= *start)
        };
        let from = ring.iter().rposition(leaves_nothing_out).unwrap_or(0);
        for address in &members {
            if let Some(client) = self.clients.get_mut(&address.slot) {
                client.stage = Stage::Walk;
            }
        }
        self.walk = Some(Walk { ring: ring.into_iter().skip(from).collect(), record: 0, members });
    }
}

impl Shard {
    /// Is there a walk to go on with?
    #[must_use]
    pub fn has_replay_work(&self) -> bool {
        self.replays.walk.is_some() || !self.replays.waiting.is_empty()
    }

    /// One turn of the walk through the ring, a millisecond of this clock at most. Call between batches of live events.
    pub fn walk_on(&mut self, now_us: impl Fn() -> u64) {
        if self.replays.walk.is_none() {
            if self.replays.waiting.is_empty() {
                return;
            }
            self.replays.begin_walk();
        }
        let until_us = now_us() + TURN_US;
        let here = self.place();
        let mut ended = false;
        while !ended && now_us() < until_us {
            for _ in 0..RECORDS_PER_LOOK {
                let Some((segment, range)) = self.next_of_walk(here) else {
                    ended = true;
                    break;
                };
                self.replay_record(&segment, range, Stage::Walk);
            }
        }
        self.flush_replays();
        if ended && let Some(walk) = self.replays.walk.take() {
            for address in walk.members {
                self.end_of_walk(address);
            }
        }
    }

    /// What this shard has taken from the mailbox.
    pub(super) fn place(&self) -> Option<Place> {
        let last = self.segment.as_ref().zip(self.last_record);
        let last = last.map(|(segment, range)| Place { segment: segment.number(), offset: range.offset });
        last.max(self.replays.floor)
    }

    fn next_of_walk(&mut self, here: Option<Place>) -> Option<(SegmentHold, Range)> {
        let walk = self.replays.walk.as_mut()?;
        loop {
            let segment = walk.ring.front()?;
            if let Some(range) = segment.record(walk.record) {
                if Some(Place { segment: segment.number(), offset: range.offset }) > here {
                    return None;
                }
                walk.record += 1;
                return Some((SegmentHold::clone(segment), range));
            }
            if walk.ring.len() == 1 {
                return None;
            }
            walk.ring.pop_front();
            walk.record = 0;
        }
    }

    /// The client has everything that this shard has taken: it becomes live, unless it is ahead of this node.
    fn end_of_walk(&mut self, address: Address) {
        let slot = address.slot;
        let Some(client) = self.replays.clients.get(&slot) else { return };
        if client.stage != Stage::Walk || client.address != address {
            return;
        }
        if client.ahead {
            return self.park(slot, self.now_ms + PARKED_MS * 4);
        }
        let Some(client) = self.replays.clients.remove(&slot) else { return };
        self.replays.index.remove(slot);
        self.metrics.replaying.subtract(1);
        let mut vacated = Vec::new();
        if let Some(connection) = self.connections.get_mut(client.address) {
            connection.replaying = false;
            vacated = self.index.set(slot, client.subscriptions).removed;
        }
        self.requests.release(&client.types);
        self.give_up(client.types.iter().chain(&vacated));
    }

    /// Takes entries of the replay lane until a turn is over by this clock; true if there may be more.
    pub fn take_replayed(&mut self, lane: &mut rtrb::Consumer<Replayed>, now_us: impl Fn() -> u64) -> bool {
        let until_us = now_us() + TURN_US;
        let mut taken = 0;
        while let Ok(entry) = lane.pop() {
            self.replayed(entry);
            taken += 1;
            if taken >= ENTRIES_PER_TURN || (taken % RECORDS_PER_LOOK == 0 && now_us() >= until_us) {
                break;
            }
        }
        self.flush_replays();
        !lane.is_empty()
    }

    fn replayed(&mut self, entry: Replayed) {
        match entry {
            Replayed::Segment(segment) => self.replays.segment = Some(SegmentHold::new(segment)),
            Replayed::Event(range) => {
                if let Some(segment) = self.replays.segment.clone() {
                    self.replay_record(&segment, range, Stage::Pass);
                }
            }
            Replayed::Begin(joined) => {
                for joined in joined {
                    self.begin_pass(joined);
                }
            }
            Replayed::Lost(loss) => self.lost_in_pass(loss),
            Replayed::Done(to) => self.end_of_pass(&to),
        }
    }

    fn begin_pass(&mut self, joined: crate::replay::Joined) {
        let slot = joined.address.slot;
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        if client.address != joined.address || client.stage != Stage::Asked {
            return;
        }
        client.stage = Stage::Pass;
        client.pass = Some(joined.ticket);
        client.confirmed = true;
        client.since_ms = None;
        if let Some(from) = joined.from {
            client.next = from;
        }
        self.replays.passing.push(joined.address);
        self.lose(slot, joined.losses);
    }

    fn lost_in_pass(&mut self, loss: Loss) {
        let Some(at) = loss.slot else { return };
        for address in self.replays.passing.clone() {
            let slot = address.slot;
            let Some(client) = self.replays.clients.get(&slot) else { continue };
            let from = client.next.get(at).copied().unwrap_or(0);
            if client.stage == Stage::Pass && client.address == address && from < loss.to {
                self.lose(slot, vec![Loss { from, ..loss.clone() }]);
            }
        }
    }

    fn end_of_pass(&mut self, to: &Vector) {
        self.flush_replays();
        self.replays.segment = None;
        for address in std::mem::take(&mut self.replays.passing) {
            let slot = address.slot;
            let Some(client) = self.replays.clients.get_mut(&slot) else { continue };
            if client.stage != Stage::Pass || client.address != address {
                continue;
            }
            client.earliest = false;
            client.pass = None;
            if client.next.len() < to.len() {
                client.next.resize(to.len(), 0);
            }
            for (next, to) in client.next.iter_mut().zip(to.iter()) {
                *next = (*next).max(*to);
            }
            self.ask_again(slot);
        }
    }

    /// Tells a client what is lost to it, and moves it on.
    pub(super) fn lose(&mut self, slot: u32, losses: Vec<Loss>) {
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        for loss in &losses {
            if let Some(next) = loss.slot.and_then(|at| client.next.get_mut(at)) {
                *next = loss.to;
            }
        }
        if losses.is_empty() || client.earliest {
            return;
        }
        let address = client.address;
        self.flush_replays();
        self.metrics.history_lost.add(1);
        let data = own_events::history_lost_data(&losses, &self.replays.layout);
        let cursor = self.replays.cursor_of(slot);
        self.send_own_event_at(address, own_events::HISTORY_LOST, &data, &cursor);
    }

    /// Hands one record to the clients of this stage that want it and don't have it.
    fn replay_record(&mut self, segment: &Segment, range: Range, stage: Stage) {
        let record = record::read(segment, range);
        let mut matched = std::mem::take(&mut self.replays.matched);
        self.replays.index.matches(&record.event_type, record, &mut matched);
        for slot in matched.drain(..) {
            self.replay_to(slot, segment, record, stage);
        }
        self.replays.matched = matched;
    }

    fn replay_to(&mut self, slot: u32, segment: &Segment, record: &record::ArchivedRecord<'_>, stage: Stage) {
        let (at, offset) = (record.partition.to_native() as usize, record.offset.to_native());
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        if client.stage != stage || record.received_us.to_native() < client.since_us {
            return;
        }
        if client.next.len() <= at {
            client.next.resize(at + 1, 0);
        }
        if offset >= client.next[at] {
            self.append_to(slot, segment, record, Some((at, offset + 1)));
        }
    }

    /// Takes the client out of pass and walk until this time.
    pub(super) fn park(&mut self, slot: u32, until_ms: u64) {
        if let Some(client) = self.replays.clients.get_mut(&slot) {
            client.stage = Stage::Parked(until_ms);
            client.pass = None;
            self.replays.parked += 1;
        }
    }

    /// Lets parked clients go on whose time has come and whose output has room again.
    pub(super) fn resume_parked(&mut self, now_ms: u64) {
        if self.replays.parked == 0 {
            return;
        }
        let room_bytes = self.room_to_go_on();
        let ready = |client: &Client| {
            let room = self.connections.get(client.address).is_some_and(|connection| match &connection.output {
                Output::Session(session) => session.unseen() < MAX_BUFFERED_EVENTS / 4,
                _ => connection.queued_bytes() <= room_bytes,
            });
            matches!(client.stage, Stage::Parked(until_ms) if until_ms <= now_ms) && room
        };
        let clients = self.replays.clients.iter();
        let mut slots: Vec<u32> = clients.filter(|(_, client)| ready(client)).map(|(slot, _)| *slot).collect();
        // A table's order is another in every process.
        slots.sort_unstable();
        for slot in slots {
            self.replays.parked -= 1;
            self.ask_again(slot);
        }
        self.ask_first_again(now_ms);
    }
}
