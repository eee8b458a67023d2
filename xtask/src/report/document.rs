//! The measured table inside a Markdown document.

use std::fmt::Write as _;

use super::{Finding, Report, Section};

/// The table stands below this line.
pub const BEGIN: &str = "<!-- figures: begin (written by cargo xtask bench-report) -->";
/// The table stands above this line.
pub const END: &str = "<!-- figures: end -->";

/// The document has no place for the table.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the document lacks the lines `{BEGIN}` and `{END}`, in this order; put them where the table should stand")]
pub struct NoPlace;

/// `document` with the report between its two marks.
///
/// # Errors
/// [`NoPlace`] if the marks are missing.
pub fn insert(document: &str, report: &Report) -> Result<String, NoPlace> {
    let (before, rest) = document.split_once(BEGIN).ok_or(NoPlace)?;
    let (_, after) = rest.split_once(END).ok_or(NoPlace)?;
    Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", markdown(report)))
}

/// The report in Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let machine = &report.machine;
    let versions: Vec<String> = report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let mut text = format!(
        "Measured {} in {:.0} minutes on {} ({} cores, {}, Linux {}) with {}.\n",
        report.measured_at,
        (report.elapsed_s / 60.0).ceil(),
        machine.cpu,
        machine.cores,
        machine.memory,
        machine.kernel,
        versions.join(", "),
    );
    if report.quick {
        text.push_str("Short runs: these numbers show that everything works, not how fast it is.\n");
    }
    for section in Section::ALL {
        let rows: Vec<&Finding> = report.findings.iter().filter(|row| row.section == section).collect();
        if !rows.is_empty() {
            append_section(section, &rows, &mut text);
        }
    }
    text
}

fn append_section(section: Section, rows: &[&Finding], text: &mut String) {
    let _ = write!(
        text,
        "\n### {}\n\n| Name | What | Must reach | Measured: median (lowest to highest round) | |\n|---|---|---|---|---|\n",
        section.heading()
    );
    for row in rows {
        let cells = [row.name.clone(), cell(&row.what), row.must_reach(), row.measured(), row.verdict().to_owned()];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push_str("\nThe numbers behind them, round by round:\n\n");
    for row in rows {
        let _ = writeln!(text, "- `{}`: {}", row.name, lines(row));
    }
}

fn lines(row: &Finding) -> String {
    let all: Vec<&str> = row.details.iter().chain(&row.problems).map(String::as_str).collect();
    all.join(" · ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Bound, Machine, Unit};
    use super::*;

    pub(crate) fn report(findings: Vec<Finding>) -> Report {
        Report {
            measured_at: "2030-01-01 00:00 UTC".to_owned(),
            command: "measure".to_owned(),
            quick: false,
            elapsed_s: 61.0,
            machine: Machine {
                cpu: "a CPU".to_owned(),
                cores: 2,
                memory: "24 GB".to_owned(),
                kernel: "6.18".to_owned(),
            },
            versions: vec![("tidegate".to_owned(), "0.1.0".to_owned())],
            findings,
        }
    }

    #[test]
    fn the_table_replaces_what_stood_between_the_marks_and_nothing_else() {
        let document = format!("# Title\n\n{BEGIN}\nold\n{END}\n\ntail\n");
        let mut row = Finding::new("drop", "messages | dropped", Bound::AtLeast(0.7), Unit::Ratio);
        row.values = vec![0.75];
        let text = insert(&document, &report(vec![row])).unwrap();
        assert!(text.starts_with("# Title\n\n") && text.ends_with(&format!("\n{END}\n\ntail\n")));
        assert!(text.contains("| drop | messages \\| dropped | ≥ 0.70 | 0.75 | reached |"), "{text}");
        assert!(!text.contains("old"));
        assert_eq!(insert(&text, &report(Vec::new())).unwrap().matches(BEGIN).count(), 1);
    }

    #[test]
    fn each_section_has_a_table_of_its_own_and_an_empty_one_has_none() {
        let row = Finding::new("proxy", "calls", Bound::AtLeast(0.6), Unit::Ratio);
        let requests = Finding { section: Section::Requests, ..row.clone() };
        let text = markdown(&report(vec![requests.clone(), row]));
        let (events, rest) = text.split_once("### Requests").unwrap();
        assert!(events.contains("### Events") && events.contains("| proxy |") && rest.contains("| proxy |"));
        assert!(!markdown(&report(vec![requests])).contains("### Events"));
    }

    #[test]
    fn a_document_without_marks_is_refused() {
        assert_eq!(insert("# Title\n", &report(Vec::new())), Err(NoPlace));
    }
}
