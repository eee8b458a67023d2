//! The figures of whole processes, as they stand in docs/benchmarks.md.
//!
//! Each figure runs the real `tidegate` on one CPU, the load generator on another, and where it is compared with a floor,
//! that in turn with it, round by round. Read `context` for what they share, then `broadcast`, `unicast`, `connections`, `tls`,
//! `discard`, `matching`, `blacklist`, `reconnects`, `killed` and `upgrade` for events, `proxied`, `routes`, `tokens`, `reactive` and
//! `unanswered` for requests.

mod blacklist;
mod broadcast;
mod connections;
mod context;
pub mod cpu;
pub mod discard;
mod error;
mod gateway;
mod killed;
mod machine;
mod matching;
mod nginx;
pub mod process;
mod proxied;
mod reactive;
mod reconnects;
mod routes;
mod tls;
mod tokens;
mod unanswered;
mod unicast;
mod upgrade;

use std::path::PathBuf;
use std::time::Instant;

use xtask::report::{Finding, Report, Section};

use self::context::Context;
pub use self::error::FigureError;

/// Measures one or more rows of the table.
type Measure = fn(&Context) -> Result<Vec<Finding>, FigureError>;

/// All figures by section and name, in the order of the tables. Those that leave most behind in the kernel come last.
const FIGURES: [(Section, &str, Measure); 23] = [
    (Section::Requests, "proxy", proxied::throughput),
    (Section::Requests, "added", proxied::added_latency),
    (Section::Requests, "routes", routes::route_match),
    (Section::Requests, "tokens", tokens::checks),
    (Section::Requests, "round-trip", reactive::round_trip),
    (Section::Requests, "requests-in-flight", reactive::requests),
    (Section::Requests, "reply-bytes", reactive::reply_bytes),
    (Section::Events, "broadcast", broadcast::fixed_rate),
    (Section::Events, "saturation", broadcast::saturation),
    (Section::Events, "unicast", unicast::cost),
    (Section::Events, "idle", connections::idle),
    (Section::Events, "handshakes", connections::handshakes),
    (Section::Events, "idle-tls", tls::idle),
    (Section::Events, "handshakes-tls", tls::handshakes),
    (Section::Events, "drop", discard::discard),
    (Section::Events, "index", matching::no_match),
    (Section::Events, "delay", unicast::delay),
    (Section::Events, "blacklist", blacklist::closing),
    (Section::Events, "reconnects", reconnects::catching_up),
    (Section::Events, "killed-node", killed::catching_up),
    (Section::Events, "upgrade", upgrade::takeover),
    (Section::Requests, "unanswered", unanswered::memory),
    (Section::Events, "churn", connections::return_of_memory),
];

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Short runs and fewer rounds: shows that everything works, not how fast it is.
    pub quick: bool,
    /// Names of figures, or of sections for all figures in them; empty for all.
    pub only: Vec<String>,
    /// The `tidegate` program.
    pub tidegate: PathBuf,
    /// The command line that was given, for the report.
    pub command: String,
}

/// Names of all figures, and of the sections.
pub fn names() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|(_, name, _)| *name).chain(Section::ALL.map(Section::name))
}

impl Options {
    fn wants(&self, section: Section, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name || wanted == section.name())
    }
}

/// Measures, with progress on standard error. A figure that can't be measured stands in the report with the reason.
#[must_use]
pub fn run(options: &Options) -> Report {
    let context = Context::new(options.quick, options.tidegate.clone());
    let began = Instant::now();
    let mut findings = Vec::new();
    for (section, name, measure) in FIGURES.into_iter().filter(|(section, name, _)| options.wants(*section, name)) {
        eprintln!("{name} ({:.0} s so far)", began.elapsed().as_secs_f64());
        let measured = measure(&context).unwrap_or_else(|error| vec![Finding::failed(name, error.to_string())]);
        for finding in measured {
            let finding = Finding { section, ..finding };
            eprintln!("  {finding}");
            findings.push(finding);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_stands_for_all_figures_in_it_and_no_name_for_two_things() {
        let options = |only: &str| Options {
            quick: true,
            only: vec![only.to_owned()],
            tidegate: PathBuf::new(),
            command: String::new(),
        };
        assert!(options("requests").wants(Section::Requests, "proxy"));
        assert!(!options("requests").wants(Section::Events, "drop"));
        assert!(options("drop").wants(Section::Events, "drop"));
        let mut all: Vec<&str> = names().collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    }
}
