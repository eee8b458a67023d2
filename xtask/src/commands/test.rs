//! `cargo xtask test`: everything that must hold before a change goes in.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;
use xtask::programs::Profile;
use xtask::repository::cargo;
use xtask::steps::{self, Outcome, Steps};
use xtask::{licences, provision, repository, skip};

/// Fetches what the tests need, then checks formatting, lints, licences, tests, benchmarks, load scenarios and the demo.
///
/// Kafka comes through Maven and kosoku from PyPI into .tools; on Debian and as root, missing packages (Java, Maven,
/// Chromium, Python's venv) are installed. Everything is built in the profile `ci`: little optimization, all checks;
/// only the demo is built as the README says. All steps run, whatever happens; the exit code is that of the
/// first that failed. With CI=true, what would be skipped for want of something fails.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only what needs neither Kafka nor a browser: formatting, lints, licences, unit tests.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut steps = Steps::default();
    if !arguments.quick {
        steps.run("what the tests need", prepare);
    }
    steps.run("formatting", || steps::command(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("lints", lints);
    steps.run("licences", check_licences);
    if arguments.quick {
        steps.run("unit tests", || steps::command(&mut unit_tests()));
    } else {
        steps.run("tests", tests);
        super::smoke::add(&mut steps);
    }
    println!("\n=== summary\n{}", steps.summary());
    ExitCode::from(steps.exit_code())
}

fn prepare() -> Outcome {
    let missing = provision::everything();
    match missing.is_empty() {
        true => Outcome::Passed,
        false if skip::forbidden() => Outcome::failed(missing.join("\n")),
        false => Outcome::Skipped(missing.join("\n")),
    }
}

fn lints() -> Outcome {
    let mut command = in_profile("clippy");
    steps::command(command.args(["--all-targets", "--", "--deny", "warnings"]))
}

fn check_licences() -> Outcome {
    match licences::check() {
        Ok(report) if report.offenders.is_empty() => Outcome::Passed,
        Ok(report) => {
            let lines = report.offenders.iter().map(|offender| format!("{}: {}", offender.package, offender.reason));
            Outcome::failed(lines.collect::<Vec<_>>().join("\n"))
        }
        Err(error) => Outcome::failed(error.to_string()),
    }
}

fn unit_tests() -> Command {
    let mut command = in_profile("test");
    command.args(["--no-fail-fast", "--lib", "--bins", "--test", "tidy"]);
    command
}

/// One of cargo's commands for the whole workspace, in the profile of the tests.
fn in_profile(command: &str) -> Command {
    cargo(&[command, "--workspace", "--locked", "--profile", Profile::Ci.name()])
}

/// All tests; those that had to skip something are listed at the end.
fn tests() -> Outcome {
    let record = match skipped_record() {
        Ok(record) => record,
        Err(error) => return Outcome::failed(format!("can't write to {}: {error}", repository::tools().display())),
    };
    let mut command = in_profile("test");
    command.arg("--no-fail-fast").env(skip::RECORD, &record);
    if let Some(chromium) = provision::chromium() {
        command.env("CHROMIUM", chromium);
    }
    if let Ok(kosoku) = provision::kosoku() {
        command.env("KOSOKU", kosoku);
    }
    match (steps::command(&mut command), fs::read_to_string(&record)) {
        (Outcome::Passed, Ok(skipped)) if !skipped.is_empty() => Outcome::Skipped(skipped),
        (outcome, _) => outcome,
    }
}

/// An empty file for the names of skipped tests.
fn skipped_record() -> io::Result<PathBuf> {
    let tools = repository::tools();
    fs::create_dir_all(&tools)?;
    let record = tools.join("skipped-tests");
    fs::write(&record, "")?;
    Ok(record)
}
