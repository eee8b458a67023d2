//! What a pass over Kafka reads: a pure state machine over the requests that it serves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tidegate_shards::cursor::{Layout, Loss, Reason, Vector};
use tidegate_shards::replay::ReplayRequest;

/// A partition's first offset, and the one after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub(super) low: u64,
    pub(super) high: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// It must be begun again at its first offset.
    Restart,
    /// Read to its end, and not yet said so by [`Plan::finished`].
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    next: u64,
    to: u64,
    state: State,
}

/// A pass: one range per slot that covers every request.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) layout: Arc<Layout>,
    /// The clients have everything before these next offsets afterwards.
    pub(super) to: Vector,
    /// The types that any of them may want.
    pub(super) types: HashSet<Box<str>>,
    ranges: BTreeMap<usize, Range>,
    /// Slots in which a client claims to have seen more than the node, and how far.
    ahead: BTreeMap<usize, u64>,
    watermarks: BTreeMap<usize, Watermarks>,
    ended: Vec<usize>,
    /// Slots whose log ends before what was read of it.
    short: BTreeSet<usize>,
}

impl Plan {
    pub(super) fn new(requests: &[ReplayRequest]) -> Self {
        let newest = requests.iter().max_by_key(|request| request.to.len());
        let layout = newest.map(|request| Arc::clone(&request.layout)).unwrap_or_default();
        let mut to: Vec<u64> = Vec::new();
        for request in requests {
            to.resize(to.len().max(request.to.len()), 0);
            to.iter_mut().zip(request.to.iter()).for_each(|(to, other)| *to = (*to).max(*other));
        }
        let (mut ranges, mut ahead) = (BTreeMap::new(), BTreeMap::new());
        for (slot, _) in layout.slots() {
            let Some(&to) = to.get(slot) else { continue };
            let next = requests.iter().map(|request| request.from.get(slot).copied().unwrap_or(0)).min().unwrap_or(to);
            if next < to {
                ranges.insert(slot, Range { next, to, state: State::Reading });
            }
            if let Some(from) = requests.iter().filter_map(|request| request.from.get(slot).copied()).max()
                && from > to
            {
                ahead.insert(slot, from);
            }
        }
        let types = requests.iter().flat_map(|request| request.event_types.iter().cloned()).collect();
        Self {
            layout,
            to: Vector::new(to),
            types,
            ranges,
            ahead,
            watermarks: BTreeMap::new(),
            ended: Vec::new(),
            short: BTreeSet::new(),
        }
    }

