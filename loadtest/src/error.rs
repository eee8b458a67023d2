//! Why a load run could not be done. A failed audit is no error: it stands in the report.

use std::io;

/// What stopped a run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An address can't be used.
    #[error("the address {url:?} can't be used: {reason}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A scenario asks for something that makes no sense.
    #[error("the scenario can't be run: {0}")]
    Scenario(String),
    /// More connections than one process may hold.
    #[error(
        "{wanted} connections need about {needed} open files, and this process may have {limit}. Raise the limit \
         (ulimit -n), or share the connections between several tidegate-load processes: 20,000 open files per \
         process is a common limit"
    )]
    OpenFiles {
        /// Connections asked for.
        wanted: u64,
        /// Files they need.
        needed: u64,
        /// The hard limit of the process.
        limit: u64,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Not every connection became ready.
    #[error(
        "{ready} of {wanted} connections became ready and {failed} failed within {waited_s} s; first failure: {reason}"
    )]
    NotReady {
        /// Connections that saw the ready marker.
        ready: u64,
        /// Connections asked for.
        wanted: u64,
        /// Connections that failed.
        failed: u64,
        /// Seconds waited.
        waited_s: f64,
        /// The first failure, or what was waited for.
        reason: String,
    },
    /// Not one probe event came through.
    #[error(
        "no event came through from the source to a client within {waited_s} s ({failed} probes were refused: {reason}). \
         Check that the server reads from this source and that the clients' subscriptions match"
    )]
    NoDelivery {
        /// Seconds waited.
        waited_s: f64,
        /// Probe events that the source refused.
        failed: u64,
        /// The first refusal.
        reason: String,
    },
    /// The source of events can't be used.
    #[error("publishing to {destination}: {reason}")]
    Publish {
        /// Where to.
        destination: String,
        /// What happened.
        reason: String,
    },
    /// The bundled service can't do its work.
    #[error("serving the topic {topic:?}: {reason}")]
    Service {
        /// Topic of the requests.
        topic: String,
        /// What happened.
        reason: String,
    },
    /// The reactive client or server can't be used.
    #[error("{what}: {reason}")]
    Reactive {
        /// Destination of the calls, or topic of the service.
        what: String,
        /// What happened.
        reason: String,
    },
    /// The server's process can't be observed.
    #[error("process {pid} can't be observed through /proc: {reason}")]
    Process {
        /// Its id.
        pid: u32,
        /// What happened.
        reason: String,
    },
    /// One of the run's threads ended by a panic.
    #[error("the {0} thread ended unexpectedly")]
    Thread(&'static str),
}

impl LoadError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
