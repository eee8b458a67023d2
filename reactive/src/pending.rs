//! The requests that wait for their answers: a slab whose slots are named by correlation ids, with a deadline each.
//!
//! A slot is freed exactly once, by an answer, by its caller, or by its deadline; whoever comes later finds nothing.

use crate::correlation::CorrelationId;
use crate::wheel::TimerWheel;

/// What a caller left here, and until when.
#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Requests in flight of one instance, at most a fixed number of them.
#[derive(Debug)]
pub struct Pending<T> {
    instance: u64,
    slots: Vec<Slot<T>>,
    /// Free slots; the most recently freed is used next.
    free: Vec<u32>,
    max: usize,
    /// Generation of slots that are made, so that none names what a slot of before named.
    first_generation: u32,
    wheel: TimerWheel,
    due: Vec<u64>,
}

/// As many requests wait as may; gives the value back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("too many requests are waiting for their answers")]
pub struct Full<T>(pub T);

impl<T> Pending<T> {
    /// An empty table of `instance` for at most `max` requests, whose clock stands at `now_ms`.
    #[must_use]
    pub fn new(instance: u64, max: usize, now_ms: u64) -> Self {
        let max = max.min(u32::MAX as usize);
        let wheel = TimerWheel::new(now_ms);
        Self { instance, slots: Vec::new(), free: Vec::new(), max, first_generation: 0, wheel, due: Vec::new() }
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps `value` until its answer comes or `deadline_ms` has passed; the id names it.
    ///
    /// # Errors
    /// [`Full`] with the value.
    pub fn insert(&mut self, value: T, deadline_ms: u64) -> Result<CorrelationId, Full<T>> {
        let id = self.hold(value)?;
        self.expire_at(id, deadline_ms);
        Ok(id)
    }

    /// Keeps `value` until its answer comes or it is taken out; [`Self::expire_at`] gives it a deadline. The id names it.
    ///
    /// # Errors
    /// [`Full`] with the value.
    pub fn hold(&mut self, value: T) -> Result<CorrelationId, Full<T>> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.max => {
                self.slots.push(Slot { generation: self.first_generation, value: None });
                u32::try_from(self.slots.len() - 1).expect("invariant: max fits 32 bits")
            }
            None => return Err(Full(value)),
        };
        let entry = &mut self.slots[slot as usize];
        entry.value = Some(value);
        Ok(CorrelationId { instance: self.instance, slot, generation: entry.generation })
    }

    /// Gives a deadline to what `id` names, if it still waits. Of several deadlines the earliest counts.
    pub fn expire_at(&mut self, id: CorrelationId, deadline_ms: u64) {
        if self.get_mut(id).is_some() {
            self.wheel.insert(deadline_ms, u64::from(id.slot) << 32 | u64::from(id.generation));
        }
    }

    /// Whether one more may wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < self.max
    }

    /// What `id` names, if it still waits.
    pub fn get_mut(&mut self, id: CorrelationId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot as usize);
        let slot = slot.filter(|slot| id.instance == self.instance && slot.generation == id.generation)?;
        slot.value.as_mut()
    }

    /// Takes out what `id` names; `None` if that is of another instance, answered, given up, too late, or made up.
    pub fn remove(&mut self, id: CorrelationId) -> Option<T> {
        if id.instance != self.instance {
            return None;
        }
        self.take(id.slot, id.generation)
    }

    fn take(&mut self, slot: u32, generation: u32) -> Option<T> {
        let entry = self.slots.get_mut(slot as usize).filter(|entry| entry.generation == generation)?;
        let value = entry.value.take()?;
        entry.generation = generation.wrapping_add(1);
        self.free.push(slot);
        self.shrink();
        Some(value)
    }

    /// Moves the clock to `now_ms` and hands out what has not been answered in time.
    pub fn expire(&mut self, now_ms: u64, mut each: impl FnMut(CorrelationId, T)) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now_ms, &mut due);
        for key in due.drain(..) {
            let half = |shift: u32| u32::try_from(key >> shift & u64::from(u32::MAX)).unwrap_or_default();
            let (slot, generation) = (half(32), half(0));
            if let Some(value) = self.take(slot, generation) {
                each(CorrelationId { instance: self.instance, slot, generation }, value);
            }
        }
        due.shrink_to(KEPT_SLOTS);
        self.due = due;
    }

    /// Hands out everything that waits, for a shutdown.
    pub fn drain(&mut self, mut each: impl FnMut(CorrelationId, T)) {
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            // The table may shrink to nothing while it is emptied.
            let Some(generation) = self.slots.get(slot as usize).map(|entry| entry.generation) else { return };
            if let Some(value) = self.take(slot, generation) {
                each(CorrelationId { instance: self.instance, slot, generation }, value);
            }
        }
    }

    /// A burst gives its memory back once all of it is over. The generations go on, so that an old id names nothing.
    fn shrink(&mut self) {
        if self.slots.len() > KEPT_SLOTS && self.free.len() == self.slots.len() {
            let newest = self.slots.iter().map(|entry| entry.generation).max().unwrap_or_default();
            self.slots.truncate(KEPT_SLOTS);
            self.slots.iter_mut().for_each(|entry| entry.generation = newest);
            self.slots.shrink_to_fit();
            self.first_generation = newest;
            self.free.clear();
            self.free.extend((0..u32::try_from(KEPT_SLOTS).unwrap_or(u32::MAX)).rev());
            self.free.shrink_to_fit();
        }
    }
}

