//! The plain part of what path regexes are made of, matched without a regex engine: fixed text, and runs of a class such as
//! `[^/]+`, `\d+` or a `.*` at the end. An engine is as fast on one hot regex, but among a thousand each of them is cold,
//! and its tables are a hundred times the size.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// A regex in which no byte leaves a choice: each run ends where what follows begins. For ASCII paths alone.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    steps: Box<[Step]>,
    groups: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// This text, in lower case, whatever the case of the path.
    Text(Vec<u8>),
    /// Bytes of this set, as many as there are.
    Run { set: u128, min: usize, max: usize },
    /// The group begins here.
    Open(usize),
    /// The group ends here.
    Close(usize),
}

impl Pattern {
    /// The regex as a pattern, if it is plain enough; it must compile, and ignores case.
    pub(super) fn new(regex: &str) -> Option<Self> {
        let hir = ParserBuilder::new().case_insensitive(true).build().parse(regex).ok()?;
        let mut reader = Reader::default();
        reader.read(&hir)?;
        let steps = reader.steps;
        let clear = (0..steps.len()).all(|index| leaves_no_choice(&steps[index], &steps[index + 1..]));
        clear.then(|| Self { steps: steps.into(), groups: reader.groups })
    }

    /// Whether it matches all of an ASCII path. Where it does, `groups` are the groups' places, from number 1 on.
    pub(super) fn matches(&self, path: &str, groups: &mut Vec<(usize, usize)>) -> bool {
        groups.clear();
        groups.resize(self.groups, (0, 0));
        let mut rest = path.as_bytes();
        for step in &*self.steps {
            let at = path.len() - rest.len();
            match step {
                Step::Text(text) => match rest.split_at_checked(text.len()) {
                    Some((head, tail)) if head.eq_ignore_ascii_case(text) => rest = tail,
                    _ => return false,
                },
                Step::Run { set, min, max } => {
                    let length = rest.iter().take(*max).take_while(|byte| contains(*set, **byte)).count();
                    if length < *min {
                        return false;
                    }
                    rest = &rest[length..];
                }
                Step::Open(group) => groups[*group].0 = at,
                Step::Close(group) => groups[*group].1 = at,
            }
        }
        rest.is_empty()
    }
}

fn contains(set: u128, byte: u8) -> bool {
    byte < 128 && set >> byte & 1 == 1
}

/// Whether a step can end in one place only: none of the bytes it takes can begin what follows.
fn leaves_no_choice(step: &Step, following: &[Step]) -> bool {
    let Step::Run { set, min, max } = step else { return true };
    if min == max {
        return true;
    }
    for next in following {
        match next {
            Step::Text(text) => {
                let first = text.first().copied().unwrap_or(0);
                return !contains(*set, first) && !contains(*set, first.to_ascii_uppercase());
            }
            Step::Run { set: other, .. } if set & other != 0 => return false,
            Step::Run { min, .. } if *min > 0 => return true,
            Step::Run { .. } | Step::Open(_) | Step::Close(_) => {}
        }
    }
    true
}

#[derive(Default)]
struct Reader {
    steps: Vec<Step>,
    groups: usize,
    /// `$` was there: nothing may follow.
    ended: bool,
}

