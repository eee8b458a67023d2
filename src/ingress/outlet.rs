//! The way from a source to the shards, with back-pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tidegate_shards::cursor::{Loss, Positions};
use tidegate_shards::event::Event;
use tidegate_shards::publisher::{Full, Position, Publisher};

use super::metrics::IngressMetrics;
use super::sleep;
use crate::positions::PositionLog;

/// Longest sleep while a shard is full, should its ring be missed.
const FULL_SLEEP_MS: u16 = 10;
/// Longest sleep while there is nothing to do.
const IDLE_SLEEP_MS: u16 = 500;

/// Asks the ingress thread to end.
#[derive(Clone, Debug)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    bell: Bell,
}

impl Stop {
    /// For the thread that sleeps on `bell`.
    #[must_use]
    pub fn new(bell: Bell) -> Self {
        Self { requested: Arc::default(), bell }
    }

    /// Asks it to end soon.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Was it asked to?
    #[must_use]
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}

/// The thread was asked to end while it waited for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

/// The publisher, and the bell to sleep on.
#[derive(Debug)]
pub struct Outlet {
    publisher: Publisher,
    bell: Bell,
    stop: Stop,
    metrics: Arc<IngressMetrics>,
    checkpoints: Option<Arc<PositionLog>>,
}

impl Outlet {
    /// Takes the publisher over; `bell` is the one the node was started with.
    #[must_use]
    pub fn new(publisher: Publisher, bell: Bell, stop: Stop, metrics: Arc<IngressMetrics>) -> Self {
        Self { publisher, bell, stop, metrics, checkpoints: None }
    }

    /// Long cursors refer to checkpoints, which are written here.
    pub fn keep_checkpoints(&mut self, positions: Arc<PositionLog>) {
        self.publisher.keep_checkpoints(positions.max_plain_chars());
        self.checkpoints = Some(positions);
    }

    pub(super) fn stop_requested(&self) -> bool {
        self.stop.requested()
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn metrics(&self) -> &Arc<IngressMetrics> {
        &self.metrics
    }

    pub(super) fn apply_interest(&mut self) {
        self.publisher.apply_interest();
    }

    pub(super) fn wants(&self, event_type: &str) -> bool {
        self.publisher.wants(event_type)
    }

    pub(super) fn flush(&mut self) {
        self.publisher.flush();
    }

    /// Hears what became of the last checkpoint, and has the next one written if it is due. Call once per turn of the loop.
    pub(super) fn checkpoint(&mut self) {
        let Some(positions) = &self.checkpoints else { return };
        let now_ms = clock::now_ms();
        while let Some(offset) = positions.written() {
            self.publisher.checkpoint_written(offset, now_ms);
        }
        if let Some(record) = self.publisher.checkpoint_due(now_ms) {
            positions.write(record);
        }
    }

    /// The source partitions and how far they are.
    pub(super) fn positions(&mut self) -> &mut Positions {
        self.publisher.positions()
    }

    /// The source no longer has events that it never gave.
    pub(super) fn lose(&mut self, loss: &Loss) {
        self.publisher.lose(loss);
    }

    /// Every event goes into the ring.
    pub(super) fn keep_all(&mut self) {
        self.publisher.keep_all();
    }

    /// Publishes; sleeps while a shard is full, and then tries the same event again: nothing is dropped.
    pub(super) fn publish(&mut self, event: &Event<'_>, position: Position, received_us: u64) -> Result<(), Stopped> {
        while self.publisher.publish(event, position, received_us) == Err(Full) {
            self.publisher.flush();
            self.metrics.back_pressure.add(1);
            self.bell.arm();
            if self.publisher.publish(event, position, received_us) == Ok(()) {
                self.bell.disarm();
                return Ok(());
            }
            self.sleep(FULL_SLEEP_MS);
            if self.stop.requested() {
                return Err(Stopped);
            }
            self.publisher.apply_interest();
        }
        Ok(())
    }

    /// Sleeps until the bell rings, while something outside keeps the next event from being published. Shards are served as ever.
    pub(super) fn wait(&mut self) -> Result<(), Stopped> {
        self.publisher.flush();
        self.checkpoint();
        self.publisher.tell_positions(clock::now_ms());
        self.bell.arm();
        self.publisher.apply_interest();
        self.sleep(FULL_SLEEP_MS);
        if self.stop.requested() { Err(Stopped) } else { Ok(()) }
    }

    /// Sleeps until the bell rings, unless `ready` finds work after all.
    pub(super) fn idle(&mut self, ready: impl FnOnce() -> bool) {
        self.publisher.tell_positions(clock::now_ms());
        self.bell.arm();
        self.publisher.apply_interest();
        if ready() || self.stop.requested() {
            self.bell.disarm();
        } else {
            self.sleep(IDLE_SLEEP_MS);
        }
    }

    fn sleep(&self, timeout_ms: u16) {
        if let Err(error) = sleep::until_readable([self.bell.fd()], timeout_ms) {
            tracing::error!(%error, "ingress can't sleep");
        }
        self.bell.disarm();
    }
}
