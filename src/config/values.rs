//! Settings as text, before validation, and the readers that turn one text into a value or a [`Problem`].

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::catalogue::{Kind, setting};

/// One unusable setting: which, its value, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Environment variable that holds the setting.
    pub variable: &'static str,
    /// Its value; `None` for a secret, which is never shown.
    pub value: Option<String>,
    /// What is wrong with it.
    pub wrong: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, wrong, remedy } = self;
        let value = value.as_deref().map_or_else(|| "(not shown)".to_owned(), shown);
        write!(formatter, "{variable}={value}: {wrong}. {remedy}")
    }
}

/// The value in quotes, without logins; of a long one, its beginning.
fn shown(value: &str) -> String {
    const MAX_CHARACTERS: usize = 100;
    let value = without_logins(value);
    match value.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

/// The value with `…` where a URL, or a host, has a user name and password before it.
fn without_logins(value: &str) -> String {
    // Quotes end a URL within JSON; elsewhere they may be part of a password.
    let pieces = if value.starts_with(['{', '[']) { value.split_inclusive('"').collect() } else { vec![value] };
    let masked = pieces.into_iter().map(|piece| match piece.rsplit_once('@') {
        Some((login, host)) if login.contains(':') => {
            let scheme = login.find("://").map_or("", |end| &login[..end + 3]);
            format!("{scheme}…@{host}")
        }
        _ => piece.to_owned(),
    });
    masked.collect()
}

/// The texts of all settings; an empty text counts as unset.
#[derive(Clone, Default)]
pub struct Values {
    texts: HashMap<&'static str, String>,
}

impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |variable: &str| {
            let text = if is_secret(variable) { "(not shown)" } else { self.text_of(variable).unwrap_or("") };
            without_logins(text)
        };
        formatter.debug_map().entries(self.texts.keys().map(|variable| (variable, shown(variable)))).finish()
    }
}

impl Values {
    /// Sets one; a variable that is in no catalogue is ignored.
    pub fn set(&mut self, variable: &str, text: &str) {
        if let Some(setting) = setting(variable) {
            self.texts.insert(setting.variable, text.trim().to_owned());
        }
    }

    /// The same with one more setting.
    #[must_use]
    pub fn with(mut self, variable: &str, text: &str) -> Self {
        self.set(variable, text);
        self
    }

    /// The text in force: as given, or the default; `None` where there is neither.
    #[must_use]
    pub fn text(&self, variable: &'static str) -> Option<&str> {
        self.text_of(variable)
    }

    fn text_of(&self, variable: &str) -> Option<&str> {
        let given = self.texts.get(variable).map(String::as_str).filter(|text| !text.is_empty());
        given.or_else(|| setting(variable).and_then(|setting| setting.default))
    }

    /// Whether somebody set it to something else than its default.
    #[must_use]
    pub fn is_set(&self, variable: &'static str) -> bool {
        self.text(variable) != setting(variable).and_then(|setting| setting.default)
    }
}

fn is_secret(variable: &str) -> bool {
    setting(variable).is_some_and(|setting| matches!(setting.kind, Kind::Secret(_)))
}

