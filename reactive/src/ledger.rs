//! The calls of one client: those in flight, and those that wait until they may be.
//!
//! A call that waits is handed its place by the one that leaves, in the order they came, so that no newcomer overtakes it.

use std::collections::VecDeque;

use futures_channel::oneshot;

use crate::correlation::CorrelationId;
use crate::pending::{Full, Pending};

/// Calls of type `T` in flight and waiting.
#[derive(Debug)]
pub(crate) struct Ledger<T> {
    pending: Pending<T>,
    waiting: Pending<Waiter<T>>,
    /// Who waits, the longest first; those that have given up are still in it.
    order: VecDeque<CorrelationId>,
    closed: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    call: T,
    deadline_ms: u64,
    place: oneshot::Sender<CorrelationId>,
}

/// What became of a new call.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is in flight under this id.
    Entered(CorrelationId),
    /// It waits under this id (see [`Ledger::give_up`]) until it gets its place. The channel closes if it gets none.
    Waits(CorrelationId, oneshot::Receiver<CorrelationId>),
    /// As many are in flight, and wait, as may.
    Overloaded,
    /// No more calls are taken.
    Closed,
}

impl<T> Ledger<T> {
    /// At most `max_in_flight` calls of `instance`, and `max_waiting` that wait.
    pub(crate) fn new(instance: u64, max_in_flight: usize, max_waiting: usize, now_ms: u64) -> Self {
        let pending = Pending::new(instance, max_in_flight, now_ms);
        Self { pending, waiting: Pending::new(instance, max_waiting, now_ms), order: VecDeque::new(), closed: false }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn admit(&mut self, call: T, deadline_ms: u64) -> Admission {
        if self.closed {
            return Admission::Closed;
        }
        let call = match self.waiting.is_empty() {
            true => match self.pending.insert(call, deadline_ms) {
                Ok(id) => return Admission::Entered(id),
                Err(Full(call)) => call,
            },
            false => call,
        };
        let (place, receiver) = oneshot::channel();
        match self.waiting.insert(Waiter { call, deadline_ms, place }, deadline_ms) {
            Ok(id) => {
                // Those that gave up are dropped from the order before it outgrows who can wait.
                if self.order.len() >= 2 * self.waiting.len() + KEPT_ORDER {
                    let waiting = &mut self.waiting;
                    self.order.retain(|id| waiting.get_mut(*id).is_some());
                }
                self.order.push_back(id);
                Admission::Waits(id, receiver)
            }
            Err(Full(_)) => Admission::Overloaded,
        }
    }

    /// The call in flight under this id.
    pub(crate) fn get_mut(&mut self, id: CorrelationId) -> Option<&mut T> {
        self.pending.get_mut(id)
    }

    /// Takes a call out and gives its place to the one that has waited longest.
    pub(crate) fn remove(&mut self, id: CorrelationId) -> Option<T> {
        let call = self.pending.remove(id)?;
        self.promote();
        Some(call)
    }

    /// A call that waits no longer wants its place.
    pub(crate) fn give_up(&mut self, waiting: CorrelationId) -> Option<T> {
        self.waiting.remove(waiting).map(|waiter| waiter.call)
    }

    /// Moves the clock; hands out calls that were not answered in time, and (second) those that got no place in time.
    pub(crate) fn expire(&mut self, now_ms: u64, mut unanswered: impl FnMut(T), mut unplaced: impl FnMut(T)) {
        self.pending.expire(now_ms, |_, call| unanswered(call));
        self.waiting.expire(now_ms, |_, waiter| unplaced(waiter.call));
        self.promote();
    }

    /// Takes no more calls.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Hands out every call, also those that wait.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(T)) {
        self.close();
        self.waiting.drain(|_, waiter| each(waiter.call));
        self.order = VecDeque::new();
        self.pending.drain(|_, call| each(call));
    }

    fn promote(&mut self) {
        while let Some(next) = self.order.front().copied() {
            let Some(waiter) = self.waiting.get_mut(next) else {
                self.order.pop_front();
                continue;
            };
            if waiter.place.is_canceled() {
                self.order.pop_front();
                self.waiting.remove(next);
                continue;
            }
            if !self.pending.has_room() {
                return;
            }
            self.order.pop_front();
            let Some(Waiter { call, deadline_ms, place }) = self.waiting.remove(next) else { continue };
            let Ok(id) = self.pending.insert(call, deadline_ms) else { return };
            if place.send(id).is_err() {
                self.pending.remove(id);
            }
        }
        if self.order.capacity() > KEPT_ORDER {
            self.order = VecDeque::new();
        }
    }
}

