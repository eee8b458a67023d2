//! Deadlines of exchanges with backends, on one wheel per shard.
//!
//! A deadline moves with every piece of a body. So the wheel holds one entry per deadline, looks at where the deadline is by
//! now when the entry is due, and puts it back if it has moved. Time is passed in.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tidegate_reactive::wheel::TimerWheel;

/// All deadlines of a shard; cheap to clone.
#[derive(Clone)]
pub struct Deadlines(Rc<RefCell<Inner>>);

struct Inner {
    wheel: TimerWheel,
    slots: Slab<Slot>,
    generation: u32,
    due: Vec<u64>,
}

/// Something that a deadline ends although nobody polls it.
pub trait Ends {
    /// The deadline has passed.
    fn end(&self);
}

struct Slot {
    generation: u32,
    /// `u64::MAX` for none.
    at_ms: u64,
    /// The earliest entry of the wheel for this slot; `u64::MAX` for none.
    wheel_ms: u64,
    passed: bool,
    waker: Option<Waker>,
    ends: Option<Weak<dyn Ends>>,
}

/// Who is to be told, once the table is free again.
#[derive(Default)]
struct Passed {
    wakers: Vec<Waker>,
    ends: Vec<Weak<dyn Ends>>,
}

impl Deadlines {
    /// None, on a wheel whose clock stands at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        let inner = Inner { wheel: TimerWheel::new(now_ms), slots: Slab::new(), generation: 0, due: Vec::new() };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Makes a deadline, at `at_ms`.
    #[must_use]
    pub fn at(&self, at_ms: u64) -> Deadline {
        let mut inner = self.0.borrow_mut();
        inner.generation = inner.generation.wrapping_add(1);
        let generation = inner.generation;
        let slot = Slot { generation, at_ms: u64::MAX, wheel_ms: u64::MAX, passed: false, waker: None, ends: None };
        let key = inner.slots.insert(slot);
        drop(inner);
        let deadline = Deadline { inner: Rc::clone(&self.0), key };
        deadline.set(at_ms);
        deadline
    }

    /// Lets time pass and wakes whoever waits for a deadline that has passed.
    pub fn tick(&self, now_ms: u64) {
        let mut passed = Passed::default();
        {
            let mut inner = self.0.borrow_mut();
            let mut due = std::mem::take(&mut inner.due);
            inner.wheel.advance(now_ms, &mut due);
            for key in due.drain(..) {
                inner.look(key, now_ms, &mut passed);
            }
            inner.due = due;
        }
        passed.ends.iter().filter_map(Weak::upgrade).for_each(|ends| ends.end());
        passed.wakers.into_iter().for_each(Waker::wake);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn look(&mut self, key: u64, now_ms: u64, passed: &mut Passed) {
        let (index, generation) = (usize::try_from(key >> 32).unwrap_or(usize::MAX), key & 0xffff_ffff);
        let Some(slot) = self.slots.get_mut(index).filter(|slot| u64::from(slot.generation) == generation) else {
            return;
        };
        if slot.wheel_ms <= now_ms {
            slot.wheel_ms = u64::MAX;
        }
        if slot.at_ms <= now_ms {
            slot.passed = true;
            passed.wakers.extend(slot.waker.take());
            passed.ends.extend(slot.ends.clone());
        } else if slot.at_ms != u64::MAX && slot.wheel_ms > slot.at_ms {
            slot.wheel_ms = slot.at_ms;
            let at_ms = slot.at_ms;
            self.wheel.insert(at_ms, key);
        }
    }
}

/// A point in time that may move; gone when dropped.
pub struct Deadline {
    inner: Rc<RefCell<Inner>>,
    key: usize,
}

impl Deadline {
    /// Moves it.
    pub fn set(&self, at_ms: u64) {
        let mut inner = self.inner.borrow_mut();
        let Inner { wheel, slots, .. } = &mut *inner;
        let slot = &mut slots[self.key];
        slot.at_ms = at_ms;
        slot.passed = false;
        if slot.wheel_ms > at_ms {
            slot.wheel_ms = at_ms;
            wheel.insert(at_ms, ((self.key as u64) << 32) | u64::from(slot.generation));
        }
    }

