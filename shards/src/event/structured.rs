//! The structured content mode: the whole event is one JSON object.

use std::borrow::Cow;

use super::{
    Event, EventError, EventLimits,
    attributes::Attributes,
    fields, json,
    walk::{Members, kind_of},
};
use crate::extractor::Extractors;

/// Decodes a structured event (CloudEvents 0.1, 0.2 or 1.0 in JSON) and reads the fields that extractors name.
///
/// The body is proven to be valid JSON and UTF-8 to its last byte. It is borrowed as it is, unless a top-level `tracestate` has to be cut
/// out; nothing else in it ever changes.
///
/// # Errors
///
/// [`EventError`] if it is not JSON, not a CloudEvent, or beyond a limit.
pub fn decode_structured<'a>(
    body: &'a [u8],
    extractors: &Extractors,
    limits: &EventLimits,
) -> Result<Event<'a>, EventError> {
    limits.check_size(body)?;
    json::validate(body, limits.max_depth)?;
    decode_validated(body, extractors)
}

/// [`decode_structured`] for a text that is known to be valid JSON.
pub(super) fn decode_validated<'a>(body: &'a [u8], extractors: &Extractors) -> Result<Event<'a>, EventError> {
    let members = Members::of(body).ok_or_else(|| EventError::NotAnObject { found: kind_of(body) })?;
    let mut attributes = Attributes::default();
    let mut tracestate = Cut::default();
    for member in members {
        attributes.note(&member);
        tracestate.note(member.is("tracestate"), member.start, member.end, member.comma);
    }
    let envelope = attributes.check()?;
    let fields = fields::extract(body, &envelope.event_type, extractors)?;
    Ok(Event {
        event_type: envelope.event_type,
        id: envelope.id,
        subject: envelope.subject,
        body: tracestate.apply(body),
        fields,
    })
}

/// The members to be cut out of an object's text, each with one of the commas beside it.
#[derive(Debug, Default)]
struct Cut {
    ranges: Vec<(usize, usize)>,
    /// A member before the current one stays, so a later one goes together with the comma before it.
    something_stays: bool,
    /// The last range began with the first member, and ends where the next member starts.
    open: bool,
}

impl Cut {
    #[inline]
    fn note(&mut self, unwanted: bool, start: usize, end: usize, comma: Option<usize>) {
        if self.open
            && let Some(last) = self.ranges.last_mut()
        {
            last.1 = start;
        }
        self.open = unwanted && !self.something_stays;
        if unwanted {
            let from = comma.filter(|_| self.something_stays).unwrap_or(start);
            self.ranges.push((from, end));
        }
        self.something_stays |= !unwanted;
    }

    fn apply(self, text: &[u8]) -> Cow<'_, [u8]> {
        if self.ranges.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut rest = Vec::with_capacity(text.len());
        let mut kept_from = 0;
        for (from, to) in self.ranges {
            rest.extend_from_slice(&text[kept_from..from]);
            kept_from = to;
        }
        rest.extend_from_slice(&text[kept_from..]);
        Cow::Owned(rest)
    }
}

#[cfg(test)]
#[path = "structured_tests.rs"]
mod tests;
