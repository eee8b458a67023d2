//! Would a regex take calls that are Tidegate's own?

use std::collections::BTreeSet;

use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;

use super::super::path::OWN_SEGMENTS;

/// The first of Tidegate's own path prefixes under which the regex, anchored at both ends, matches some path. Walks the
/// automaton, so no path has to be guessed; look-around counts as fulfilled, which errs on the side of refusing. `None`
/// for a regex that doesn't compile.
pub(super) fn own_prefix_taken(pattern: &str) -> Option<&'static str> {
    let nfa = NFA::compiler().syntax(syntax::Config::new().case_insensitive(true)).build(pattern).ok()?;
    OWN_SEGMENTS.into_iter().find(|segment| takes(&nfa, segment))
}

fn takes(nfa: &NFA, segment: &str) -> bool {
    let mut states = closure(nfa, [nfa.start_anchored()]);
    for byte in b"/".iter().chain(segment.as_bytes()) {
        states = step(nfa, &states, *byte);
    }
    let below = step(nfa, &states, b'/');
    is_match(nfa, &states) || is_match(nfa, &reachable(nfa, below))
}

fn is_match(nfa: &NFA, states: &BTreeSet<StateID>) -> bool {
    states.iter().any(|id| matches!(nfa.state(*id), State::Match { .. }))
}

/// The states that these lead to without a byte, themselves included.
fn closure(nfa: &NFA, from: impl IntoIterator<Item = StateID>) -> BTreeSet<StateID> {
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = from.into_iter().collect();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            without_byte(nfa.state(id), &mut open);
        }
    }
    found
}

fn without_byte(state: &State, next: &mut Vec<StateID>) {
    match state {
        State::Look { next: to, .. } | State::Capture { next: to, .. } => next.push(*to),
        State::Union { alternates } => next.extend(alternates.iter().copied()),
        State::BinaryUnion { alt1, alt2 } => next.extend([*alt1, *alt2]),
        State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Fail | State::Match { .. } => {}
    }
}

fn step(nfa: &NFA, states: &BTreeSet<StateID>, byte: u8) -> BTreeSet<StateID> {
    let next = states.iter().filter_map(|id| match nfa.state(*id) {
        State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        State::Sparse(transitions) => transitions.matches_byte(byte),
        State::Dense(transitions) => transitions.matches_byte(byte),
        _ => None,
    });
    closure(nfa, next)
}

/// Everything that any bytes lead to.
fn reachable(nfa: &NFA, from: BTreeSet<StateID>) -> BTreeSet<StateID> {
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = from.into_iter().collect();
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        match nfa.state(id) {
            State::ByteRange { trans } => open.push(trans.next),
            State::Sparse(transitions) => open.extend(transitions.transitions.iter().map(|trans| trans.next)),
            State::Dense(transitions) => open.extend((0..=u8::MAX).filter_map(|byte| transitions.matches_byte(byte))),
            state => without_byte(state, &mut open),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_reaches_into_own_paths_is_found() {
        for pattern in [
            ".*",
            "/.*",
            "/_rig/v1/events",
            "/_RIG/.*",
            "/_rig",
            "/[^/]+/health",
            "/_rig/a{3}b[0-9]x",
            "(/a|/_rig)/b",
            "^/_r.g/.+$",
            "/\\w+/x",
        ] {
            assert_eq!(own_prefix_taken(pattern), Some("_rig"), "{pattern}");
        }
        assert_eq!(own_prefix_taken("/_tidegate/x"), Some("_tidegate"));
    }

    #[test]
    fn what_stays_outside_is_let_be() {
        for pattern in ["/", "/api/.*", "/_rigging/.*", "/_ri", "/[^_].*", "/[a-z]+", "/_rig-other", "/x/_rig/y"] {
            assert_eq!(own_prefix_taken(pattern), None, "{pattern}");
        }
    }
}
