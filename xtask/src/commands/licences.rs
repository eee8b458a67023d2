//! `cargo xtask licences`: may what we depend on be shipped?

use std::process::ExitCode;

use xtask::licences;

pub(crate) fn run() -> ExitCode {
    let report = match licences::check() {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for (expression, packages) in &report.accepted {
        println!("{packages:>5}  {expression}");
    }
    for offender in &report.offenders {
        println!("REFUSED  {}: {}", offender.package, offender.reason);
    }
    let accepted: usize = report.accepted.values().sum();
    println!("{accepted} packages accepted, {} refused", report.offenders.len());
    if report.offenders.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
