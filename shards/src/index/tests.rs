use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NOBODY: [u32; 0] = [];

type Values = Vec<(u16, Vec<u8>)>;

impl Fields for Values {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn get(&self, at: usize) -> (u16, &[u8]) {
        (self[at].0, &self[at].1)
    }
}

fn values(pairs: &[(u16, &str)]) -> Values {
    pairs.iter().map(|(position, value)| (*position, value.as_bytes().to_vec())).collect()
}

fn subscription(event_type: &str, clauses: &[&[(u16, &str)]]) -> CompiledSubscription {
    let clause = |clause: &&[(u16, &str)]| clause.iter().map(|(at, value)| (*at, value.as_bytes().into())).collect();
    CompiledSubscription {
        event_type: event_type.into(),
        clauses: clauses.iter().map(clause).collect(),
        ignored_fields: Vec::new(),
        snapshot: false,
    }
}

fn matched(index: &mut Index, event_type: &str, fields: &[(u16, &str)]) -> Vec<u32> {
    let mut out = Vec::new();
    index.matches(event_type, &values(fields), &mut out);
    out.sort_unstable();
    out
}

fn names(types: &[&str]) -> Vec<Box<str>> {
    types.iter().map(|name| Box::from(*name)).collect()
}

fn assert_is_empty(index: &Index) {
    assert_eq!(index.subscriptions(), 0);
    assert!(index.registrations.is_empty());
    assert!(index.types.is_empty());
    assert!(index.buckets.is_empty());
}

#[test]
fn an_unconstrained_subscription_gets_every_event_of_its_type_and_no_other() {
    let mut index = Index::new();
    index.set(3, vec![subscription("a", &[])]);
    index.set(5, vec![subscription("a", &[&[]]), subscription("b", &[])]);
    assert_eq!(matched(&mut index, "a", &[]), [3, 5]);
    assert_eq!(matched(&mut index, "a", &[(0, "x")]), [3, 5]);
    assert_eq!(matched(&mut index, "b", &[]), [5]);
    assert_eq!(matched(&mut index, "A", &[]), NOBODY);
    assert_eq!(matched(&mut index, "", &[]), NOBODY);
}

#[test]
fn all_conditions_of_a_clause_must_hold_and_one_clause_is_enough() {
    let mut index = Index::new();
    index.set(1, vec![subscription("t", &[&[(0, "x"), (1, "y")], &[(2, "z")]])]);
    assert_eq!(matched(&mut index, "t", &[(0, "x"), (1, "y")]), [1]);
    assert_eq!(matched(&mut index, "t", &[(2, "z")]), [1]);
    assert_eq!(matched(&mut index, "t", &[(0, "x"), (1, "y"), (2, "z")]), [1]);
    assert_eq!(matched(&mut index, "t", &[(0, "x")]), NOBODY);
    assert_eq!(matched(&mut index, "t", &[(0, "y"), (1, "x")]), NOBODY);
    assert_eq!(matched(&mut index, "t", &[]), NOBODY);
    assert_eq!(matched(&mut index, "other", &[(2, "z")]), NOBODY);
}

#[test]
fn a_list_in_the_event_matches_by_membership() {
    let mut index = Index::new();
    index.set(1, vec![subscription("t", &[&[(0, "a"), (1, "x")]])]);
    index.set(2, vec![subscription("t", &[&[(0, "b")]])]);
    assert_eq!(matched(&mut index, "t", &[(0, "c"), (0, "b"), (0, "a"), (1, "x")]), [1, 2]);
    assert_eq!(matched(&mut index, "t", &[(0, "b"), (0, "b"), (1, "a")]), [2]);
}

#[test]
fn long_lists_are_searched_for_the_remaining_conditions() {
    let mut index = Index::new();
    index.set(1, vec![subscription("t", &[&[(0, "500"), (1, "700")]])]);
    index.set(2, vec![subscription("t", &[&[(0, "500"), (1, "none")]])]);
    let lists: Values = (0..1000).flat_map(|n| [(1, n.to_string().into()), (0, n.to_string().into())]).collect();
    let mut out = Vec::new();
    index.matches("t", &lists, &mut out);
    assert_eq!(out, [1]);
}

#[test]
fn an_event_reaches_a_connection_once_however_many_subscriptions_match() {
    let mut index = Index::new();
    let many = || vec![subscription("t", &[&[(0, "a")], &[(1, "b")]]), subscription("t", &[&[(0, "a")]])];
    index.set(1, many());
    index.set(2, [many(), vec![subscription("t", &[]), subscription("t", &[])]].concat());
    let mut out = Vec::new();
    for _ in 0..2 {
        index.matches("t", &values(&[(0, "a"), (1, "b")]), &mut out);
    }
    out.sort_unstable();
    assert_eq!(out, [1, 1, 2, 2], "once for each event, appended");
    assert_eq!(index.subscriptions(), 6);
    index.remove(1);
    index.remove(2);
    assert_is_empty(&index);
}

#[test]
fn changes_name_the_types_that_came_and_went() {
    let mut index = Index::new();
    let changes = index.set(1, vec![subscription("a", &[]), subscription("b", &[&[(0, "x")]])]);
    assert_eq!(changes, TypeChanges { added: names(&["a", "b"]), removed: names(&[]) });
    assert_eq!(index.set(2, vec![subscription("a", &[&[(0, "x")]])]), TypeChanges::default());
    let changes = index.set(1, vec![subscription("b", &[]), subscription("c", &[])]);
    assert_eq!(changes, TypeChanges { added: names(&["c"]), removed: names(&[]) });
    assert!(index.has_type("a"));
    assert_eq!(index.remove(2), TypeChanges { added: names(&[]), removed: names(&["a"]) });
    assert!(!index.has_type("a"));
    assert_eq!(index.remove(2), TypeChanges::default());
    assert_eq!(index.remove(77), TypeChanges::default());
    assert_eq!(index.set(1, Vec::new()).removed.len(), 2);
    assert_is_empty(&index);
}

