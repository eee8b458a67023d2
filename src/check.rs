//! `tidegate check`: is this machine ready, and what to change if not. A start that fails prints the same advice.

mod brokers;
mod machine;
mod profiles;
mod uring;

use std::io;
use std::process::ExitCode;

use crate::config::Config;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but not at its best.
    Warn,
    /// Tidegate can't work like this.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, with the command or setting; empty if nothing.
    pub remedy: String,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Runs all checks and prints the report. Exit code 1 if one failed.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let mut findings = vec![settings(config)];
    findings.extend(machine::findings(config));
    findings.extend(config.kafka.as_ref().map(brokers::finding));
    print!("{}", report(&findings));
    print!("{}", profiles::report(&tidegate_tuning::profiles::compare()));
    if findings.iter().any(|finding| finding.verdict == Verdict::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn settings(config: &Config) -> Finding {
    if config.warnings.is_empty() {
        Finding::ok("settings", "all usable")
    } else {
        Finding::warn("settings", config.warnings.join("; "), "Unset what has no effect")
    }
}

fn report(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let line = |finding: &Finding| {
        let Finding { subject, verdict, found, remedy } = finding;
        let first = format!("{:<4}  {subject:<width$}  {found}\n", verdict.word());
        if remedy.is_empty() { first } else { format!("{first}      {:<width$}  → {remedy}\n", "") }
    };
    findings.iter().map(line).collect()
}

/// Adds to a failed start what this machine lacks, with what to do about it.
pub(crate) fn explain_start_failure(error: io::Error) -> io::Error {
    let lacking: Vec<_> =
        machine::requirements().into_iter().filter(|finding| finding.verdict == Verdict::Fail).collect();
    if lacking.is_empty() {
        return error;
    }
    io::Error::new(error.kind(), format!("{error}\n{}", report(&lacking).trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_shows_what_to_do_below_what_was_found() {
        let findings = [Finding::ok("kernel", "6.1"), Finding::fail("io_uring", "denied", "allow it")];
        assert_eq!(report(&findings), "ok    kernel    6.1\nFAIL  io_uring  denied\n                → allow it\n");
    }
}
