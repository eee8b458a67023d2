//! Subscriptions: what a client asks for, what it is told it got, and what the index matches.
//!
//! [`parse_query_parameter`] and [`parse_put_body`] read what clients send, [`unite`] puts automatic subscriptions in
//! front, [`echo`] writes the list for `rig.subscriptions_set`, and [`compile`] turns field names into extractor
//! positions and values into their canonical encoding.

mod echo;
mod parse;
mod restrict;

#[cfg(test)]
mod tests;

pub use echo::{echo, write_list};
pub use parse::{parse_list, parse_put_body, parse_query_parameter};
use restrict::restrict;

use crate::extractor::Extractors;
use crate::value::{CANONICAL_NULL, canonicalize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// One subscription as the client gave it, spellings resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The event type; compared exactly.
    pub event_type: Box<str>,
    /// Alternatives: at least one must hold in full. Empty: every event of the type.
    pub one_of: Vec<Alternative>,
    /// Asks for the newest matching event per key before the live ones.
    pub snapshot: bool,
}

/// Constraints that must all hold, sorted by field, each field once. Empty: holds always.
pub type Alternative = Box<[Constraint]>;

/// A field must have a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// The name of the field; its meaning comes from the extractors.
    pub field: Box<str>,
    /// The value as JSON text, proven to be valid.
    pub(crate) json: Box<str>,
}

/// A subscription the index understands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledSubscription {
    /// The event type.
    pub event_type: Box<str>,
    /// At least one must hold. None at all: every event of the type.
    pub clauses: Vec<Clause>,
    /// Fields of constraints that are ignored because no extractor says where they are in an event, sorted. For the
    /// log and the counter.
    pub ignored_fields: Vec<Box<str>>,
    /// Asks for the newest matching event per key before the live ones.
    pub snapshot: bool,
}

/// A conjunction: positions of fields (see [`TypeExtractors::fields`](crate::extractor::TypeExtractors::fields)) with
/// the canonical encodings they must have, sorted by position. An empty clause matches everything.
pub type Clause = Box<[(u16, Box<[u8]>)]>;

/// Why a list of subscriptions is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The text is not JSON.
    #[error("could not parse subscriptions: not JSON: {0}")]
    NotJson(String),
    /// The body of a PUT is not an object with a member `subscriptions`.
    #[error("could not parse subscriptions: the body must be an object with a list \"subscriptions\"")]
    NoSubscriptions,
    /// The list, or a subscription in it, is not what it must be.
    #[error("could not parse subscriptions: {0}")]
    BadList(String),
    /// There are constraints on fields without extractor, and `STRICT_CONSTRAINTS` refuses them.
    #[error("cannot accept subscription request: event type {event_type:?} has no extractor for {fields:?}")]
    UnknownFields {
        /// The event type of the subscription.
        event_type: Box<str>,
        /// The names of the fields, sorted.
        fields: Vec<Box<str>>,
    },
    /// More subscriptions than a connection may have.
    #[error("cannot accept subscription request: {count} subscriptions, at most {limit} are allowed per connection")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// More alternatives than the manual subscriptions of a connection may have together.
    #[error("cannot accept subscription request: {count} objects in oneOf, at most {MAX_ALTERNATIVES} are allowed")]
    TooManyAlternatives {
        /// How many there are.
        count: usize,
    },
}

/// The most alternatives that the manual subscriptions of one connection may have together. Each takes memory in the
/// index, and a body of 1 MiB would hold a hundred thousand.
pub const MAX_ALTERNATIVES: usize = 10_000;

/// What happens to subscriptions that say exactly the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// The first one stays: RIG's way when a connection is opened.
    Drop,
    /// All stay: RIG's way on the PUT.
    Keep,
}

/// What manual subscriptions may do beside automatic ones (`AUTO_SUBSCRIPTIONS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionMode {
    /// They add what they ask for: RIG's way.
    #[default]
    Unite,
    /// They can only narrow what the token gives.
    Restrict,
}

