//! The context attributes of an event, whatever version of CloudEvents it follows.
//!
//! An event follows 0.2 or 1.0 if `specversion` says so and `type` is there, else 0.1 if `cloudEventsVersion` says so. An event
//! that has both sets is thus read by the newer one, and of two members with one name the first counts.

use std::borrow::Cow;

use super::{
    error::EventError,
    walk::{Member, Members, kind_of, text_of},
};

/// A version of the CloudEvents specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V01,
    V02,
    V10,
}

impl Version {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V01 => "0.1",
            Self::V02 => "0.2",
            Self::V10 => "1.0",
        }
    }

    /// The version that a value of `specversion` names.
    pub(super) fn of_specversion(text: &str) -> Option<Self> {
        match text {
            "0.2" => Some(Self::V02),
            "1.0" => Some(Self::V10),
            _ => None,
        }
    }
}

/// The attributes that Tidegate reads, as written. `None`: absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes<'a> {
    specversion: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    subject: Option<&'a [u8]>,
    cloud_events_version: Option<&'a [u8]>,
    event_type_01: Option<&'a [u8]>,
    event_id_01: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Notes a member if it is one of them and the first of its name.
    #[inline]
    pub(super) fn note(&mut self, member: &Member<'a>) {
        let slot = match &*member.key() {
            b"specversion" => &mut self.specversion,
            b"type" => &mut self.event_type,
            b"id" => &mut self.id,
            b"source" => &mut self.source,
            b"subject" => &mut self.subject,
            b"cloudEventsVersion" => &mut self.cloud_events_version,
            b"eventType" => &mut self.event_type_01,
            b"eventID" => &mut self.event_id_01,
            _ => return,
        };
        slot.get_or_insert(member.value);
    }

    /// The version, as far as the members that were noted tell.
    fn version(&self) -> Option<Version> {
        let newer = self.specversion.and_then(text_of).and_then(|text| Version::of_specversion(&text));
        newer.filter(|_| self.event_type.is_some() || self.event_type_01.is_none()).or_else(|| {
            let older = self.cloud_events_version.and_then(text_of).is_some_and(|text| text == "0.1");
            if older { Some(Version::V01) } else { newer }
        })
    }

    /// Checks what the version requires.
    pub(super) fn check(&self) -> Result<Envelope<'a>, EventError> {
        let version = self.version().ok_or(match (self.specversion, self.cloud_events_version) {
            (Some(_), _) => EventError::UnsupportedVersion { attribute: "specversion" },
            (None, Some(_)) => EventError::UnsupportedVersion { attribute: "cloudEventsVersion" },
            (None, None) => EventError::MissingVersion,
        })?;
        let (event_type, id) = match version {
            Version::V01 => (("eventType", self.event_type_01), ("eventID", self.event_id_01)),
            Version::V02 | Version::V10 => (("type", self.event_type), ("id", self.id)),
        };
        let event_type = required_text(event_type.0, event_type.1, version)?;
        let id = match id.1 {
            Some(number @ [b'-' | b'0'..=b'9', ..]) => String::from_utf8_lossy(number),
            value => required_text(id.0, value, version)?,
        };
        if version == Version::V10 {
            required_text("source", self.source, version)?;
        }
        Ok(Envelope { event_type, id, subject: self.subject.and_then(text_of) })
    }
}

/// The checked attributes.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) event_type: Cow<'a, str>,
    pub(super) id: Cow<'a, str>,
    pub(super) subject: Option<Cow<'a, str>>,
}

fn required_text<'a>(
    attribute: &'static str,
    value: Option<&'a [u8]>,
    version: Version,
) -> Result<Cow<'a, str>, EventError> {
    let value = value.ok_or(EventError::MissingAttribute { attribute, version: version.name() })?;
    let expected =
        if matches!(attribute, "id" | "eventID") { "a non-empty text or a number" } else { "a non-empty text" };
    let bad = EventError::BadAttribute { attribute, expected, found: kind_of(value) };
    text_of(value).filter(|text| !text.is_empty()).ok_or(bad)
}

/// The type of a structured event, read without validating or parsing the rest of it: what ingress asks first, as most events
/// have no subscriber.
///
/// The walk stops as soon as `type` and a `specversion` that is known have been seen. `None`: no type was found, or the text broke before
/// it; [`decode_structured`](super::decode_structured) tells why. A type found here does not prove the event valid, but where
/// decoding succeeds, it gives the same type.
#[must_use]
pub fn peek_type(body: &[u8]) -> Option<Cow<'_, str>> {
    match plain_type(body) {
        Some(event_type) => text_of(event_type).filter(|text| !text.is_empty()),
        None => walked_type(body),
    }
}