/// Slots that are kept when nothing waits.
const KEPT_SLOTS: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pending() -> Pending<u32> {
        Pending::new(7, 5_000, 0)
    }

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut pending = pending();
        let id = pending.insert(1, 5_000).unwrap();
        *pending.get_mut(id).unwrap() += 1;
        assert_eq!(pending.remove(id), Some(2));
        assert_eq!(pending.get_mut(id), None);
        assert_eq!(pending.remove(id), None);
        assert!(pending.is_empty());
    }

    #[test]
    fn an_answer_to_the_request_before_does_not_reach_the_next_one_in_its_slot() {
        let mut pending = pending();
        let old = pending.insert(1, 5_000).unwrap();
        pending.remove(old).unwrap();
        let new = pending.insert(2, 5_000).unwrap();
        assert_eq!(new.slot, old.slot);
        assert_eq!(pending.remove(old), None);
        assert_eq!(pending.remove(CorrelationId { instance: 8, ..new }), None);
        assert_eq!(pending.remove(new), Some(2));
    }

    #[test]
    fn what_is_not_answered_in_time_is_handed_out_once() {
        let mut pending = pending();
        let late = pending.insert(1, 1_000).unwrap();
        let answered = pending.insert(2, 1_000).unwrap();
        pending.remove(answered).unwrap();
        let mut expired = Vec::new();
        pending.expire(999, |id, value| expired.push((id, value)));
        assert!(expired.is_empty());
        pending.expire(1_000, |id, value| expired.push((id, value)));
        assert_eq!(expired, [(late, 1)]);
        assert_eq!(pending.remove(late), None);
    }

    #[test]
    fn what_is_held_has_no_deadline_until_it_gets_one() {
        let mut pending = pending();
        let held = pending.hold(1).unwrap();
        let mut expired = Vec::new();
        pending.expire(1_000_000, |id, value| expired.push((id, value)));
        assert_eq!((expired.len(), pending.len()), (0, 1));
        pending.expire_at(held, 1_002_000);
        pending.expire(1_001_950, |id, value| expired.push((id, value)));
        assert!(expired.is_empty());
        pending.expire(1_002_000, |id, value| expired.push((id, value)));
        assert_eq!(expired, [(held, 1)]);
    }

    #[test]
    fn a_deadline_for_what_has_ended_touches_nobody_and_takes_no_memory() {
        let mut pending = pending();
        let old = pending.hold(1).unwrap();
        pending.remove(old).unwrap();
        let next = pending.hold(2).unwrap();
        pending.expire_at(old, 1_000);
        pending.expire_at(CorrelationId { instance: 8, ..next }, 1_000);
        assert!(pending.wheel.is_empty());
        pending.expire(2_000, |_, _| panic!("nothing is due"));
        assert_eq!(pending.remove(next), Some(2));
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut pending = Pending::new(7, 1, 0);
        let first = pending.insert(1, 5_000).unwrap();
        assert!(!pending.has_room());
        assert_eq!(pending.insert(2, 5_000), Err(Full(2)));
        pending.remove(first).unwrap();
        assert!(pending.insert(3, 5_000).is_ok());
    }

    #[test]
    fn a_burst_gives_its_memory_back_and_its_ids_name_nothing_afterwards() {
        let mut pending = pending();
        let ids: Vec<_> = (0..5_000).map(|value| pending.insert(value, 1_000).unwrap()).collect();
        pending.expire(1_000, |_, _| {});
        assert!(pending.is_empty());
        assert!(pending.slots.capacity() <= 2 * KEPT_SLOTS && pending.free.capacity() <= 2 * KEPT_SLOTS);
        let again: Vec<_> = (0..5_000).map(|value| pending.insert(value, 9_000).unwrap()).collect();
        assert!(ids.iter().all(|id| pending.remove(*id).is_none()));
        assert!(again.iter().all(|id| pending.remove(*id).is_some()));
    }

    #[test]
    fn a_shutdown_hands_out_everything() {
        let mut pending = pending();
        for value in 0..3_000 {
            pending.insert(value, 1_000).unwrap();
        }
        let mut count = 0;
        pending.drain(|_, _| count += 1);
        assert_eq!((count, pending.len()), (3_000, 0));
    }

    proptest! {
        #[test]
        fn each_request_ends_exactly_once(steps in prop::collection::vec((0_u8..4, 0_usize..50, 0_u64..300), 1..400)) {
            let mut pending = Pending::new(7, 40, 0);
            let (mut now_ms, mut open, mut ended) = (0, Vec::new(), 0);
            let mut started = 0_u32;
            for (step, pick, amount) in steps {
                match step {
                    0 | 1 => if let Ok(id) = pending.insert(started, now_ms + amount) {
                        open.push((id, started));
                        started += 1;
                    },
                    2 if !open.is_empty() => {
                        let (id, value) = open.swap_remove(pick % open.len());
                        prop_assert_eq!(pending.remove(id), Some(value));
                        ended += 1;
                    }
                    _ => {
                        now_ms += amount;
                        let mut expired = Vec::new();
                        pending.expire(now_ms, |id, value| expired.push((id, value)));
                        ended += u32::try_from(expired.len()).unwrap();
                        for entry in expired {
                            prop_assert!(open.contains(&entry));
                            open.retain(|other| *other != entry);
                        }
                    }
                }
                prop_assert_eq!(pending.len(), open.len());
                prop_assert_eq!(started, ended + u32::try_from(open.len()).unwrap());
            }
        }
    }
}
