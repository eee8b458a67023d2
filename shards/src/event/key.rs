//! What an event is about: events of one key replace each other where only the newest matters.

use std::borrow::Cow;
use std::hash::BuildHasher;

use serde::Deserialize;

/// The attributes that make the key; everything else is skipped.
#[derive(Deserialize)]
struct About<'a> {
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
}

/// The hash of type, source and subject of an event in JSON; `None` without a subject, since then nothing says what it is about.
#[must_use]
pub fn conflation_key(event_type: &str, json: &[u8], hasher: &impl BuildHasher) -> Option<u64> {
    let about: About<'_> = serde_json::from_slice(json).ok()?;
    let subject = about.subject?;
    Some(hasher.hash_one((event_type, about.source.as_deref(), &*subject)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(event_type: &str, json: &str) -> Option<u64> {
        conflation_key(event_type, json.as_bytes(), &ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn a_key_is_made_of_type_source_and_subject() {
        let price = key("price", r#"{"source":"/a","subject":"x","id":"1","data":{"subject":"other"}}"#);
        assert!(price.is_some());
        assert_eq!(price, key("price", r#"{"subject":"\u0078","id":"2","source":"/a"}"#));
        for (event_type, json) in [
            ("volume", r#"{"source":"/a","subject":"x"}"#),
            ("price", r#"{"source":"/b","subject":"x"}"#),
            ("price", r#"{"source":"/a","subject":"y"}"#),
            ("price", r#"{"subject":"x"}"#),
        ] {
            assert_ne!(price, key(event_type, json), "{event_type} {json}");
        }
    }

    #[test]
    fn an_event_without_subject_stands_for_itself() {
        for json in [r#"{"source":"/a"}"#, r#"{"subject":null}"#, r#"{"subject":1}"#, "no json"] {
            assert_eq!(key("price", json), None, "{json}");
        }
    }
}
