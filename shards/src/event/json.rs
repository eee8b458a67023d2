//! Strict JSON (RFC 8259), proven to the last byte in one pass.
//!
//! Beyond the grammar, a string must be able to stand as text: `\u` escapes of surrogates come in pairs.

use super::{error::EventError, scan};

/// Levels that the validator follows at most, whatever the limit says: it recurses.
const MAX_SUPPORTED_DEPTH: usize = 512;

/// Proves that `bytes` are UTF-8 and exactly one JSON text, with white space around it at most, nested at most `max_depth` levels
/// (a scalar has none; at most 512 whatever is asked for).
///
/// # Errors
///
/// [`EventError::NotUtf8`], [`EventError::NotJson`] or [`EventError::TooDeep`], each with its byte offset.
pub(super) fn validate(bytes: &[u8], max_depth: usize) -> Result<(), EventError> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(EventError::NotUtf8 { offset: error.valid_up_to() });
    }
    let mut validator = Validator { bytes, pos: 0, max_depth: max_depth.min(MAX_SUPPORTED_DEPTH) };
    validator.whitespace();
    validator.value(0)?;
    validator.whitespace();
    if validator.pos < bytes.len() {
        return Err(validator.problem("expected nothing more after the value"));
    }
    Ok(())
}

struct Validator<'a> {
    bytes: &'a [u8],
    pos: usize,
    max_depth: usize,
}

