//! The command `tidegate-load`.

mod cli;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use mimalloc::MiMalloc;
use serde::Serialize;
use tidegate_load::{
    Backend, BackendOptions, CallScenario, ChaosOptions, LoadError, Scenario, ServiceCounts, ServiceOptions,
    call_progress_line, html, plan, progress_line, run_calls, run_chaos, run_with_progress, serve, table,
};

use crate::cli::{Cli, Output, Task};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().into_task() {
        Task::Events(scenario, output) => events(&scenario, &output),
        Task::Calls(scenario, output) => calls(&scenario, &output),
        Task::Chaos(options, output) => chaos(&options, &output),
        Task::Backend(options) => backend(options).map(|()| true).map_err(|error| error.to_string()),
        Task::Service(options) => service(&options).map(|()| true).map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("tidegate-load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a load of events; true if all was well.
fn events(scenario: &Scenario, output: &Output) -> Result<bool, String> {
    let report = run_with_progress(scenario, |second| say(output, &progress_line(second)));
    let report = report.map_err(|error| error.to_string())?;
    write(&report, &table(&report), || html(&report), output)?;
    Ok(report.passed())
}

/// Runs a load of calls; true if all was well.
fn calls(scenario: &CallScenario, output: &Output) -> Result<bool, String> {
    let report = run_calls(scenario, |second| say(output, &call_progress_line(second)));
    let report = report.map_err(|error| error.to_string())?;
    write(&report, &report.table(), || report.html(), output)?;
    Ok(report.passed())
}

/// Runs gateways under faults; true if nothing was lost and everything lives that should.
fn chaos(options: &ChaosOptions, output: &Output) -> Result<bool, String> {
    let steps = plan(options.seed, (options.minutes * 60_000.0) as u64, options.nodes, &options.possible_faults());
    say(output, &format!("seed {}: {} faults in {} minutes", options.seed, steps.len(), options.minutes));
    let report = run_chaos(options, |moment| say(output, &moment.line())).map_err(|error| error.to_string())?;
    write(&report, &report.table(), String::new, output)?;
    Ok(report.passed())
}

fn backend(options: BackendOptions) -> Result<(), LoadError> {
    let backend = Backend::bind(options)?;
    println!("clients http://{}", backend.address()?);
    backend.run(&AtomicBool::new(false))
}

fn service(options: &ServiceOptions) -> Result<(), LoadError> {
    serve(options, &ServiceCounts::default(), &AtomicBool::new(false), || println!("serving {}", options.topic))
}

fn say(output: &Output, line: &str) {
    if !output.quiet {
        eprintln!("{line}");
    }
}

fn write(report: &impl Serialize, table: &str, html: impl Fn() -> String, output: &Output) -> Result<(), String> {
    let json = || serde_json::to_string_pretty(report).map_err(|error| format!("the report as JSON: {error}"));
    let to_file = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))
    };
    let to_stdout = |text: &str| {
        writeln!(std::io::stdout(), "{text}").map_err(|error| format!("writing to standard output: {error}"))
    };
    if let Some(path) = &output.html {
        to_file(path, html())?;
    }
    match &output.json {
        Some(path) if path.as_os_str() == "-" => to_stdout(&json()?),
        Some(path) => {
            to_file(path, json()?)?;
            to_stdout(table)
        }
        None => to_stdout(table),
    }
}
