//! `/v3/session-blacklist` and `/v2/session-blacklist`: sessions whose connections end and whose tokens are refused for a time.

use std::fmt::Display;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::apis::{is_json, percent_decoded};
use super::router::{RETRY_AFTER_SECONDS, bad_request, json, not_found, read_body};
use crate::sessions::Blacklist;

/// Bytes of a request; a session is named in a token, which fits into a head.
const MAX_BODY_BYTES: usize = 64 << 10;
/// What a segment of a path may hold as it is (RFC 3986 section 3.3, without what some servers change).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    session: String,
    validity_s: u64,
}

/// Answers a call; `call` is its path up to `below`, which is nothing, or a slash and a session.
pub(super) async fn answer(blacklist: &Arc<Blacklist>, call: &str, below: &str, request: Request) -> Response {
    let session = match below.strip_prefix('/') {
        None if below.is_empty() => None,
        Some(session) if !session.contains('/') => match percent_decoded(session) {
            Some(session) => Some(session),
            None => return bad_request(StatusCode::BAD_REQUEST),
        },
        _ => return not_found(),
    };
    match (request.method(), session) {
        (&Method::POST, None) => post(blacklist, call, request).await,
        (&Method::GET | &Method::HEAD, Some(session)) if blacklist.contains(&session) => json(StatusCode::OK, "{}"),
        (&Method::GET | &Method::HEAD, Some(_)) => plain(StatusCode::NOT_FOUND, "Not found."),
        _ => not_found(),
    }
}

async fn post(blacklist: &Arc<Blacklist>, call: &str, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match read_body(body, MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(status) => return bad_request(status),
    };
    let members = match members(&head.headers, &body) {
        Ok(members) => members,
        Err(status) => return bad_request(status),
    };
    let Entry { session, validity_s } = match entry(&members) {
        Ok(entry) => entry,
        Err(reason) => return for_all_origins(plain(StatusCode::BAD_REQUEST, reason)),
    };
    match blacklist.list(&session, validity_s).await {
        Ok(()) => {
            let mut answer = json(StatusCode::CREATED, "{}");
            let location = format!("{call}/{}", utf8_percent_encode(&session, SEGMENT));
            if let Ok(location) = HeaderValue::from_str(&location) {
                answer.headers_mut().insert(header::LOCATION, location);
            }
            for_all_origins(answer)
        }
        Err(error) => {
            tracing::error!(%error, "a session is not blacklisted");
            let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, error);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            for_all_origins(answer)
        }
    }
}

/// The members of a body in JSON, or form-encoded. JSON that is no object has none.
fn members(headers: &HeaderMap, body: &Bytes) -> Result<Map<String, Value>, StatusCode> {
    if is_form(headers) {
        return form(body).ok_or(StatusCode::BAD_REQUEST);
    }
    if !is_json(headers) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Ok(Map::new()),
        Err(_) if body.is_empty() => Ok(Map::new()),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    let essence = types.next().and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    types.next().is_none() && essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn form(body: &[u8]) -> Option<Map<String, Value>> {
    let text = std::str::from_utf8(body).ok()?;
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        Some((decoded(name)?, Value::from(decoded(value)?)))
    });
    pairs.collect()
}

/// The entry, or RIG's words for what is wrong with it.
fn entry(members: &Map<String, Value>) -> Result<Entry, String> {
    let given = |name| members.get(name).filter(|value| !value.is_null()).ok_or(format!("Missing value for {name:?}"));
    let session = match given("sessionId")? {
        Value::String(session) if !session.is_empty() => session.clone(),
        other => return Err(format!("Expected non-empty string, got {other}")),
    };
    let validity = given("validityInSeconds")?;
    let digits = match validity {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => return Err(format!("Expected a number, got {other}")),
    };
    let magnitude = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    if magnitude.is_empty() || !magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Expected a number, got {validity}"));
    }
    // What is longer than time can be written is for ever.
    let validity_s = magnitude.parse().unwrap_or(u64::MAX);
    if digits.starts_with('-') || validity_s == 0 {
        return Err(format!("Expected a positive number, got {digits}"));
    }
    Ok(Entry { session, validity_s })
}

fn plain(status: StatusCode, text: impl Display) -> Response {
    let mut answer = text.to_string().into_response();
    *answer.status_mut() = status;
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer
}

fn for_all_origins(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(String, u64), String> {
        let Value::Object(members) = serde_json::from_str(json).unwrap() else { panic!("{json} is an object") };
        entry(&members).map(|entry| (entry.session, entry.validity_s))
    }

    #[test]
    fn a_number_or_its_digits_is_a_validity() {
        for validity in ["60", r#""60""#, r#""+60""#, r#""060""#] {
            let json = format!(r#"{{"sessionId":"a","validityInSeconds":{validity}}}"#);
            assert_eq!(read(&json), Ok(("a".to_owned(), 60)), "{json}");
        }
        let ever = format!(r#"{{"sessionId":"a","validityInSeconds":{}}}"#, "9".repeat(40));
        assert_eq!(read(&ever), Ok(("a".to_owned(), u64::MAX)));
    }

    #[test]
    fn what_is_wrong_is_said_in_rigs_words() {
        for (json, expected) in [
            ("{}", r#"Missing value for "sessionId""#),
            (r#"{"sessionId":null}"#, r#"Missing value for "sessionId""#),
            (r#"{"sessionId":""}"#, r#"Expected non-empty string, got """#),
            (r#"{"sessionId":5}"#, "Expected non-empty string, got 5"),
            (r#"{"sessionId":"a"}"#, r#"Missing value for "validityInSeconds""#),
            (r#"{"sessionId":"a","validityInSeconds":"x"}"#, r#"Expected a number, got "x""#),
            (r#"{"sessionId":"a","validityInSeconds":1.5}"#, "Expected a number, got 1.5"),
            (r#"{"sessionId":"a","validityInSeconds":"1\n"}"#, r#"Expected a number, got "1\n""#),
            (r#"{"sessionId":"a","validityInSeconds":[1]}"#, "Expected a number, got [1]"),
            (r#"{"sessionId":"a","validityInSeconds":-1}"#, "Expected a positive number, got -1"),
            (r#"{"sessionId":"a","validityInSeconds":0}"#, "Expected a positive number, got 0"),
        ] {
            assert_eq!(read(json), Err(expected.to_owned()), "{json}");
        }
    }

    #[test]
    fn a_form_has_members_too() {
        let members = form(b"sessionId=a%2Fb+c&validityInSeconds=%2B5").unwrap();
        assert_eq!(entry(&members), Ok(Entry { session: "a/b c".to_owned(), validity_s: 5 }));
        assert!(form(b"sessionId=%ff").is_none() && form(b"\xff").is_none());
    }
}