#[test]
fn a_conjunction_is_registered_where_the_fewest_others_are() {
    let mut index = Index::new();
    for connection in 0..100 {
        let user = connection.to_string();
        index.set(connection, vec![subscription("t", &[&[(0, "tenant"), (1, &user)]])]);
    }
    let type_id = index.types.find("t").unwrap();
    let tenant = index.buckets.find(type_id, 0, b"tenant").map_or(0, |id| index.buckets[id].entries().len());
    assert!(tenant <= 1, "{tenant} clauses share the bucket of the tenant");
    assert_eq!(matched(&mut index, "t", &[(0, "tenant"), (1, "42")]), [42]);
}

#[test]
fn event_types_of_any_length_and_with_line_feeds_are_matched() {
    let mut index = Index::new();
    let long = "x".repeat(226);
    index.set(0, vec![subscription(&long, &[]), subscription("a\nb\r\n", &[]), subscription("", &[])]);
    assert_eq!(matched(&mut index, &long, &[]), [0]);
    assert_eq!(matched(&mut index, &"x".repeat(225), &[]), NOBODY);
    assert_eq!(matched(&mut index, "a\nb\r\n", &[]), [0]);
    assert_eq!(matched(&mut index, "", &[]), [0]);
}

#[test]
fn the_count_of_events_may_wrap_around() {
    let mut index = Index::new();
    index.set(0, vec![subscription("t", &[&[(0, "a")], &[(1, "b")]])]);
    index.event_stamp = u32::MAX - 2;
    for _ in 0..6 {
        assert_eq!(matched(&mut index, "t", &[(0, "a"), (1, "b")]), [0]);
    }
    assert!(index.event_stamp < 6);
}

/// What the index does, done slowly.
#[derive(Default)]
struct Model(BTreeMap<u32, Vec<CompiledSubscription>>);

impl Model {
    fn types(&self) -> BTreeSet<Box<str>> {
        self.0.values().flatten().map(|subscription| subscription.event_type.clone()).collect()
    }

    fn matches(&self, event_type: &str, fields: &Values) -> Vec<u32> {
        let holds = |clause: &Clause| {
            clause
                .iter()
                .all(|(position, value)| fields.iter().any(|found| found.0 == *position && *found.1 == **value))
        };
        let wanted = |subscription: &CompiledSubscription| {
            *subscription.event_type == *event_type
                && (subscription.clauses.is_empty() || subscription.clauses.iter().any(holds))
        };
        self.0.iter().filter(|(_, all)| all.iter().any(wanted)).map(|(connection, _)| *connection).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(u32, Vec<CompiledSubscription>),
    Remove(u32),
    Match(Box<str>, Values),
}

fn event_type() -> impl Strategy<Value = Box<str>> {
    prop::sample::select(names(&["", "a", "b", "ab"]))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![b"".to_vec(), b"x".to_vec(), b"y".to_vec(), b"xy".to_vec()])
}

fn clause() -> impl Strategy<Value = Clause> {
    prop::collection::btree_map(0..4_u16, value().prop_map(Into::into), 0..4)
        .prop_map(|conditions| conditions.into_iter().collect())
}

fn compiled() -> impl Strategy<Value = CompiledSubscription> {
    (event_type(), prop::collection::vec(clause(), 0..4)).prop_map(|(event_type, clauses)| CompiledSubscription {
        event_type,
        clauses,
        ignored_fields: Vec::new(),
        snapshot: false,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u32, prop::collection::vec(compiled(), 0..5)).prop_map(|(connection, all)| Step::Set(connection, all)),
        1 => (0..9_u32).prop_map(Step::Remove),
        4 => (event_type(), prop::collection::vec((0..4_u16, value()), 0..24))
            .prop_map(|(event_type, fields)| Step::Match(event_type, fields)),
    ]
}

proptest! {
    #[test]
    fn the_index_does_what_a_search_through_all_subscriptions_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut index = Index::new();
        let mut model = Model::default();
        for step in steps {
            let types_before = model.types();
            let changes = match step {
                Step::Set(connection, all) => {
                    model.0.insert(connection, all.clone());
                    index.set(connection, all)
                }
                Step::Remove(connection) => {
                    model.0.remove(&connection);
                    index.remove(connection)
                }
                Step::Match(event_type, fields) => {
                    let mut out = Vec::new();
                    index.matches(&event_type, &fields, &mut out);
                    out.sort_unstable();
                    prop_assert_eq!(out, model.matches(&event_type, &fields));
                    TypeChanges::default()
                }
            };
            let types = model.types();
            prop_assert_eq!(index.subscriptions(), model.0.values().map(Vec::len).sum::<usize>());
            for name in ["", "a", "b", "ab"] {
                prop_assert_eq!(index.has_type(name), types.contains(name));
            }
            let sorted = |mut names: Vec<Box<str>>| { names.sort(); names };
            let difference = |a: &BTreeSet<Box<str>>, b| a.difference(b).cloned().collect::<Vec<_>>();
            prop_assert_eq!(sorted(changes.added), difference(&types, &types_before));
            prop_assert_eq!(sorted(changes.removed), difference(&types_before, &types));
        }
        for connection in 0..9 {
            index.remove(connection);
        }
        assert_is_empty(&index);
    }
}
