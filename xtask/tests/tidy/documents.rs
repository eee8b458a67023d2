//! Rules about what is written for people.

use std::path::Path;

use xtask::repository;

use crate::assert_none;
use crate::tree::sources;

/// Targets of the inline links in Markdown text, with their line numbers; code is left out.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code || line.starts_with("    ") {
            continue;
        }
        for (position, part) in line.split("](").enumerate().skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or("");
            let before: usize = line.split("](").take(position).map(|part| part.matches('`').count()).sum();
            if before.is_multiple_of(2) {
                found.push((index + 1, target));
            }
        }
    }
    found
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut findings = Vec::new();
    for source in sources("md") {
        let path = repository::root().join(&source.path);
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        for (line, target) in links(&source.text) {
            let file = target.split('#').next().unwrap_or("");
            let is_elsewhere = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !is_elsewhere && !folder.join(file).exists() {
                findings.push(format!("{}:{line}: {target}", source.path));
            }
        }
    }
    assert_none(&findings, "these links lead nowhere");
}

#[test]
fn links_are_found_outside_code_only() {
    let text =
        "see [a](one.md) and [b](two.md#part \"title\")\n`[c](no.md)` [d](three.md)\n```\n[e](no.md)\n```\n[f](#here)";
    assert_eq!(links(text), [(1, "one.md"), (1, "two.md#part"), (2, "three.md"), (6, "#here")]);
}
