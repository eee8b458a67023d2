//! Extractors, subscriptions, claims, and the canonical form of values.
//!
//! The input is up to three texts with NUL bytes between them: extractors, subscriptions, claims.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use tidegate_shards::claims::automatic;
use tidegate_shards::extractor::Extractors;
use tidegate_shards::index::{Fields, Index};
use tidegate_shards::pointer::JsonPointer;
use tidegate_shards::subscription::{
    Duplicates, Subscription, SubscriptionMode, compile, echo, in_force, parse_list, parse_put_body, parse_query_parameter,
    unite,
};
use tidegate_shards::value::canonicalize;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |&byte| byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (extractors_json, list_json, claims_json) = (next(), next(), next());

    check_value(list_json);
    let _ = parse_put_body(list_json);
    let extractors = match std::str::from_utf8(extractors_json).map(Extractors::parse) {
        Ok(Ok(extractors)) => extractors,
        Ok(Err(errors)) => {
            assert!(!errors.is_empty(), "refused without a reason");
            Extractors::default()
        }
        Err(_) => Extractors::default(),
    };
    let Ok(list_json) = std::str::from_utf8(list_json) else { return };
    let _ = JsonPointer::parse(list_json);
    let manual = parse_query_parameter(list_json, true).unwrap_or_default();
    check_echo(&manual);

    let claims: Map<String, Value> = serde_json::from_slice(claims_json).unwrap_or_default();
    let automatic = automatic(&claims, &extractors);
    check_restriction(&automatic, &manual);
    let Ok(united) = unite(automatic, manual, Duplicates::Drop, 1_000) else { return };
    let compiled: Vec<_> =
        united.iter().filter_map(|subscription| compile(subscription, &extractors, false).ok()).collect();
    let mut index = Index::new();
    let types: Vec<_> = compiled.iter().map(|subscription| subscription.event_type.clone()).collect();
    index.set(7, compiled);
    for event_type in &types {
        assert!(index.has_type(event_type));
        let mut matches = Vec::new();
        index.matches(event_type, &NoFields, &mut matches);
        assert!(matches.is_empty() || matches == [7]);
    }
    index.remove(7);
    assert_eq!(index.subscriptions(), 0);
    assert!(types.iter().all(|event_type| !index.has_type(event_type)));
});

struct NoFields;

impl Fields for NoFields {
    fn len(&self) -> usize {
        0
    }

    fn get(&self, _: usize) -> (u16, &[u8]) {
        unreachable!("there are no fields")
    }
}

/// Nothing is in force that the token doesn't give.
fn check_restriction(automatic: &[Subscription], manual: &[Subscription]) {
    let restricted =
        in_force(SubscriptionMode::Restrict, automatic.to_vec(), manual.to_vec(), Duplicates::Keep, usize::MAX);
    for subscription in restricted.unwrap_or_default() {
        let given = automatic.iter().find(|given| given.event_type == subscription.event_type);
        let given = given.expect("a type that the token gives");
        assert!(!subscription.one_of.is_empty() || given.one_of.is_empty(), "a restriction that opens everything");
    }
}

/// What a client is told it has subscribed to, it can subscribe to, and is told the same again.
fn check_echo(subscriptions: &[Subscription]) {
    let told = echo(subscriptions);
    let again = parse_list(&told).expect("the echo is a list of subscriptions");
    assert_eq!(echo(&again), told);
}

/// A value equals itself however it is written.
fn check_value(json: &[u8]) {
    let mut canonical = Vec::new();
    if canonicalize(json, &mut canonical).is_err() {
        assert!(canonical.is_empty());
        return;
    }
    let mut spaced = [b" ", json, b"\n"].concat();
    let mut again = Vec::new();
    canonicalize(&spaced, &mut again).expect("white space around a value changes nothing");
    assert_eq!(canonical, again);
    spaced.insert(0, b'[');
    spaced.push(b']');
    again.clear();
    let listed = canonicalize(&spaced, &mut again);
    assert!(listed.is_err() || again != canonical, "a list equals its element");
}