impl Reader {
    fn read(&mut self, hir: &Hir) -> Option<()> {
        match hir.kind() {
            HirKind::Empty => Some(()),
            HirKind::Look(Look::Start) if self.steps.iter().all(|step| matches!(step, Step::Open(_))) => Some(()),
            HirKind::Look(Look::End) => {
                self.ended = true;
                Some(())
            }
            HirKind::Literal(literal) => literal.0.iter().try_for_each(|byte| {
                // A letter that stands for itself alone: case counts here (`(?-i)`).
                let plain = byte.is_ascii() && !byte.is_ascii_alphabetic();
                if plain { self.text(*byte) } else { None }
            }),
            HirKind::Class(class) => {
                let set = ascii(class)?;
                match one_letter(set) {
                    Some(letter) => self.text(letter),
                    None => self.run(set, 1, 1),
                }
            }
            HirKind::Repetition(repetition) => {
                let set = match repetition.sub.kind() {
                    HirKind::Class(class) => ascii(class)?,
                    HirKind::Literal(literal) => match *literal.0 {
                        [byte] if byte.is_ascii() => 1 << byte,
                        _ => return None,
                    },
                    _ => return None,
                };
                let bound = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
                self.run(set, bound(repetition.min), repetition.max.map_or(usize::MAX, bound))
            }
            HirKind::Capture(capture) => {
                let group = self.groups;
                self.groups += 1;
                self.steps.push(Step::Open(group));
                self.read(&capture.sub)?;
                self.steps.push(Step::Close(group));
                Some(())
            }
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| self.read(part)),
            HirKind::Look(_) | HirKind::Alternation(_) => None,
        }
    }

    fn text(&mut self, byte: u8) -> Option<()> {
        if self.ended {
            return None;
        }
        match self.steps.last_mut() {
            Some(Step::Text(text)) => text.push(byte),
            _ => self.steps.push(Step::Text(vec![byte])),
        }
        Some(())
    }

    fn run(&mut self, set: u128, min: usize, max: usize) -> Option<()> {
        if self.ended {
            return None;
        }
        self.steps.push(Step::Run { set, min, max });
        Some(())
    }
}

/// The ASCII characters of a class.
fn ascii(class: &Class) -> Option<u128> {
    let Class::Unicode(class) = class else { return None };
    let characters = class.ranges().iter().flat_map(|range| {
        let (start, end) = (u32::from(range.start()), u32::from(range.end()).min(127));
        start..=end
    });
    Some(characters.fold(0, |set, character| set | 1 << character))
}

/// The letter, in lower case, if the set is one letter in both cases.
fn one_letter(set: u128) -> Option<u8> {
    (b'a'..=b'z').find(|letter| set == 1 << letter | 1 << letter.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    const PLAIN: [&str; 18] = [
        "/a",
        "/a/b",
        "/a/?",
        "/a/([^/]+)/b",
        "/a/(\\d+)/?",
        "/a/(.*)",
        "/a.b",
        "/[ab]/c",
        "/[^b]/c",
        "/(a)(b)",
        "^/a$",
        "/([^/]*)/([^/]*)",
        "/x{2}y",
        "/x{1,2}y",
        "/a\\.b",
        "/ks",
        "/(a[bc]+)/1?2",
        "/[a-c]{2,}/",
    ];

    const NOT_PLAIN: [&str; 9] =
        ["/a|/bc", "/(a|bc)/x", "/(.*)/x", "/(?-i)A", "/a+ab", "/(/a)?", "/\\bx", "/a$b", "/\\w*\\d"];

    #[test]
    fn what_leaves_a_choice_is_left_to_the_engine() {
        for regex in PLAIN {
            assert!(Pattern::new(regex).is_some(), "{regex}");
        }
        for regex in NOT_PLAIN {
            assert!(Pattern::new(regex).is_none(), "{regex}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_and_groups_as_its_regex_does(
            regex in prop_oneof![
                proptest::sample::select(PLAIN.to_vec()).prop_map(str::to_owned),
                "(/|a|b|x|k|\\.|\\[\\^/\\]\\+|\\(\\[ab\\]\\*\\)|\\(\\.\\*\\)|\\[ab\\]|\\\\d\\+|x\\?|b\\{2\\}|\\^|\\$){1,6}",
            ],
            path in "(/|a|A|b|B|c|x|y|K|s|1|2|\\.){0,8}",
        ) {
            let (Some(pattern), Ok(whole)) = (Pattern::new(&regex), Regex::new(&format!("(?i)^(?:{regex})$"))) else {
                return Ok(());
            };
            let mut groups = Vec::new();
            let matches = pattern.matches(&path, &mut groups);
            let captures = whole.captures(&path);
            prop_assert_eq!(matches, captures.is_some(), "{} on {}", regex, path);
            if let Some(captures) = captures {
                let expected: Vec<_> =
                    captures.iter().skip(1).map(|group| group.map_or((0, 0), |group| (group.start(), group.end()))).collect();
                prop_assert_eq!(groups, expected, "{} on {}", regex, path);
            }
        }
    }
}