    /// What it ends when it passes, beside waking whoever polls it.
    pub fn ends(&self, what: Weak<dyn Ends>) {
        self.inner.borrow_mut().slots[self.key].ends = Some(what);
    }

    /// Suspends it, and forgets what it was to end.
    pub fn clear(&self) {
        let mut inner = self.inner.borrow_mut();
        let slot = &mut inner.slots[self.key];
        slot.at_ms = u64::MAX;
        slot.passed = false;
        let forgotten = (slot.waker.take(), slot.ends.take());
        drop(inner);
        drop(forgotten);
    }

    /// Ready once it has passed.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        let slot = &mut inner.slots[self.key];
        if slot.passed {
            return Poll::Ready(());
        }
        if !slot.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let gone = self.inner.borrow_mut().slots.try_remove(self.key);
        // The waker may own what borrows the table.
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    fn passed(deadline: &Deadline) -> bool {
        deadline.poll(&mut Context::from_waker(&noop_waker())).is_ready()
    }

    #[test]
    fn a_deadline_passes_when_its_time_has_come_and_not_before() {
        let deadlines = Deadlines::new(0);
        let deadline = deadlines.at(1_000);
        deadlines.tick(999);
        assert!(!passed(&deadline));
        deadlines.tick(1_050);
        assert!(passed(&deadline));
    }

    #[test]
    fn a_deadline_that_moves_on_never_passes_and_keeps_one_entry() {
        let deadlines = Deadlines::new(0);
        let deadline = deadlines.at(1_000);
        for now_ms in (0..60_000).step_by(50) {
            deadlines.tick(now_ms);
            deadline.set(now_ms + 1_000);
            assert!(!passed(&deadline), "{now_ms}");
            assert_eq!(deadlines.0.borrow().wheel.len(), 1);
        }
    }

    #[test]
    fn a_deadline_that_moves_closer_passes_in_time() {
        let deadlines = Deadlines::new(0);
        let deadline = deadlines.at(50_000);
        deadline.set(500);
        deadlines.tick(550);
        assert!(passed(&deadline));
        deadline.set(20_000);
        deadlines.tick(19_000);
        assert!(!passed(&deadline));
        deadlines.tick(20_050);
        assert!(passed(&deadline));
    }

    #[test]
    fn a_suspended_deadline_does_not_pass_and_can_be_set_again() {
        let deadlines = Deadlines::new(0);
        let deadline = deadlines.at(1_000);
        deadline.clear();
        deadlines.tick(5_000);
        assert!(!passed(&deadline));
        deadline.set(6_000);
        deadlines.tick(6_000);
        assert!(passed(&deadline));
    }

    struct Held(RefCell<Option<Deadline>>);

    impl Ends for Held {
        fn end(&self) {
            self.0.take();
        }
    }

    #[test]
    fn a_deadline_ends_what_nobody_polls_and_itself_with_it() {
        let deadlines = Deadlines::new(0);
        let held = Rc::new(Held(RefCell::new(Some(deadlines.at(1_000)))));
        let what: Rc<dyn Ends> = held.clone();
        held.0.borrow().as_ref().expect("held").ends(Rc::downgrade(&what));
        deadlines.tick(950);
        assert!(held.0.borrow().is_some());
        deadlines.tick(1_050);
        assert!(held.0.borrow().is_none() && deadlines.is_empty());
    }

    #[test]
    fn a_dropped_deadline_leaves_nothing_and_touches_not_its_successor() {
        let deadlines = Deadlines::new(0);
        drop(deadlines.at(1_000));
        let successor = deadlines.at(5_000);
        deadlines.tick(2_000);
        assert!(!passed(&successor));
        drop(successor);
        deadlines.tick(10_000);
        assert!(deadlines.is_empty() && deadlines.0.borrow().wheel.is_empty());
    }
}
