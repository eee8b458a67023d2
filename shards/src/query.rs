//! The query parameters of the connection calls.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use thiserror::Error;

/// What to do with a `%` that two hexadecimal digits don't follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenEncoding {
    /// Refuse the query: event streams and WebSockets.
    Refuse,
    /// Take the characters as they are: long polling.
    Literal,
}

/// Why a query is refused (400; on a WebSocket a close with "Bad request.").
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// A `%` without two hexadecimal digits after it.
    #[error("the query has a % without two hexadecimal digits after it")]
    Encoding,
    /// Bytes that are not UTF-8 once they are decoded.
    #[error("the query is not UTF-8 once it is decoded")]
    NotUtf8,
}

/// The parameters that Tidegate knows, decoded. A parameter without value, or with an empty one, is absent; of a repeated
/// one the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionQuery<'a> {
    /// `subscriptions`: a JSON list.
    pub subscriptions: Option<Cow<'a, str>>,
    /// `jwt`: a token, without `Bearer`.
    pub jwt: Option<Cow<'a, str>>,
    /// `cursor`: `true` asks for `tidegatecursor` in every event of a WebSocket.
    pub cursor: Option<Cow<'a, str>>,
    /// `lastEventId`: the cursor to resume from.
    pub last_event_id: Option<Cow<'a, str>>,
    /// `slow`: what is to happen if the client is too slow.
    pub slow: Option<Cow<'a, str>>,
}

impl<'a> ConnectionQuery<'a> {
    /// Reads a raw query (what follows the `?`). Names are case-sensitive and may be encoded too; `+` is a space; unknown
    /// parameters are skipped, but must be well encoded.
    ///
    /// # Errors
    ///
    /// [`QueryError`] for bytes that are not UTF-8, and for broken percent-encoding where `broken` refuses it.
    pub fn parse(query: &'a str, broken: BrokenEncoding) -> Result<Self, QueryError> {
        let mut parameters = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, broken)?;
            let value = decode(value, broken)?;
            let slot = match &*name {
                "subscriptions" => &mut parameters.subscriptions,
                "jwt" => &mut parameters.jwt,
                "cursor" => &mut parameters.cursor,
                "lastEventId" => &mut parameters.last_event_id,
                "slow" => &mut parameters.slow,
                _ => continue,
            };
            *slot = (!value.is_empty()).then_some(value);
        }
        Ok(parameters)
    }

    /// Whether the client asks for a cursor in every event.
    #[must_use]
    pub fn wants_cursor(&self) -> bool {
        self.cursor.as_deref() == Some("true")
    }
}

/// Whether two hexadecimal digits follow every `%`.
pub(crate) fn is_well_encoded(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

fn decode(text: &str, broken: BrokenEncoding) -> Result<Cow<'_, str>, QueryError> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    if broken == BrokenEncoding::Refuse && !is_well_encoded(text.as_bytes()) {
        return Err(QueryError::Encoding);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().map_err(|_| QueryError::NotUtf8)?;
    Ok(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(query: &str) -> Result<ConnectionQuery<'_>, QueryError> {
        ConnectionQuery::parse(query, BrokenEncoding::Refuse)
    }

    #[test]
    fn every_known_parameter_is_decoded() {
        let query = strict("subscriptions=%5B%7B%7D%5D&jwt=a.b.c&cursor=true&lastEventId=0%3A5&x=y").unwrap();
        assert_eq!(query.subscriptions.as_deref(), Some("[{}]"));
        assert_eq!(query.jwt.as_deref(), Some("a.b.c"));
        assert_eq!(query.last_event_id.as_deref(), Some("0:5"));
        assert!(query.wants_cursor());
    }

    #[test]
    fn the_last_of_a_repeated_parameter_wins() {
        assert_eq!(strict("jwt=a&jwt=b").unwrap().jwt.as_deref(), Some("b"));
        assert_eq!(strict("jwt=a&jwt=").unwrap().jwt, None);
    }

    #[test]
    fn a_parameter_without_value_is_as_if_absent() {
        assert_eq!(strict("jwt&subscriptions=").unwrap(), ConnectionQuery::default());
        assert_eq!(strict("").unwrap(), ConnectionQuery::default());
    }

    #[test]
    fn a_plus_is_a_space_and_an_encoded_plus_is_a_plus() {
        assert_eq!(strict("jwt=a+b%2Bc").unwrap().jwt.as_deref(), Some("a b+c"));
    }

    #[test]
    fn names_are_case_sensitive_and_may_be_encoded() {
        assert_eq!(strict("JWT=a").unwrap().jwt, None);
        assert_eq!(strict("%6Awt=a").unwrap().jwt.as_deref(), Some("a"));
    }

    #[test]
    fn broken_encoding_is_refused_or_taken_literally() {
        for query in ["jwt=%zz", "jwt=%", "x=%4", "%g1=x"] {
            assert_eq!(strict(query), Err(QueryError::Encoding), "{query}");
        }
        let literal = ConnectionQuery::parse("jwt=%zz%41%", BrokenEncoding::Literal).unwrap();
        assert_eq!(literal.jwt.as_deref(), Some("%zzA%"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_in_both_modes() {
        assert_eq!(strict("jwt=%FF"), Err(QueryError::NotUtf8));
        assert_eq!(ConnectionQuery::parse("x=%FF", BrokenEncoding::Literal), Err(QueryError::NotUtf8));
    }

    #[test]
    fn only_the_first_equals_sign_separates() {
        assert_eq!(strict("jwt=a=b").unwrap().jwt.as_deref(), Some("a=b"));
    }
}
