//! The binary content mode: attributes in headers, data in the body, rebuilt as one JSON object with sorted keys.
//!
//! | | CloudEvents 0.1, 0.2 | CloudEvents 1.0 |
//! |---|---|---|
//! | extension attributes | JSON if they parse as JSON, else text | text |
//! | `application/json` data | `data`, the JSON as it was sent | the same |
//! | other text | `data` as text, and `contenttype` (0.1 on Kafka: `contentType`) | `data` as text, `datacontenttype` and `contenttype` |
//! | bytes that are no text | refused: their JSON format can't tell Base64 from text | `data_base64`, `datacontenttype` and `contenttype` |
//!
//! `contenttype` beside 1.0's own `datacontenttype` serves frontends written for RIG, which read only that one.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Event, EventError, EventLimits, attributes::Version, json, mode, structured::decode_structured};
use crate::extractor::Extractors;

/// How attributes become headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryTransport {
    /// `ce-` and the name, in any case; values of 1.0 are percent-encoded (HTTP binding 1.0, section 3.1.3.2).
    Http,
    /// `ce_` and the name; values are UTF-8 as they are (Kafka binding 1.0, section 3.2.3).
    Kafka,
}

impl BinaryTransport {
    fn prefix(self) -> &'static str {
        match self {
            Self::Http => "ce-",
            Self::Kafka => "ce_",
        }
    }
}

/// Decodes an event whose attributes are in headers.
///
/// `headers`: all headers of the message; those without the transport's prefix are ignored, and of two with one name the first counts.
/// `content_type`: the value of `content-type`, mandatory on Kafka. CloudEvents 0.1 may name its attributes as 0.1 does
/// (`ce-eventtype`) or as later versions do (`ce-type`); the event gets 0.1's names either way. `tracestate` is dropped.
///
/// # Errors
///
/// [`EventError`] if a header can't be an attribute, a required one is missing, the data does not fit its content type, or a limit is
/// exceeded.
pub fn decode_binary<'a, H>(
    transport: BinaryTransport,
    headers: H,
    content_type: Option<&str>,
    body: &'a [u8],
    extractors: &Extractors,
    limits: &EventLimits,
) -> Result<Event<'static>, EventError>
where
    H: Iterator<Item = (&'a str, &'a [u8])>,
{
    limits.check_size(body)?;
    let content_type = content_type.filter(|value| !value.trim().is_empty());
    if transport == BinaryTransport::Kafka && content_type.is_none() {
        return Err(EventError::MissingContentType);
    }
    let headers = attribute_headers(transport, headers)?;
    let version = version(&headers)?;
    let mut members = BTreeMap::new();
    for (name, value) in &headers {
        if name == "tracestate" {
            continue;
        }
        let name = if version == Version::V01 { name_in_01(name) } else { name };
        let value = || attribute_value(transport, version, name, value, limits);
        members.entry(name.to_owned()).or_insert_with(value);
    }
    add_data(&mut members, transport, version, content_type, body, limits)?;

    let rebuilt = object(&members);
    // Attributes and the braces around them are on top of the body that was measured above.
    let limits = EventLimits { max_body_bytes: usize::MAX, ..*limits };
    decode_structured(&rebuilt, extractors, &limits).map(Event::into_owned)
}

/// The attributes by their lower-case (HTTP) or own (Kafka) names; of two with one name, the first.
fn attribute_headers<'a>(
    transport: BinaryTransport,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<BTreeMap<String, &'a str>, EventError> {
    let mut attributes = BTreeMap::new();
    for (header, value) in headers {
        let prefix = transport.prefix();
        let Some((start, name)) = header.split_at_checked(prefix.len()) else { continue };
        if !start.eq_ignore_ascii_case(prefix) {
            continue;
        }
        let bad = |problem| EventError::BadHeader { header: header.to_owned(), problem };
        let name = match transport {
            BinaryTransport::Http => name.to_ascii_lowercase(),
            BinaryTransport::Kafka => name.to_owned(),
        };
        if name.is_empty() {
            return Err(bad("names no attribute"));
        }
        if matches!(&*name, "data" | "data_base64") {
            return Err(bad("is no attribute; send the data as body"));
        }
        let value = std::str::from_utf8(value).map_err(|_| bad("is not UTF-8; encode it"))?;
        attributes.entry(name).or_insert(value);
    }
    Ok(attributes)
}

