//! Automatic subscriptions: what a token's claims subscribe its bearer to.

use crate::extractor::{Extractors, TypeExtractors};
use crate::subscription::{Alternative, Constraint, Subscription};
use serde_json::{Map, Value};

/// The most alternatives that lists in claims may multiply to in one event type. Beyond it, the type is left out.
const MAX_ALTERNATIVES_PER_TYPE: usize = 4_096;

/// The subscriptions that follow from `claims`, sorted by event type.
///
/// A type is subscribed if at least one of its fields has a JWT pointer that finds a claim; every claim that is found
/// must be met by the event. A list stands for any of its elements. A claim that is `null` or an empty list names
/// nothing, so nothing of that type is for its bearer. Fields that have no pointer into events are left out: a
/// subscription that could not be checked against events would open all of them.
pub fn automatic(claims: &Map<String, Value>, extractors: &Extractors) -> Vec<Subscription> {
    extractors
        .types()
        .filter_map(|(event_type, fields)| {
            let one_of = alternatives(event_type, claims, fields)?;
            Some(Subscription { event_type: event_type.into(), one_of, snapshot: false })
        })
        .collect()
}

/// Every combination of the claims' values; `None` where nothing may be subscribed.
fn alternatives(event_type: &str, claims: &Map<String, Value>, fields: &TypeExtractors) -> Option<Vec<Alternative>> {
    let mut choices: Vec<(&str, Vec<&Value>)> = Vec::new();
    for field in fields.fields().iter().filter(|field| field.event_pointer.is_some()) {
        if let Some(claim) = field.jwt_pointer.as_ref().and_then(|pointer| pointer.resolve_in(claims)) {
            choices.push((&field.name, claimed_values(claim)));
        }
    }
    let count = choices.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()));
    match count {
        Some(0) => return None,
        Some(count) if count <= MAX_ALTERNATIVES_PER_TYPE => {}
        _ => {
            tracing::warn!(
                event_type,
                limit = MAX_ALTERNATIVES_PER_TYPE,
                "no automatic subscription: the lists in the claims have too many combinations"
            );
            return None;
        }
    }
    if choices.is_empty() {
        return None;
    }
    choices.sort_by_key(|(field, _)| *field);
    let mut combinations: Vec<Vec<Constraint>> = vec![Vec::new()];
    for (field, values) in choices {
        combinations = combinations
            .iter()
            .flat_map(|combination| {
                values.iter().map(move |value| {
                    let constraint = Constraint { field: field.into(), json: value.to_string().into() };
                    combination.iter().cloned().chain([constraint]).collect()
                })
            })
            .collect();
    }
    Some(combinations.into_iter().map(Vec::into_boxed_slice).collect())
}

fn claimed_values(claim: &Value) -> Vec<&Value> {
    let values = match claim {
        Value::Array(elements) => elements.as_slice(),
        single => std::slice::from_ref(single),
    };
    values.iter().filter(|value| !value.is_null()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::echo;
    use serde_json::json;

    fn extractors() -> Extractors {
        Extractors::parse(
            r#"{"message": {
                "user": {"stable_field_index": 2, "jwt": {"json_pointer": "/user"}, "event": {"json_pointer": "/data/u"}},
                "team": {"stable_field_index": 1, "jwt": {"json_pointer": "/teams"}, "event": {"json_pointer": "/data/t"}}},
              "alert": {
                "id": {"stable_field_index": 0, "jwt": {"json_pointer": "/user"}, "event": {"json_pointer": "/data/id"}},
                "room": {"stable_field_index": 1, "event": {"json_pointer": "/data/room"}}},
              "odd": {"hidden": {"stable_field_index": 0, "jwt": {"json_pointer": "/user"}}},
              "plain": {"room": {"stable_field_index": 1, "event": {"json_pointer": "/data/room"}}}}"#,
        )
        .unwrap()
    }

    fn echoed(claims: Value) -> String {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        echo(&automatic(&claims, &extractors()))
    }

    #[test]
    fn claims_that_are_found_subscribe_sorted_by_type() {
        assert_eq!(
            echoed(json!({"user": "u1", "exp": 5})),
            r#"[{"eventType":"alert","oneOf":[{"id":"u1"}]},{"eventType":"message","oneOf":[{"user":"u1"}]}]"#
        );
        assert_eq!(
            echoed(json!({"user": 7, "teams": "a"})),
            r#"[{"eventType":"alert","oneOf":[{"id":7}]},{"eventType":"message","oneOf":[{"team":"a","user":7}]}]"#
        );
    }

    #[test]
    fn a_list_stands_for_any_of_its_elements() {
        assert_eq!(
            echoed(json!({"teams": ["a", null, "b"], "user": "u"})),
            r#"[{"eventType":"alert","oneOf":[{"id":"u"}]},{"eventType":"message","oneOf":[{"team":"a","user":"u"},{"team":"b","user":"u"}]}]"#
        );
    }

    #[test]
    fn a_claim_without_value_subscribes_nothing() {
        for claims in [json!({"user": null}), json!({"user": []}), json!({"user": [null]}), json!({})] {
            assert_eq!(echoed(claims.clone()), "[]", "{claims}");
        }
        assert_eq!(echoed(json!({"user": null, "teams": "a"})), "[]", "not even with another claim of the type");
    }

    #[test]
    fn odd_claims_neither_fail_nor_open_a_type_that_cannot_be_checked() {
        for claims in [json!({"username": {"user": 1}}), json!({"/user": 1}), json!({"data": {"u": 1}})] {
            assert_eq!(echoed(claims.clone()), "[]", "{claims}");
        }
        let nested = echoed(json!({"user": {"b": 1, "a": [1.50]}}));
        assert!(nested.contains(r#"{"id":{"a":[1.5],"b":1}}"#), "{nested}");
        assert!(!nested.contains("odd"));
    }

    #[test]
    fn lists_that_multiply_beyond_the_limit_leave_their_type_out() {
        let many: Vec<u32> = (0..100).collect();
        let subscriptions = automatic(json!({"user": many, "teams": many}).as_object().unwrap(), &extractors());
        let types: Vec<&str> = subscriptions.iter().map(|subscription| &*subscription.event_type).collect();
        assert_eq!(types, ["alert"]);
        assert_eq!(subscriptions[0].one_of.len(), 100);
    }
}
