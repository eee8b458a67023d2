//! Why a figure could not be measured.

use std::io;
use std::path::PathBuf;

/// What stopped the measurement of one figure; the others go on.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// A program that should be measured is not there.
    #[error("{0} is not there: build it with `cargo build --release`")]
    NoProgram(PathBuf),
    /// A server ended, or did not say where it listens.
    #[error("{program} did not start: {reason}")]
    Server {
        /// The program.
        program: String,
        /// What was seen.
        reason: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The load generator could not do its part.
    #[error("load generator: {0}")]
    Load(#[from] tidegate_load::LoadError),
    /// librdkafka could not do its part.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// No Kafka to measure with.
    #[error("no Kafka: {0}")]
    NoKafka(#[from] xtask::kafka::Error),
    /// Something took too long.
    #[error("gave up after {waited_s} s: {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// Seconds.
        waited_s: u64,
    },
    /// The outcome can't be trusted.
    #[error("{0}")]
    Invalid(String),
}

impl FigureError {
    /// For `map_err` on a system call.
    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
