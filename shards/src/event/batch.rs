//! The batched content mode: a JSON list of structured events (CloudEvents 1.0, JSON format, section 4).

use super::{
    Event, EventError, EventLimits, json,
    structured::decode_validated,
    walk::{Elements, kind_of},
};
use crate::extractor::Extractors;

/// Decodes a batch: all of its events, or none. An empty list is an empty batch.
///
/// The size limit holds for the whole body, the depth limit for each event.
///
/// # Errors
///
/// [`EventError::InBatch`] for the first event that is refused; any other if the body is no list of valid JSON.
pub fn decode_batch<'a>(
    body: &'a [u8],
    extractors: &Extractors,
    limits: &EventLimits,
) -> Result<Vec<Event<'a>>, EventError> {
    limits.check_size(body)?;
    json::validate(body, limits.max_depth.saturating_add(1))?;
    let elements = Elements::of(body).ok_or_else(|| EventError::NotAList { found: kind_of(body) })?;
    let decode = |(index, element)| {
        decode_validated(element, extractors).map_err(|reason| EventError::InBatch { index, reason: Box::new(reason) })
    };
    elements.enumerate().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &str) -> Result<Vec<Event<'_>>, EventError> {
        decode_batch(body.as_bytes(), &Extractors::default(), &EventLimits::default())
    }

    #[test]
    fn every_event_keeps_its_own_text() {
        let body = r#" [ {"specversion":"0.2","type":"a","id":1.50, "data":[]} ,{"cloudEventsVersion":"0.1","eventType":"b","eventID":"2"}]"#;
        let events = decode(body).expect("a batch");
        assert_eq!(events.len(), 2);
        assert_eq!(&*events[0].body, br#"{"specversion":"0.2","type":"a","id":1.50, "data":[]}"#);
        assert_eq!((&*events[0].id, &*events[1].event_type), ("1.50", "b"));
    }

    #[test]
    fn one_bad_event_refuses_the_batch_and_is_named() {
        let refused = decode(r#"[{"specversion":"0.2","type":"a","id":"1"},5]"#).err();
        let reason = Box::new(EventError::NotAnObject { found: "a number" });
        assert_eq!(refused, Some(EventError::InBatch { index: 1, reason }));
    }

    #[test]
    fn a_batch_is_a_list() {
        assert_eq!(decode("[]").expect("an empty batch").len(), 0);
        assert_eq!(decode("{}").err(), Some(EventError::NotAList { found: "an object" }));
        assert!(matches!(decode("[{}"), Err(EventError::NotJson { offset: 3, .. })));
    }

    #[test]
    fn the_depth_limit_holds_for_each_event() {
        let event = |depth: usize| {
            let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            format!(r#"[{{"specversion":"0.2","type":"a","id":"1","data":{data}}}]"#)
        };
        assert!(decode(&event(127)).is_ok());
        assert!(matches!(decode(&event(128)), Err(EventError::TooDeep { .. })));
    }
}
