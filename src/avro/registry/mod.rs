//! The schemas of a registry that speaks Confluent's REST interface (`GET /schemas/ids/{id}`, `GET
//! /subjects/{subject}/versions/latest`). A thread of its own asks; nobody who needs a schema is blocked.
//!
//! What an id stands for never changes, so it is asked for once. Of a subject, the latest version is kept and renewed
//! behind the back of those who use it. A registry that can't be reached, or says something no registry says, is asked
//! again until it answers: only what it says itself makes a message unreadable.

mod ask;
mod ids;
mod subjects;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use futures_channel::oneshot;
use tidegate_shards::auth::check::CheckUrl;
use tidegate_shards::bell::Bell;
use tokio::runtime::Handle;

use self::ask::Asker;
use self::ids::Ids;
use self::subjects::Subjects;
use super::codec::Schema;

/// What the registry says of an id.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The schema.
    Known(Arc<Schema>),
    /// There is none that can be used, and why.
    Unusable(Arc<str>),
    /// It is being asked; the bells of [`Registry::wake`] ring when it has answered.
    Asked,
}

/// A subject's latest version.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Its id.
    pub id: u32,
    /// The schema.
    pub schema: Arc<Schema>,
}

/// Why there is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSchema {
    /// The registry has none, or none that is Avro.
    #[error("{0}")]
    Unusable(Arc<str>),
    /// The registry can't be reached, or doesn't answer as one.
    #[error("the schema registry can't be reached: {0}")]
    Away(Arc<str>),
}

/// What is counted.
#[derive(Debug, Default)]
pub struct RegistryMetrics {
    /// Schemas that it gave.
    pub given: AtomicU64,
    /// Ids and subjects that it doesn't have, or that can't be used.
    pub unusable: AtomicU64,
    /// Times that it couldn't be reached.
    pub failed: AtomicU64,
    /// Whether it was out of reach when it was asked last.
    away: AtomicBool,
}

impl RegistryMetrics {
    /// Whether it answered when it was asked last; true before.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }
}

/// The registry; its thread ends with it.
#[derive(Debug)]
pub struct Registry {
    runtime: Handle,
    ids: Arc<Ids>,
    subjects: Arc<Subjects>,
    metrics: Arc<RegistryMetrics>,
    _thread_ends_without: oneshot::Sender<()>,
}

impl Registry {
    /// Starts the thread. The registry may be out of reach. `ca_pem` is an authority beside the system's.
    ///
    /// # Errors
    /// The process can't have what it takes.
    pub fn start(url: &CheckUrl, ca_pem: Option<Arc<[u8]>>) -> io::Result<Self> {
        let metrics = Arc::<RegistryMetrics>::default();
        let asker = Arc::new(Asker::new(url, ca_pem, Arc::clone(&metrics)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (thread_ends_without, dropped) = oneshot::channel::<()>();
        thread::Builder::new().name("schemas".to_owned()).spawn(move || {
            let _dropped = runtime.block_on(dropped);
            // A name that is being looked up keeps nobody waiting.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            ids: Arc::new(Ids::new(Arc::clone(&asker), handle.clone())),
            subjects: Arc::new(Subjects::new(asker)),
            runtime: handle,
            metrics,
            _thread_ends_without: thread_ends_without,
        })
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<RegistryMetrics> {
        &self.metrics
    }

    /// Has this bell rung whenever it is known what an id stands for.
    pub fn wake(&self, bell: &Bell) {
        self.ids.wake(bell);
    }

    /// What an id stands for, as far as that is known by now; asks if it isn't. Doesn't wait.
    #[must_use]
    pub fn by_id(&self, id: u32) -> Lookup {
        self.ids.look_up(id)
    }

    /// Has the thread call `then` with a subject's latest version. Doesn't wait.
    pub fn with_latest(&self, subject: Box<str>, then: impl FnOnce(Result<Latest, NoSchema>) + Send + 'static) {
        let subjects = Arc::clone(&self.subjects);
        self.runtime.spawn(async move { then(subjects.latest(&subject).await) });
    }
}
