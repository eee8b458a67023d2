//! JSON Pointers (RFC 6901): where in an event, or in a token's claims, a field is found.

use serde_json::{Map, Value};

/// A parsed JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPointer {
    tokens: Box<[Box<str>]>,
}

/// Why a text is not a JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// A pointer is empty (the whole document) or starts with `/` (RFC 6901, section 3).
    #[error("the JSON pointer {0:?} does not start with '/'")]
    NoLeadingSlash(String),
    /// `~` stands only in `~0` (for `~`) and `~1` (for `/`).
    #[error("the JSON pointer {0:?} has a '~' that is not followed by 0 or 1")]
    BadEscape(String),
}

impl JsonPointer {
    /// Parses the text form of a pointer. The empty text points to the whole document.
    ///
    /// # Errors
    /// If the text breaks the grammar of RFC 6901, section 3.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(JsonPointer { tokens: Box::default() });
        }
        let rest = text.strip_prefix('/').ok_or_else(|| PointerError::NoLeadingSlash(text.to_owned()))?;
        let tokens = rest.split('/').map(unescape).collect::<Option<_>>();
        tokens.map(|tokens| JsonPointer { tokens }).ok_or_else(|| PointerError::BadEscape(text.to_owned()))
    }

    /// The reference tokens with their escapes decoded, from the root down. Empty: the whole document.
    pub fn tokens(&self) -> &[Box<str>] {
        &self.tokens
    }

    /// What the pointer finds in `document`; `None` if a member or element is absent, or a scalar is in the way.
    pub fn resolve<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.tokens.iter().try_fold(document, |value, token| step(value, token))
    }
}

impl JsonPointer {
    /// What the pointer finds below these members; `None` for the whole, and where [`Self::resolve`] finds nothing.
    pub fn resolve_in<'v>(&self, members: &'v Map<String, Value>) -> Option<&'v Value> {
        let (first, rest) = self.tokens.split_first()?;
        rest.iter().try_fold(members.get(&**first)?, |value, token| step(value, token))
    }
}

/// One reference token further down.
fn step<'v>(value: &'v Value, token: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(token),
        Value::Array(elements) => elements.get(array_index(token)?),
        _ => None,
    }
}

/// The element that a token names in an array: digits without leading zero (RFC 6901, section 4). `None` for
/// anything else, `-` included, as that element never exists.
pub fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with('0');
    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { token.parse().ok() } else { None }
}

fn unescape(token: &str) -> Option<Box<str>> {
    let mut parts = token.split('~');
    let mut decoded = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let (character, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        decoded.push(character);
        decoded.push_str(rest);
    }
    Some(decoded.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokens(text: &str) -> Vec<String> {
        JsonPointer::parse(text).expect(text).tokens().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_empty_text_points_to_the_whole_document() {
        assert!(tokens("").is_empty());
        assert_eq!(JsonPointer::parse("").unwrap().resolve(&json!(5)), Some(&json!(5)));
    }

    #[test]
    fn escapes_are_decoded_once_and_from_left_to_right() {
        assert_eq!(tokens("/a~1b/m~0n/~01/"), ["a/b", "m~n", "~1", ""]);
        assert_eq!(tokens("/"), [""]);
        assert_eq!(tokens("/~0~0~1"), ["~~/"]);
    }

    #[test]
    fn every_example_of_the_rfc_finds_its_value() {
        let document = json!({"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
            "k\"l": 6, " ": 7, "m~n": 8});
        for (text, expected) in [
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/e^f", json!(3)),
            ("/g|h", json!(4)),
            ("/i\\j", json!(5)),
            ("/k\"l", json!(6)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ] {
            assert_eq!(JsonPointer::parse(text).unwrap().resolve(&document), Some(&expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_pointer_is_refused_with_its_reason() {
        assert_eq!(JsonPointer::parse("data/x"), Err(PointerError::NoLeadingSlash("data/x".into())));
        for text in ["/~", "/a~2", "/a/~b", "/~~0"] {
            assert_eq!(JsonPointer::parse(text), Err(PointerError::BadEscape(text.into())));
        }
    }

    #[test]
    fn absent_members_scalars_in_the_way_and_bad_indices_find_nothing() {
        let document = json!({"list": [1], "text": "x"});
        for text in ["/none", "/text/x", "/text/0", "/list/1", "/list/00", "/list/-", "/list/+0", "/list/", "/list/x"] {
            assert_eq!(JsonPointer::parse(text).unwrap().resolve(&document), None, "{text}");
        }
        assert_eq!(array_index("99999999999999999999999999"), None);
    }
}
