//! Which of many regexes can match a path at all: each regex is filed under a literal that every match of it contains, and
//! one pass over the path finds the literals that are there (Aho–Corasick). Regexes whose literal isn't there are never run.
//!
//! One automaton over all regexes, which would need no such filter, was measured too: with 1,000 definitions its states
//! don't fit in any sensible cache, and a look-up takes 50 µs to 1.5 ms.

use std::borrow::Cow;

use ahash::AHashMap;
use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};
use regex_syntax::hir::{Hir, HirKind};

/// The filter over a list of regexes, which go by their index. All of them ignore case.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefilter {
    literals: Option<AhoCorasick>,
    /// The regexes of each literal.
    of_literal: Vec<Box<[u32]>>,
    /// Regexes without literal.
    always: Vec<u32>,
}

impl Prefilter {
    /// The filter over `patterns`, each of them a regex that compiles.
    ///
    /// # Errors
    /// All literals together are too long.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Self, BuildError> {
        let required: Vec<_> = patterns.map(required_literals).collect();
        let mut sharing: AHashMap<&str, usize> = AHashMap::new();
        for literal in required.iter().flatten() {
            *sharing.entry(literal).or_default() += 1;
        }
        let mut filed: AHashMap<&str, Vec<u32>> = AHashMap::new();
        let mut always = Vec::new();
        for (index, literals) in (0..).zip(&required) {
            // The literal that fewest others have tells most; of equals the longest.
            let best = literals.iter().min_by_key(|literal| (sharing[literal.as_str()], usize::MAX - literal.len()));
            match best {
                Some(literal) => filed.entry(literal).or_default().push(index),
                None => always.push(index),
            }
        }
        let (literals, of_literal): (Vec<_>, Vec<_>) =
            filed.into_iter().map(|(literal, indices)| (literal, indices.into_boxed_slice())).unzip();
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(literals)?;
        Ok(Self { literals: (!of_literal.is_empty()).then_some(automaton), of_literal, always })
    }

    /// The regexes that may match `path`, in order, each once.
    pub(super) fn candidates(&self, path: &str) -> Vec<u32> {
        let mut candidates = self.always.clone();
        if let Some(literals) = &self.literals {
            for found in literals.find_overlapping_iter(&*folded(path)) {
                candidates.extend_from_slice(&self.of_literal[found.pattern().as_usize()]);
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }
}

/// The two characters beyond ASCII that equal an ASCII letter if case doesn't count (Unicode's `CaseFolding.txt`), as that
/// letter: K for the Kelvin sign, s for the long s.
fn folded(path: &str) -> Cow<'_, str> {
    if path.is_ascii() {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(path.replace('\u{212a}', "k").replace('\u{17f}', "s"))
    }
}

/// ASCII texts in lower case that are in every match of `pattern`.
fn required_literals(pattern: &str) -> Vec<String> {
    let mut runs = Runs::default();
    if let Ok(hir) = regex_syntax::parse(pattern) {
        runs.walk(&hir);
    }
    runs.end();
    runs.done
}

/// Literals as they are gathered: one goes on until something that isn't fixed text comes.
#[derive(Default)]
struct Runs {
    open: String,
    done: Vec<String>,
}

impl Runs {
    fn end(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn walk(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => {
                for byte in &literal.0 {
                    if byte.is_ascii() {
                        self.open.push(char::from(byte.to_ascii_lowercase()));
                    } else {
                        self.end();
                    }
                }
            }
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.walk(part)),
            HirKind::Capture(capture) => self.walk(&capture.sub),
            HirKind::Repetition(repetition) => {
                self.end();
                if repetition.min > 0 {
                    self.walk(&repetition.sub);
                    self.end();
                }
            }
            HirKind::Class(_) | HirKind::Alternation(_) => self.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_what_every_match_contains() {
        for (pattern, expected) in [
            ("/api/items", &["/api/items"][..]),
            ("/API/(x)/Y", &["/api/x/y"]),
            ("/a/([^/]+)/b/?", &["/a/", "/b"]),
            ("/a(bc)*d", &["/a", "d"]),
            ("/a(bc)+d", &["/a", "bc", "d"]),
            ("/a|/b", &[]),
            ("/x/(a|b)/y", &["/x/", "/y"]),
            ("^/a$", &["/a"]),
            ("/straße/k", &["/stra", "e/k"]),
            ("(?i)/a", &["/"]),
            (".*", &[]),
        ] {
            assert_eq!(required_literals(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn only_regexes_that_can_match_are_candidates() {
        let patterns = ["/t/([^/]+)/one", "/t/([^/]+)/two", "/t/.*", "/\\w+|x", "/kiss"];
        let filter = Prefilter::new(patterns.into_iter()).expect("it can be built");
        assert_eq!(filter.candidates("/T/1/ONE"), [0, 2, 3]);
        assert_eq!(filter.candidates("/t/1/two/one"), [0, 1, 2, 3]);
        assert_eq!(filter.candidates("/other"), [3]);
        assert_eq!(filter.candidates("/\u{212a}i\u{17f}s"), [3, 4], "case folding beyond ASCII");
        assert!(Prefilter::default().candidates("/").is_empty());
    }
}
