//! A row of checks: each announced, timed and remembered; none stops the others.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It could not be checked; the text says why.
    Skipped(String),
    /// It does not hold.
    Failed {
        /// Exit code for the whole run.
        code: u8,
        /// What happened.
        reason: String,
    },
}

impl Outcome {
    /// A failure with exit code 1.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { code: 1, reason: reason.into() }
    }
}

/// The steps that ran.
#[derive(Debug, Default)]
pub struct Steps {
    ended: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    /// Runs one step and remembers how it ended.
    pub fn run(&mut self, name: &str, step: impl FnOnce() -> Outcome) {
        println!("\n=== {name}");
        let started = Instant::now();
        let outcome = step();
        let took = started.elapsed();
        println!("--- {name}: {} ({:.1} s)", word(&outcome), took.as_secs_f64());
        self.ended.push((name.to_owned(), took, outcome));
    }

    /// One line per step, and one that says it all.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (name, took, outcome) in &self.ended {
            let _ = writeln!(text, "{:>8}  {:>7.1} s  {name}", word(outcome), took.as_secs_f64());
            if let Outcome::Skipped(reason) | Outcome::Failed { reason, .. } = outcome {
                for line in reason.lines() {
                    let _ = writeln!(text, "{:22}{line}", "");
                }
            }
        }
        let count = |wanted: &str| self.ended.iter().filter(|(_, _, outcome)| word(outcome) == wanted).count();
        let total = self.ended.iter().map(|(_, took, _)| took.as_secs_f64()).sum::<f64>();
        let (passed, skipped, failed) = (count("passed"), count("skipped"), count("FAILED"));
        let _ = writeln!(text, "{passed} passed, {skipped} skipped, {failed} failed in {total:.0} s");
        text
    }

    /// Exit code of the first step that failed, or 0.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.ended
            .iter()
            .find_map(|(_, _, outcome)| if let Outcome::Failed { code, .. } = outcome { Some(*code) } else { None })
            .unwrap_or(0)
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Skipped(_) => "skipped",
        Outcome::Failed { .. } => "FAILED",
    }
}

/// Runs a command to its end; its output goes where ours goes.
#[must_use]
pub fn command(command: &mut Command) -> Outcome {
    let shown = shown(command);
    println!("$ {shown}");
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            Outcome::Failed { code, reason: format!("`{shown}` ended with {status}") }
        }
        Err(error) => Outcome::failed(format!("`{shown}` does not run: {error}")),
    }
}

fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_gives_the_exit_code_and_the_rest_still_runs() {
        let mut steps = Steps::default();
        steps.run("one", || Outcome::Passed);
        steps.run("two", || command(Command::new("sh").args(["-c", "exit 101"])));
        steps.run("three", || Outcome::failed("no such luck"));
        steps.run("four", || Outcome::Skipped("no Java".to_owned()));
        assert_eq!(steps.exit_code(), 101);
        let summary = steps.summary();
        assert!(summary.contains("`sh -c exit 101` ended with exit status: 101"), "{summary}");
        assert!(summary.contains("no such luck"), "{summary}");
        assert!(summary.contains("no Java"), "{summary}");
        assert!(summary.contains("1 passed, 1 skipped, 2 failed"), "{summary}");
    }

    #[test]
    fn a_command_that_does_not_exist_is_a_failure_that_names_it() {
        let outcome = command(&mut Command::new("tidegate-has-no-such-program"));
        let Outcome::Failed { code: 1, reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("tidegate-has-no-such-program"), "{reason}");
    }
}
