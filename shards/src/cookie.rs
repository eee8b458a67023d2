//! The two cookies of long polling: `connection_token`, and `last_event_id` as a JSON string.
//!
//! The contract writes `last_event_id="first_event"` with the quotes of the JSON string. Everything in an id that a cookie
//! can't carry (RFC 6265 §4.1.1) is written as a `\u` escape of JSON, so that any id survives the way to the client and back.

use std::borrow::Cow;
use std::fmt::Write;

use percent_encoding::percent_decode;

/// The id before any event: everything buffered comes after it.
pub const FIRST_EVENT: &str = "first_event";

const CONNECTION_TOKEN: &str = "connection_token";
const LAST_EVENT_ID: &str = "last_event_id";
const CURSOR: &str = "tidegate_cursor";
const ATTRIBUTES: &str = "; path=/; HttpOnly";

/// What a long-polling client brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollCookies<'a> {
    /// `connection_token`, percent-decoded; absent on the first call.
    pub connection_token: Option<Cow<'a, str>>,
    /// `last_event_id`; [`FIRST_EVENT`] where it is absent or not a JSON string.
    pub last_event_id: Cow<'a, str>,
}

impl<'a> PollCookies<'a> {
    /// Reads the values of all `cookie` header fields of a request. Of a repeated cookie the first counts; what is not a
    /// cookie is skipped. Values may be percent-encoded.
    pub fn parse(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut token = None;
        let mut last_event_id = None;
        for (name, value) in fields.into_iter().filter_map(|field| std::str::from_utf8(field).ok()).flat_map(pairs) {
            match name {
                CONNECTION_TOKEN if token.is_none() => token = Some(value),
                LAST_EVENT_ID if last_event_id.is_none() => last_event_id = Some(value),
                _ => {}
            }
        }
        Self {
            connection_token: token
                .map(unquoted)
                .filter(|value| !value.is_empty())
                .map(|value| percent_decode(value.as_bytes()).decode_utf8().unwrap_or(Cow::Borrowed(value))),
            last_event_id: last_event_id.and_then(decode_id).unwrap_or(Cow::Borrowed(FIRST_EVENT)),
        }
    }
}

/// Names and values of one `cookie` field (RFC 6265 §4.2.1); quotes are part of the value.
fn pairs(field: &str) -> impl Iterator<Item = (&str, &str)> {
    field.split(';').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}

fn decode_id(value: &str) -> Option<Cow<'_, str>> {
    if let Ok(id) = serde_json::from_str::<String>(value) {
        return Some(Cow::Owned(id));
    }
    let decoded = percent_decode(value.as_bytes()).decode_utf8().ok()?;
    serde_json::from_str::<String>(&decoded).ok().map(Cow::Owned)
}

/// The cursor that a long-polling client brings along, if it was given one.
#[must_use]
pub fn cursor<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a str> {
    let fields = fields.into_iter().filter_map(|field| std::str::from_utf8(field).ok());
    let found = fields.flat_map(pairs).find_map(|(name, value)| (name == CURSOR).then_some(unquoted(value)));
    found.filter(|value| !value.is_empty())
}

/// The `set-cookie` value that carries a cursor.
#[must_use]
pub fn set_cursor(cursor: &str) -> String {
    format!("{CURSOR}={cursor}{ATTRIBUTES}")
}

/// The `set-cookie` value that carries the session's token.
#[must_use]
pub fn set_connection_token(token: &str) -> String {
    format!("{CONNECTION_TOKEN}={token}{ATTRIBUTES}")
}

/// The `set-cookie` value that carries the newest id; any text will do as `id`.
#[must_use]
pub fn set_last_event_id(id: &str) -> String {
    let mut cookie = String::with_capacity(LAST_EVENT_ID.len() + ATTRIBUTES.len() + id.len() + 3);
    cookie.push_str(LAST_EVENT_ID);
    cookie.push_str("=\"");
    for character in id.chars() {
        if is_safe(character) {
            cookie.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(cookie, "\\u{unit:04x}").expect("invariant: a String takes every text");
            }
        }
    }
    cookie.push('"');
    cookie.push_str(ATTRIBUTES);
    cookie
}

/// The octets of `cookie-octet`, without the percent sign, which some clients would decode.
fn is_safe(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '"' | ',' | ';' | '\\' | '%')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(field: &str) -> PollCookies<'_> {
        PollCookies::parse([field.as_bytes()])
    }

    fn id_sent_back(id: &str) -> String {
        let cookie = set_last_event_id(id);
        let pair = cookie.strip_suffix(ATTRIBUTES).unwrap();
        parse(pair).last_event_id.into_owned()
    }

    #[test]
    fn the_cookies_are_written_as_the_contract_says() {
        assert_eq!(set_connection_token("abc"), "connection_token=abc; path=/; HttpOnly");
        assert_eq!(set_last_event_id(FIRST_EVENT), "last_event_id=\"first_event\"; path=/; HttpOnly");
    }

    #[test]
    fn both_cookies_are_found_among_others_and_in_several_fields() {
        let cookies = parse("a=b; connection_token=abc; last_event_id=\"5\"; c=d=e");
        assert_eq!((cookies.connection_token.as_deref(), &*cookies.last_event_id), (Some("abc"), "5"));
        let fields = [&b"x"[..], b"last_event_id=\"6\"", b"\xff=1", b"connection_token=t"];
        let cookies = PollCookies::parse(fields);
        assert_eq!((cookies.connection_token.as_deref(), &*cookies.last_event_id), (Some("t"), "6"));
    }

    #[test]
    fn a_token_may_be_quoted_or_percent_encoded_and_an_empty_one_is_absent() {
        assert_eq!(parse("connection_token=\"ab\"").connection_token.as_deref(), Some("ab"));
        assert_eq!(parse("connection_token=ab%3D").connection_token.as_deref(), Some("ab="));
        assert_eq!(parse("connection_token=").connection_token, None);
        assert_eq!(parse("").connection_token, None);
    }

    #[test]
    fn an_id_that_is_missing_or_not_a_json_string_counts_as_the_first_event() {
        for field in [
            "",
            "last_event_id=",
            "last_event_id=abc",
            "last_event_id=null",
            "last_event_id=5",
            "last_event_id=\"a",
            "last_event_id=[\"a\"]",
            "last_event_id=%FF",
        ] {
            assert_eq!(parse(field).last_event_id, FIRST_EVENT, "{field}");
        }
    }

    #[test]
    fn a_percent_encoded_id_is_understood() {
        assert_eq!(parse("last_event_id=%22a%20b%22").last_event_id, "a b");
    }

    #[test]
    fn of_a_repeated_cookie_the_first_counts() {
        assert_eq!(parse("last_event_id=\"1\"; last_event_id=\"2\"").last_event_id, "1");
    }

    #[test]
    fn ids_with_odd_characters_come_back_unchanged() {
        for id in ["", "a;b", "a\"b", "a\\b", "a\r\nb\0", "a b, c", "100%41", "äöü 😀", "null", "5", "=", "\u{7f}"]
        {
            assert_eq!(id_sent_back(id), id, "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn every_id_comes_back_and_its_cookie_is_safe(id in any::<String>()) {
            let cookie = set_last_event_id(&id);
            prop_assert!(cookie.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(cookie.matches(';').count(), 2);
            prop_assert_eq!(id_sent_back(&id), id);
        }
    }
}
