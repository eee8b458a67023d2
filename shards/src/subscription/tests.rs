use super::*;
use proptest::prelude::*;

fn list(json: &str) -> Vec<Subscription> {
    parse_list(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn extractors() -> Extractors {
    Extractors::parse(
        r#"{"t": {"a": {"stable_field_index": 5, "event": {"json_pointer": "/data/a"}},
                  "b": {"stable_field_index": 3, "event": {"json_pointer": "/data/b"}},
                  "hidden": {"stable_field_index": 4, "jwt": {"json_pointer": "/h"}}}}"#,
    )
    .unwrap()
}

fn compiled(one_of: &str) -> CompiledSubscription {
    let subscriptions = list(&format!(r#"[{{"eventType":"t","oneOf":{one_of}}}]"#));
    compile(&subscriptions[0], &extractors(), false).unwrap()
}

fn canonical(json: &str) -> Box<[u8]> {
    let mut out = Vec::new();
    canonicalize(json.as_bytes(), &mut out).unwrap();
    out.into_boxed_slice()
}

#[test]
fn the_echo_names_type_and_alternatives_and_drops_unknown_members() {
    let echoed = echo(&list(r#"[{"oneOf":[{"name":"John"},{}],"eventType":"greeting","x":1},{"eventType":"chat"}]"#));
    assert_eq!(echoed, r#"[{"eventType":"greeting","oneOf":[{"name":"John"},{}]},{"eventType":"chat","oneOf":[]}]"#);
    assert_eq!(echo(&list(r#"[{"eventType":"a","oneOf":[{}]}]"#)), r#"[{"eventType":"a","oneOf":[{}]}]"#);
    assert_eq!(echo(&list(" [] ")), "[]");
}

#[test]
fn of_several_spellings_the_snake_case_ones_come_first() {
    let all = r#"[{"oneOf":[{"c":1}],"one_of":[{"b":1}],"constraints":[{"a":1}],"eventType":"x","event_type":"y"}]"#;
    assert_eq!(echo(&list(all)), r#"[{"eventType":"y","oneOf":[{"a":1}]}]"#);
    let two = r#"[{"oneOf":[{"c":1}],"one_of":[{"b":1}],"eventType":"x"}]"#;
    assert_eq!(echo(&list(two)), r#"[{"eventType":"x","oneOf":[{"b":1}]}]"#);
    let nulls = r#"[{"oneOf":[{"c":1}],"constraints":null,"eventType":"x","event_type":null}]"#;
    assert_eq!(echo(&list(nulls)), r#"[{"eventType":"x","oneOf":[{"c":1}]}]"#);
}

#[test]
fn values_are_echoed_as_rig_re_encodes_them() {
    for (given, expected) in [
        ("1.50", "1.5"),
        ("1e3", "1.0e3"),
        ("1e2", "100.0"),
        ("1.0", "1.0"),
        ("-1.5e-3", "-0.0015"),
        ("0.001", "0.001"),
        ("0.0001", "0.0001"),
        ("0.00001", "1.0e-5"),
        ("0.00012", "1.2e-4"),
        ("12345.678", "12345.678"),
        ("120000.0", "1.2e5"),
        ("1e22", "1.0e22"),
        ("9007199254740991.0", "9007199254740991.0"),
        ("9007199254740992.0", "9.007199254740992e15"),
        ("0.5", "0.5"),
        ("0.05", "0.05"),
        ("0.0", "0.0"),
        ("-0.0", "-0.0"),
        ("-0", "0"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("-7", "-7"),
        ("1e400", "1e400"),
        (r#""\u0061\/\n\"""#, r#""a/\n\"""#),
        (
            r#"{"b":{"d":1,"c":[2.50,null,true,false]},"a":"x","a":"y"}"#,
            r#"{"a":"x","b":{"c":[2.5,null,true,false],"d":1}}"#,
        ),
        (r#"{"$serde_json::private::Number":"1"}"#, r#"{"$serde_json::private::Number":"1"}"#),
    ] {
        let echoed = echo(&list(&format!(r#"[{{"eventType":"a","oneOf":[{{"f":{given}}}]}}]"#)));
        assert_eq!(echoed, format!(r#"[{{"eventType":"a","oneOf":[{{"f":{expected}}}]}}]"#));
    }
}

#[test]
fn exact_duplicates_are_dropped_on_connect_and_kept_on_the_put() {
    let twice = r#"[{"eventType":"a","oneOf":[{"x":1.50,"y":2}]},{"eventType":"b"},
                    {"event_type":"a","oneOf":[{"y":2,"x":1.5}]},{"eventType":"a","oneOf":[{"x":1.5,"y":2.0}]}]"#;
    let connected = list(twice);
    let types: Vec<&str> = connected.iter().map(|subscription| &*subscription.event_type).collect();
    assert_eq!(types, ["a", "b", "a"]);
    let put = parse_put_body(format!(r#"{{"subscriptions":{twice}}}"#).as_bytes()).unwrap();
    assert_eq!(put.len(), 4);
}

#[test]
fn automatic_subscriptions_come_first_and_the_limit_counts_all() {
    let (automatic, manual) = (list(r#"[{"eventType":"z"}]"#), list(r#"[{"eventType":"a"},{"eventType":"z"}]"#));
    let united = |duplicates, limit| unite(automatic.clone(), manual.clone(), duplicates, limit).map(|all| echo(&all));
    let (z, a) = (r#"{"eventType":"z","oneOf":[]}"#, r#"{"eventType":"a","oneOf":[]}"#);
    assert_eq!(united(Duplicates::Drop, 2), Ok(format!("[{z},{a}]")));
    assert_eq!(united(Duplicates::Keep, 3), Ok(format!("[{z},{a},{z}]")));
    let error = united(Duplicates::Keep, 2).unwrap_err();
    assert_eq!(error, SubscriptionError::TooMany { count: 3, limit: 2 });
    assert!(error.to_string().starts_with("cannot accept subscription request: "));
}

#[test]
fn alternatives_are_limited_for_manual_subscriptions_together() {
    let of =
        |count: usize| list(&format!(r#"[{{"eventType":"a","oneOf":[{}]}}]"#, vec![r#"{"f":1}"#; count].join(",")));
    let united = |manual| unite(of(MAX_ALTERNATIVES), manual, Duplicates::Keep, 9).map(|all| all.len());
    assert_eq!(united(of(MAX_ALTERNATIVES)), Ok(2));
    let two = [of(MAX_ALTERNATIVES), of(1)].concat();
    assert_eq!(united(two), Err(SubscriptionError::TooManyAlternatives { count: MAX_ALTERNATIVES + 1 }));
}

#[test]
fn only_long_polling_takes_the_object_form() {
    let object = r#"{"subscriptions":[{"eventType":"a"}]}"#;
    assert_eq!(parse_query_parameter(object, true).map(|all| all.len()), Ok(1));
    assert_eq!(parse_query_parameter(r#"[{"eventType":"a"}]"#, true).map(|all| all.len()), Ok(1));
    assert!(matches!(parse_query_parameter(object, false), Err(SubscriptionError::BadList(_))));
    assert!(matches!(parse_query_parameter("{}", true), Err(SubscriptionError::BadList(_))));
}

#[test]
fn lists_that_are_wrong_are_refused_with_the_place() {
    for (json, reason) in [
        ("null", "must be a list, is null"),
        ("5", "must be a list, is a number"),
        (r#"{"eventType":"a"}"#, "must be a list, is an object"),
        (r#"[{"eventType":"a"},"x"]"#, "subscription 1: must be an object, is a string"),
        ("[{}]", "subscription 0: eventType is missing"),
        (r#"[{"eventType":""}]"#, "subscription 0: eventType must not be empty"),
        (r#"[{"event_type":7,"eventType":"a"}]"#, "subscription 0: event_type must be a string, is a number"),
        (r#"[{"eventType":"a","oneOf":{"f":1}}]"#, "subscription 0: oneOf must be a list of objects, is an object"),
        (
            r#"[{"eventType":"a","constraints":"x"}]"#,
            "subscription 0: constraints must be a list of objects, is a string",
        ),
        (r#"[{"eventType":"a","oneOf":[{},[]]}]"#, "subscription 0: oneOf: must hold objects only, holds a list"),
        (
            r#"[{"eventType":"a","oneOf":[{"f":"\ud800"}]}]"#,
            "subscription 0: oneOf: field \"f\": the JSON string holds half of a surrogate pair at byte 1",
        ),
    ] {
        assert_eq!(parse_list(json), Err(SubscriptionError::BadList(reason.into())), "{json}");
    }
    assert_eq!(parse_list("5").unwrap_err().to_string(), "could not parse subscriptions: must be a list, is a number");
    let deep = format!(r#"[{{"eventType":"a","oneOf":[{{"f":{}1{}}}]}}]"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(parse_list(&deep).is_err());
}

#[test]
fn a_text_that_is_no_json_is_told_apart() {
    for json in ["", "x", "[", "[] []", r#"[{"eventType":"a",}]"#] {
        assert!(matches!(parse_list(json), Err(SubscriptionError::NotJson(_))), "{json}");
        assert!(matches!(parse_put_body(json.as_bytes()), Err(SubscriptionError::NotJson(_))), "{json}");
    }
    assert!(matches!(parse_put_body(b"{\"subscriptions\":[\"\xff\"]}"), Err(SubscriptionError::NotJson(_))));
}

#[test]
fn a_put_without_subscriptions_is_told_apart_from_a_bad_list() {
    for body in ["{}", "[]", "null", "5", r#"{"Subscriptions":[]}"#] {
        assert_eq!(parse_put_body(body.as_bytes()), Err(SubscriptionError::NoSubscriptions), "{body}");
    }
    for body in [r#"{"subscriptions":null}"#, r#"{"subscriptions":{}}"#, r#"{"subscriptions":[1]}"#] {
        assert!(matches!(parse_put_body(body.as_bytes()), Err(SubscriptionError::BadList(_))), "{body}");
    }
    assert_eq!(parse_put_body(br#"{"subscriptions":[]}"#), Ok(Vec::new()));
}

#[test]
fn event_types_of_any_length_and_with_line_feeds_are_taken() {
    for event_type in ["x".repeat(100_000), "a\nb\r\n".into(), "ü😀\u{0}".into()] {
        let json = serde_json::json!([{ "eventType": event_type }]).to_string();
        assert_eq!(*list(&json)[0].event_type, *event_type);
        assert_eq!(echo(&list(&json)), serde_json::json!([{ "eventType": event_type, "oneOf": [] }]).to_string());
    }
}

#[test]
fn constraints_compile_to_positions_and_canonical_values() {
    let subscription = compiled(r#"[{"a":1.0,"b":"x"},{"a":"\u0031"}]"#);
    assert_eq!(&*subscription.event_type, "t");
    let expected: Vec<Clause> =
        vec![vec![(0, canonical("\"x\"")), (2, canonical("1"))].into(), vec![(2, canonical("\"1\""))].into()];
    assert_eq!(subscription.clauses, expected);
    assert!(subscription.ignored_fields.is_empty());
}

#[test]
fn a_null_matches_anything_and_an_alternative_that_always_holds_makes_the_rest_void() {
    assert_eq!(compiled(r#"[{"a":null,"b":1}]"#).clauses, [vec![(0, canonical("1"))].into()]);
    for one_of in ["[]", "[{}]", r#"[{"a":null}]"#, r#"[{"a":1},{}]"#, r#"[{"a":1},{"b":null}]"#] {
        assert!(compiled(one_of).clauses.is_empty(), "{one_of}");
    }
}

#[test]
fn equal_alternatives_are_matched_once() {
    assert_eq!(compiled(r#"[{"a":1,"b":2},{"b":2.0,"a":1e0},{"a":1,"b":2,"a":9}]"#).clauses.len(), 1);
}

#[test]
fn constraints_without_extractor_are_ignored_and_reported_or_refused_when_strict() {
    let subscription = compiled(r#"[{"z":1,"a":1},{"a":2,"hidden":3,"z":null}]"#);
    assert_eq!(subscription.clauses, [vec![(2, canonical("1"))].into(), vec![(2, canonical("2"))].into()]);
    assert_eq!(subscription.ignored_fields, ["hidden".into(), "z".into()]);
    let other = list(r#"[{"eventType":"no extractors","oneOf":[{"a":1}]}]"#);
    assert!(compile(&other[0], &extractors(), false).unwrap().clauses.is_empty());
    let error = compile(&other[0], &extractors(), true).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"cannot accept subscription request: event type "no extractors" has no extractor for ["a"]"#
    );
}

/// One member of a subscription object: the right names with the right and wrong values, in any order.
fn member() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["eventType", "event_type", "oneOf", "one_of", "constraints", "other"]);
    let value = prop::sample::select(vec![
        r#""a""#,
        r#""\u0061\n""#,
        "null",
        "7",
        "[]",
        "[{}]",
        r#"[{"a":1.50},{"b":null,"a":"x","a":2}]"#,
        r#"[{"a":{"y":[1e3,-0.0],"x":{}}},{"b":1e400}]"#,
        r#"[{"a":"\ud800"}]"#,
        "{}",
    ]);
    (name, value).prop_map(|(name, value)| format!("\"{name}\":{value}"))
}

proptest! {
    #[test]
    fn a_list_is_refused_with_a_reason_or_its_echo_says_the_same_again(
        objects in prop::collection::vec(prop::collection::vec(member(), 0..4), 0..4)
    ) {
        let objects: Vec<String> = objects.iter().map(|members| format!("{{{}}}", members.join(","))).collect();
        match parse_list(&format!("[{}]", objects.join(","))) {
            Err(error) => prop_assert!(matches!(error, SubscriptionError::BadList(_)), "{}", error),
            Ok(subscriptions) => {
                let again = list(&echo(&subscriptions));
                prop_assert_eq!(echo(&again), echo(&subscriptions));
                for (first, second) in subscriptions.iter().zip(&again) {
                    prop_assert_eq!(compile(first, &extractors(), false), compile(second, &extractors(), false));
                }
            }
        }
    }

    #[test]
    fn any_double_is_echoed_so_that_it_reads_back_as_the_same(float in any::<f64>()) {
        prop_assume!(float.is_finite());
        let echoed = echo(&list(&format!(r#"[{{"eventType":"a","oneOf":[{{"f":{float:?}}}]}}]"#)));
        let text = echoed.strip_prefix(r#"[{"eventType":"a","oneOf":[{"f":"#).and_then(|rest| rest.strip_suffix("}]}]"));
        let text = text.unwrap_or_default();
        prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(float.to_bits()), "{}", text);
        prop_assert!(text.contains('.') && text.len() <= 25, "{}", text);
    }

    #[test]
    fn any_text_is_read_without_panic_and_only_lists_of_objects_are_taken(text in "[\\[\\]{}\",:a-z0-9\\\\ ]{0,20}") {
        if let Ok(subscriptions) = parse_query_parameter(&text, true) {
            prop_assert!(subscriptions.is_empty(), "{}", text);
        }
        prop_assert!(parse_put_body(text.as_bytes()).map_or(true, |all| all.is_empty()));
    }
}

#[test]
fn the_wish_for_a_snapshot_is_read_and_not_echoed_and_no_duplicate_takes_it_away() {
    let both = list(r#"[{"eventType":"a"},{"eventType":"a","snapshot":true},{"eventType":"b","snapshot":false}]"#);
    assert_eq!(both.iter().map(|one| one.snapshot).collect::<Vec<_>>(), [true, false]);
    assert_eq!(echo(&both), r#"[{"eventType":"a","oneOf":[]},{"eventType":"b","oneOf":[]}]"#);
    assert_eq!(list(&write_list(&both)), both);
    assert!(compile(&both[0], &extractors(), true).unwrap().snapshot);
    for (value, kind) in [("1", "a number"), (r#""true""#, "a string"), ("[]", "a list")] {
        let json = format!(r#"[{{"eventType":"a","snapshot":{value}}}]"#);
        let reason = format!("subscription 0: snapshot must be true or false, is {kind}");
        assert_eq!(parse_list(&json), Err(SubscriptionError::BadList(reason)), "{json}");
    }
}

#[test]
fn restricted_subscriptions_keep_the_wish_for_a_snapshot() {
    let (automatic, manual) = (list(r#"[{"eventType":"a"}]"#), list(r#"[{"eventType":"a","snapshot":true}]"#));
    let force = in_force(SubscriptionMode::Restrict, automatic, manual, Duplicates::Drop, 10).unwrap();
    assert!(force.len() == 1 && force[0].snapshot);
}
