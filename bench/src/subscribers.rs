//! An index full of subscriptions, each with a key of its own.

use tidegate_shards::extractor::Extractors;
use tidegate_shards::index::Index;
use tidegate_shards::subscription::{compile, parse_list};
use tidegate_shards::value::canonicalize;

use crate::samples::{self, EVENT_TYPE};

/// Connections that share the popular key, beside those with keys of their own.
pub const MANY: usize = 1_000;

/// The index of one connection per subscription: connection `n` wants [`EVENT_TYPE`] with `key(n)`. [`MANY`] more want the
/// popular key.
///
/// # Panics
/// Never: the subscriptions are valid and few enough.
#[must_use]
pub fn index(subscriptions: usize) -> Index {
    let extractors = Extractors::parse(&samples::extractors()).expect("invariant: the sample's extractors are valid");
    let mut index = Index::new();
    let keys = (0..subscriptions).map(|number| format!("k{number}")).chain((0..MANY).map(|_| "popular".to_owned()));
    for (connection, key) in keys.enumerate() {
        let text = format!(r#"[{{"eventType":"{EVENT_TYPE}","oneOf":[{{"key":"{key}"}}]}}]"#);
        let parsed = parse_list(&text).expect("invariant: the list is valid");
        let compiled = parsed
            .iter()
            .map(|one| compile(one, &extractors, true).expect("invariant: the field has an extractor"))
            .collect();
        let connection = u32::try_from(connection).expect("invariant: far fewer connections");
        index.set(connection, compiled);
    }
    index
}

/// The canonical key of connection `number`.
#[must_use]
pub fn key(number: u32) -> Vec<u8> {
    canonical(&format!("\"k{number}\""))
}

/// A key that nobody has.
#[must_use]
pub fn absent_key() -> Vec<u8> {
    canonical("\"nobody\"")
}

/// The key that [`MANY`] connections share.
#[must_use]
pub fn popular_key() -> Vec<u8> {
    canonical("\"popular\"")
}

fn canonical(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    canonicalize(json.as_bytes(), &mut out).expect("invariant: a JSON string is a value");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::OneField;

    #[test]
    fn each_key_has_the_connections_it_was_made_for() {
        let mut index = index(10);
        let mut found = |key| {
            let mut matched = Vec::new();
            index.matches(EVENT_TYPE, &OneField(key), &mut matched);
            matched.len()
        };
        assert_eq!((found(absent_key()), found(key(9)), found(popular_key())), (0, 1, MANY));
    }
}
