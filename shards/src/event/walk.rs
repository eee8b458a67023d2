//! Walking over the members of an object and the elements of a list without parsing their values.
//!
//! On a text that has been validated the walks are complete. On any other they end where they no longer understand it.

use std::borrow::Cow;

use super::scan;

/// One member of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    /// The key as written, without its quotes.
    key: &'a [u8],
    key_has_escapes: bool,
    /// The value as written, without white space around it.
    pub(super) value: &'a [u8],
    /// Where the opening quote of the key stands.
    pub(super) start: usize,
    /// Where the value ends.
    pub(super) end: usize,
    /// Where the comma before this member stands; `None` for the first one.
    pub(super) comma: Option<usize>,
}

impl Member<'_> {
    /// Is this, with its escapes decoded, the member's key?
    #[inline]
    pub(super) fn is(&self, key: &str) -> bool {
        if self.key_has_escapes { unescape(self.key).is_some_and(|own| own == key) } else { self.key == key.as_bytes() }
    }

    /// The key, if it has no escapes.
    #[inline]
    pub(super) fn plain_key(&self) -> Option<&[u8]> {
        (!self.key_has_escapes).then_some(self.key)
    }

    /// The key with its escapes decoded.
    #[inline]
    pub(super) fn key(&self) -> Cow<'_, [u8]> {
        if !self.key_has_escapes {
            return Cow::Borrowed(self.key);
        }
        unescape(self.key).map_or(Cow::Borrowed(self.key), |key| Cow::Owned(key.into_bytes()))
    }
}

/// The members of an object in their order, duplicate keys included.
#[derive(Clone, Debug)]
pub(super) struct Members<'a> {
    bytes: &'a [u8],
    pos: usize,
    comma: Option<usize>,
}

impl<'a> Members<'a> {
    /// `None` if the text does not start with an object.
    #[inline]
    pub(super) fn of(text: &'a [u8]) -> Option<Self> {
        let pos = scan::skip_whitespace(text, 0);
        (text.get(pos) == Some(&b'{')).then_some(Self { bytes: text, pos: pos + 1, comma: None })
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    #[inline]
    fn next(&mut self) -> Option<Member<'a>> {
        let bytes = self.bytes;
        let start = scan::skip_whitespace(bytes, self.pos);
        if bytes.get(start) != Some(&b'"') {
            return None;
        }
        let (key_end, key_has_escapes) = scan::string_end(bytes, start + 1)?;
        let colon = scan::skip_whitespace(bytes, key_end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value_start = scan::skip_whitespace(bytes, colon + 1);
        let end = scan::value_end(bytes, value_start)?;
        let member = Member {
            key: &bytes[start + 1..key_end - 1],
            key_has_escapes,
            value: &bytes[value_start..end],
            start,
            end,
            comma: self.comma,
        };
        let next = scan::skip_whitespace(bytes, end);
        self.comma = Some(next);
        // Without a comma this was the last one: the next call must find no key.
        self.pos = if bytes.get(next) == Some(&b',') { next + 1 } else { bytes.len() };
        Some(member)
    }
}

/// The elements of a list, as written.
#[derive(Clone, Debug)]
pub(super) struct Elements<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Elements<'a> {
    /// `None` if the text does not start with a list.
    pub(super) fn of(text: &'a [u8]) -> Option<Self> {
        let pos = scan::skip_whitespace(text, 0);
        (text.get(pos) == Some(&b'[')).then_some(Self { bytes: text, pos: pos + 1 })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = scan::skip_whitespace(self.bytes, self.pos);
        let end = scan::value_end(self.bytes, start)?;
        let next = scan::skip_whitespace(self.bytes, end);
        self.pos = if self.bytes.get(next) == Some(&b',') { next + 1 } else { self.bytes.len() };
        Some(&self.bytes[start..end])
    }
}

/// The text of a JSON string, quotes included; `None` if the value is no string, or a broken one.
#[inline]
pub(super) fn text_of(value: &[u8]) -> Option<Cow<'_, str>> {
    let content = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', content).is_some() {
        unescape(content).map(Cow::Owned)
    } else {
        std::str::from_utf8(content).ok().map(Cow::Borrowed)
    }
}

/// Decodes the escapes of a string's content.
#[cold]
fn unescape(content: &[u8]) -> Option<String> {
    let quoted = [b"\"", content, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// What kind of value a JSON text is, in words.
pub(super) fn kind_of(value: &[u8]) -> &'static str {
    match value.get(scan::skip_whitespace(value, 0)) {
        Some(b'"') if value == b"\"\"" => "an empty text",
        Some(b'"') => "a text",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number",
        None => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> Vec<String> {
        let members = Members::of(text.as_bytes()).expect("an object");
        members.map(|m| String::from_utf8(m.key().into_owned()).expect("UTF-8")).collect()
    }

    #[test]
    fn members_come_in_order_with_their_values_untouched() {
        let text = br#" { "a" : 1.50 ,"b":{"x":[1,{}]} , "a":"\"" ,"\u0063":null } "#;
        let members: Vec<_> = Members::of(text).expect("an object").collect();
        let values: Vec<_> = members.iter().map(|m| std::str::from_utf8(m.value).expect("UTF-8")).collect();
        assert_eq!(values, ["1.50", r#"{"x":[1,{}]}"#, r#""\"""#, "null"]);
        assert!(members[3].is("c"));
        assert_eq!(members[0].comma, None);
        assert_eq!(members[1].comma.map(|at| text[at]), Some(b','));
        assert_eq!(&text[members[1].start..members[1].end], br#""b":{"x":[1,{}]}"#);
    }

    #[test]
    fn elements_come_in_order() {
        let elements: Vec<_> = Elements::of(b" [ 1 , [2,3],\"]\",{} ] ").expect("a list").collect();
        assert_eq!(elements, [&b"1"[..], b"[2,3]", b"\"]\"", b"{}"]);
        assert_eq!(Elements::of(b"[]").expect("a list").count(), 0);
        assert!(Elements::of(b"5").is_none());
    }

    #[test]
    fn a_walk_ends_where_the_text_breaks() {
        assert_eq!(keys(r#"{"a":1,"b""#), ["a"]);
        assert_eq!(keys(r#"{"a":1 "b":2}"#), ["a"]);
        assert_eq!(keys("{}"), [""; 0]);
    }

    #[test]
    fn text_is_decoded_only_where_it_has_escapes() {
        assert!(matches!(text_of(br#""plain""#), Some(Cow::Borrowed("plain"))));
        assert_eq!(text_of(br#""\u00e9\n""#).as_deref(), Some("é\n"));
        assert_eq!(text_of(br#""\ud800""#), None);
        assert_eq!(text_of(b"5"), None);
        assert_eq!(text_of(b"\""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"\{[ab"\\:,{}\[\] 1n]{0,80}"#) {
            for input in [&bytes[..], text.as_bytes()] {
                for member in Members::of(input).into_iter().flatten() {
                    prop_assert!(member.start < member.end && member.end <= input.len());
                }
                prop_assert!(Elements::of(input).into_iter().flatten().count() <= input.len());
            }
        }
    }
}
