//! Correlated answers as services send them: a Kafka message, or a call of `/v3/responses` (contract, section 4, "The
//! correlated answer"). Whatever could break the framing of an HTTP answer ends here.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::outbound::CorrelatedAnswer;
use super::request_event::CORRELATION;

/// Header that carries the status code; 200 without it.
pub const RESPONSE_CODE: &str = "rig-response-code";

/// Prefix of header names that are for the gateway and go to no client.
const OWN_PREFIX: &str = "rig-";

/// Fields that frame a message or belong to one connection (RFC 9110 section 7.6.1, RFC 9112 section 6). The gateway frames
/// its answer itself.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that a call of `/v3/responses` has for itself, and that say nothing about the answer it brings.
const OF_THE_CALL: [&str; 16] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Why an answer can't be brought to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is no correlation id.
    #[error("there is no {CORRELATION}")]
    NoCorrelation,
    /// The code is no number of three digits from 200 to 599.
    #[error("{RESPONSE_CODE} must be an integer from 200 to 599, not {0:?}")]
    Code(String),
    /// A header that HTTP has no place for.
    #[error("the header {0:?} can't stand in an HTTP answer")]
    Header(String),
    /// A structured event that isn't one.
    #[error(
        "the body must be a JSON object with rig.correlation, a text, or the call must have a header {CORRELATION}"
    )]
    Event,
}

/// The correlation id in the headers of a message, its name in any case.
pub fn correlation<'a>(mut headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<&'a [u8]> {
    headers.find(|(name, _)| name.eq_ignore_ascii_case(CORRELATION)).map(|(_, value)| value)
}

/// The answer in a Kafka message: status and headers from its headers, the body as it is.
///
/// # Errors
/// A code or a header that HTTP doesn't know.
pub fn from_message<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) -> Result<CorrelatedAnswer, AnswerError> {
    read(headers, Bytes::copy_from_slice(body), None, &[])
}

/// The answer in a call of `/v3/responses`; `code` is that of a structured event, which counts before the headers'.
///
/// # Errors
/// A code or a header that HTTP doesn't know.
pub fn from_call(headers: &HeaderMap, body: Bytes, code: Option<StatusCode>) -> Result<CorrelatedAnswer, AnswerError> {
    let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    read(fields, body, code, &OF_THE_CALL)
}

/// Correlation id and code in an event in structured mode (`/v2/responses`): `rig.correlation`, and `rig.response_code` where
/// there is one.
///
/// # Errors
/// [`AnswerError::Event`], or a bad code.
pub fn from_event(body: &[u8]) -> Result<(String, Option<StatusCode>), AnswerError> {
    let event: Value = serde_json::from_slice(body).map_err(|_| AnswerError::Event)?;
    let rig = event.get("rig").ok_or(AnswerError::Event)?;
    let correlation = rig.get("correlation").and_then(Value::as_str).ok_or(AnswerError::Event)?;
    let code = match rig.get("response_code") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(code(text.as_bytes())?),
        Some(number) => Some(code(number.to_string().as_bytes())?),
    };
    Ok((correlation.to_owned(), code))
}

fn read<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: Bytes,
    status: Option<StatusCode>,
    left_out: &[&str],
) -> Result<CorrelatedAnswer, AnswerError> {
    let mut answer = CorrelatedAnswer { status: StatusCode::OK, headers: HeaderMap::new(), body };
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        if lower == RESPONSE_CODE {
            answer.status = code(value)?;
        } else if !is_left_out(&lower, left_out) {
            let refused = |_| AnswerError::Header(name.to_owned());
            let field = HeaderName::from_bytes(lower.as_bytes()).map_err(|_| AnswerError::Header(name.to_owned()))?;
            answer.headers.append(field, HeaderValue::from_bytes(value).map_err(refused)?);
        }
    }
    if let Some(status) = status {
        answer.status = status;
    }
    if matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        answer.body = Bytes::new();
    }
    Ok(answer)
}

fn is_left_out(name: &str, left_out: &[&str]) -> bool {
    name.starts_with(OWN_PREFIX) || FRAMING.contains(&name) || left_out.contains(&name)
}

