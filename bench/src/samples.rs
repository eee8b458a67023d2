//! Events to measure with.

use std::borrow::Cow;

use tidegate_shards::event::Event;
use tidegate_shards::index::Fields;

/// The type of sampled events.
pub const EVENT_TYPE: &str = "com.example.seat.sold";

/// A structured CloudEvent of exactly `bytes` bytes of JSON, or as short as its attributes allow: `type` near the front,
/// then a small object, then text. It looks like what a service writes, and can be told from others by `id`.
#[must_use]
pub fn structured(event_type: &str, id: u64, bytes: usize) -> Vec<u8> {
    let head = format!(
        r#"{{"specversion":"1.0","type":"{event_type}","source":"/shop","id":"{id}","datacontenttype":"application/json","data":{{"key":"k{id}","price":1250,"text":""#
    );
    let tail = r#""}}"#;
    let filler = bytes.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "x".repeat(filler)).into_bytes()
}

/// [`structured`] as a decoded event without extracted fields.
#[must_use]
pub fn event(event_type: &'static str, id: u64, bytes: usize) -> Event<'static> {
    Event {
        event_type: Cow::Borrowed(event_type),
        id: Cow::Owned(id.to_string()),
        subject: None,
        body: Cow::Owned(structured(event_type, id, bytes)),
        fields: Vec::new(),
    }
}

/// Extractor configuration that makes `data.key` of [`EVENT_TYPE`] a field to filter on.
#[must_use]
pub fn extractors() -> String {
    extractors_for(EVENT_TYPE)
}

/// The same for another event type.
#[must_use]
pub fn extractors_for(event_type: &str) -> String {
    format!(r#"{{"{event_type}":{{"key":{{"stable_field_index":0,"event":{{"json_pointer":"/data/key"}}}}}}}}"#)
}

/// One extracted value: the first field of an event, in canonical form.
#[derive(Clone, Debug)]
pub struct OneField(pub Vec<u8>);

impl Fields for OneField {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _index: usize) -> (u16, &[u8]) {
        (0, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_shards::event::{EventLimits, decode_structured};
    use tidegate_shards::extractor::Extractors;

    use super::*;

    #[test]
    fn a_sample_has_the_size_asked_for_and_decodes_with_its_key() {
        let extractors = Extractors::parse(&extractors()).unwrap();
        for bytes in [200, 1_000] {
            let body = structured(EVENT_TYPE, 7, bytes);
            assert_eq!(body.len(), bytes);
            let event = decode_structured(&body, &extractors, &EventLimits::default()).unwrap();
            assert_eq!((&*event.event_type, &*event.id, event.fields.len()), (EVENT_TYPE, "7", 1));
        }
    }
}
