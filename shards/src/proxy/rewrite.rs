//! `path_replacement`: text in which `\1`, `\2` … (or `\g{10}`) stand for groups of `path_regex`, and `\0` for all of it.

use std::fmt::Write as _;

use super::path::normalize;

/// A replacement, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Group(usize),
}

impl Rewrite {
    /// Takes a replacement apart; characters that can't stand in a request target are percent-encoded.
    #[must_use]
    pub fn parse(replacement: &str) -> Self {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = replacement;
        while let Some(first) = rest.chars().next() {
            if let Some((group, length)) = group(rest) {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                }
                parts.push(Part::Group(group));
                rest = &rest[length..];
                continue;
            }
            push_encoded(first, &mut text);
            rest = &rest[first.len_utf8()..];
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        Self { parts: parts.into() }
    }

    /// The path to send, normalised, and the query if the replacement has one. A group that isn't there is empty. `None`
    /// where the groups come together to a path without safe form.
    #[must_use]
    pub fn apply<'a>(&self, group: impl Fn(usize) -> Option<&'a str>) -> Option<(String, Option<String>)> {
        let mut target = String::new();
        for part in &self.parts {
            target.push_str(match part {
                Part::Text(text) => text,
                Part::Group(number) => group(*number).unwrap_or_default(),
            });
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target.as_str(), None),
        };
        Some((normalize(path)?.into_owned(), query))
    }
}

/// The group that the text begins with, and the length of its name.
fn group(text: &str) -> Option<(usize, usize)> {
    let name = text.strip_prefix('\\')?;
    if let Some(digits) = name.strip_prefix("g{").and_then(|name| name.split_once('}')).map(|(digits, _)| digits) {
        return digits.parse().ok().map(|number| (number, digits.len() + 4));
    }
    let digit = name.chars().next()?.to_digit(10)?;
    Some((usize::try_from(digit).ok()?, 2))
}

fn push_encoded(character: char, text: &mut String) {
    let allowed =
        character.is_ascii_graphic() && !matches!(character, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '}' | '|');
    if allowed {
        text.push(character);
        return;
    }
    let mut buffer = [0; 4];
    for byte in character.encode_utf8(&mut buffer).bytes() {
        write!(text, "%{byte:02X}").expect("invariant: writing to a String doesn't fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(replacement: &str, groups: &[&'static str]) -> Option<(String, Option<String>)> {
        Rewrite::parse(replacement).apply(|number| groups.get(number).copied())
    }

    fn path(replacement: &str, groups: &[&'static str]) -> String {
        let (path, query) = apply(replacement, groups).expect("a safe path");
        assert_eq!(query, None);
        path
    }

    #[test]
    fn groups_are_put_in_by_number() {
        let groups = ["/all", "one", "two"];
        assert_eq!(path("/x/\\2/\\1", &groups), "/x/two/one");
        assert_eq!(path("/\\g{1}0/\\9", &groups), "/one0/");
        assert_eq!(path("/pre\\0", &groups), "/pre/all");
    }

    #[test]
    fn the_result_is_always_a_path_whatever_the_groups_bring() {
        assert_eq!(path("\\1", &["", "evil.example"]), "/evil.example");
        assert_eq!(path("@evil.example/\\1", &["", "x"]), "/@evil.example/x");
        assert_eq!(path("/base/.\\1/b", &["", "."]), "/b");
        assert_eq!(path("/a b/ä", &[]), "/a%20b/%C3%A4");
        assert_eq!(apply("/a/.\\1", &["", ".%2fb"]), None);
    }

    #[test]
    fn a_query_in_the_replacement_is_kept_apart() {
        assert_eq!(apply("/x?id=\\1", &["", "7"]), Some(("/x".to_owned(), Some("id=7".to_owned()))));
    }
}
