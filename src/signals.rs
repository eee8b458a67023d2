//! The signals that end the process in good order.

use std::io::{self, IsTerminal as _};
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
///
/// SIGHUP, by which services are told to read their files again, doesn't end the process either, whether or not there are files
/// to read (who follows them listens to it as well); unless it was started from a terminal, which says with it that it is gone.
#[derive(Debug)]
pub struct StopSignals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// From now on these signals no longer kill the process.
    ///
    /// # Errors
    /// The system refuses handlers or the event loop that waits for them.
    pub fn register() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt, hang_up) = {
            let _context = runtime.enter();
            let hang_up = if io::stdin().is_terminal() { None } else { Some(signal(SignalKind::hangup())?) };
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, hang_up)
        };
        Ok(Self { runtime, terminate, interrupt, hang_up })
    }

    /// Waits for the next one; one that came since the registration counts.
    pub fn wait(&mut self) -> StopSignal {
        let Self { runtime, terminate, interrupt, hang_up } = self;
        runtime.block_on(next(terminate, interrupt, hang_up))
    }

    /// Waits for something else, on the same event loop.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Waits for the next one, this long at most.
    pub fn wait_up_to(&mut self, limit: Duration) -> Option<StopSignal> {
        let Self { runtime, terminate, interrupt, hang_up } = self;
        runtime.block_on(async { tokio::time::timeout(limit, next(terminate, interrupt, hang_up)).await.ok() })
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal, hang_up: &mut Option<Signal>) -> StopSignal {
    loop {
        let hung_up = async {
            match hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => return StopSignal::Terminate,
            _ = interrupt.recv() => return StopSignal::Interrupt,
            _ = hung_up => tracing::info!("SIGHUP: the files of TLS are read again, if there are any"),
        }
    }
}
