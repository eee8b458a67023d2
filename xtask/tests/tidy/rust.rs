//! Rules about Rust sources and crates.

use std::fs;

use xtask::repository;

use crate::assert_none;
use crate::tree::{Source, sources};

const MAX_LINES: usize = 500;

/// Files that may be longer than [`MAX_LINES`], each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Where glommio may be named: its adapter, the benchmarks that measure it, and this rule.
const GLOMMIO: [&str; 3] = ["shards/src/runtime", "bench/", "xtask/tests/tidy/"];

/// Code that runs in production: there, bad input never panics.
const PRODUCTION: [&str; 3] = ["src/", "shards/src/", "reactive/src/"];

/// A line of code that is neither comment nor part of a test, with its number.
fn production_lines(source: &Source) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let is_test_module = |index: usize| {
        lines[index].trim() == "#[cfg(test)]"
            && lines[index + 1..].iter().find(|line| !line.starts_with("#[")).is_some_and(|line| {
                let line = line.trim_start_matches("pub(crate) ");
                line.starts_with("mod ") && line.ends_with('{')
            })
    };
    let end = (0..lines.len()).find(|&index| is_test_module(index)).unwrap_or(lines.len());
    let numbered = lines.into_iter().take(end).enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
}

fn findings(sources: &[Source], is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let report = |source: &Source| {
        let lines = production_lines(source).into_iter().filter(|(_, line)| is_bad(line));
        lines.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())).collect::<Vec<_>>()
    };
    sources.iter().flat_map(report).collect()
}

#[test]
fn no_file_is_too_long_to_read_at_once() {
    let all = sources("rs");
    for (path, reason) in LONG_FILES {
        assert!(!reason.is_empty(), "{path} needs a reason");
        assert!(all.iter().any(|source| source.path == path), "{path} is gone: take it off the list");
    }
    let listed = |path: &str| LONG_FILES.iter().any(|(listed, _)| *listed == path);
    let long = all.iter().map(|source| (&source.path, source.text.lines().count()));
    let too_long = long.filter(|(path, lines)| *lines > MAX_LINES && !listed(path));
    let findings: Vec<String> = too_long.map(|(path, lines)| format!("{path}: {lines} lines")).collect();
    assert_none(&findings, "split it, move its tests to a sibling, or list it with a reason");
}

#[test]
fn glommio_is_named_only_by_its_adapter() {
    let all: Vec<Source> =
        sources("rs").into_iter().filter(|s| !GLOMMIO.iter().any(|p| s.path.starts_with(p))).collect();
    let findings = findings(&all, |line| line.contains("glommio::") || line.contains("use glommio"));
    assert_none(&findings, "only shards/src/runtime may know the event loop");
}

#[test]
fn production_code_does_not_panic_on_what_it_did_not_expect() {
    let is_production = |path: &str| PRODUCTION.iter().any(|prefix| path.starts_with(prefix)) && !is_test_file(path);
    let all: Vec<Source> = sources("rs").into_iter().filter(|source| is_production(&source.path)).collect();
    let bad = |line: &str| {
        let unexplained = line.contains(".expect(\"") && !line.contains(".expect(\"invariant: ");
        line.contains(".unwrap()") || line.contains(".unwrap_err()") || unexplained
    };
    assert_none(&findings(&all, bad), "return an error, or say why it can't happen: expect(\"invariant: …\")");
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["HA", "CK:"],
        ["to", "do!("],
        ["unimplem", "ented!("],
        ["db", "g!("],
    ];
    let marks = marks.map(|[left, right]| format!("{left}{right}"));
    let mut findings = Vec::new();
    for source in ["rs", "toml", "md", "js", "html", "css", "conf", "yml"].into_iter().flat_map(sources) {
        for (index, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                findings.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert_none(&findings, "do it now, or write an issue");
}

#[test]
fn every_crate_obeys_the_workspaces_lints_which_ask_for_documentation() {
    let root = fs::read_to_string(repository::root().join("Cargo.toml")).unwrap();
    assert!(root.contains("missing_docs = \"warn\""), "the workspace's lints must ask for documentation");
    let crates = sources("toml").into_iter().filter(|source| source.path.ends_with("Cargo.toml"));
    let members = crates.filter(|source| !source.path.starts_with("fuzz/"));
    let strays = members.filter(|source| !source.text.contains("[lints]\nworkspace = true"));
    let findings: Vec<String> = strays.map(|source| source.path).collect();
    assert_none(&findings, "add `[lints]` with `workspace = true`");
}

#[test]
fn test_modules_comments_and_nothing_else_are_left_out_of_production_code() {
    let source = |text: &str| Source { path: String::new(), text: text.to_owned() };
    let numbers = |text: &str| production_lines(&source(text)).into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(numbers("a();\n// b();\nc();\n\n#[cfg(test)]\nmod tests {\n    d();\n}\n"), [1, 3, 4]);
    assert_eq!(numbers("#[cfg(test)]\nmod tests;\n\na();\n"), [1, 2, 3, 4]);
    assert_eq!(numbers("#[cfg(test)]\n#[allow(x)]\npub(crate) mod tests {\n"), [0; 0]);
}
