use super::*;
use proptest::prelude::*;

fn canonical(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    canonicalize(json.as_bytes(), &mut out).unwrap_or_else(|error| panic!("{json}: {error}"));
    out
}

fn error(json: &[u8]) -> ValueError {
    let mut out = b"kept".to_vec();
    let error = canonicalize(json, &mut out).expect_err(&String::from_utf8_lossy(json));
    assert_eq!(out, b"kept", "a failure leaves the output as it was");
    error
}

fn assert_one_value(spellings: &[&str]) {
    for spelling in spellings {
        assert_eq!(canonical(spelling), canonical(spellings[0]), "{spelling} and {}", spellings[0]);
    }
}

fn assert_all_differ(values: &[&str]) {
    for (at, a) in values.iter().enumerate() {
        for b in &values[at + 1..] {
            assert_ne!(canonical(a), canonical(b), "{a} and {b}");
        }
    }
}

#[test]
fn numbers_are_equal_by_value_whatever_their_notation() {
    assert_one_value(&["1", "1.0", "1e0", "10e-1", "0.1e1", "1.000E+00", "0.001e3", " 1\n"]);
    assert_one_value(&["100", "1e2", "1E+2", "100.00", "0.1e3", "1000e-1"]);
    assert_one_value(&["-12.5", "-125e-1", "-0.125E2", "-12.50"]);
    assert_one_value(&[
        "0",
        "-0",
        "0.0",
        "-0.0",
        "0e5",
        "0.0e5",
        "-0.000e-99999999999999999999",
        "0e99999999999999999999",
    ]);
    assert_one_value(&["12345678901234567890123", "1.2345678901234567890123e22", "12345678901234567890123.0"]);
}

#[test]
fn numbers_that_differ_in_the_last_of_many_digits_differ() {
    assert_all_differ(&[
        "12345678901234567890123",
        "12345678901234567890124",
        "-12345678901234567890123",
        "0.1",
        "0.10000000000000000000000000001",
        "1",
        "-1",
        "10",
        "11",
        "101",
        "1.01",
    ]);
}

#[test]
fn huge_exponents_cost_nothing() {
    assert_all_differ(&["1e400", "1e-400", "1e999999999", "1e-999999999", "1e999999999999999999", "0", "1e401"]);
    assert_one_value(&["1e400", "10e399", "0.01e402"]);
    assert_one_value(&["1e-999999999", "0.1e-999999998", "10e-1000000000"]);
    assert!(canonical("1e999999999999999999").len() < 20);
    assert!(matches!(error(b"1e9999999999999999999"), ValueError::ExponentOutOfRange { .. }));
    assert!(matches!(error(b"-1E-1000000000000000000"), ValueError::ExponentOutOfRange { .. }));
}

#[test]
fn values_of_different_kinds_differ() {
    assert_all_differ(&[
        "1",
        "\"1\"",
        "true",
        "\"true\"",
        "false",
        "null",
        "\"null\"",
        "[]",
        "{}",
        "\"\"",
        "0",
        "[1]",
        "[[1]]",
        "[\"1\"]",
        "[1,2]",
        "[2,1]",
        "[12]",
        "{\"a\":1}",
        "{\"a\":\"1\"}",
        "{\"b\":1}",
        "[{\"a\":1}]",
        "[\"a\",1]",
        "[null]",
        "[[]]",
    ]);
}

