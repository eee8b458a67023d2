//! From an HTTP request to the events it publishes; used by the inbound and the internal port.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::event::{
    BinaryTransport, Event, EventError, EventLimits, HttpMode, HttpModeError, decode_batch, decode_binary,
    decode_structured, http_mode,
};
use crate::extractor::Extractors;
use crate::submit::Submission;

/// What a request publishes, and the body of the answer once it is safe.
#[derive(Debug)]
pub struct Publication {
    /// The events, in order.
    pub submissions: Vec<Submission>,
    /// The event's text encoded once more as a JSON string; RIG's pages read it as JSON.
    pub answer: String,
}

/// Why a request publishes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `content-type` is repeated or no text.
    #[error("There must be one content-type, and it must be a media type.")]
    ContentType,
    /// The headers allow none of the content modes.
    #[error(transparent)]
    Mode(#[from] HttpModeError),
    /// The body is no CloudEvent, or too large.
    #[error("{}", .0.http_text())]
    Event(#[from] EventError),
}

impl Refused {
    /// The HTTP status that tells the sender.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::ContentType => 400,
            Self::Mode(error) => error.http_status(),
            Self::Event(error) => error.http_status(),
        }
    }
}

/// Reads a request in any of the three content modes of the CloudEvents HTTP binding (section 3).
///
/// # Errors
/// [`Refused`], which knows its status and text: no CloudEvent, a wrong content type, too large.
pub fn read(
    headers: &HeaderMap,
    body: Bytes,
    extractors: &Extractors,
    max_body_bytes: usize,
) -> Result<Publication, Refused> {
    let limits = EventLimits { max_body_bytes, ..EventLimits::default() };
    let mut content_types = headers.get_all(CONTENT_TYPE).iter();
    let content_type = match (content_types.next(), content_types.next()) {
        (None, _) => None,
        (Some(one), None) => Some(one.to_str().map_err(|_| Refused::ContentType)?),
        (Some(_), Some(_)) => return Err(Refused::ContentType),
    };
    let mode = http_mode(content_type, headers.contains_key("ce-specversion"))?;
    let events = match mode {
        HttpMode::Structured => vec![decode_structured(&body, extractors, &limits)?],
        HttpMode::Batch => decode_batch(&body, extractors, &limits)?,
        HttpMode::Binary => {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            vec![decode_binary(BinaryTransport::Http, headers, content_type, &body, extractors, &limits)?]
        }
    };
    let published = match (mode, events.as_slice()) {
        (HttpMode::Structured | HttpMode::Binary, [event]) => &*event.body,
        _ => &*body,
    };
    let answer = serde_json::Value::from(String::from_utf8_lossy(published)).to_string();
    let submissions = events.into_iter().map(|event| submission(event, &body)).collect();
    Ok(Publication { submissions, answer })
}

fn submission(event: Event<'_>, body: &Bytes) -> Submission {
    Submission {
        event_type: event.event_type.as_ref().into(),
        subject: event.subject.as_deref().map(Into::into),
        body: match event.body {
            std::borrow::Cow::Borrowed(text) => body.slice_ref(text),
            std::borrow::Cow::Owned(text) => text.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","type":"a","id":"1","source":"/","subject":"s"}"#;

    fn request(content_type: &'static str, body: &str) -> Result<Publication, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        read(&headers, Bytes::copy_from_slice(body.as_bytes()), &Extractors::default(), 1024)
    }

    #[test]
    fn a_structured_event_is_answered_with_its_text_as_a_json_string() {
        let publication = request("application/cloudevents+json", EVENT).unwrap();
        assert_eq!(publication.submissions[0].body, EVENT);
        assert_eq!(publication.submissions[0].subject.as_deref(), Some("s"));
        assert_eq!(serde_json::from_str::<String>(&publication.answer).unwrap(), EVENT);
    }

    #[test]
    fn a_batch_publishes_each_of_its_events_in_order() {
        let second = EVENT.replace("\"1\"", "\"2\"");
        let publication = request("application/cloudevents-batch+json", &format!("[{EVENT}, {second}]")).unwrap();
        let bodies: Vec<_> = publication.submissions.iter().map(|one| one.body.clone()).collect();
        assert_eq!(bodies, [EVENT, &*second]);
    }

    #[test]
    fn what_is_no_cloud_event_is_refused_with_status_and_reason() {
        assert_eq!(request("application/cloudevents+json", "[]").unwrap_err().http_status(), 400);
        assert_eq!(request("application/cloudevents+xml", EVENT).unwrap_err().http_status(), 415);
        assert_eq!(request("application/cloudevents+json", &" ".repeat(2000)).unwrap_err().http_status(), 413);
    }
}
