//! Reads the profile files: sysctl.d(5), limits.conf(5) and systemd units (systemd.syntax(7)), as far as the profiles use
//! them. The comment lines directly above a setting say what it buys.

/// One setting of a profile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value, blanks between several numbers reduced to one.
    pub value: String,
    /// What it buys; empty if the profile does not say.
    pub buys: String,
    /// Whether machines without it are in order (a leading `-` in sysctl.d).
    pub optional: bool,
}

/// A line that is neither a comment nor a setting.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} of the profile is no setting: {text:?}; expected {expected}")]
pub struct ProfileError {
    /// Its number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What would be one.
    pub expected: &'static str,
}

/// Reads lines `key = value`.
///
/// # Errors
/// The first line that is none.
pub fn sysctl(text: &str) -> Result<Vec<Setting>, ProfileError> {
    settings(text, "key = value", |line| {
        let (key, value) = pair(line)?;
        let optional = key.starts_with('-');
        Some((key.trim_start_matches('-'), value, optional))
    })
}

/// Reads lines `domain type item value`; the item becomes the key.
///
/// # Errors
/// The first line that is none.
pub fn limits(text: &str) -> Result<Vec<Setting>, ProfileError> {
    settings(text, "domain type item value", |line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        let (item, value, rest) = (words.next()?, words.next()?, words.next());
        rest.is_none().then_some((item, value, false))
    })
}

/// Reads the lines `Key=value` of all sections; a key may come more than once.
///
/// # Errors
/// The first line that is neither that nor a section.
pub fn unit(text: &str) -> Result<Vec<Setting>, ProfileError> {
    let found = settings(text, "Key=value or [Section]", |line| {
        let is_section = line.starts_with('[') && line.ends_with(']');
        if is_section { Some(("", "", false)) } else { pair(line).map(|(key, value)| (key, value, false)) }
    })?;
    Ok(found.into_iter().filter(|setting| !setting.key.is_empty()).collect())
}

fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    (!key.is_empty() && !key.contains(char::is_whitespace)).then_some((key, value))
}

fn settings<'a>(
    text: &'a str,
    expected: &'static str,
    parse: impl Fn(&'a str) -> Option<(&'a str, &'a str, bool)>,
) -> Result<Vec<Setting>, ProfileError> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            comment.clear();
        } else if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else {
            let (key, value, optional) =
                parse(line).ok_or_else(|| ProfileError { line: index + 1, text: line.to_owned(), expected })?;
            let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            found.push(Setting { key: key.to_owned(), value, buys: comment.join(" "), optional });
            comment.clear();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str, buys: &str, optional: bool) -> Setting {
        Setting { key: key.to_owned(), value: value.to_owned(), buys: buys.to_owned(), optional }
    }

    #[test]
    fn a_setting_has_the_comment_lines_directly_above_it_as_its_reason() {
        let text = "# About the file.\n\n# Room for\n# many.\na.b = 4 \t 5\n-c.d=1\n";
        assert_eq!(
            sysctl(text),
            Ok(vec![setting("a.b", "4 5", "Room for many.", false), setting("c.d", "1", "", true)])
        );
    }

    #[test]
    fn limits_are_read_by_item() {
        let text = "# domain type item value\n\n# Files.\ntidegate  -  nofile  1048576\n";
        assert_eq!(limits(text), Ok(vec![setting("nofile", "1048576", "Files.", false)]));
    }

    #[test]
    fn units_are_read_without_their_sections_and_keep_repeated_keys() {
        let text = "[Unit]\n# Why.\nAfter=a b\n[Service]\nA=1\nA=~2=3\nEmpty=\n";
        let expected = [("After", "a b", "Why."), ("A", "1", ""), ("A", "~2=3", ""), ("Empty", "", "")];
        assert_eq!(unit(text), Ok(expected.map(|(key, value, buys)| setting(key, value, buys, false)).to_vec()));
    }

    #[test]
    fn a_line_that_is_no_setting_is_refused_with_its_number() {
        for (parsed, line) in
            [(sysctl("a = 1\nb"), 2), (sysctl("= 1"), 1), (limits("# x\na - b"), 2), (unit("\n\nx"), 3)]
        {
            assert_eq!(parsed.unwrap_err().line, line);
        }
        assert!(limits("a - b 1 2").unwrap_err().to_string().contains("domain type item value"));
    }
}
