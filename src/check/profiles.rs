//! What would have to change on this machine to carry 100,000 connections and more.

use std::fmt::Write;

use tidegate_tuning::profiles::{Finding, Verdict};

/// The machine against the shipped profiles, as text: what is met in a number, what is not with its reason and remedy.
pub(super) fn report(findings: &[Finding]) -> String {
    let with = |verdict: Verdict| findings.iter().filter(move |finding| finding.verdict == verdict);
    let (met, missed) = (with(Verdict::Met).count(), with(Verdict::Missed).count());
    let mut text =
        format!("\nProfile for large machines (tuning/profiles): {met} of {} settings are met", findings.len());
    if missed > 0 {
        let _ = write!(text, ", {missed} worth a change beyond 10,000 connections");
    }
    text.push('\n');
    for finding in with(Verdict::Missed) {
        let Finding { key, is, should, buys, how_to_change, .. } = finding;
        let _ = writeln!(text, "  {key}: {is}; {should}\n      {buys}\n      → {how_to_change}");
    }
    let absent: Vec<&str> = with(Verdict::Absent).map(|finding| finding.key.as_str()).collect();
    if !absent.is_empty() {
        let _ =
            writeln!(text, "  not visible here (containers hide what belongs to their host): {}", absent.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(key: &str, verdict: Verdict) -> Finding {
        let how_to_change = if verdict == Verdict::Missed { format!("set {key}") } else { String::new() };
        Finding {
            key: key.to_owned(),
            verdict,
            is: "1".to_owned(),
            should: "at least 2".to_owned(),
            buys: "Room.".to_owned(),
            how_to_change,
        }
    }

    #[test]
    fn only_what_falls_short_is_explained() {
        let findings = [finding("a", Verdict::Met), finding("b", Verdict::Missed), finding("c", Verdict::Absent)];
        let text = report(&findings);
        assert!(text.contains("1 of 3 settings are met, 1 worth a change"), "{text}");
        assert!(text.contains("  b: 1; at least 2\n      Room.\n      → set b\n"), "{text}");
        assert!(text.ends_with("their host): c\n") && !text.contains("a: 1"), "{text}");
    }

    #[test]
    fn a_machine_as_it_should_be_takes_one_line() {
        assert_eq!(
            report(&[finding("a", Verdict::Met)]),
            "\nProfile for large machines (tuning/profiles): 1 of 1 settings are met\n"
        );
    }
}