    /// Slots whose watermarks must be known before the pass begins.
    pub(super) fn doubtful(&self) -> Vec<usize> {
        let mut slots: Vec<usize> = self.ranges.keys().chain(self.ahead.keys()).copied().collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Does the log hold all that the node, or any client, has seen of it?
    pub(super) fn is_whole(&self, slot: usize, watermarks: Watermarks) -> bool {
        watermarks.high >= self.seen(slot)
    }

    fn seen(&self, slot: usize) -> u64 {
        let read = self.to.get(slot).copied().unwrap_or(0);
        read.max(self.ahead.get(&slot).copied().unwrap_or(0))
    }

    /// Takes watermarks in. A log that ends before the range does is read to its end; the rest is lost.
    pub(super) fn know(&mut self, slot: usize, watermarks: Watermarks) {
        self.watermarks.insert(slot, watermarks);
        if let Some(range) = self.ranges.get_mut(&slot) {
            range.next = range.next.max(watermarks.low);
            if watermarks.high < range.to && range.state != State::Ended {
                range.to = watermarks.high;
                self.short.insert(slot);
            }
            if range.next >= range.to {
                self.finish(slot);
            }
        }
    }

    /// The partition is gone with all that was in it.
    pub(super) fn gone(&self, slot: usize) -> Watermarks {
        let end = self.seen(slot);
        Watermarks { low: end, high: end }
    }

    /// What is lost to this client.
    pub(super) fn losses(&self, request: &ReplayRequest) -> Vec<Loss> {
        let loss = |(&slot, watermarks): (&usize, &Watermarks)| {
            let from = request.from.get(slot).copied().unwrap_or(0);
            let lost = |reason, to| Some(Loss { reason, slot: Some(slot), from, to });
            if from < watermarks.low {
                lost(Reason::Expired, watermarks.low)
            } else if from > watermarks.high {
                lost(Reason::Truncated, watermarks.high)
            } else {
                None
            }
        };
        self.watermarks.iter().filter_map(loss).collect()
    }

    /// What nobody can read again, to be told when all else was read: the log is shorter than it was.
    pub(super) fn shortened(&self) -> Vec<Loss> {
        let loss = |&slot: &usize| {
            let to = self.to.get(slot).copied()?;
            Some(Loss { reason: Reason::Truncated, slot: Some(slot), from: 0, to })
        };
        self.short.iter().filter_map(loss).collect()
    }

    /// Where to begin in each slot.
    pub(super) fn ranges(&self) -> Vec<(usize, u64)> {
        self.ranges
            .iter()
            .filter(|(_, range)| range.state == State::Reading)
            .map(|(slot, range)| (*slot, range.next))
            .collect()
    }

    pub(super) fn slot_of(&self, source: usize, partition: u32) -> Option<usize> {
        let slot = self.layout.sources().get(source)?.slots.get(partition as usize)?.map(|slot| slot as usize)?;
        self.ranges.contains_key(&slot).then_some(slot)
    }

    /// A message came. Is it one of the pass?
    pub(super) fn take(&mut self, slot: usize, offset: u64) -> bool {
        let Some(range) = self.ranges.get_mut(&slot) else { return false };
        let belongs = range.state == State::Reading && offset >= range.next && offset < range.to;
        if range.state == State::Reading && offset >= range.next {
            range.next = offset + 1;
            if range.next >= range.to {
                self.finish(slot);
            }
        }
        belongs
    }

    /// The partition ends before `offset`.
    pub(super) fn end(&mut self, slot: usize, offset: u64) {
        if self.ranges.get(&slot).is_some_and(|range| range.state == State::Reading && offset >= range.to) {
            self.finish(slot);
        }
    }

    fn finish(&mut self, slot: usize) {
        if let Some(range) = self.ranges.get_mut(&slot)
            && range.state != State::Ended
        {
            range.state = State::Ended;
            self.ended.push(slot);
        }
    }

    /// The offset that reading would go on at is gone.
    pub(super) fn restart(&mut self, slot: usize) {
        if let Some(range) = self.ranges.get_mut(&slot)
            && range.state == State::Reading
        {
            range.state = State::Restart;
        }
    }

    /// Slots that must be begun again, and where.
    pub(super) fn restarts(&mut self) -> Vec<(usize, u64)> {
        let mut restarts = Vec::new();
        for (slot, range) in &mut self.ranges {
            if range.state == State::Restart {
                range.state = State::Reading;
                restarts.push((*slot, range.next));
            }
        }
        restarts
    }

    /// Slots that came to their end since the last call.
    pub(super) fn finished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.ended)
    }

    /// Ends the pass where it is; returns the slots that are being read.
    pub(super) fn give_up(&mut self) -> Vec<usize> {
        let reading = |(slot, range): (&usize, &mut Range)| {
            let open = range.state != State::Ended;
            range.state = State::Ended;
            open.then_some(*slot)
        };
        self.ranges.iter_mut().filter_map(reading).collect()
    }

    /// Is every slot at its end?
    pub(super) fn is_complete(&self) -> bool {
        self.ranges.values().all(|range| range.state == State::Ended)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_shards::cursor::Positions;
    use tidegate_shards::shard::connection::Address;

    use super::*;

    fn request(from: &[u64], to: &[u64]) -> ReplayRequest {
        let mut positions = Positions::default();
        positions.name_source(0, "events", 7);
        for (slot, next) in to.iter().enumerate() {
            let slot = u32::try_from(slot).unwrap();
            positions.start(slot, 0, slot, *next);
        }
        ReplayRequest {
            shard: 0,
            address: Address { slot: 0, generation: 1 },
            from: from.to_vec(),
            to: Vector::new(to.to_vec()),
            layout: Arc::clone(positions.layout()),
            event_types: ["a".into()].into(),
            earliest: false,
            since_ms: None,
        }
    }

    fn know_all(plan: &mut Plan, low: u64, high: u64) {
        plan.doubtful().into_iter().for_each(|slot| plan.know(slot, Watermarks { low, high }));
    }

    #[test]
    fn one_pass_covers_all_requests_and_leaves_out_what_nobody_misses() {
        let mut plan = Plan::new(&[request(&[5, 9], &[9, 9]), request(&[2, 9], &[12, 9])]);
        know_all(&mut plan, 0, 20);
        assert_eq!(plan.ranges(), [(0, 2)]);
        assert_eq!(*plan.to, [12, 9]);
        for offset in 2..12 {
            assert!(!plan.is_complete() && plan.take(0, offset));
        }
        assert!(plan.is_complete() && !plan.take(0, 12));
        assert_eq!(plan.finished(), [0]);
    }

    #[test]
    fn offsets_that_compaction_took_out_at_the_end_of_the_range_are_not_waited_for() {
        let mut plan = Plan::new(&[request(&[2], &[9])]);
        know_all(&mut plan, 0, 9);
        assert!(plan.take(0, 4));
        plan.end(0, 9);
        assert!(plan.is_complete());
    }

    #[test]
    fn what_retention_has_taken_is_a_loss_of_those_who_missed_it() {
        let (old, young) = (request(&[2], &[9]), request(&[6], &[9]));
        let mut plan = Plan::new(&[old, young]);
        know_all(&mut plan, 5, 9);
        assert_eq!(plan.ranges(), [(0, 5)]);
        let losses = plan.losses(&request(&[2], &[9]));
        assert_eq!(losses, [Loss { reason: Reason::Expired, slot: Some(0), from: 2, to: 5 }]);
        assert!(plan.losses(&request(&[6], &[9])).is_empty());
    }

    #[test]
    fn a_client_ahead_of_the_node_loses_nothing_unless_the_partition_is_shorter() {
        let mut plan = Plan::new(&[request(&[15], &[9])]);
        know_all(&mut plan, 0, 20);
        assert!(plan.is_complete() && plan.losses(&request(&[15], &[9])).is_empty());
        assert!(!plan.is_whole(0, Watermarks { low: 0, high: 9 }) && plan.is_whole(0, Watermarks { low: 0, high: 15 }));
        let losses = plan.losses(&request(&[25], &[9]));
        assert_eq!(losses, [Loss { reason: Reason::Truncated, slot: Some(0), from: 25, to: 20 }]);
    }

    #[test]
    fn a_log_that_is_shorter_than_what_was_read_of_it_is_read_to_its_end_and_the_rest_is_a_loss() {
        let truncated = |to| vec![Loss { reason: Reason::Truncated, slot: Some(0), from: 0, to }];
        let mut plan = Plan::new(&[request(&[2], &[9])]);
        know_all(&mut plan, 0, 4);
        assert!(plan.take(0, 2) && !plan.is_complete() && plan.take(0, 3) && plan.is_complete());
        assert_eq!(plan.shortened(), truncated(9));
        let mut plan = Plan::new(&[request(&[5], &[9])]);
        know_all(&mut plan, 0, 5);
        assert!(plan.is_complete());
        assert_eq!(plan.shortened(), truncated(9));
        let mut plan = Plan::new(&[request(&[5], &[9])]);
        know_all(&mut plan, 0, 12);
        assert!(plan.shortened().is_empty());
    }

    #[test]
    fn a_partition_whose_oldest_messages_go_meanwhile_is_begun_again() {
        let mut plan = Plan::new(&[request(&[2], &[9])]);
        know_all(&mut plan, 0, 9);
        plan.know(0, Watermarks { low: 7, high: 9 });
        plan.restart(0);
        assert_eq!(plan.restarts(), [(0, 7)]);
        assert!(plan.take(0, 7) && plan.take(0, 8) && plan.is_complete());
    }
}
