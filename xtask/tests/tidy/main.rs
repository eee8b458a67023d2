//! The repository's own rules that no compiler checks. Each failure names file and line, and what to do.

mod documents;
mod rust;
mod tree;

/// Fails with every finding at once.
fn assert_none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
