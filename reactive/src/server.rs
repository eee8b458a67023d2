//! The server: requests come in through a consumer group, handlers run on threads of their own, answers go straight to the
//! partition of the client that asked, and offsets are committed behind them.

mod deliveries;
mod metrics;
mod reader;
mod serving;
mod settings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

pub use metrics::ServerStatistics;
pub use settings::{Delivery, ServerSettings, Spawn};

use crate::error::{Error, Kind};
use crate::idempotency::Idempotency;
use crate::kafka::outlet::Outlet;
use crate::pending::Pending;
use crate::pool::Pool;
use crate::progress::{Progress, Token};
use crate::service::{Outgoing, Service};
use deliveries::Deliveries;
use metrics::ServerMetrics;
use serving::Ticket;

/// Time for requests in the works when a server is dropped without [`ReactiveServer::shutdown`].
const DROP_GRACE: Duration = Duration::from_secs(5);

/// Serves requests until it is shut down or dropped.
#[derive(Debug)]
pub struct ReactiveServer {
    shared: Arc<Shared>,
}

/// What the server's threads and handlers share.
struct Shared {
    settings: ServerSettings,
    service: Service,
    outlet: Outlet<Deliveries>,
    metrics: ServerMetrics,
    progress: Mutex<Progress>,
    /// Rung when a request has been dealt with.
    settled: Condvar,
    /// When handlers are given up.
    timers: Mutex<Pending<Arc<Ticket>>>,
    memory: Mutex<Idempotency<Outgoing, Arc<Ticket>>>,
    sync_pool: Pool,
    async_pool: Pool,
    started: Instant,
    stop: AtomicBool,
    /// Set when nothing more will be sent.
    drained: AtomicBool,
    end: Mutex<End>,
}

/// How and when a server ends.
#[derive(Debug, Default)]
struct End {
    deadline: Option<Instant>,
    over: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ReactiveServer {
    /// Makes the topic if it is missing, joins the group, and returns when partitions have been assigned.
    ///
    /// # Errors
    /// A setting or a service can't be used, Kafka can't be reached within [`ServerSettings::start_timeout`], or it refuses.
    pub async fn start(settings: ServerSettings, service: Service) -> Result<Self, Error> {
        settings.check(&service)?;
        let (done, ready) = oneshot::channel();
        let spawned = std::thread::Builder::new().name("reactive-requests".to_owned()).spawn(move || {
            reader::run(settings, service, done);
        });
        spawned.map_err(|error| Error::new(Kind::System, "can't start a thread").because(error))?;
        let ended = || Error::new(Kind::System, "the server's thread ended before it was ready");
        Ok(Self { shared: ready.await.map_err(|_| ended())?? })
    }

    /// Reads no more requests, gives those in the works so much time, commits what is done and leaves the group. Gives the
    /// number of requests that were not finished; with [`Delivery::AtLeastOnce`] another instance gets them.
    pub async fn shutdown(self, grace: Duration) -> usize {
        self.shared.finish_by(Instant::now() + grace);
        let (done, ended) = oneshot::channel();
        {
            let mut end = self.shared.end();
            if end.over {
                return self.shared.progress().held();
            }
            end.waiting.push(done);
        }
        // The threads are gone either way.
        let _ = ended.await;
        self.shared.progress().held()
    }

    /// Counters and histograms as they are now.
    #[must_use]
    pub fn statistics(&self) -> ServerStatistics {
        let held = self.shared.progress().held();
        self.shared.metrics.read(held)
    }
}

impl Drop for ReactiveServer {
    fn drop(&mut self) {
        self.shared.finish_by(Instant::now() + DROP_GRACE);
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timers(&self) -> MutexGuard<'_, Pending<Arc<Ticket>>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Idempotency<Outgoing, Arc<Ticket>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of the timers' clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn settle(&self, token: Token) {
        self.progress().settle(token);
        self.settled.notify_all();
    }

    fn settle_all(&self, tokens: impl Iterator<Item = Token>) {
        let mut progress = self.progress();
        tokens.for_each(|token| {
            progress.settle(token);
        });
        drop(progress);
        self.settled.notify_all();
    }

    /// Waits until `enough` holds, something is settled, or the time is over.
    fn wait_for_room(&self, wait: Duration, enough: impl Fn(&Progress) -> bool) {
        let progress = self.progress();
        if !enough(&progress) {
            drop(self.settled.wait_timeout(progress, wait).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn finish_by(&self, deadline: Instant) {
        let mut end = self.end();
        end.deadline = Some(end.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        drop(end);
        self.stop.store(true, Ordering::Release);
        self.settled.notify_all();
    }

    /// The time when a stop gives up what is still in the works; `None` before a stop.
    fn deadline(&self) -> Option<Instant> {
        self.end().deadline
    }
}