/// Reads values and gathers what is wrong with them.
#[derive(Debug)]
pub struct Reader<'a> {
    values: &'a Values,
    /// What was wrong so far.
    pub problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader without problems yet.
    #[must_use]
    pub fn new(values: &'a Values) -> Self {
        Self { values, problems: Vec::new() }
    }

    /// The values that are being read.
    #[must_use]
    pub fn values(&self) -> &'a Values {
        self.values
    }

    /// Notes a problem with `variable`.
    pub fn problem(&mut self, variable: &'static str, wrong: impl Into<String>, remedy: impl Into<String>) {
        let value = (!is_secret(variable)).then(|| self.values.text(variable).unwrap_or_default().to_owned());
        self.problems.push(Problem { variable, value, wrong: wrong.into(), remedy: remedy.into() });
    }

    /// Owned text, `None` if unset.
    #[must_use]
    pub fn text(&self, variable: &'static str) -> Option<String> {
        self.values.text(variable).map(str::to_owned)
    }

    /// A whole number within `range`; a problem otherwise, and then the lower end of `range`. Unset counts as 0.
    pub fn number(&mut self, variable: &'static str, range: RangeInclusive<u64>) -> u64 {
        let parsed =
            self.values.text(variable).unwrap_or("0").parse::<u64>().ok().filter(|number| range.contains(number));
        parsed.unwrap_or_else(|| {
            self.problem(
                variable,
                "not a whole number in the allowed range",
                format!("Use a number from {} to {}", range.start(), range.end()),
            );
            *range.start()
        })
    }

    /// [`Self::number`] as `usize`.
    pub fn size(&mut self, variable: &'static str, range: RangeInclusive<u64>) -> usize {
        usize::try_from(self.number(variable, range)).unwrap_or(usize::MAX)
    }

    /// A port; 0 lets the operating system choose.
    pub fn port(&mut self, variable: &'static str) -> u16 {
        u16::try_from(self.number(variable, 0..=65_535)).unwrap_or(0)
    }

    /// `true`, `yes`, `1` or `false`, `no`, `0`, in any case. Unset counts as false.
    pub fn switch(&mut self, variable: &'static str) -> bool {
        match self.values.text(variable).unwrap_or("false").to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => true,
            "false" | "no" | "0" => false,
            _ => {
                self.problem(variable, "neither true nor false", "Use true (yes, 1) or false (no, 0)");
                false
            }
        }
    }

    /// A comma-separated list without its empty entries.
    #[must_use]
    pub fn list(&self, variable: &'static str) -> Vec<String> {
        let entries = self.values.text(variable).unwrap_or_default().split(',');
        entries.map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    /// Comma-separated IP addresses.
    pub fn addresses(&mut self, variable: &'static str) -> Vec<IpAddr> {
        let entries = self.list(variable);
        let mut addresses = Vec::with_capacity(entries.len());
        for entry in &entries {
            match entry.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => self.problem(
                    variable,
                    format!("{entry:?} is not an IP address"),
                    "Use addresses of this machine such as 127.0.0.1, 0.0.0.0 or ::",
                ),
            }
        }
        addresses
    }

    /// One of these words, in any case; the first one on a problem.
    pub fn word<T: Copy>(&mut self, variable: &'static str, words: &[(&str, T)]) -> T {
        let text = self.values.text(variable).unwrap_or_default().to_ascii_lowercase();
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.unwrap_or_else(|| {
            let allowed: Vec<_> = words.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
            self.problem(variable, "unknown value", format!("Use one of: {}", allowed.join(", ")));
            words[0].1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn issuers_are_not_shown_since_they_may_hold_secrets() {
        let values = Values::default().with("JWT_ISSUERS", r#"[{"secret":"hunter2","sceret":"a"}]"#);
        let problems = Config::validate(&values).expect_err("a member that there isn't");
        let shown: String = problems.iter().map(ToString::to_string).collect();
        assert!(shown.contains("JWT_ISSUERS=(not shown)") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_login_is_left_out_of_a_value_that_is_shown() {
        for (value, shown) in [
            ("http://user:hunter2@auth.example/check", "http://…@auth.example/check"),
            ("ftp://user@auth.example", "ftp://…@auth.example"),
            ("user:hunter2@schemas:8081", "…@schemas:8081"),
            ("http://user:hun\"ter 2@x@host", "http://…@host"),
            (r#"[{"url":"http://user:hunter2@a"},{"mail":"a@b"}]"#, r#"[{"url":"http://…@a"},{"mail":"a@b"}]"#),
            ("/run/app@2/keys.json", "/run/app@2/keys.json"),
            ("http://host:80/", "http://host:80/"),
        ] {
            assert_eq!(without_logins(value), shown, "{value}");
        }
        let value = Some(format!("http://{}:hunter2@host", "u".repeat(95)));
        let long = Problem { variable: "JWT_JWKS", value, wrong: String::new(), remedy: String::new() };
        assert!(!long.to_string().contains('u'), "{long}");
    }
}
