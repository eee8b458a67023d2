//! Reading the lists that clients send.

use super::{Alternative, Constraint, Subscription, SubscriptionError, drop_duplicates};
use crate::members::{Members, kind_name};
use crate::value::canonicalize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Spellings of the event type, the first that is given counts.
const EVENT_TYPE: [&str; 2] = ["event_type", "eventType"];
/// Spellings of the alternatives, the first that is given counts.
const ONE_OF: [&str; 3] = ["constraints", "one_of", "oneOf"];
/// The wish for the newest event per key.
const SNAPSHOT: [&str; 1] = ["snapshot"];

/// Parses the `subscriptions` parameter of an event stream or WebSocket: a JSON list. Exact duplicates are dropped.
///
/// # Errors
/// As [`parse_query_parameter`].
pub fn parse_list(json: &str) -> Result<Vec<Subscription>, SubscriptionError> {
    parse_query_parameter(json, false)
}

/// Parses the `subscriptions` parameter of a connection call: a JSON list or, with `allow_object` (long polling),
/// also `{"subscriptions": […]}`. Exact duplicates are dropped.
///
/// # Errors
/// [`SubscriptionError::NotJson`] or [`SubscriptionError::BadList`].
pub fn parse_query_parameter(json: &str, allow_object: bool) -> Result<Vec<Subscription>, SubscriptionError> {
    let document: &RawValue = serde_json::from_str(json).map_err(not_json)?;
    let list = match Members::parse(document.get()) {
        Ok(members) if allow_object => members.first("subscriptions").unwrap_or(document),
        _ => document,
    };
    let mut subscriptions = parse_subscriptions(list)?;
    drop_duplicates(&mut subscriptions);
    Ok(subscriptions)
}

/// Parses the body of the subscriptions PUT: `{"subscriptions": […]}`. Duplicates are kept.
///
/// # Errors
/// [`SubscriptionError::NotJson`] and [`SubscriptionError::NoSubscriptions`] come before the subscription check and the
/// connection token in the order of answers, [`SubscriptionError::BadList`] after them.
pub fn parse_put_body(body: &[u8]) -> Result<Vec<Subscription>, SubscriptionError> {
    let text = std::str::from_utf8(body).map_err(|error| SubscriptionError::NotJson(error.to_string()))?;
    let document: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    let members = Members::parse(document.get()).map_err(|_| SubscriptionError::NoSubscriptions)?;
    parse_subscriptions(members.first("subscriptions").ok_or(SubscriptionError::NoSubscriptions)?)
}

fn not_json(error: serde_json::Error) -> SubscriptionError {
    SubscriptionError::NotJson(error.to_string())
}

fn parse_subscriptions(list: &RawValue) -> Result<Vec<Subscription>, SubscriptionError> {
    let items =
        elements(list).ok_or_else(|| SubscriptionError::BadList(format!("must be a list, is {}", kind_name(list))))?;
    let parsed = items.into_iter().enumerate().map(|(at, item)| {
        parse_subscription(item).map_err(|reason| SubscriptionError::BadList(format!("subscription {at}: {reason}")))
    });
    parsed.collect()
}

fn parse_subscription(raw: &RawValue) -> Result<Subscription, String> {
    let members = Members::parse(raw.get()).map_err(|_| format!("must be an object, is {}", kind_name(raw)))?;
    let (spelling, raw_type) = given(&members, &EVENT_TYPE).ok_or("eventType is missing")?;
    let event_type: Box<str> = serde_json::from_str(raw_type.get())
        .map_err(|_| format!("{spelling} must be a string, is {}", kind_name(raw_type)))?;
    if event_type.is_empty() {
        return Err(format!("{spelling} must not be empty"));
    }
    let one_of = match given(&members, &ONE_OF) {
        None => Vec::new(),
        Some((spelling, list)) => elements(list)
            .ok_or_else(|| format!("{spelling} must be a list of objects, is {}", kind_name(list)))?
            .into_iter()
            .map(|item| parse_alternative(item).map_err(|reason| format!("{spelling}: {reason}")))
            .collect::<Result<_, _>>()?,
    };
    let snapshot = match given(&members, &SNAPSHOT).map(|(_, value)| (value.get(), value)) {
        None | Some(("false", _)) => false,
        Some(("true", _)) => true,
        Some((_, value)) => return Err(format!("snapshot must be true or false, is {}", kind_name(value))),
    };
    Ok(Subscription { event_type, one_of, snapshot })
}

fn parse_alternative(raw: &RawValue) -> Result<Alternative, String> {
    let members = Members::parse(raw.get()).map_err(|_| format!("must hold objects only, holds {}", kind_name(raw)))?;
    let mut constraints: BTreeMap<String, Box<str>> = BTreeMap::new();
    let mut canonical = Vec::new();
    for (field, value) in members.0 {
        canonical.clear();
        canonicalize(value.get().as_bytes(), &mut canonical).map_err(|error| format!("field {field:?}: {error}"))?;
        constraints.entry(field).or_insert_with(|| value.get().into());
    }
    Ok(constraints.into_iter().map(|(field, json)| Constraint { field: field.into(), json }).collect())
}

/// The first spelling that is there; `null` is as if absent.
fn given<'a, 's>(members: &Members<'a>, spellings: &[&'s str]) -> Option<(&'s str, &'a RawValue)> {
    spellings
        .iter()
        .filter_map(|spelling| Some((*spelling, members.first(spelling)?)))
        .find(|(_, value)| value.get() != "null")
}

fn elements(list: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(list.get()).ok()
}
