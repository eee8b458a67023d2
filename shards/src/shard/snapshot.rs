//! Clients that get their initial state: the newest event per key, before they catch up to what is live.
//!
//! A snapshot ends where the client's own next offsets are: it holds what is before them, the replay after it brings the rest, so
//! nothing is lost, doubled or stale. A client whose output is full leaves the reading and asks again from where it is.

use super::connection::Address;
use super::replay::{Client, PARKED_MS, Stage};
use super::{Shard, own_events};
use crate::index::Index;
use crate::queue::SegmentHold;
use crate::record::{self, Range};
use crate::snapshot::{Member, Progress, SnapshotRequest, SnapshotSource, Snapshotted};
use crate::subscription::CompiledSubscription;
use std::sync::Arc;

/// Longest turn of a reading, in microseconds: live events wait for no more.
const TURN_US: u64 = 1_000;
/// Entries of the snapshot lane that are taken in one turn.
const ENTRIES_PER_TURN: usize = 256;
/// Entries between two looks at the clock.
const ENTRIES_PER_LOOK: usize = 32;

/// A snapshot that a client waits for, or gets at the moment.
#[derive(Debug)]
pub(super) struct Pending {
    /// The subscriptions that ask for it.
    subscriptions: Vec<CompiledSubscription>,
    round: u64,
    /// What lies before has been dealt with.
    after: Progress,
    events: u64,
    /// It takes part in the reading at hand.
    reads: bool,
    /// The position of the client is no longer of use: it begins where the node is.
    renew: bool,
}

impl Pending {
    /// What these subscriptions ask for, if they do.
    pub(super) fn of(subscriptions: &[CompiledSubscription]) -> Option<Box<Self>> {
        let subscriptions: Vec<_> = subscriptions.iter().filter(|one| one.snapshot).cloned().collect();
        let none = subscriptions.is_empty();
        let pending =
            Self { subscriptions, round: 0, after: Progress::default(), events: 0, reads: false, renew: false };
        (!none).then(|| Box::new(pending))
    }

    /// Where the client begins, if not where it was; asked once.
    pub(super) fn take_renewal(&mut self) -> bool {
        std::mem::take(&mut self.renew)
    }
}

/// What a shard knows of snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    pub(super) source: Option<Arc<dyn SnapshotSource>>,
    /// The clients of the reading at hand.
    pub(super) index: Index,
    members: Vec<Member>,
    segment: Option<SegmentHold>,
    rounds: u64,
    matched: Vec<u32>,
}

impl Shard {
    /// Asks for the client's snapshot, which ends where the client is. False where nobody gives any: the client is told so and
    /// goes on.
    pub(super) fn start_snapshot(&mut self, slot: u32) -> bool {
        let snapshots = &mut self.snapshots;
        let Some(client) = self.replays.clients.get_mut(&slot) else { return true };
        let Some(pending) = &mut client.snapshot else { return false };
        let Some(source) = &snapshots.source else {
            self.end_snapshot(slot, false);
            return false;
        };
        snapshots.rounds += 1;
        pending.round = snapshots.rounds;
        pending.reads = false;
        client.stage = Stage::Snapshot;
        source.request(SnapshotRequest {
            shard: self.number,
            member: Member { address: client.address, round: pending.round },
            to: Arc::new(client.next.clone()),
            layout: Arc::clone(&self.replays.layout),
            after: pending.after,
            event_types: super::resume::types_of(&pending.subscriptions),
        });
        true
    }

    /// The client has all of its snapshot: it is told so, with the cursor of where it goes on.
    fn end_snapshot(&mut self, slot: u32, complete: bool) {
        self.flush_replays();
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        let Some(pending) = client.snapshot.take() else { return };
        client.hides_cursor = false;
        client.stage = Stage::Asked;
        let address = client.address;
        self.metrics.snapshots.add(1);
        self.metrics.snapshotting.subtract(1);
        let data = own_events::snapshot_data(complete, pending.events);
        let cursor = self.replays.cursor_of(slot);
        self.send_own_event_at(address, own_events::SNAPSHOT, &data, &cursor);
    }

    /// Gives a client that catches up another wish, or none.
    pub(super) fn set_snapshot(&mut self, slot: u32, snapshot: Option<Box<Pending>>) {
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        self.metrics.snapshotting.add(u64::from(snapshot.is_some()));
        self.metrics.snapshotting.subtract(u64::from(client.snapshot.is_some()));
        client.hides_cursor &= snapshot.is_some();
        client.snapshot = snapshot;
    }

