//! Which content mode the headers ask for.

use super::error::HttpModeError;

/// The content mode of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMode {
    /// The body is the event: [`decode_structured`](super::decode_structured).
    Structured,
    /// Attributes are in `ce-*` headers, the body is the data: [`decode_binary`](super::decode_binary).
    Binary,
    /// The body is a list of events: [`decode_batch`](super::decode_batch).
    Batch,
}

/// The content mode of a Kafka message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaMode {
    /// The value is the event: [`decode_structured`](super::decode_structured).
    Structured,
    /// Attributes are in `ce_*` headers, the value is the data: [`decode_binary`](super::decode_binary).
    Binary,
    /// The value is a list of events: [`decode_batch`](super::decode_batch).
    Batch,
}

/// Decides how to read an HTTP request.
///
/// A structured content type beats `ce-*` headers. `application/json` is structured without `ce-specversion`, and binary data with it. An
/// empty `content-type` is as if absent. `has_ce_specversion`: is there a header of that name?
///
/// # Errors
///
/// [`HttpModeError`] with status and text, for a request that has none of the three modes.
pub fn http_mode(content_type: Option<&str>, has_ce_specversion: bool) -> Result<HttpMode, HttpModeError> {
    let essence = content_type.map(essence).filter(|essence| !essence.is_empty());
    match essence {
        Some(essence) if !is_media_type(essence) => Err(HttpModeError::MalformedContentType),
        Some(essence) if is(essence, STRUCTURED) => Ok(HttpMode::Structured),
        Some(essence) if is(essence, BATCH) => Ok(HttpMode::Batch),
        Some(essence) if is_cloudevents(essence) => Err(HttpModeError::UnsupportedFormat),
        _ if has_ce_specversion => Ok(HttpMode::Binary),
        Some(essence) if is(essence, JSON) => Ok(HttpMode::Structured),
        _ => Err(HttpModeError::MissingSpecVersion),
    }
}

/// Decides how to read a Kafka message: structured unless its headers say otherwise.
///
/// `has_ce_version`: is there a header `ce_specversion` or `ce_cloudEventsVersion`? Other `ce_*` headers do not make a message
/// binary; RIG itself puts `ce_contenttype` on structured ones.
#[must_use]
pub fn kafka_mode(content_type: Option<&str>, has_ce_version: bool) -> KafkaMode {
    match content_type.map(essence) {
        Some(essence) if is(essence, STRUCTURED) => KafkaMode::Structured,
        Some(essence) if is(essence, BATCH) => KafkaMode::Batch,
        _ if has_ce_version => KafkaMode::Binary,
        _ => KafkaMode::Structured,
    }
}

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";

/// Is this `application/json`, in any case and with any parameters? Types that end in `+json` are not.
pub(super) fn is_json(content_type: &str) -> bool {
    is(essence(content_type), JSON)
}

/// The media type without its parameters (RFC 9110, section 8.3.1).
fn essence(content_type: &str) -> &str {
    content_type.split_once(';').map_or(content_type, |(essence, _)| essence).trim_matches([' ', '\t'])
}

fn is(essence: &str, media_type: &str) -> bool {
    essence.eq_ignore_ascii_case(media_type)
}

fn is_cloudevents(essence: &str) -> bool {
    const PREFIX: &[u8] = b"application/cloudevents";
    let Some((prefix, rest)) = essence.as_bytes().split_at_checked(PREFIX.len()) else { return false };
    let rest = if rest.get(..6).is_some_and(|batch| batch.eq_ignore_ascii_case(b"-batch")) { &rest[6..] } else { rest };
    prefix.eq_ignore_ascii_case(PREFIX) && matches!(rest.first(), None | Some(b'+'))
}

/// `type "/" subtype`, both tokens (RFC 9110, section 5.6.2).
fn is_media_type(essence: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structured_content_type_beats_the_headers() {
        for content_type in ["application/cloudevents+json", "Application/CloudEvents+JSON ; charset=utf-8"] {
            assert_eq!(http_mode(Some(content_type), false), Ok(HttpMode::Structured));
            assert_eq!(http_mode(Some(content_type), true), Ok(HttpMode::Structured));
        }
        assert_eq!(http_mode(Some("application/cloudevents-batch+json"), true), Ok(HttpMode::Batch));
    }

    #[test]
    fn plain_json_is_structured_unless_a_header_says_binary() {
        assert_eq!(http_mode(Some("application/json;charset=utf-8"), false), Ok(HttpMode::Structured));
        assert_eq!(http_mode(Some("application/json"), true), Ok(HttpMode::Binary));
    }

    #[test]
    fn any_other_content_type_needs_the_binary_header() {
        for content_type in [Some("text/plain"), Some("application/vnd.api+json"), Some(""), None] {
            assert_eq!(http_mode(content_type, true), Ok(HttpMode::Binary), "{content_type:?}");
            let refused = http_mode(content_type, false).expect_err("no mode");
            assert_eq!(refused.http_status(), 400);
            let text = refused.to_string();
            assert!(
                text.starts_with("Your request looks like it's using the CloudEvents binary content mode"),
                "{text}"
            );
        }
    }

    #[test]
    fn another_format_of_cloudevents_is_an_unsupported_media_type() {
        for content_type in
            ["application/cloudevents+xml", "application/cloudevents", "application/cloudevents-batch+avro"]
        {
            for has_ce_specversion in [false, true] {
                let refused = http_mode(Some(content_type), has_ce_specversion).expect_err("no mode");
                assert_eq!((refused, refused.http_status()), (HttpModeError::UnsupportedFormat, 415), "{content_type}");
            }
        }
        assert_eq!(http_mode(Some("application/cloudeventsfoo"), true), Ok(HttpMode::Binary));
    }

    #[test]
    fn a_content_type_that_is_none_is_refused() {
        for content_type in ["nonsense", "/", "a/", "text/plain, application/json", "a/b/c", "té/x"] {
            for has_ce_specversion in [false, true] {
                let refused = http_mode(Some(content_type), has_ce_specversion);
                assert_eq!(refused, Err(HttpModeError::MalformedContentType), "{content_type}");
            }
        }
        assert_eq!(HttpModeError::MalformedContentType.http_status(), 400);
    }

    #[test]
    fn a_kafka_message_is_structured_unless_its_headers_say_otherwise() {
        assert_eq!(kafka_mode(None, false), KafkaMode::Structured);
        assert_eq!(kafka_mode(Some("text/plain"), false), KafkaMode::Structured);
        assert_eq!(kafka_mode(Some("application/json"), true), KafkaMode::Binary);
        assert_eq!(kafka_mode(None, true), KafkaMode::Binary);
        assert_eq!(kafka_mode(Some("application/cloudevents+json; charset=UTF-8"), true), KafkaMode::Structured);
        assert_eq!(kafka_mode(Some("application/cloudevents-batch+json"), false), KafkaMode::Batch);
    }
}
