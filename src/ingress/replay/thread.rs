//! The replay thread from outside: where shards leave their requests, and how it starts and stops.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::queue::SegQueue;
use tidegate_shards::bell::Bell;
use tidegate_shards::replay::{ReplayLane, ReplayRequest, ReplaySource};

use super::Replayer;
use crate::config::KafkaSettings;
use crate::ingress::metrics::IngressMetrics;
use crate::ingress::{Decoder, Stop, sleep};

/// Where shards leave their requests.
#[derive(Debug)]
pub struct Replays {
    pub(super) waiting: SegQueue<ReplayRequest>,
    pub(super) bell: Bell,
    pub(super) stop: Stop,
}

impl Replays {
    /// For a thread that ends when `stop` is requested and [`Self::wake`] was called.
    ///
    /// # Errors
    /// The operating system refused an eventfd.
    pub fn new(stop: Stop) -> io::Result<Self> {
        Ok(Self { waiting: SegQueue::new(), bell: Bell::new()?, stop })
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        self.bell.ring();
    }

    pub(super) fn sleep(&self, timeout_ms: u16) {
        self.bell.arm();
        if self.waiting.is_empty()
            && !self.stop.requested()
            && let Err(error) = sleep::until_readable([self.bell.fd()], timeout_ms)
        {
            tracing::error!(%error, "the replay thread can't sleep");
        }
        self.bell.disarm();
    }
}

impl ReplaySource for Replays {
    fn request(&self, request: ReplayRequest) {
        self.waiting.push(request);
        self.bell.ring();
    }
}

/// The running thread.
#[derive(Debug)]
pub struct ReplayThread {
    replays: Arc<Replays>,
    thread: JoinHandle<()>,
}

impl ReplayThread {
    /// Starts the thread that serves `replays` for the shards behind `lanes`, in their order.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        replays: &Arc<Replays>,
        settings: &KafkaSettings,
        decoder: &Decoder,
        lanes: Vec<ReplayLane>,
        metrics: &Arc<IngressMetrics>,
    ) -> io::Result<Self> {
        let (decoder, metrics) = (decoder.clone(), Arc::clone(metrics));
        let replayer = Replayer::new(settings.clone(), decoder, Arc::clone(replays), lanes, metrics);
        let thread = thread::Builder::new().name("replay".to_owned()).spawn(move || replayer.run())?;
        Ok(Self { replays: Arc::clone(replays), thread })
    }

    /// Waits for its end; its stop must have been requested.
    pub fn join(self) {
        self.replays.wake();
        if self.thread.join().is_err() {
            tracing::error!("the replay thread panicked");
        }
    }
}
