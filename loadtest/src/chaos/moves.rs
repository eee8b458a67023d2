//! How long each client is away: from the end of its connection to the live stream of the next.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::audit::Auditor;
use super::publisher::Published;
use crate::clock::Clock;

/// Connects that are kept; a fleet that needs more has other troubles.
const MAX_CONNECTS: usize = 1 << 20;

/// A client's way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    /// The end of its connection.
    pub(super) cut_ns: u64,
    /// It had everything that was due when its new subscription was confirmed.
    pub(super) caught_up_ns: u64,
}

/// All moves of a fleet; its clients and whoever watches them share it.
#[derive(Debug)]
pub(super) struct Moves {
    clock: Clock,
    partitions: u32,
    groups: u32,
    published: Arc<Published>,
    connects_ns: Mutex<Vec<u64>>,
    moves: Mutex<Vec<Move>>,
    /// Clients that have come back at least once.
    pub(super) back: AtomicU64,
}

impl Moves {
    pub(super) fn new(clock: Clock, partitions: u32, groups: u32, published: Arc<Published>) -> Self {
        let (connects_ns, moves) = (Mutex::default(), Mutex::default());
        Self { clock, partitions, groups, published, connects_ns, moves, back: AtomicU64::new(0) }
    }

    /// A client connects again.
    fn connecting(&self) {
        let mut connects_ns = self.connects_ns.lock().unwrap_or_else(PoisonError::into_inner);
        if connects_ns.len() < MAX_CONNECTS {
            connects_ns.push(self.clock.now_ns());
        }
    }

    /// The events of a group that are due by now, partition by partition.
    fn due(&self, group: u32) -> Box<[u64]> {
        let due = self.published.schedule.get().map_or(0, |schedule| schedule.due(self.clock.now_ns()));
        let streams = u64::from(self.partitions * self.groups);
        let of_stream = |stream: u64| 1 + due.saturating_sub(stream).div_ceil(streams);
        (0..self.partitions).map(|partition| of_stream(u64::from(partition * self.groups + group))).collect()
    }

    fn returned(&self, cut_ns: u64) {
        let done = Move { cut_ns, caught_up_ns: self.clock.now_ns() };
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).push(done);
    }

    pub(super) fn all(&self) -> Vec<Move> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When clients connected again, in order.
    pub(super) fn connects_ns(&self) -> Vec<u64> {
        let mut connects_ns = self.connects_ns.lock().unwrap_or_else(PoisonError::into_inner).clone();
        connects_ns.sort_unstable();
        connects_ns
    }
}

/// One client's part of it.
#[derive(Debug)]
pub(super) struct Traveller {
    moves: Arc<Moves>,
    group: u32,
    stage: Stage,
    has_moved: bool,
}

#[derive(Debug)]
enum Stage {
    Here,
    Away {
        cut_ns: u64,
    },
    /// Its subscription is confirmed; it lacks something of what was due then.
    CatchesUp {
        cut_ns: u64,
        due: Box<[u64]>,
    },
}

impl Traveller {
    pub(super) fn new(moves: Arc<Moves>, group: u32) -> Self {
        Self { moves, group, stage: Stage::Here, has_moved: false }
    }

    /// Its connection has ended.
    pub(super) fn cut(&mut self) {
        let cut_ns = match self.stage {
            Stage::Here => self.moves.clock.now_ns(),
            Stage::Away { cut_ns } | Stage::CatchesUp { cut_ns, .. } => cut_ns,
        };
        self.stage = Stage::Away { cut_ns };
    }

    /// It connects; the first time doesn't count.
    pub(super) fn connecting(&self) {
        if !matches!(self.stage, Stage::Here) {
            self.moves.connecting();
        }
    }

    /// Its new subscription is confirmed.
    pub(super) fn confirmed(&mut self, auditor: &Auditor) {
        if let Stage::Away { cut_ns } = self.stage {
            self.stage = Stage::CatchesUp { cut_ns, due: self.moves.due(self.group) };
            self.look(auditor);
        }
    }

    /// Notices the moment when it has what it lacked.
    pub(super) fn look(&mut self, auditor: &Auditor) {
        let Stage::CatchesUp { cut_ns, due } = &self.stage else { return };
        if auditor.has_reached(due.iter().copied()) {
            self.moves.returned(*cut_ns);
            if !std::mem::replace(&mut self.has_moved, true) {
                self.moves.back.fetch_add(1, Relaxed);
            }
            self.stage = Stage::Here;
        }
    }
}

/// The most of these moments within any span of this length; they must be in order.
pub(super) fn most_within(moments_ns: &[u64], span_ns: u64) -> usize {
    let (mut from, mut most) = (0, 0);
    for (at, moment_ns) in moments_ns.iter().enumerate() {
        while moment_ns - moments_ns[from] >= span_ns {
            from += 1;
        }
        most = most.max(at + 1 - from);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    #[test]
    fn the_most_within_a_second_are_found_wherever_the_second_begins() {
        let moments: Vec<u64> = [0, 900, 950, 1_100, 1_899, 1_900, 5_000].map(|ms| ms * 1_000_000).to_vec();
        assert_eq!(most_within(&moments, 1_000_000_000), 4);
        assert_eq!(most_within(&[], 1), 0);
    }

    #[test]
    fn a_client_is_back_when_it_has_what_was_due_when_its_subscription_was_confirmed() {
        let published = Arc::<Published>::default();
        // Everything is due at once: three streams, eight events besides the first round.
        published.schedule.set(Schedule::new(0, 1e9, 8e-9)).unwrap();
        let clock = Clock::start();
        while published.schedule.get().unwrap().due(clock.now_ns()) < 8 {}
        let moves = Arc::new(Moves::new(clock, 1, 3, published));
        let (mut client, mut auditor) = (Traveller::new(Arc::clone(&moves), 1), Auditor::new(1));
        client.connecting();
        client.confirmed(&auditor);
        assert_eq!(moves.connects_ns().len(), 0, "the first time is no return");
        client.cut();
        client.cut();
        client.connecting();
        client.confirmed(&auditor);
        // Stream 1 has events 1, 4 and 7 of the schedule.
        for sequence in 0..4 {
            assert_eq!(moves.back.load(Relaxed), 0);
            auditor.observe(0, sequence).unwrap();
            client.look(&auditor);
        }
        assert_eq!((moves.back.load(Relaxed), moves.all().len(), moves.connects_ns().len()), (1, 1, 1));
        client.cut();
        client.confirmed(&auditor);
        assert_eq!((moves.back.load(Relaxed), moves.all().len()), (1, 2), "nothing was missed");
    }
}