/// Entries of the order that may be out of date.
const KEPT_ORDER: usize = 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger() -> Ledger<u32> {
        Ledger::new(7, 1, 2, 0)
    }

    fn enter(ledger: &mut Ledger<u32>, call: u32) -> CorrelationId {
        match ledger.admit(call, 1_000) {
            Admission::Entered(id) => id,
            other => panic!("not entered: {other:?}"),
        }
    }

    fn wait(ledger: &mut Ledger<u32>, call: u32) -> (CorrelationId, oneshot::Receiver<CorrelationId>) {
        match ledger.admit(call, 1_000) {
            Admission::Waits(id, place) => (id, place),
            other => panic!("does not wait: {other:?}"),
        }
    }

    #[test]
    fn a_place_goes_to_who_has_waited_longest() {
        let mut ledger = ledger();
        let first = enter(&mut ledger, 1);
        let (_, mut second) = wait(&mut ledger, 2);
        let (_, mut third) = wait(&mut ledger, 3);
        assert!(matches!(ledger.admit(4, 1_000), Admission::Overloaded));
        assert_eq!(ledger.remove(first), Some(1));
        let id = second.try_recv().unwrap().unwrap();
        assert_eq!(third.try_recv(), Ok(None));
        assert_eq!(ledger.remove(id), Some(2));
        assert!(third.try_recv().unwrap().is_some());
        assert_eq!((ledger.in_flight(), ledger.waiting()), (1, 0));
    }

    #[test]
    fn a_place_passes_over_who_has_given_up() {
        let mut ledger = ledger();
        let first = enter(&mut ledger, 1);
        let (given_up, _kept) = wait(&mut ledger, 2);
        let (_, dropped) = wait(&mut ledger, 3);
        assert_eq!(ledger.give_up(given_up), Some(2));
        drop(dropped);
        let (_, mut fourth) = wait(&mut ledger, 4);
        ledger.remove(first);
        assert!(fourth.try_recv().unwrap().is_some());
    }

    #[test]
    fn who_gets_no_place_in_time_is_told_apart_from_who_gets_no_answer() {
        let mut ledger = ledger();
        enter(&mut ledger, 1);
        let (_, mut place) = wait(&mut ledger, 2);
        let (mut unanswered, mut unplaced) = (Vec::new(), Vec::new());
        ledger.expire(1_000, |call| unanswered.push(call), |call| unplaced.push(call));
        assert_eq!((unanswered, unplaced), (vec![1], vec![2]));
        assert!(place.try_recv().is_err());
        assert_eq!((ledger.in_flight(), ledger.waiting()), (0, 0));
    }

    #[test]
    fn a_closed_ledger_hands_out_everything_and_takes_nothing() {
        let mut ledger = ledger();
        enter(&mut ledger, 1);
        let _waits = wait(&mut ledger, 2);
        let mut calls = Vec::new();
        ledger.drain(|call| calls.push(call));
        assert_eq!(calls, [2, 1]);
        assert!(matches!(ledger.admit(3, 1_000), Admission::Closed));
    }

    proptest! {
        #[test]
        fn every_call_ends_once_and_never_more_are_in_flight_than_may(
            steps in prop::collection::vec((0_u8..5, 0_usize..20, 0_u64..400), 1..300)
        ) {
            let mut ledger: Ledger<u32> = Ledger::new(7, 4, 4, 0);
            let (mut now_ms, mut admitted, mut ended) = (0, 0_u32, 0);
            let (mut entered, mut waits) = (Vec::new(), Vec::new());
            for (step, pick, amount) in steps {
                match step {
                    0 | 1 => match ledger.admit(admitted, now_ms + amount) {
                        Admission::Entered(id) => { entered.push(id); admitted += 1; }
                        Admission::Waits(id, place) => { waits.push((id, place)); admitted += 1; }
                        Admission::Overloaded => prop_assert_eq!(ledger.waiting(), 4),
                        Admission::Closed => unreachable!(),
                    },
                    2 if !entered.is_empty() => {
                        let id = entered.swap_remove(pick % entered.len());
                        ended += u32::from(ledger.remove(id).is_some());
                    }
                    3 if !waits.is_empty() => {
                        let (id, _) = waits.swap_remove(pick % waits.len());
                        ended += u32::from(ledger.give_up(id).is_some());
                    }
                    _ => {
                        now_ms += amount;
                        let mut expired = 0;
                        ledger.expire(now_ms, |_| expired += 1, |_| ());
                        ended += expired;
                    }
                }
                // A dropped wait that was given its place meanwhile is a call in flight that nobody removes here.
                prop_assert!(ledger.in_flight() <= 4 && ledger.waiting() <= 4);
                prop_assert!(ended <= admitted);
                for (_, place) in &mut waits {
                    if let Ok(Some(id)) = place.try_recv() { entered.push(id); }
                }
            }
            ledger.drain(|_| ());
            prop_assert_eq!((ledger.in_flight(), ledger.waiting()), (0, 0));
        }
    }
}
