//! The figures of whole processes, as they stand in docs/benchmarks.md.
//!
//! Each figure runs the real `tidegate` on one CPU, the load generator on another, and where it is compared with a floor,
//! that in turn with it, round by round. Read `context` for what they share, then `broadcast`, `unicast`, `connections`,
//! `discard` and `matching`.

mod broadcast;
mod connections;
mod context;
pub mod cpu;
pub mod discard;
mod error;
mod machine;
mod matching;
pub mod process;
mod unicast;

use std::path::PathBuf;
use std::time::Instant;

use xtask::report::{Finding, Report};

use self::context::Context;
pub use self::error::FigureError;

/// Measures one or more rows of the table.
type Measure = fn(&Context) -> Result<Vec<Finding>, FigureError>;

/// All figures by name, in the order of the table. Those that leave most behind in the kernel come last.
const FIGURES: [(&str, Measure); 9] = [
    ("broadcast", broadcast::fixed_rate),
    ("saturation", broadcast::saturation),
    ("unicast", unicast::cost),
    ("idle", connections::idle),
    ("handshakes", connections::handshakes),
    ("drop", discard::discard),
    ("index", matching::no_match),
    ("delay", unicast::delay),
    ("churn", connections::return_of_memory),
];

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Short runs and fewer rounds: shows that everything works, not how fast it is.
    pub quick: bool,
    /// Names of the figures; empty for all.
    pub only: Vec<String>,
    /// The `tidegate` program.
    pub tidegate: PathBuf,
    /// The command line that was given, for the report.
    pub command: String,
}

/// Names of all figures.
pub fn names() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|(name, _)| *name)
}

/// Measures, with progress on standard error. A figure that can't be measured stands in the report with the reason.
#[must_use]
pub fn run(options: &Options) -> Report {
    let context = Context::new(options.quick, options.tidegate.clone());
    let began = Instant::now();
    let mut findings = Vec::new();
    for (name, measure) in FIGURES {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("{name} ({:.0} s so far)", began.elapsed().as_secs_f64());
        let measured = measure(&context).unwrap_or_else(|error| vec![Finding::failed(name, error.to_string())]);
        for finding in &measured {
            eprintln!("  {finding}");
        }
        findings.extend(measured);
    }
    Report {
        measured_at: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        command: options.command.clone(),
        quick: options.quick,
        elapsed_s: began.elapsed().as_secs_f64(),
        machine: machine::this_machine(),
        versions: machine::versions(),
        findings,
    }
}
