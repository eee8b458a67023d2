//! `cargo xtask bench-report`: the figures of whole processes, and their table in the documentation.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;
use xtask::programs::{self, Profile};
use xtask::report::{Report, document};
use xtask::repository;

/// Measures every figure of docs/benchmarks.md with real processes, prints them, and writes them there.
///
/// Builds everything in release mode, then runs `tidegate-figures` (crate bench) for about half an hour. The document is
/// rewritten by a whole run only, not with --quick or --only. Measure on a machine that does nothing else, with two cores
/// at least.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Short runs and fewer rounds: shows that everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this figure alone, or those of one section (`events`, `requests`); may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match measure(arguments).and_then(|report| conclude(arguments, &report)) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Report, String> {
    let binaries = programs::build(Profile::Release).map_err(|_| "the release build failed")?;
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let path = folder.path().join("report.json");
    let mut figures = Command::new(binaries.join("tidegate-figures"));
    figures.arg("measure").arg("--json").arg(&path);
    if arguments.quick {
        figures.arg("--quick");
    }
    for name in &arguments.only {
        figures.args(["--only", name]);
    }
    let status = figures.status().map_err(|error| format!("tidegate-figures does not run: {error}"))?;
    if !status.success() {
        return Err(format!("tidegate-figures ended with {status}"));
    }
    Report::read_json(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn conclude(arguments: &Arguments, report: &Report) -> Result<ExitCode, String> {
    if let Some(path) = &arguments.json {
        report.write_json(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if arguments.quick || !arguments.only.is_empty() {
        eprintln!("docs/benchmarks.md stays as it is: only a whole run is written there");
    } else {
        let path = repository::root().join("docs/benchmarks.md");
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let text = document::insert(&text, report).map_err(|error| failed(&error))?;
        fs::write(&path, text).map_err(|error| failed(&error))?;
        eprintln!("{} holds the table now", path.display());
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