/// The value of `type` where both it and a known `specversion` are written the usual way; `None` leaves it to
/// [`walked_type`], which gives the same answer more slowly.
#[inline]
fn plain_type(body: &[u8]) -> Option<&[u8]> {
    let (mut event_type, mut known) = (None, false);
    for member in Members::of(body)? {
        match member.plain_key()? {
            b"type" => event_type = event_type.or(Some(member.value)),
            b"specversion" if !known => known = matches!(member.value, b"\"1.0\"" | b"\"0.2\"").then_some(true)?,
            _ => continue,
        }
        if known && event_type.is_some() {
            return event_type;
        }
    }
    None
}

fn walked_type(body: &[u8]) -> Option<Cow<'_, str>> {
    let mut attributes = Attributes::default();
    for member in Members::of(body)? {
        attributes.note(&member);
        if attributes.event_type.is_some() && attributes.specversion.is_some() {
            let version = attributes.specversion.and_then(text_of).and_then(|text| Version::of_specversion(&text));
            if version.is_some() {
                break;
            }
        }
    }
    let event_type = match attributes.version()? {
        Version::V01 => attributes.event_type_01,
        Version::V02 | Version::V10 => attributes.event_type,
    };
    event_type.and_then(text_of).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(text: &str) -> Option<String> {
        peek_type(text.as_bytes()).map(Cow::into_owned)
    }

    #[test]
    fn the_type_is_found_at_the_top_level_only() {
        let text = r#"{"data":{"type":"inner","x":[{"type":"deeper"}]},"specversion":"0.2","id":"1","type":"outer"}"#;
        assert_eq!(peek(text).as_deref(), Some("outer"));
        assert_eq!(peek(r#"{"specversion":"1.0","data":{"type":"inner"}}"#), None);
        assert_eq!(peek(r#"{"specversion":"1.0","x":"\"type\":\"fake\"","type":"real"}"#).as_deref(), Some("real"));
    }

    #[test]
    fn the_type_is_found_behind_long_data() {
        let data = r#"{"k\\":"v\"}","list":[1,2,{"type":"no"}]},"#.repeat(50);
        let text = format!(r#"{{"data":[{data}0],"type":"yes","specversion":"1.0"}}"#);
        assert_eq!(peek(&text).as_deref(), Some("yes"));
    }

    #[test]
    fn escapes_in_key_and_value_are_decoded() {
        assert_eq!(peek(r#"{"specversion":"1.0","\u0074ype":"caf\u00e9\"\n"}"#).as_deref(), Some("café\"\n"));
    }

    #[test]
    fn of_two_types_the_first_counts() {
        assert_eq!(peek(r#"{"type":"first","type":"second","specversion":"0.2"}"#).as_deref(), Some("first"));
    }

    #[test]
    fn the_first_version_of_the_specification_has_its_own_names() {
        assert_eq!(peek(r#"{"cloudEventsVersion":"0.1","eventType":"a","eventID":"1"}"#).as_deref(), Some("a"));
        assert_eq!(peek(r#"{"type":"extension","cloudEventsVersion":"0.1","eventType":"a"}"#).as_deref(), Some("a"));
    }

    #[test]
    fn newer_attributes_win_over_those_of_the_first_version() {
        let text = r#"{"cloudEventsVersion":"0.1","eventType":"old","specversion":"0.2","type":"new"}"#;
        assert_eq!(peek(text).as_deref(), Some("new"));
        let text = r#"{"specversion":"1.0","cloudEventsVersion":"0.1","eventType":"old","eventID":"1"}"#;
        assert_eq!(peek(text).as_deref(), Some("old"));
    }

    #[test]
    fn what_has_no_usable_type_gives_none() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            "5",
            r#""type""#,
            r#"{"specversion":"1.0","type":5}"#,
            r#"{"specversion":"1.0","type":""}"#,
            r#"{"type":"a"}"#,
            r#"{"specversion":"9","type":"a"}"#,
            r#"{"specversion":"1.0","type":"a"#,
            r#"{"specversion":"1.0","type"#,
        ] {
            assert_eq!(peek(text), None, "{text}");
        }
        assert_eq!(peek_type(b"{\"specversion\":\"1.0\",\"type\":\"\xff\"}"), None);
    }
}
