//! `POST /v3/messages`: publishing by backends, without a submission check.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use tidegate_shards::event::{EventError, HttpModeError};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::publication::{self, Publication, Refused};
use tidegate_shards::submit::{EventSink, Submission, SubmitError};

/// Why a call is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request itself is bad, in the form that all calls of the internal port share.
    BadRequest(StatusCode),
    /// What was sent is no event: status and text.
    NotAnEvent(StatusCode, String),
    /// The hub didn't take it.
    NotTaken(SubmitError),
}

/// Turns a request into events for the hub; refusals take the internal port's form.
pub(super) fn read(headers: &HeaderMap, body: Bytes, max_body_bytes: usize) -> Result<Publication, Refusal> {
    publication::read(headers, body, &Extractors::default(), max_body_bytes).map_err(|refused| match &refused {
        Refused::ContentType => Refusal::BadRequest(StatusCode::BAD_REQUEST),
        Refused::Mode(HttpModeError::MissingSpecVersion)
            if headers.keys().any(|name| name.as_str().starts_with("ce-")) =>
        {
            Refusal::NotAnEvent(StatusCode::BAD_REQUEST, refused.to_string())
        }
        Refused::Mode(_) => Refusal::BadRequest(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Refused::Event(EventError::BodyTooLarge { .. }) => Refusal::BadRequest(StatusCode::PAYLOAD_TOO_LARGE),
        Refused::Event(EventError::NotJson { .. } | EventError::NotUtf8 { .. }) => {
            Refusal::BadRequest(StatusCode::BAD_REQUEST)
        }
        Refused::Event(_) => {
            let status = StatusCode::from_u16(refused.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            Refusal::NotAnEvent(status, refused.to_string())
        }
    })
}

/// Hands the events to the hub and waits for its answer.
pub(super) async fn submit(sink: &Arc<dyn EventSink>, events: Vec<Submission>) -> Result<(), Refusal> {
    let answer = sink.submit(events).await;
    answer.unwrap_or(Err(SubmitError::ShuttingDown)).map_err(Refusal::NotTaken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    fn read_text(pairs: &[(&'static str, &'static str)], body: &'static str) -> Result<Publication, Refusal> {
        read(&headers(pairs), Bytes::from_static(body.as_bytes()), 1_000)
    }

    const EVENT: &str = r#"{"specversion":"0.2","type":"greeting","id":"1","source":"/","subject":"s","n":1.50}"#;

    #[test]
    fn what_is_no_event_is_refused_with_its_reason() {
        let json = [("content-type", "application/json")];
        for body in ["[]", "null", "5", "\"x\"", "{\"specversion\":\"1.0\"}"] {
            let refusal = read_text(&json, body).expect_err("no event");
            assert!(
                matches!(refusal, Refusal::NotAnEvent(StatusCode::BAD_REQUEST, ref text) if !text.is_empty()),
                "{body}"
            );
        }
        for body in ["", "{\"specversion\":\"1.0\"} garbage"] {
            assert_eq!(
                read_text(&json, body).expect_err("no JSON"),
                Refusal::BadRequest(StatusCode::BAD_REQUEST),
                "{body}"
            );
        }
    }

    #[test]
    fn too_large_is_413_and_a_foreign_format_415() {
        let large = Bytes::from(vec![b' '; 1_001]);
        let refusal = read(&headers(&[("content-type", "application/json")]), large, 1_000);
        assert_eq!(refusal.expect_err("too large"), Refusal::BadRequest(StatusCode::PAYLOAD_TOO_LARGE));
        for content_type in ["application/cloudevents+xml", "text/plain", "nonsense"] {
            let refusal = read_text(&[("content-type", content_type)], EVENT).expect_err("a foreign format");
            assert_eq!(refusal, Refusal::BadRequest(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{content_type}");
        }
    }
}