impl Validator<'_> {
    #[cold]
    fn problem(&self, problem: &'static str) -> EventError {
        let problem = if self.pos >= self.bytes.len() { "the text ends too early" } else { problem };
        EventError::NotJson { offset: self.pos.min(self.bytes.len()), problem }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    #[inline]
    fn whitespace(&mut self) {
        self.pos = scan::skip_whitespace(self.bytes, self.pos);
    }

    fn value(&mut self, depth: usize) -> Result<(), EventError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.object(self.enter(depth)?),
            Some(b'[') => self.list(self.enter(depth)?),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err(self.problem("expected a value")),
        }
    }

    fn enter(&self, depth: usize) -> Result<usize, EventError> {
        if depth < self.max_depth {
            Ok(depth + 1)
        } else {
            Err(EventError::TooDeep { offset: self.pos, max_depth: self.max_depth })
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), EventError> {
        self.pos += 1;
        self.whitespace();
        if self.peek() == Some(b'}') {
            self.pos += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.problem("expected a key in double quotes"));
            }
            self.string()?;
            self.whitespace();
            if self.peek() != Some(b':') {
                return Err(self.problem("expected ':' after the key"));
            }
            self.pos += 1;
            self.whitespace();
            self.value(depth)?;
            self.whitespace();
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b'}') => {
                    self.pos += 1;
                    return Ok(());
                }
                _ => return Err(self.problem("expected ',' or '}' after the value")),
            }
            self.whitespace();
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), EventError> {
        self.pos += 1;
        self.whitespace();
        if self.peek() == Some(b']') {
            self.pos += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.whitespace();
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b']') => {
                    self.pos += 1;
                    return Ok(());
                }
                _ => return Err(self.problem("expected ',' or ']' after the value")),
            }
            self.whitespace();
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), EventError> {
        if !self.bytes[self.pos..].starts_with(literal) {
            return Err(self.problem("expected a value"));
        }
        self.pos += literal.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), EventError> {
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        if self.peek() == Some(b'0') {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), EventError> {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.peek() {
            self.pos += 1;
        }
        if self.pos == start { Err(self.problem("expected a digit")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<(), EventError> {
        self.pos += 1;
        loop {
            self.pos = scan::string_special(self.bytes, self.pos).unwrap_or(self.bytes.len());
            match self.peek() {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.problem("a control character in a string must be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), EventError> {
        self.pos += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.pos += 1;
                Ok(())
            }
            Some(b'u') => self.unicode_escape(),
            _ => Err(self.problem("unknown escape")),
        }
    }

    /// At the `u` of an escape.
    fn unicode_escape(&mut self) -> Result<(), EventError> {
        let start = self.pos;
        let unit = self.hex_unit()?;
        let paired = match unit {
            0xd800..=0xdbff => {
                self.bytes[self.pos..].starts_with(b"\\u") && {
                    self.pos += 1;
                    (0xdc00..=0xdfff).contains(&self.hex_unit()?)
                }
            }
            0xdc00..=0xdfff => false,
            _ => true,
        };
        if paired {
            return Ok(());
        }
        self.pos = start;
        Err(self.problem("half a surrogate pair is no character"))
    }

    fn hex_unit(&mut self) -> Result<u16, EventError> {
        let mut unit = 0;
        for _ in 0..4 {
            self.pos += 1;
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let digit = digit.ok_or_else(|| self.problem("expected four hexadecimal digits"))?;
            unit = unit << 4 | digit as u16;
        }
        self.pos += 1;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        validate(text, 128).is_ok()
    }

    fn serde_accepts(text: &[u8]) -> bool {
        serde_json::from_slice::<Value>(text).is_ok()
    }

    #[test]
    fn an_error_tells_the_byte() {
        let offset_of = |text: &str| match validate(text.as_bytes(), 128) {
            Err(EventError::NotJson { offset, .. }) => offset,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(offset_of(r#"{"a":1}garbage"#), 7);
        assert_eq!(offset_of(r#"{"a":"v"}}"#), 9);
        assert_eq!(offset_of(r#"{"a" 1}"#), 5);
        assert_eq!(offset_of(r#"{"a":01}"#), 6);
        assert_eq!(offset_of(r#"["\ud800"]"#), 3);
        assert_eq!(offset_of(r#"{"a":"trunc"#), 11);
        assert_eq!(offset_of(""), 0);
    }

    #[test]
    fn bytes_that_are_no_characters_are_refused_wherever_they_stand() {
        let text = b"{\"a\":\"\xff\"}";
        assert_eq!(validate(text, 128), Err(EventError::NotUtf8 { offset: 6 }));
        assert_eq!(validate(b"{}\xc3", 128), Err(EventError::NotUtf8 { offset: 2 }));
    }

    #[test]
    fn the_depth_limit_counts_objects_and_lists() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(nested(128).as_bytes()));
        assert_eq!(validate(nested(129).as_bytes(), 128), Err(EventError::TooDeep { offset: 128, max_depth: 128 }));
        assert!(validate(b"1", 0).is_ok());
        assert!(validate(b"{}", 0).is_err());
    }

    #[test]
    fn a_million_brackets_do_not_exhaust_the_stack() {
        let text = r#"{"a":["#.repeat(1_000_000);
        assert!(matches!(validate(text.as_bytes(), usize::MAX), Err(EventError::TooDeep { max_depth: 512, .. })));
    }

    #[test]
    fn odd_texts_are_judged_as_the_rfc_does() {
        for text in [
            "null",
            " 5 ",
            "-0",
            "0.5e-7",
            "1E+2",
            "\"\"",
            r#""\ud83d\ude00""#,
            r#""\u0000\/""#,
            "[ ]",
            "{ }",
            "123456789012345678901234567890",
            "1e9999",
            "\"\u{2028}\u{7f}\"",
        ] {
            assert!(accepts(text.as_bytes()), "{text}");
            assert!(serde_accepts(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            " ",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "00",
            "-01",
            "[1,]",
            "{,}",
            r#"{"a":1,}"#,
            "[1 2]",
            "{1:2}",
            "nul",
            "True",
            "'a'",
            "\"\t\"",
            "\"\u{0}\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u12"#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            r#""\ud800x""#,
            "\u{feff}{}",
            "[1]\u{0}",
            "\u{a0}1",
            "\u{c}1",
            "//\n1",
            "NaN",
            "[",
            "\"abc",
            "{\"a\":",
        ] {
            assert!(!accepts(text.as_bytes()), "{text}");
            assert!(!serde_accepts(text.as_bytes()), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        scalar.prop_recursive(12, 64, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_text_is_accepted(value in any_json()) {
            prop_assert!(accepts(value.to_string().as_bytes()));
            prop_assert!(accepts(serde_json::to_string_pretty(&value).expect("value").as_bytes()));
        }

        #[test]
        fn a_text_with_one_byte_changed_is_judged_as_serde_json_does(value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            prop_assert_eq!(accepts(&text), serde_accepts(&text), "{}", String::from_utf8_lossy(&text));
        }

        #[test]
        fn a_truncated_text_is_judged_as_serde_json_does(value in any_json(), at in any::<prop::sample::Index>()) {
            let text = value.to_string().into_bytes();
            let text = &text[..at.index(text.len())];
            prop_assert_eq!(accepts(text), serde_accepts(text));
        }

        #[test]
        fn soup_of_json_characters_is_judged_as_serde_json_does(text in r#"[\[\]{},:"\\0-2eE.+\-utrfalsend8c \n]{0,24}"#) {
            prop_assert_eq!(accepts(text.as_bytes()), serde_accepts(text.as_bytes()));
        }

        #[test]
        fn strings_with_escapes_are_judged_as_serde_json_does(text in r#"(\\u[dD][89abcdAC][0-9a-f]{2}|\\[\\"/bfnrtux]|[a-c"]){0,8}"#) {
            let text = format!("\"{text}\"");
            prop_assert_eq!(accepts(text.as_bytes()), serde_accepts(text.as_bytes()), "{}", text);
        }
    }
}