/// A status code that may end a request: 1xx may not, and what is beyond 599 is none (RFC 9110 section 15).
fn code(text: &[u8]) -> Result<StatusCode, AnswerError> {
    let bad = || AnswerError::Code(String::from_utf8_lossy(text).into_owned());
    let trimmed = text.trim_ascii();
    if trimmed.len() != 3 {
        return Err(bad());
    }
    let code = StatusCode::from_bytes(trimmed).map_err(|_| bad())?;
    if (200..=599).contains(&code.as_u16()) { Ok(code) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(headers: &[(&str, &str)], body: &str) -> Result<CorrelatedAnswer, AnswerError> {
        from_message(headers.iter().map(|(name, value)| (*name, value.as_bytes())), body.as_bytes())
    }

    #[test]
    fn status_headers_and_body_come_from_the_message_with_names_in_any_case() {
        let headers = [("RIG-Correlation", "x"), ("Rig-Response-Code", "201"), ("Content-Type", "a/b"), ("X-Own", "1")];
        let answer = answer(&headers, "body").unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.body, "body");
        assert_eq!(answer.headers.len(), 2);
        assert_eq!(answer.headers["content-type"], "a/b");
        assert_eq!(answer.headers["x-own"], "1");
        assert_eq!(correlation([("RIG-Correlation", &b"x"[..])].into_iter()), Some(&b"x"[..]));
    }

    #[test]
    fn without_a_code_the_answer_is_200_and_has_no_headers_of_its_own() {
        let answer = answer(&[], "").unwrap();
        assert_eq!((answer.status, answer.headers.len(), answer.body.len()), (StatusCode::OK, 0, 0));
    }

    #[test]
    fn codes_that_cannot_end_a_request_are_refused() {
        for bad in ["99", "0", "-1", "100", "199", "600", "abc", "", "2000", "20x", "+20", " "] {
            assert!(matches!(answer(&[(RESPONSE_CODE, bad)], ""), Err(AnswerError::Code(_))), "{bad:?}");
        }
        for good in ["200", "404", "599", " 200 "] {
            assert!(answer(&[(RESPONSE_CODE, good)], "").is_ok(), "{good:?}");
        }
    }

    #[test]
    fn what_would_split_an_answer_is_refused() {
        for (name, value) in
            [("a", "1\r\nx-bad: 1"), ("a", "1\n"), ("a", "\0"), ("a b", "1"), ("a\r\nb", "1"), ("", "1")]
        {
            assert!(matches!(answer(&[(name, value)], ""), Err(AnswerError::Header(_))), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn framing_is_the_gateways_own() {
        let headers = FRAMING.map(|name| (name, "chunked\r\n"));
        assert!(answer(&headers, "body").unwrap().headers.is_empty());
        assert!(answer(&[("Transfer-Encoding", "chunked"), ("CONTENT-LENGTH", "1")], "").unwrap().headers.is_empty());
    }

    #[test]
    fn answers_that_have_no_body_get_none() {
        for code in ["204", "205", "304"] {
            assert!(answer(&[(RESPONSE_CODE, code)], "body").unwrap().body.is_empty(), "{code}");
            let code = StatusCode::from_bytes(code.as_bytes()).ok();
            let answer = from_call(&HeaderMap::new(), Bytes::from_static(b"body"), code).unwrap();
            assert_eq!((Some(answer.status), answer.body.len()), (code, 0), "of a structured event");
        }
        let headers = HeaderMap::from_iter([(HeaderName::from_static(RESPONSE_CODE), HeaderValue::from_static("204"))]);
        let answer = from_call(&headers, Bytes::from_static(b"body"), Some(StatusCode::OK)).unwrap();
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"body"[..]), "the event's code counts");
    }

    #[test]
    fn cookies_stay_apart() {
        let answer = answer(&[("set-cookie", "a=1"), ("Set-Cookie", "b=2")], "").unwrap();
        assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    }

    #[test]
    fn a_calls_own_headers_are_not_the_answers() {
        let headers: HeaderMap = OF_THE_CALL
            .iter()
            .chain(&["content-type", "x-own"])
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v")))
            .collect();
        let answer = from_call(&headers, Bytes::new(), None).unwrap();
        let names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "x-own"]);
    }

    #[test]
    fn a_structured_event_names_its_request_in_its_body() {
        let event = r#"{"rig":{"correlation":"abc","response_code":201}}"#;
        assert_eq!(from_event(event.as_bytes()), Ok(("abc".to_owned(), Some(StatusCode::CREATED))));
        for bad in ["", "[]", "{}", r#"{"rig":5}"#, r#"{"rig":{"correlation":5}}"#, r#"{"rig":{}}"#] {
            assert_eq!(from_event(bad.as_bytes()), Err(AnswerError::Event), "{bad}");
        }
        assert!(matches!(
            from_event(br#"{"rig":{"correlation":"abc","response_code":99}}"#),
            Err(AnswerError::Code(_))
        ));
    }

    proptest! {
        #[test]
        fn no_message_gives_an_answer_that_http_cannot_carry(
            headers in proptest::collection::vec((any::<String>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..6),
        ) {
            let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            if let Ok(answer) = from_message(fields, b"body") {
                prop_assert!((200..=599).contains(&answer.status.as_u16()));
                for (name, value) in &answer.headers {
                    prop_assert!(!FRAMING.contains(&name.as_str()) && !name.as_str().starts_with(OWN_PREFIX));
                    prop_assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                }
            }
        }
    }
}
