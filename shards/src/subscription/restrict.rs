//! `AUTO_SUBSCRIPTIONS=restrict`: manual subscriptions narrow the automatic ones, and give nothing by themselves.

use std::cmp::Ordering;

use super::{Alternative, Constraint, MAX_ALTERNATIVES, Subscription, SubscriptionError};
use crate::value::CANONICAL_NULL;

/// The automatic subscriptions, each narrowed by the manual ones of its type. What is left of a type is what both allow; a type
/// that no manual subscription names stays as it is, one that no automatic subscription has gives nothing.
///
/// A field that both constrain must have the same value in both. (An event may hold a list with both values; that the
/// subscription doesn't match it is on the safe side.)
///
/// # Errors
/// [`SubscriptionError::TooManyAlternatives`] if the combinations exceed [`MAX_ALTERNATIVES`].
pub(super) fn restrict(
    automatic: Vec<Subscription>,
    manual: &[Subscription],
) -> Result<Vec<Subscription>, SubscriptionError> {
    let mut restricted = Vec::with_capacity(automatic.len());
    for allowed in automatic {
        let mut asked = manual.iter().filter(|manual| manual.event_type == allowed.event_type).peekable();
        if asked.peek().is_none() {
            restricted.push(allowed);
            continue;
        }
        for asked in asked {
            if let Some(one_of) = narrowed(&allowed.one_of, &asked.one_of)? {
                let (event_type, snapshot) = (allowed.event_type.clone(), allowed.snapshot || asked.snapshot);
                restricted.push(Subscription { event_type, one_of, snapshot });
            }
        }
    }
    Ok(restricted)
}

/// The alternatives that both allow; `None` where there is nothing, for no alternative at all would mean everything.
fn narrowed(allowed: &[Alternative], asked: &[Alternative]) -> Result<Option<Vec<Alternative>>, SubscriptionError> {
    if asked.is_empty() {
        return Ok(Some(allowed.to_vec()));
    }
    if allowed.is_empty() {
        return Ok(Some(asked.to_vec()));
    }
    let count = allowed.len().saturating_mul(asked.len());
    if count > MAX_ALTERNATIVES {
        return Err(SubscriptionError::TooManyAlternatives { count });
    }
    let mut both = Vec::new();
    for allowed in allowed {
        for asked in asked {
            both.extend(conjunction(allowed, asked)?);
        }
    }
    Ok((!both.is_empty()).then_some(both))
}