#[test]
fn strings_are_equal_by_their_characters() {
    assert_one_value(&[r#""a/b""#, r#""a\/b""#, r#""\u0061\u002fb""#, r#""\u0061\u002Fb""#]);
    assert_one_value(&[r#""\"\\\b\f\n\r\t""#, r#""\u0022\u005c\u0008\u000c\u000a\u000d\u0009""#]);
    assert_one_value(&["\"é😀\"", r#""\u00e9\ud83d\ude00""#, r#""\u00E9\uD83D\uDE00""#]);
    assert_all_differ(&[r#""\u0000""#, r#""""#, "\"é\"", "\"e\u{301}\"", r#""a""#, r#""A""#, r#""\ud800\udc00""#]);
}

#[test]
fn half_a_surrogate_pair_is_refused() {
    for json in
        [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\n""#, r#""\ud800\ud800""#, r#""\udfff\ud800""#]
    {
        assert!(matches!(error(json.as_bytes()), ValueError::LoneSurrogate { offset: 1 }), "{json}");
    }
}

#[test]
fn the_order_of_members_does_not_matter_and_the_first_of_a_name_counts() {
    assert_one_value(&[r#"{"a":1,"b":[{"c":2,"d":3}]}"#, r#"{ "b" : [ {"d":3.0, "c":2} ] , "\u0061" : 1e0 }"#]);
    assert_one_value(&[r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1,"a":5,"b":null}"#, r#"{"a":1,"a":2,"b":2}"#]);
    assert_all_differ(&[r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#, r#"{"ab":1}"#, r#"{"a":1}"#, r#"{"a":{"b":2}}"#]);
}

#[test]
fn what_is_not_exactly_one_json_value_is_refused() {
    for json in [
        "",
        " ",
        "x",
        "tru",
        "truex",
        "nul",
        "1 2",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\u{1}\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "]",
        "{",
        "{1:2}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1",
        "{,}",
        "{\"a\" 1}",
        "1}",
        "[}",
        "'a'",
        "\u{feff}1",
        "1\u{0}",
    ] {
        assert!(matches!(error(json.as_bytes()), ValueError::Syntax { .. }), "{json:?}");
    }
    assert_eq!(error(b"\"a\xff\""), ValueError::NotUtf8 { offset: 2 });
    assert_eq!(error(b"\"\xed\xa0\x80\""), ValueError::NotUtf8 { offset: 1 });
}

#[test]
fn nesting_is_limited_to_128_levels() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(canonical(&nested(128)), nested(128).as_bytes());
    assert_eq!(error(nested(129).as_bytes()), ValueError::TooDeep { offset: 128 });
    assert_eq!(error("[{\"a\":".repeat(1_000_000).as_bytes()), ValueError::TooDeep { offset: 64 * 6 });
    assert!(canonicalize(format!("[{}]", vec![nested(127); 3].join(",")).as_bytes(), &mut Vec::new()).is_ok());
}

/// A decimal as `digits × 10^power`, compared slowly by writing both out in full.
#[derive(Clone, Debug)]
struct Decimal {
    negative: bool,
    digits: u64,
    power: i32,
}

impl Decimal {
    fn written_out(&self) -> String {
        let shifted = usize::try_from(self.power + 60).unwrap();
        let digits = format!("{}{}", self.digits, "0".repeat(shifted));
        let significant = digits.trim_start_matches('0').to_owned();
        if self.negative && !significant.is_empty() { format!("-{significant}") } else { significant }
    }

    /// One of many ways to write it: point after `point` digits, `zeros` appended, the exponent corrected.
    fn spelled(&self, point: usize, zeros: usize, upper: bool) -> String {
        let digits = format!("{}{}", self.digits, "0".repeat(zeros));
        let point = 1 + point % digits.len();
        let (integer, fraction) = digits.split_at(point);
        let power = i64::from(self.power) - zeros as i64 + fraction.len() as i64;
        let integer = if integer.starts_with('0') { "0" } else { integer };
        let dot = if fraction.is_empty() { "" } else { "." };
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{integer}{dot}{fraction}{}{power}", if upper { "E" } else { "e" })
    }
}

fn decimal() -> impl Strategy<Value = Decimal> {
    (any::<bool>(), prop_oneof![0..30u64, Just(100), Just(1010), 0..1_000_000_000u64], -5..6i32)
        .prop_map(|(negative, digits, power)| Decimal { negative, digits, power })
}

fn json() -> impl Strategy<Value = String> {
    let string = "[a-c\"\\\\é\u{1}\u{1F600}]{0,3}".prop_map(|text| serde_json::to_string(&text).unwrap());
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        (-3..4i32).prop_map(|number| number.to_string()),
        string.clone(),
    ];
    scalar.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map(string.clone(), inner, 0..3).prop_map(|members| {
                let members: Vec<_> = members.iter().rev().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn two_numbers_have_one_encoding_exactly_if_they_are_equal_written_out(
        a in decimal(), b in decimal(), point in 0..12usize, zeros in 0..4usize, upper in any::<bool>()
    ) {
        let (first, second) = (a.spelled(point, zeros, upper), b.spelled(0, 0, false));
        prop_assert_eq!(canonical(&first) == canonical(&second), a.written_out() == b.written_out(), "{} {}", first, second);
        prop_assert_eq!(canonical(&first), canonical(&a.spelled(0, 0, false)));
    }

    #[test]
    fn two_documents_have_one_encoding_exactly_if_serde_json_finds_them_equal(a in json(), b in json()) {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        prop_assert_eq!(canonical(&a) == canonical(&b), parse(&a) == parse(&b), "{} {}", a, b);
        prop_assert_eq!(canonical(&a), canonical(&serde_json::to_string_pretty(&parse(&a)).unwrap()));
    }

    #[test]
    fn any_bytes_are_accepted_exactly_if_they_are_json(bytes in "[\\[\\]{}\",:\\\\0-9a-fu.eE+\\- ]{0,12}") {
        let accepted = canonicalize(bytes.as_bytes(), &mut Vec::new()).is_ok();
        let parsed = serde_json::from_str::<serde_json::Value>(&bytes).is_ok();
        prop_assert_eq!(accepted, parsed, "{:?}", bytes);
    }
}
