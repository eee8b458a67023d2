//! The command `tidegate-load`.

mod cli;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tidegate_load::{Report, html, progress_line, run_with_progress, table};

use crate::cli::{Cli, Common};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let (scenario, output) = Cli::parse().into_scenario();
    let outcome = run_with_progress(&scenario, |second| {
        if !output.quiet {
            eprintln!("{}", progress_line(second));
        }
    });
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            eprintln!("tidegate-load: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = write(&report, &output) {
        eprintln!("tidegate-load: {error}");
        return ExitCode::from(2);
    }
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn write(report: &Report, output: &Common) -> Result<(), String> {
    let json = || serde_json::to_string_pretty(report).map_err(|error| format!("the report as JSON: {error}"));
    let to_file = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))
    };
    let to_stdout = |text: String| {
        writeln!(std::io::stdout(), "{text}").map_err(|error| format!("writing to standard output: {error}"))
    };
    if let Some(path) = &output.html {
        to_file(path, html(report))?;
    }
    match &output.json {
        Some(path) if path.as_os_str() == "-" => to_stdout(json()?),
        Some(path) => {
            to_file(path, json()?)?;
            to_stdout(table(report))
        }
        None => to_stdout(table(report)),
    }
}
