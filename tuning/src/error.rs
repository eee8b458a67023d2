//! Why measuring could not be done.

use std::io;

use tidegate_load::LoadError;

use crate::measurement::Traffic;

/// What stopped the measuring.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The gateway did not come up.
    #[error(
        "a gateway with {shards} shards did not start: {reason}\nRun `tidegate check`: it says what this machine lacks"
    )]
    Gateway {
        /// Its shards.
        shards: usize,
        /// What it printed, or what happened.
        reason: String,
    },
    /// The load could not be run.
    #[error("{traffic:?} traffic at {shards} shards could not be measured: {source}")]
    Load {
        /// The traffic.
        traffic: Traffic,
        /// Shards of the gateway.
        shards: usize,
        /// Why.
        source: LoadError,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// There is nothing to measure on.
    #[error("no core to measure on: the list of cores is empty")]
    NoCores,
}

impl TuneError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
