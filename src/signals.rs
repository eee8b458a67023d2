//! The signals that end the process in good order.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, what service managers send: clients are moved away first.
    Terminate,
    /// SIGINT, what Ctrl-C sends: stop now.
    Interrupt,
}

/// SIGTERM and SIGINT, noticed from their registration on.
#[derive(Debug)]
pub struct StopSignals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on these signals no longer kill the process.
    ///
    /// # Errors
    /// The system refuses handlers or the event loop that waits for them.
    pub fn register() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _context = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Waits for the next one; one that came since the registration counts.
    pub fn wait(&mut self) -> StopSignal {
        let Self { runtime, terminate, interrupt } = self;
        runtime.block_on(next(terminate, interrupt))
    }

    /// Waits for something else, on the same event loop.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Waits for the next one, this long at most.
    pub fn wait_up_to(&mut self, limit: Duration) -> Option<StopSignal> {
        let Self { runtime, terminate, interrupt } = self;
        runtime.block_on(async { tokio::time::timeout(limit, next(terminate, interrupt)).await.ok() })
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> StopSignal {
    tokio::select! {
        _ = terminate.recv() => StopSignal::Terminate,
        _ = interrupt.recv() => StopSignal::Interrupt,
    }
}
