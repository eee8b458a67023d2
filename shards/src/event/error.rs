//! Why something is not a CloudEvent.

use thiserror::Error;

/// Why a body, or a message, was refused as a CloudEvent. It is always the sender's fault, and sending the same again fails again.
///
/// Offsets are in bytes from the start of the body. The texts name attributes and positions, but repeat none of the payload.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EventError {
    /// The body is larger than [`EventLimits::max_body_bytes`](super::EventLimits::max_body_bytes).
    #[error("the body has {bytes} bytes, but at most {max_bytes} are accepted; send less, or a link to the data")]
    BodyTooLarge {
        /// Size of the refused body.
        bytes: usize,
        /// Largest accepted body.
        max_bytes: usize,
    },
    /// The body is not UTF-8 (RFC 8259, section 8.1).
    #[error("the body is not UTF-8 at byte {offset}; encode it as UTF-8")]
    NotUtf8 {
        /// First byte that is not part of a character.
        offset: usize,
    },
    /// The body is not one JSON text (RFC 8259).
    #[error("the body is not JSON at byte {offset}: {problem}")]
    NotJson {
        /// Where the text stops being JSON.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// Objects and lists are nested deeper than [`EventLimits::max_depth`](super::EventLimits::max_depth).
    #[error("objects and lists are nested deeper than {max_depth} levels at byte {offset}; flatten the data")]
    TooDeep {
        /// The bracket that goes one level too far.
        offset: usize,
        /// Number of accepted levels.
        max_depth: usize,
    },
    /// A single event is a JSON object, nothing else.
    #[error("expected a JSON object, got {found}")]
    NotAnObject {
        /// What stands there.
        found: &'static str,
    },
    /// A batch is a JSON list, nothing else.
    #[error("a batch is a JSON list of events, got {found}")]
    NotAList {
        /// What stands there.
        found: &'static str,
    },
    /// Neither `specversion` nor `cloudEventsVersion` is there.
    #[error("\"specversion\" is missing (\"cloudEventsVersion\" in CloudEvents 0.1); add it, for example \"1.0\"")]
    MissingVersion,
    /// The version is none that Tidegate knows.
    #[error(
        "the value of \"{attribute}\" is not supported; send \"specversion\" \"0.2\" or \"1.0\", or \"cloudEventsVersion\" \"0.1\", as text"
    )]
    UnsupportedVersion {
        /// The attribute that holds the version.
        attribute: &'static str,
    },
    /// A required attribute is not there.
    #[error("the attribute \"{attribute}\" is missing; CloudEvents {version} requires it")]
    MissingAttribute {
        /// Its name in this version of the specification.
        attribute: &'static str,
        /// The event's version.
        version: &'static str,
    },
    /// A required attribute is there, with a value it can't have.
    #[error("the attribute \"{attribute}\" must be {expected}, but is {found}")]
    BadAttribute {
        /// Its name in this version of the specification.
        attribute: &'static str,
        /// What is accepted.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// A `ce-*` or `ce_*` header that can't become an attribute.
    #[error("the header \"{header}\" {problem}")]
    BadHeader {
        /// The header's name.
        header: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A binary event on Kafka has no `content-type` header.
    #[error("the header \"content-type\" is missing; the binary content mode on Kafka requires it")]
    MissingContentType,
    /// Bytes that are not text can be carried by CloudEvents 1.0 alone (`data_base64`).
    #[error(
        "the body is not UTF-8 at byte {offset}, and JSON of CloudEvents {version} has no place for such data; encode it as text, or send CloudEvents 1.0"
    )]
    DataNotText {
        /// First byte that is not part of a character.
        offset: usize,
        /// The event's version.
        version: &'static str,
    },
    /// Lists under extractors hold more values than can be matched.
    #[error("the event's fields have more than {max_values} values; point the extractors at shorter lists")]
    TooManyFieldValues {
        /// Largest accepted number of values in one event.
        max_values: usize,
    },
    /// One event of a batch was refused, and with it the batch.
    #[error("event {index} of the batch (counted from 0): {reason}")]
    InBatch {
        /// Position in the list, from 0.
        index: usize,
        /// What is wrong with it; offsets in it count from the start of that event.
        reason: Box<EventError>,
    },
}

impl EventError {
    /// The HTTP status that tells the sender: 413 for a body that is too large, else 400.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if matches!(self, Self::BodyTooLarge { .. }) { 413 } else { 400 }
    }

    /// The text of the HTTP answer; it starts as RIG's does.
    #[must_use]
    pub fn http_text(&self) -> String {
        format!("The request body does not look like a CloudEvent: {self}.")
    }
}

/// Why the headers of an HTTP request allow none of the content modes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HttpModeError {
    /// Neither a structured content type nor the header that marks the binary mode.
    #[error(
        "Your request looks like it's using the CloudEvents binary content mode, but the header \"ce-specversion\" is missing. \
         Add it, or send the event as JSON with content-type \"application/cloudevents+json\"."
    )]
    MissingSpecVersion,
    /// The content type is not of the form `type/subtype`.
    #[error("The content-type header is not a media type. Send one, for example \"application/cloudevents+json\".")]
    MalformedContentType,
    /// A structured or batched event in another format than JSON.
    #[error(
        "Only the JSON format of CloudEvents is supported. Send content-type \"application/cloudevents+json\" or \"application/cloudevents-batch+json\"."
    )]
    UnsupportedFormat,
}

impl HttpModeError {
    /// The HTTP status: 415 for a format other than JSON, else 400.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::UnsupportedFormat => 415,
            Self::MissingSpecVersion | Self::MalformedContentType => 400,
        }
    }
}
