//! Why there is no broker.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// This machine lacks something that Kafka needs; the text says what, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Kafka is not available: {0}")]
pub struct Unavailable(pub String);

/// A broker that could not be fetched, started, stopped or restarted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks Java, Maven or the network; a test may skip.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The broker's process ended before it answered.
    #[error("Kafka ended with {status} before it answered; its last lines:\n{log}")]
    Ended {
        /// Exit status as the system words it.
        status: String,
        /// End of the broker's log.
        log: String,
    },
    /// The broker runs but does not answer.
    #[error("Kafka on {address} did not answer within {} s; its last lines:\n{log}", .waited.as_secs())]
    Silent {
        /// Address that was asked.
        address: String,
        /// Time it was given.
        waited: Duration,
        /// End of the broker's log.
        log: String,
    },
    /// `StorageTool format` refused the data folder or the settings.
    #[error("Kafka's storage could not be formatted:\n{0}")]
    Format(String),
    /// The broker is the one that `KAFKA_BROKERS` names: it is not ours to stop.
    #[error("the broker at {0} comes from KAFKA_BROKERS and can't be stopped from here; set Options::own")]
    External(String),
    /// `cargo xtask kafka` has a broker running already.
    #[error("a broker runs already on {brokers} (process {pid}); stop it with `cargo xtask kafka --stop`")]
    Running {
        /// Its address.
        brokers: String,
        /// Its process.
        pid: u32,
    },
    /// No two neighbouring free ports were found.
    #[error("no free pair of ports between 20000 and 30000 on 127.0.0.1")]
    NoPort,
    /// A file or process could not be handled.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was attempted, such as `can't write`.
        what: &'static str,
        /// The file or program concerned.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names what was attempted on which path.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
