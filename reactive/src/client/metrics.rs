//! What a client counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use futures_channel::oneshot;

use crate::histogram::{Histogram, Snapshot};

/// Counters and histograms of a client, written by callers and its threads.
#[derive(Debug, Default)]
pub struct ClientMetrics {
    pub(super) answered: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) overloaded: AtomicU64,
    pub(super) undelivered: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) foreign: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) own_bytes: AtomicU64,
    pub(super) queueing: Histogram,
    pub(super) producing: Histogram,
    pub(super) serving: Histogram,
    pub(super) returning: Histogram,
    pub(super) round_trip: Histogram,
    turns: Mutex<Vec<oneshot::Sender<()>>>,
}

/// The state of a client's metrics at one time.
#[derive(Clone, Debug)]
pub struct ClientStatistics {
    /// Calls in flight.
    pub pending: usize,
    /// Calls that wait until they may be.
    pub waiting: usize,
    /// Answers that reached their callers.
    pub answered: u64,
    /// Calls that got no answer, or no acknowledgement, in time.
    pub timed_out: u64,
    /// Calls whose callers dropped them.
    pub given_up: u64,
    /// Calls refused because too many were in flight.
    pub overloaded: u64,
    /// Calls that Kafka did not take.
    pub undelivered: u64,
    /// Answers for which nobody waited any more.
    pub late: u64,
    /// Answers to other clients, read because they share the partition.
    pub foreign: u64,
    /// Messages on the reply partition that are no answers.
    pub malformed: u64,
    /// Bytes of values read from the reply topic.
    pub read_bytes: u64,
    /// Those of them that belonged to answers to this client.
    pub own_bytes: u64,
    /// From the call to handing it to librdkafka.
    pub queueing: Snapshot,
    /// From there to Kafka's acknowledgement.
    pub producing: Snapshot,
    /// At the server, from reading the request to handing over the answer, as the server says.
    pub serving: Snapshot,
    /// The rest: Kafka's two fetches and the answer's write.
    pub returning: Snapshot,
    /// The whole call.
    pub round_trip: Snapshot,
}

impl ClientMetrics {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Tells `turn` when the client's thread has gone round once more.
    pub(super) fn next_turn(&self, turn: oneshot::Sender<()>) {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).push(turn);
    }

    pub(super) fn turned(&self) {
        for turn in self.turns.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Whoever waited may have gone.
            let _ = turn.send(());
        }
    }

    pub(super) fn read(&self, pending: usize, waiting: usize) -> ClientStatistics {
        let value = |counter: &AtomicU64| counter.load(Relaxed);
        ClientStatistics {
            pending,
            waiting,
            answered: value(&self.answered),
            timed_out: value(&self.timed_out),
            given_up: value(&self.given_up),
            overloaded: value(&self.overloaded),
            undelivered: value(&self.undelivered),
            late: value(&self.late),
            foreign: value(&self.foreign),
            malformed: value(&self.malformed),
            read_bytes: value(&self.read_bytes),
            own_bytes: value(&self.own_bytes),
            queueing: self.queueing.snapshot(),
            producing: self.producing.snapshot(),
            serving: self.serving.snapshot(),
            returning: self.returning.snapshot(),
            round_trip: self.round_trip.snapshot(),
        }
    }
}