    /// Lets a client go on that has been given another wish.
    pub(super) fn go_on_with_snapshot(&mut self, slot: u32) {
        let Some(client) = self.replays.clients.get(&slot) else { return };
        match (client.stage, client.snapshot.is_some()) {
            // It asks, and will do so with what it wishes by then.
            (Stage::Asked, _) | (Stage::Queued | Stage::Walk | Stage::Pass | Stage::Parked(_), false) => {}
            (Stage::Snapshot, false) => self.ask_again(slot),
            (stage, true) => {
                self.replays.parked -= usize::from(matches!(stage, Stage::Parked(_)));
                if !self.start_snapshot(slot) {
                    self.ask_again(slot);
                }
            }
        }
    }

    /// Takes entries of the snapshot lane until a turn is over by this clock; true if there may be more.
    pub fn take_snapshots(&mut self, lane: &mut rtrb::Consumer<Snapshotted>, now_us: impl Fn() -> u64) -> bool {
        let until_us = now_us() + TURN_US;
        let mut taken = 0;
        while let Ok(entry) = lane.pop() {
            self.take_snapshot_entry(entry);
            taken += 1;
            if taken >= ENTRIES_PER_TURN || (taken % ENTRIES_PER_LOOK == 0 && now_us() >= until_us) {
                break;
            }
        }
        self.flush_replays();
        !lane.is_empty()
    }

    fn take_snapshot_entry(&mut self, entry: Snapshotted) {
        match entry {
            Snapshotted::Begin(members) => {
                for member in &members {
                    if let Some(pending) = waiting(&mut self.replays.clients, *member) {
                        pending.reads = true;
                        self.snapshots.index.set(member.address.slot, pending.subscriptions.clone());
                    }
                }
                self.snapshots.members = members;
            }
            Snapshotted::Segment(segment) => self.snapshots.segment = Some(SegmentHold::new(segment)),
            Snapshotted::Event(range) => self.take_snapshot_event(range),
            Snapshotted::Done { complete } => {
                self.snapshots.segment = None;
                for member in std::mem::take(&mut self.snapshots.members) {
                    let slot = member.address.slot;
                    self.snapshots.index.remove(slot);
                    if waiting(&mut self.replays.clients, member).is_some() {
                        self.end_snapshot(slot, complete);
                        self.ask_again(slot);
                    }
                }
            }
            Snapshotted::Again(members) => {
                for member in members {
                    self.renew_snapshot(member);
                }
            }
        }
    }

    /// Its position is of a topic that is gone, or the cache can't come to it.
    fn renew_snapshot(&mut self, member: Member) {
        let Some(pending) = waiting(&mut self.replays.clients, member) else { return };
        pending.renew = true;
        pending.after = Progress::default();
        let slot = member.address.slot;
        if self.replays.clients.get(&slot).is_some_and(|client| client.resumes) {
            // What it has missed has to be found out first.
            self.end_snapshot(slot, false);
            self.ask_again(slot);
        } else {
            self.park(slot, self.now_ms + PARKED_MS);
        }
    }

    fn take_snapshot_event(&mut self, range: Range) {
        let Some(segment) = self.snapshots.segment.clone() else { return };
        let record = record::read(&segment, range);
        let mut matched = std::mem::take(&mut self.snapshots.matched);
        self.snapshots.index.matches(&record.event_type, record, &mut matched);
        let (at, offset) = (record.partition.to_native() as usize, record.offset.to_native());
        for slot in matched.drain(..) {
            let Some(client) = self.replays.clients.get_mut(&slot) else { continue };
            let Some(pending) = client.snapshot.as_deref().filter(|_| client.stage == Stage::Snapshot) else {
                continue;
            };
            let place = Progress { slot: at, next: offset };
            if offset >= client.next.get(at).copied().unwrap_or(0) || place < pending.after || !pending.reads {
                continue;
            }
            if self.append_to(slot, &segment, record, None)
                && let Some(pending) = self.replays.clients.get_mut(&slot).and_then(|client| client.snapshot.as_mut())
            {
                pending.after = Progress { slot: at, next: offset + 1 };
                pending.events += 1;
            }
        }
        self.snapshots.matched = matched;
    }

    /// The connection is gone.
    pub(super) fn forget_snapshot(&mut self, address: Address, client: &Client) {
        self.snapshots.index.remove(address.slot);
        self.metrics.snapshotting.subtract(u64::from(client.snapshot.is_some()));
    }
}

/// What the member waits for, if it still does.
fn waiting(clients: &mut super::replay::Clients, member: Member) -> Option<&mut Pending> {
    let client = clients.get_mut(&member.address.slot)?;
    let waits = client.address == member.address && client.stage == Stage::Snapshot;
    client.snapshot.as_deref_mut().filter(|pending| waits && pending.round == member.round)
}