/// The list that comes into force: the automatic subscriptions first, then the manual ones; or, restricted, the automatic ones
/// narrowed by the manual ones.
///
/// # Errors
/// As [`unite`].
pub fn in_force(
    mode: SubscriptionMode,
    automatic: Vec<Subscription>,
    manual: Vec<Subscription>,
    duplicates: Duplicates,
    limit: usize,
) -> Result<Vec<Subscription>, SubscriptionError> {
    match mode {
        SubscriptionMode::Unite => unite(automatic, manual, duplicates, limit),
        SubscriptionMode::Restrict => {
            // The limits of the manual ones hold, whatever becomes of them.
            let manual = unite(Vec::new(), manual, duplicates, limit)?;
            unite(restrict(automatic, &manual)?, Vec::new(), Duplicates::Drop, limit)
        }
    }
}

/// Puts the automatic subscriptions in front of the manual ones.
///
/// # Errors
/// [`SubscriptionError::TooMany`] if the result has more than `limit`, [`SubscriptionError::TooManyAlternatives`] if the
/// manual ones together have more than [`MAX_ALTERNATIVES`].
pub fn unite(
    automatic: Vec<Subscription>,
    manual: Vec<Subscription>,
    duplicates: Duplicates,
    limit: usize,
) -> Result<Vec<Subscription>, SubscriptionError> {
    let alternatives = manual.iter().map(|subscription| subscription.one_of.len()).sum();
    if alternatives > MAX_ALTERNATIVES {
        return Err(SubscriptionError::TooManyAlternatives { count: alternatives });
    }
    let mut united = automatic;
    united.extend(manual);
    if duplicates == Duplicates::Drop {
        drop_duplicates(&mut united);
    }
    let count = united.len();
    if count > limit { Err(SubscriptionError::TooMany { count, limit }) } else { Ok(united) }
}

/// Translates a subscription for the index.
///
/// A `null` in a constraint matches anything and disappears; so does a constraint on a field that no extractor finds in
/// events, which is reported in [`CompiledSubscription::ignored_fields`].
///
/// # Errors
/// With `strict`, [`SubscriptionError::UnknownFields`] instead of ignored constraints.
pub fn compile(
    subscription: &Subscription,
    extractors: &Extractors,
    strict: bool,
) -> Result<CompiledSubscription, SubscriptionError> {
    let fields = extractors.for_type(&subscription.event_type);
    let mut clauses: Vec<Clause> = Vec::with_capacity(subscription.one_of.len());
    let mut ignored_fields: Vec<Box<str>> = Vec::new();
    for alternative in &subscription.one_of {
        let mut clause = Vec::with_capacity(alternative.len());
        for constraint in alternative {
            let position = fields.and_then(|fields| {
                fields
                    .position(&constraint.field)
                    .filter(|&at| fields.fields()[usize::from(at)].event_pointer.is_some())
            });
            let Some(position) = position else {
                ignored_fields.push(constraint.field.clone());
                continue;
            };
            let canonical = constraint.canonical()?;
            if *canonical != *CANONICAL_NULL {
                clause.push((position, canonical));
            }
        }
        clause.sort_by_key(|(position, _)| *position);
        clauses.push(clause.into_boxed_slice());
    }
    ignored_fields.sort();
    ignored_fields.dedup();
    let event_type = subscription.event_type.clone();
    if strict && !ignored_fields.is_empty() {
        return Err(SubscriptionError::UnknownFields { event_type, fields: ignored_fields });
    }
    if clauses.iter().any(|clause| clause.is_empty()) {
        clauses.clear();
    }
    clauses.sort();
    clauses.dedup();
    Ok(CompiledSubscription { event_type, clauses, ignored_fields, snapshot: subscription.snapshot })
}

impl Constraint {
    /// The value as JSON text, as it was given.
    pub fn json(&self) -> &str {
        &self.json
    }

    fn canonical(&self) -> Result<Box<[u8]>, SubscriptionError> {
        let mut canonical = Vec::new();
        canonicalize(self.json.as_bytes(), &mut canonical).map_err(|e| SubscriptionError::BadList(e.to_string()))?;
        Ok(canonical.into_boxed_slice())
    }
}

/// Keeps the first of those that are written alike in the echo; it asks for a snapshot if any of them does.
fn drop_duplicates(subscriptions: &mut Vec<Subscription>) {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(subscriptions.len());
    let mut kept: Vec<Subscription> = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions.drain(..) {
        match seen.entry(echo(std::slice::from_ref(&subscription))) {
            Entry::Occupied(first) => kept[*first.get()].snapshot |= subscription.snapshot,
            Entry::Vacant(free) => {
                free.insert(kept.len());
                kept.push(subscription);
            }
        }
    }
    *subscriptions = kept;
}
