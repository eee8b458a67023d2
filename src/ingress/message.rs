//! What the headers of a Kafka message say about the event in it.

use tidegate_shards::event::{KafkaMode, kafka_mode};

use crate::avro;

/// Content type of data in Avro.
const AVRO: &str = "avro/binary";
/// Content type of a whole event in Avro.
const STRUCTURED_AVRO: &str = "application/cloudevents+avro";

/// The parts of the headers that decide what to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    /// How to read the value.
    pub(super) mode: KafkaMode,
    /// `content-type`.
    pub(super) content_type: Option<&'a str>,
    /// The event's type, if it is in a header: `ce_type`, in 0.1 `ce_eventType`.
    pub(super) event_type: Option<&'a str>,
    /// Whether any attribute is in a header.
    pub(super) has_attributes: bool,
}

impl<'a> Envelope<'a> {
    /// A message without headers.
    pub(super) const STRUCTURED: Self =
        Self { mode: KafkaMode::Structured, content_type: None, event_type: None, has_attributes: false };

    /// Reads the headers; their names are taken in any case.
    pub(super) fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let (mut content_type, mut event_type, mut has_version, mut has_attributes) = (None, None, false, false);
        for (name, value) in headers {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            has_attributes |= name.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ce_"));
            if is("content-type") || is("content_type") || is("contenttype") {
                content_type = content_type.or(std::str::from_utf8(value).ok());
            } else if is("ce_type") || is("ce_eventtype") {
                event_type = event_type.or(std::str::from_utf8(value).ok());
            } else if is("ce_specversion") || is("ce_cloudeventsversion") {
                has_version = true;
            }
        }
        Self { mode: kafka_mode(content_type, has_version), content_type, event_type, has_attributes }
    }

    /// Is this value Avro? The content type says so, or there is none and the value begins as framed Avro does.
    pub(super) fn is_avro(&self, value: &[u8]) -> bool {
        match self.content_type {
            Some(_) => self.is_of(AVRO) || self.is_of(STRUCTURED_AVRO),
            None => avro::is_framed(value),
        }
    }

    /// Is an Avro value the whole event, and not only its data?
    pub(super) fn is_structured_avro(&self) -> bool {
        self.is_of(STRUCTURED_AVRO) || !self.has_attributes
    }

    fn is_of(&self, media_type: &str) -> bool {
        let essence = self.content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(media_type)
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
    fn avro_is_known_by_its_content_type_or_else_by_its_first_byte() {
        let framed = b"\0\0\0\0\x01x";
        for content_type in ["avro/binary", " Avro/Binary ; a=b", "application/cloudevents+avro"] {
            assert!(read(&[("ce_specversion", "1.0"), ("content-type", content_type)]).is_avro(b"x"));
        }
        assert!(read(&[("ce_specversion", "1.0")]).is_avro(framed) && Envelope::STRUCTURED.is_avro(framed));
        assert!(!Envelope::STRUCTURED.is_avro(b"{}"));
        for content_type in ["application/json", "avro/binaryx", "text/plain"] {
            assert!(!read(&[("content-type", content_type)]).is_avro(framed), "{content_type}");
        }
    }

    #[test]
    fn avro_is_the_whole_event_where_no_attribute_is_in_a_header() {
        assert!(Envelope::STRUCTURED.is_structured_avro());
        assert!(read(&[("content-type", "avro/binary")]).is_structured_avro());
        assert!(!read(&[("content-type", "avro/binary"), ("CE_type", "greeting")]).is_structured_avro());
    }
}
