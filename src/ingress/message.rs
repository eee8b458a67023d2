//! What the headers of a Kafka message say about the event in it.

use tidegate_shards::event::{KafkaMode, kafka_mode};

/// The parts of the headers that decide what to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    /// How to read the value.
    pub(super) mode: KafkaMode,
    /// `content-type`.
    pub(super) content_type: Option<&'a str>,
    /// The event's type, if it is in a header: `ce_type`, in 0.1 `ce_eventType`.
    pub(super) event_type: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// A message without headers.
    pub(super) const STRUCTURED: Self = Self { mode: KafkaMode::Structured, content_type: None, event_type: None };

    /// Reads the headers; their names are taken in any case.
    pub(super) fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let (mut content_type, mut event_type, mut has_version) = (None, None, false);
        for (name, value) in headers {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("content-type") || is("content_type") || is("contenttype") {
                content_type = content_type.or(std::str::from_utf8(value).ok());
            } else if is("ce_type") || is("ce_eventtype") {
                event_type = event_type.or(std::str::from_utf8(value).ok());
            } else if is("ce_specversion") || is("ce_cloudeventsversion") {
                has_version = true;
            }
        }
        Self { mode: kafka_mode(content_type, has_version), content_type, event_type }
    }

    /// Is the value in Avro, which this version can't read?
    pub(super) fn is_avro(&self) -> bool {
        self.content_type.is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("avro/binary"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Envelope<'static> {
        Envelope::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn without_headers_the_value_is_the_event() {
        assert_eq!(read(&[]), Envelope::STRUCTURED);
    }

    #[test]
    fn a_version_header_makes_it_binary() {
        let envelope = read(&[("ce_specversion", "1.0"), ("ce_type", "greeting"), ("content-type", "text/plain")]);
        assert_eq!(envelope.mode, KafkaMode::Binary);
        assert_eq!((envelope.event_type, envelope.content_type), (Some("greeting"), Some("text/plain")));
    }

    #[test]
    fn a_structured_content_type_beats_the_other_headers() {
        let envelope =
            read(&[("ce_specversion", "1.0"), ("content-type", "application/cloudevents+json; charset=utf-8")]);
        assert_eq!(envelope.mode, KafkaMode::Structured);
    }

    #[test]
    fn the_names_of_version_0_1_count_in_any_case() {
        let envelope =
            read(&[("ce_cloudEventsVersion", "0.1"), ("ce_eventType", "greeting"), ("Content-Type", "text/plain")]);
        assert_eq!((envelope.mode, envelope.event_type), (KafkaMode::Binary, Some("greeting")));
    }

    #[test]
    fn avro_is_recognised() {
        assert!(read(&[("ce_specversion", "1.0"), ("content-type", "avro/binary")]).is_avro());
        assert!(!read(&[("content-type", "application/json")]).is_avro());
    }
}
