//! Counters of one shard: written by that shard alone, read by the control thread.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::auth::TokenRefusal;
use crate::tls::HandshakeFailure;

/// A counter or gauge with a single writer: no locked instruction, no cache line shared between writers.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the owning shard may call this.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Subtracts; only the owning shard may call this.
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    /// Sets; only the owning shard may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads; anyone may call this.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Histogram with fixed upper bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [u64; N],
    counts: [Cell; N],
    over: Cell,
    sum: Cell,
}

impl<const N: usize> Histogram<N> {
    /// A histogram with these inclusive upper bounds, ascending.
    #[must_use]
    pub fn new(bounds: [u64; N]) -> Self {
        Self { bounds, counts: std::array::from_fn(|_| Cell::default()), over: Cell::default(), sum: Cell::default() }
    }

    /// Records `times` observations of `value`; only the owning shard may call this.
    pub fn record(&self, value: u64, times: u64) {
        let slot = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(slot).unwrap_or(&self.over).add(times);
        self.sum.add(value.saturating_mul(times));
    }

    /// `(upper bound, observations in that bucket alone)`; the last, without bound, is `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bounds
            .iter()
            .zip(&self.counts)
            .map(|(bound, count)| (*bound, count.get()))
            .chain([(u64::MAX, self.over.get())])
    }

    /// Sum of all observed values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// What became of tokens and of checks.
#[derive(Debug, Default)]
pub struct TokenCounts {
    /// Tokens that counted.
    pub accepted: Cell,
    /// Those of them that had been verified before.
    pub cached: Cell,
    /// Tokens that were refused, by the number of the reason.
    pub refused: [Cell; TokenRefusal::ALL.len()],
    /// Checks of subscriptions and submissions that were passed.
    pub checks_allowed: Cell,
    /// Those that were not.
    pub checks_denied: Cell,
    /// Those of the denied for which the URL gave no answer in time.
    pub checks_unanswered: Cell,
}

/// All counters of one shard. Gauges say so.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Gauge: open WebSockets.
    pub connections_ws: Cell,
    /// Gauge: open event streams.
    pub connections_sse: Cell,
    /// Gauge: long-polling sessions.
    pub connections_longpolling: Cell,
    /// Gauge: connections that speak ordinary HTTP at the moment.
    pub connections_http: Cell,
    /// Connections accepted since the start.
    pub connections_accepted: Cell,
    /// Connections refused because too many came in a minute.
    pub connections_refused: Cell,
    /// Connections refused because the node holds as many as it may.
    pub connections_refused_full: Cell,
    /// Connections refused because their address holds as many as it may.
    pub connections_refused_address: Cell,
    /// Connections ended because their request head did not come in time.
    pub connections_timed_out: Cell,
    /// Connections ended because the shard had too much waiting, and they most of all.
    pub connections_shed: Cell,
    /// HTTP/2 connections ended because they took too many requests back.
    pub connections_resetting: Cell,
    /// WebSockets refused because of the page that wanted to open them.
    pub origins_refused: Cell,
    /// Requests refused because their address sends too many.
    pub requests_limited_address: Cell,
    /// Requests refused because their credential sends too many.
    pub requests_limited_token: Cell,
    /// Request bodies given up because they came too slowly.
    pub bodies_timed_out: Cell,
    /// Connections ended because their queue reached its bound.
    pub connections_slow: Cell,
    /// Events left out of slow clients' queues, with a notice to the client.
    pub events_dropped: Cell,
    /// Events left out of slow clients' queues because a newer one stands for them.
    pub events_conflated: Cell,
    /// Streams and sessions told to go elsewhere, because the node drains.
    pub connections_moved: Cell,
    /// Connections ended because their session was blacklisted.
    pub connections_killed: Cell,
    /// Connections ended because their token had expired.
    pub connections_expired: Cell,
    /// Gauge: subscriptions in force.
    pub subscriptions: Cell,
    /// Constraints accepted on fields without extractor.
    pub constraints_ignored: Cell,
    /// Request heads refused, bodies too large, frames that break the protocol.
    pub requests_malformed: Cell,
    /// Published events refused because they aren't CloudEvents.
    pub events_refused: Cell,
    /// Events taken from the mailbox.
    pub events_received: Cell,
    /// Copies of events handed to connections.
    pub deliveries: Cell,
    /// System calls that sent data.
    pub sends: Cell,
    /// Bytes sent on long-lived connections.
    pub sent_bytes: Cell,
    /// Gauge: bytes that wait in connections' queues.
    pub queue_bytes: Cell,
    /// Gauge: bytes of the events that long-polling sessions keep, each counted once.
    pub session_bytes: Cell,
    /// Gauge: events waiting in the mailbox when last drained.
    pub mailbox_depth: Cell,
    /// Gauge: requests of the API proxy that wait for a correlated answer.
    pub pending_requests: Cell,
    /// Correlated answers brought to the request that waited for them.
    pub answers_delivered: Cell,
    /// Correlated answers for which nobody waited any more.
    pub answers_late: Cell,
    /// Gauge: bytes of answers kept for callers that come back for them.
    pub stored_bytes: Cell,
    /// Gauge: TLS handshakes in progress.
    pub tls_handshaking: Cell,
    /// Handshakes completed with TLS 1.2.
    pub tls12_handshakes: Cell,
    /// Handshakes completed with TLS 1.3.
    pub tls13_handshakes: Cell,
    /// Those of both that went on where an earlier connection had left.
    pub tls_resumed: Cell,
    /// Failed handshakes, by the numbers of [`HandshakeFailure`].
    pub tls_failures: [Cell; HandshakeFailure::ALL.len()],
    /// Gauge: clients that catch up with what they have missed.
    pub replaying: Cell,
    /// Clients that came back and asked for what they have missed.
    pub replays: Cell,
    /// Gauge: clients that wait for a snapshot.
    pub snapshotting: Cell,
    /// Snapshots that clients got.
    pub snapshots: Cell,
    /// Copies of events that were handed to clients that catch up.
    pub replayed: Cell,
    /// Clients told that events may be missing.
    pub history_lost: Cell,
    /// Panics caught in a connection's code.
    pub panics: Cell,
    /// Tokens, and checks of who may subscribe and publish.
    pub tokens: TokenCounts,
    /// Events per mailbox drain.
    pub batch_events: Histogram<10>,
    /// Microseconds from the source to the end of the batch's sends.
    pub fan_out_us: Histogram<14>,
}