fn version(headers: &BTreeMap<String, &str>) -> Result<Version, EventError> {
    if let Some(text) = headers.get("specversion") {
        let older = (*text == "0.1").then_some(Version::V01);
        return Version::of_specversion(text)
            .or(older)
            .ok_or(EventError::UnsupportedVersion { attribute: "specversion" });
    }
    match headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("cloudEventsVersion")) {
        Some((_, &"0.1")) => Ok(Version::V01),
        Some(_) => Err(EventError::UnsupportedVersion { attribute: "cloudEventsVersion" }),
        None => Err(EventError::MissingVersion),
    }
}

/// What CloudEvents 0.1 calls an attribute (its section "Context Attributes"), given the name of a later version or its own in any case.
fn name_in_01(name: &str) -> &str {
    const NAMES: [(&str, &str); 6] = [
        ("cloudEventsVersion", "specversion"),
        ("eventType", "type"),
        ("eventID", "id"),
        ("eventTime", "time"),
        ("eventTypeVersion", "typeversion"),
        ("schemaURL", "schemaurl"),
    ];
    let known = NAMES.iter().find(|(own, later)| own.eq_ignore_ascii_case(name) || *later == name);
    known.map_or(name, |(own, _)| own)
}

/// The attributes that the specifications define, in all versions: text whatever they look like.
const DEFINED: [&str; 18] = [
    "cloudEventsVersion",
    "contentType",
    "contenttype",
    "datacontentencoding",
    "datacontenttype",
    "dataschema",
    "eventID",
    "eventTime",
    "eventType",
    "eventTypeVersion",
    "id",
    "schemaURL",
    "schemaurl",
    "source",
    "specversion",
    "subject",
    "time",
    "type",
];

/// The JSON of an attribute.
fn attribute_value(
    transport: BinaryTransport,
    version: Version,
    name: &str,
    value: &str,
    limits: &EventLimits,
) -> Vec<u8> {
    if version == Version::V10 {
        return match transport {
            BinaryTransport::Http => text(&percent_decoded(value)),
            BinaryTransport::Kafka => text(value),
        };
    }
    let is_extension = !DEFINED.contains(&name);
    if is_extension && json::validate(value.as_bytes(), limits.max_depth.saturating_sub(1)).is_ok() {
        return value.trim().into();
    }
    text(value)
}

/// Percent-encoded characters decoded; a value that is no text afterwards stays as it was.
fn percent_decoded(value: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(value).decode_utf8().unwrap_or(Cow::Borrowed(value))
}

fn add_data(
    members: &mut BTreeMap<String, Vec<u8>>,
    transport: BinaryTransport,
    version: Version,
    content_type: Option<&str>,
    body: &[u8],
    limits: &EventLimits,
) -> Result<(), EventError> {
    if content_type.is_some_and(mode::is_json) {
        json::validate(body, limits.max_depth.saturating_sub(1))?;
        members.insert("data".to_owned(), body.trim_ascii().to_owned());
        return Ok(());
    }
    if body.is_empty() && content_type.is_none() {
        return Ok(());
    }
    match std::str::from_utf8(body) {
        Ok(data) => members.insert("data".to_owned(), text(data)),
        Err(_) if version == Version::V10 => members.insert("data_base64".to_owned(), text(&STANDARD.encode(body))),
        Err(error) => {
            return Err(EventError::DataNotText { offset: error.valid_up_to(), version: version.name() });
        }
    };
    if let Some(content_type) = content_type {
        let name = match (version, transport) {
            (Version::V01, BinaryTransport::Kafka) => "contentType",
            _ => "contenttype",
        };
        members.insert(name.to_owned(), text(content_type));
        if version == Version::V10 {
            members.insert("datacontenttype".to_owned(), text(content_type));
        }
    }
    Ok(())
}

/// A JSON object with the given members, in their order.
fn object(members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(members.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() + 1);
    for (name, value) in members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.extend_from_slice(&text(name));
        out.push(b':');
        out.extend_from_slice(value);
    }
    out.push(b'}');
    out
}

/// A JSON string.
fn text(value: &str) -> Vec<u8> {
    serde_json::Value::from(value).to_string().into_bytes()
}

#[cfg(test)]
#[path = "binary_tests.rs"]
mod tests;
