//! What `cargo xtask bench-report` has measured: rows with their bounds, and where they were measured.
//!
//! [`document`] puts it into docs/benchmarks.md.

pub mod document;

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// All rows of one run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Date and time.
    pub measured_at: String,
    /// Arguments of `tidegate-figures`.
    pub command: String,
    /// Short runs: shows that everything works, not how fast it is.
    pub quick: bool,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// Where.
    pub machine: Machine,
    /// Names and versions of what was measured, and with what.
    pub versions: Vec<(String, String)>,
    /// The rows.
    pub findings: Vec<Finding>,
}

/// The machine of a report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Machine {
    /// Model of its CPU.
    pub cpu: String,
    /// Logical cores that were allowed.
    pub cores: usize,
    /// Memory, as /proc/meminfo has it.
    pub memory: String,
    /// Kernel release.
    pub kernel: String,
}

/// One row.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Finding {
    /// Short name.
    pub name: String,
    /// The part of the document that it stands in.
    pub section: Section,
    /// What the number says.
    pub what: String,
    /// What it must reach; `None` for a row that could not be measured.
    pub bound: Option<Bound>,
    /// What the numbers count.
    pub unit: Unit,
    /// One number per round.
    pub values: Vec<f64>,
    /// The absolute numbers behind them, one line per round.
    pub details: Vec<String>,
    /// What makes the row worthless: events missing, or why it could not be measured.
    pub problems: Vec<String>,
}

/// A part of the document with a table of its own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Section {
    /// Events on their way to clients.
    #[default]
    Events,
    /// Requests and their answers.
    Requests,
}

impl Section {
    /// All of them, in the order of the document.
    pub const ALL: [Self; 2] = [Self::Events, Self::Requests];

    /// Its name, also on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Requests => "requests",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Events => "Events",
            Self::Requests => "Requests",
        }
    }
}

/// What a row must reach.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// Less than this.
    Below(f64),
}

/// What a number counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Unit {
    /// A part, or a multiple, of something else.
    Ratio,
    /// Percent.
    Percent,
    /// Units of 1,024 bytes.
    Kibibytes,
    /// Nanoseconds.
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    fn format(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{value:.2}"),
            Self::Percent => format!("{value:.1} %"),
            Self::Kibibytes => format!("{value:.2} KiB"),
            Self::Nanoseconds => format!("{value:.0} ns"),
            Self::Microseconds => format!("{value:.0} µs"),
            Self::Milliseconds => format!("{value:.0} ms"),
        }
    }
}

impl Finding {
    /// A row without numbers yet.
    #[must_use]
    pub fn new(name: &str, what: &str, bound: Bound, unit: Unit) -> Self {
        Self {
            name: name.to_owned(),
            section: Section::default(),
            what: what.to_owned(),
            bound: Some(bound),
            unit,
            values: Vec::new(),
            details: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// A row that could not be measured.
    #[must_use]
    pub fn failed(name: &str, reason: String) -> Self {
        let row = Self::new(name, &format!("{name} (not measured)"), Bound::AtLeast(0.0), Unit::Ratio);
        Self { bound: None, problems: vec![reason], ..row }
    }

    /// The middle one of the rounds, the mean of the two in the middle for an even number of them.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }

    /// The lowest and the highest round.
    #[must_use]
    pub fn spread(&self) -> Option<(f64, f64)> {
        let low = self.values.iter().copied().min_by(f64::total_cmp)?;
        let high = self.values.iter().copied().max_by(f64::total_cmp)?;
        Some((low, high))
    }

    /// Does the median keep the bound, and is nothing wrong with the measurement?
    #[must_use]
    pub fn is_met(&self) -> bool {
        let Some((median, bound)) = self.median().zip(self.bound) else { return false };
        self.problems.is_empty()
            && match bound {
                Bound::AtLeast(least) => median >= least,
                Bound::Below(limit) => median < limit,
            }
    }

    /// The bound for people.
    #[must_use]
    pub fn must_reach(&self) -> String {
        match self.bound {
            Some(Bound::AtLeast(least)) => format!("≥ {}", self.unit.format(least)),
            Some(Bound::Below(limit)) => format!("< {}", self.unit.format(limit)),
            None => "–".to_owned(),
        }
    }

    /// Median and spread for people.
    #[must_use]
    pub fn measured(&self) -> String {
        let Some((median, (low, high))) = self.median().zip(self.spread()) else { return "not measured".to_owned() };
        let median = self.unit.format(median);
        match self.values.len() {
            1 => median,
            _ => format!("{median} ({} to {})", self.unit.format(low), self.unit.format(high)),
        }
    }

    /// In one word.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.is_met(), self.values.is_empty(), self.problems.is_empty()) {
            (true, ..) => "reached",
            (false, true, _) => "not measured",
            (false, false, false) => "invalid",
            (false, false, true) => "missed",
        }
    }
}

impl Display for Finding {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (measured, must_reach) = (self.measured(), self.must_reach());
        write!(formatter, "{:<12} {:<12} {measured:<32} must be {must_reach}", self.verdict(), self.name)?;
        for line in self.details.iter().chain(&self.problems) {
            write!(formatter, "\n               {line}")?;
        }
        Ok(())
    }
}

impl Report {
    /// The rows as text for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        self.findings.iter().map(|finding| format!("{finding}\n")).collect()
    }

    /// Was every row measured, whatever came out?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.findings.iter().all(|finding| !finding.values.is_empty())
    }

    /// Writes the report for machines.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n")
    }

    /// Reads what [`Self::write_json`] wrote.
    ///
    /// # Errors
    /// The file can't be read, or holds something else.
    pub fn read_json(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(bound: Bound, values: &[f64]) -> Finding {
        Finding { values: values.to_vec(), ..Finding::new("x", "what x is", bound, Unit::Ratio) }
    }

    #[test]
    fn the_median_decides_and_the_spread_is_shown() {
        let row = finding(Bound::AtLeast(0.8), &[0.7, 0.9, 0.85]);
        assert_eq!((row.verdict(), &*row.measured()), ("reached", "0.85 (0.70 to 0.90)"));
        assert_eq!(finding(Bound::AtLeast(0.8), &[0.7, 0.8]).verdict(), "missed");
        assert_eq!(finding(Bound::Below(3.0), &[3.0]).verdict(), "missed");
        assert_eq!(finding(Bound::Below(3.0), &[2.9]).verdict(), "reached");
    }

    #[test]
    fn a_row_with_a_problem_is_never_reached() {
        let mut row = finding(Bound::Below(3.0), &[1.0]);
        row.problems.push("2 events missing".to_owned());
        assert_eq!(row.verdict(), "invalid");
        assert_eq!(Finding::failed("x", "no Kafka".to_owned()).verdict(), "not measured");
    }

    #[test]
    fn a_report_survives_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let report = document::tests::report(vec![finding(Bound::AtLeast(0.5), &[0.6])]);
        report.write_json(&path).unwrap();
        assert_eq!(Report::read_json(&path).unwrap(), report);
    }
}