/// The constraints of both; `None` if a field would need two values.
fn conjunction(allowed: &[Constraint], asked: &[Constraint]) -> Result<Option<Alternative>, SubscriptionError> {
    let mut both: Vec<Constraint> = Vec::with_capacity(allowed.len() + asked.len());
    let (mut allowed, mut asked) = (allowed.iter().peekable(), asked.iter().peekable());
    loop {
        let order = match (allowed.peek(), asked.peek()) {
            (None, None) => return Ok(Some(both.into_boxed_slice())),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(allowed), Some(asked)) => allowed.field.cmp(&asked.field),
        };
        match order {
            Ordering::Less => both.extend(allowed.next().cloned()),
            Ordering::Greater => both.extend(asked.next().cloned()),
            Ordering::Equal => {
                let (Some(allowed), Some(asked)) = (allowed.next(), asked.next()) else { continue };
                let value = asked.canonical()?;
                // `null` matches anything, so it narrows nothing.
                if *value != *CANONICAL_NULL && value != allowed.canonical()? {
                    return Ok(None);
                }
                both.push(allowed.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{compile, echo, parse_list};
    use super::*;
    use crate::extractor::Extractors;

    fn restricted(automatic: &str, manual: &str) -> String {
        echo(&restrict(parse_list(automatic).unwrap(), &parse_list(manual).unwrap()).unwrap())
    }

    const BOTH: &str = r#"[{"eventType":"a","oneOf":[{"u":"1"}]},{"eventType":"b","oneOf":[{"u":"1"},{"u":"2"}]}]"#;

    #[test]
    fn without_manual_subscriptions_the_automatic_ones_stay() {
        assert_eq!(restricted(BOTH, "[]"), BOTH);
    }

    #[test]
    fn a_type_that_the_token_does_not_give_is_left_out() {
        assert_eq!(restricted(BOTH, r#"[{"eventType":"c"}]"#), BOTH);
        assert_eq!(restricted("[]", r#"[{"eventType":"c"}]"#), "[]");
    }

    #[test]
    fn constraints_are_added_to_those_of_the_token() {
        assert_eq!(
            restricted(BOTH, r#"[{"eventType":"b","oneOf":[{"room":5},{"u":2},{"u":"2"}]}]"#),
            r#"[{"eventType":"a","oneOf":[{"u":"1"}]},{"eventType":"b","oneOf":[{"room":5,"u":"1"},{"room":5,"u":"2"},{"u":"2"}]}]"#
        );
    }

    #[test]
    fn what_contradicts_the_token_gives_nothing_and_never_everything() {
        let automatic = r#"[{"eventType":"a","oneOf":[{"u":"1"}]}]"#;
        assert_eq!(restricted(automatic, r#"[{"eventType":"a","oneOf":[{"u":"2"}]}]"#), "[]");
        for everything in [r#"[{"eventType":"a"}]"#, r#"[{"eventType":"a","oneOf":[{}]}]"#] {
            assert_eq!(restricted(automatic, everything), automatic);
        }
        assert_eq!(restricted(automatic, r#"[{"eventType":"a","oneOf":[{"u":null}]}]"#), automatic);
    }

    #[test]
    fn lists_that_multiply_beyond_the_limit_are_refused() {
        let many = |field: &str| {
            let all: Vec<_> = (0..200).map(|value| format!(r#"{{"{field}":{value}}}"#)).collect();
            parse_list(&format!(r#"[{{"eventType":"a","oneOf":[{}]}}]"#, all.join(","))).unwrap()
        };
        let refused = restrict(many("u"), &many("v")).unwrap_err();
        assert_eq!(refused, SubscriptionError::TooManyAlternatives { count: 40_000 });
    }

    /// Whether a subscription matches an event with these values of the fields `u` and `v`.
    fn matches(list: &[Subscription], values: [u8; 2]) -> bool {
        let extractors = Extractors::parse(
            r#"{"a": {"u": {"stable_field_index": 0, "event": {"json_pointer": "/u"}},
                      "v": {"stable_field_index": 1, "event": {"json_pointer": "/v"}}}}"#,
        )
        .unwrap();
        let canonical =
            |value: u8| Constraint { field: "u".into(), json: value.to_string().into() }.canonical().unwrap();
        list.iter().map(|one| compile(one, &extractors, true).unwrap()).any(|one| {
            let holds = |(field, value): &(u16, Box<[u8]>)| **value == *canonical(values[usize::from(*field)]);
            one.clauses.is_empty() || one.clauses.iter().any(|clause| clause.iter().all(holds))
        })
    }

    fn subscription(least: usize) -> impl Strategy<Value = String> {
        let alternative = prop::collection::btree_map("[uv]", 0..3_u8, least..3);
        prop::collection::vec(alternative, least..4).prop_map(|alternatives| {
            let texts: Vec<_> = alternatives.iter().map(|one| format!("{one:?}")).collect();
            format!(r#"{{"eventType":"a","oneOf":[{}]}}"#, texts.join(","))
        })
    }

    proptest! {
        #[test]
        fn a_restricted_list_matches_what_both_match(automatic in subscription(1), manual in prop::collection::vec(subscription(0), 1..3)) {
            let automatic = parse_list(&format!("[{automatic}]")).unwrap();
            let manual = parse_list(&format!("[{}]", manual.join(","))).unwrap();
            let restricted = restrict(automatic.clone(), &manual).unwrap();
            for values in (0..3).flat_map(|u| (0..3).map(move |v| [u, v])) {
                let both = matches(&automatic, values) && matches(&manual, values);
                prop_assert_eq!(matches(&restricted, values), both, "{:?}", values);
            }
        }
    }
}
