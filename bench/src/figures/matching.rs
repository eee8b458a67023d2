//! An event that matches nothing among a million subscriptions.

use std::hint::black_box;
use std::time::Instant;

use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::cpu;
use super::error::FigureError;
use crate::samples::{EVENT_TYPE, OneField};
use crate::subscribers;

const SUBSCRIPTIONS: usize = 1_000_000;
/// Keys looked for in turn, so that no single bucket stays in the cache.
const KEYS: u32 = 100_000;
const ROUNDS: usize = 5;

pub(super) fn no_match(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "index",
        "Index: an event without a match among 1 M subscriptions, each with its own key",
        Bound::Below(1_000.0),
        Unit::Nanoseconds,
    );
    context.say("filling the index");
    let mut index = subscribers::index(SUBSCRIPTIONS);
    let absent: Vec<OneField> = (0..KEYS).map(|number| OneField(subscribers::key(u32::MAX - number))).collect();
    cpu::bound_to(cpu::SERVER, || {
        let mut matched = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for field in &absent {
                index.matches(black_box(EVENT_TYPE), black_box(field), &mut matched);
            }
            finding.values.push(began.elapsed().as_nanos() as f64 / absent.len() as f64);
        }
        if !matched.is_empty() {
            finding.problems.push(format!("{} connections matched", matched.len()));
        }
    });
    finding.details.push(format!("{KEYS} different keys that nobody has, {ROUNDS} times"));
    Ok(vec![finding])
}
