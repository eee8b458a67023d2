//! The load generator's faults against this repository's gateway, with a Kafka that may be killed.

use std::path::Path;
use std::process::Command;

use crate::kafka::{self, Error};
use crate::programs::{self, Profile};
use crate::repository;
use crate::steps::{self, Outcome};

/// Runs `tidegate-load chaos` with these further arguments. Builds it and the gateway first. `kafka_command` is a program
/// that knows `kafka --lasting`: `cargo xtask` itself.
#[must_use]
pub fn chaos(profile: Profile, kafka_command: &Path, arguments: &[String]) -> Outcome {
    let binaries = match programs::build(profile) {
        Ok(folder) => folder,
        Err(failure) => return failure,
    };
    match run(&binaries, kafka_command, arguments) {
        Ok(outcome) => outcome,
        Err(Problem::Kafka(Error::Unavailable(reason))) if !crate::skip::forbidden() => {
            Outcome::Skipped(reason.to_string())
        }
        Err(Problem::Kafka(error)) => Outcome::failed(error.to_string()),
        Err(Problem::Other(reason)) => Outcome::failed(reason),
    }
}

enum Problem {
    Kafka(Error),
    Other(String),
}

fn run(binaries: &Path, kafka_command: &Path, arguments: &[String]) -> Result<Outcome, Problem> {
    kafka::ensure_jars().map_err(Problem::Kafka)?;
    let folder = tempfile::tempdir().map_err(|error| Problem::Other(format!("no temporary folder: {error}")))?;
    // One for clients, one for the controller.
    let port = kafka::free_ports(2).map_err(Problem::Kafka)?;
    let broker = format!("{} kafka --port {port} --lasting {}", kafka_command.display(), folder.path().display());
    let mut load = Command::new(binaries.join("tidegate-load"));
    load.arg("chaos").arg("--gateway").arg(binaries.join("tidegate"));
    load.args(["--kafka", &format!("127.0.0.1:{port}"), "--broker-command", &broker]).args(arguments);
    Ok(steps::command(load.current_dir(repository::root())))
}
