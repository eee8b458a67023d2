//! CloudEvents (0.1, 0.2 and 1.0) as they come in, in the structured, binary and batched content modes.
//!
//! Read in this order: [`peek_type`] decides what most messages are worth, `structured` proves and reads an event, `binary` rebuilds
//! one from headers, `batch` takes a list apart. Below them, `json` validates, `walk` and `scan` move over JSON without parsing it,
//! and `brackets` does so 64 bytes at a time. Nothing here does I/O, and no input panics.
//!
//! Where RIG 3.0 differs: pointers reach below `data` whether or not there is a top-level `contenttype`, into lists by index, and
//! find nothing where RIG fails; a half surrogate pair (`"\ud800"`) is refused, as it is no character; so is an empty `id`, which
//! long polling could never resume from.

mod attributes;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod batch;
mod binary;
mod brackets;
mod error;
mod fields;
mod json;
mod key;
mod mode;
mod scan;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod structured;
mod walk;

use std::borrow::Cow;

pub use attributes::peek_type;
pub use batch::decode_batch;
pub use binary::{BinaryTransport, decode_binary};
pub use error::{EventError, HttpModeError};
pub use key::conflation_key;
pub use mode::{HttpMode, KafkaMode, http_mode, kafka_mode};
pub use structured::decode_structured;

/// A decoded CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// `type` (0.1: `eventType`), never empty.
    pub event_type: Cow<'a, str>,
    /// `id` (0.1: `eventID`), never empty; a numeric one with the digits it was sent with.
    pub id: Cow<'a, str>,
    /// `subject`, if it is a text.
    pub subject: Option<Cow<'a, str>>,
    /// The structured JSON text for frontends: valid JSON and UTF-8 to its last byte, byte for byte as received but for a top-level
    /// `tracestate`. Events of the binary mode are rebuilt in this form.
    pub body: Cow<'a, [u8]>,
    /// The values that extractors found, by rising position.
    pub fields: Vec<FieldValue>,
}

impl Event<'_> {
    /// The same event, independent of the message it was decoded from.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        Event {
            event_type: Cow::Owned(self.event_type.into_owned()),
            id: Cow::Owned(self.id.into_owned()),
            subject: self.subject.map(|subject| Cow::Owned(subject.into_owned())),
            body: Cow::Owned(self.body.into_owned()),
            fields: self.fields,
        }
    }
}

/// One value under an extractor. A list gives one entry for itself, then one for each of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue {
    /// The extractor's position among those of the event's type
    /// ([`TypeExtractors::fields`](crate::extractor::TypeExtractors::fields)).
    pub position: u16,
    /// The value in the form of [`canonicalize`](crate::value::canonicalize).
    pub value: Box<[u8]>,
}

/// What an event may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Levels of objects and lists, the event itself included; more than 512 count as 512.
    pub max_depth: usize,
    /// Size of a received body, in bytes.
    pub max_body_bytes: usize,
}

impl Default for EventLimits {
    /// 128 levels, 32 MiB.
    fn default() -> Self {
        Self { max_depth: 128, max_body_bytes: 32 << 20 }
    }
}

impl EventLimits {
    fn check_size(&self, body: &[u8]) -> Result<(), EventError> {
        if body.len() <= self.max_body_bytes {
            return Ok(());
        }
        Err(EventError::BodyTooLarge { bytes: body.len(), max_bytes: self.max_body_bytes })
    }
}
