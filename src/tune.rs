//! `tidegate tune`: which shard count suits this machine, found by measuring with gateways started from this very binary.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use tidegate_tuning::{Outcome, Progress, Settings};

use crate::config::Config;
use crate::cores;

/// What `tidegate tune` takes besides the settings, of which only `CPUS` counts.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct TuneArguments {
    /// Seconds to measure, all shard counts together
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub seconds: u32,
    /// Print JSON instead of the table
    #[arg(long)]
    pub json: bool,
    /// Draw the figures into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

impl TuneArguments {
    /// Measures, shows its progress on standard error, and prints the outcome.
    ///
    /// # Errors
    /// A gateway that does not start or can't be put under load, a file that can't be written.
    pub fn run(&self, config: &Config) -> io::Result<()> {
        let allowed = cores::allowed()?;
        let every_core = config.cpus.as_ref().map_or(allowed.len(), Vec::len);
        let planned = cores::plan(Some(every_core), config.cpus.as_deref(), &allowed, cores::siblings)
            .map_err(|error| io::Error::other(format!("CPUS: {error}")))?;
        let cores = planned.into_iter().flatten().collect();
        let settings = Settings { gateway: std::env::current_exe()?, cores, total_s: f64::from(self.seconds) };
        let mut display = ProgressDisplay::new();
        let outcome = tidegate_tuning::tune(&settings, |progress| display.show(progress)).map_err(io::Error::other)?;
        display.clear();
        if let Some(path) = &self.svg {
            write_svg(path, &outcome)?;
        }
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, &outcome)?;
            return writeln!(stdout);
        }
        stdout.write_all(tidegate_tuning::table(&outcome).as_bytes())
    }
}

fn write_svg(path: &Path, outcome: &Outcome) -> io::Result<()> {
    std::fs::write(path, tidegate_tuning::svg(outcome))
        .map_err(|error| io::Error::new(error.kind(), format!("writing {}: {error}", path.display())))
}

/// Progress on standard error: on a terminal one line that changes, elsewhere a line per measurement.
struct ProgressDisplay {
    is_terminal: bool,
}

impl ProgressDisplay {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: &Progress) {
        let line = tidegate_tuning::progress_line(progress);
        match progress {
            Progress::Running { .. } if self.is_terminal => eprint!("\r\x1b[K{line}"),
            Progress::Running { .. } => {}
            Progress::Measured(_) => {
                self.clear();
                eprintln!("{line}");
            }
        }
    }

    fn clear(&mut self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