impl ShardMetrics {
    /// Counts a handshake that failed.
    pub(crate) fn tls_failed(&self, failure: HandshakeFailure) {
        self.tls_failures[failure as usize].add(1);
    }
}

impl Default for ShardMetrics {
    fn default() -> Self {
        let cell = Cell::default;
        Self {
            connections_ws: cell(),
            connections_sse: cell(),
            connections_longpolling: cell(),
            connections_http: cell(),
            connections_accepted: cell(),
            connections_refused: cell(),
            connections_refused_full: cell(),
            connections_refused_address: cell(),
            connections_timed_out: cell(),
            connections_shed: cell(),
            connections_resetting: cell(),
            origins_refused: cell(),
            requests_limited_address: cell(),
            requests_limited_token: cell(),
            bodies_timed_out: cell(),
            connections_slow: cell(),
            events_dropped: cell(),
            events_conflated: cell(),
            connections_moved: cell(),
            connections_killed: cell(),
            connections_expired: cell(),
            subscriptions: cell(),
            constraints_ignored: cell(),
            requests_malformed: cell(),
            events_refused: cell(),
            events_received: cell(),
            deliveries: cell(),
            sends: cell(),
            sent_bytes: cell(),
            queue_bytes: cell(),
            session_bytes: cell(),
            mailbox_depth: cell(),
            pending_requests: cell(),
            answers_delivered: cell(),
            answers_late: cell(),
            stored_bytes: cell(),
            tls_handshaking: cell(),
            tls12_handshakes: cell(),
            tls13_handshakes: cell(),
            tls_resumed: cell(),
            tls_failures: std::array::from_fn(|_| cell()),
            replaying: cell(),
            snapshotting: cell(),
            snapshots: cell(),
            replays: cell(),
            replayed: cell(),
            history_lost: cell(),
            panics: cell(),
            tokens: TokenCounts::default(),
            batch_events: Histogram::new([1, 2, 4, 8, 16, 32, 64, 128, 256, 1024]),
            fan_out_us: Histogram::new([
                50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
            ]),
        }
    }
}
