//! What the codec makes of values that fit, values that don't, and bytes that are none.

mod reference;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LIMITS: DecodeLimits = DecodeLimits { max_depth: 127, max_json_bytes: 1 << 20 };

fn schema(json: &Value) -> Schema {
    Schema::parse(&json.to_string()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn encoded(of: &Value, value: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    encode(&schema(of), value, &mut out).map(|()| out).map_err(|misfit| misfit.to_string())
}

fn decoded(of: &Value, bytes: &[u8]) -> Result<String, DecodeError> {
    decode(&schema(of), bytes, &LIMITS).map(|json| String::from_utf8(json).expect("JSON is UTF-8"))
}

fn misfit(of: &Value, value: &Value) -> String {
    encoded(of, value).expect_err("it doesn't fit")
}

fn record(fields: &Value) -> Value {
    json!({ "type": "record", "name": "r", "namespace": "n", "fields": fields })
}

/// A list that ends with itself.
fn list() -> Value {
    record(&json!([
        { "name": "value", "type": "long", "default": 0 },
        { "name": "next", "type": ["null", "r"], "default": null },
    ]))
}

#[test]
fn every_type_has_the_bytes_that_the_specification_says() {
    for (of, value, bytes) in [
        (json!("null"), json!(null), &b""[..]),
        (json!("boolean"), json!(true), b"\x01"),
        (json!("int"), json!(-64), b"\x7f"),
        (json!("int"), json!(64), b"\x80\x01"),
        (json!("long"), json!(i64::MIN), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (json!("float"), json!(1.5), b"\0\0\xc0\x3f"),
        (json!("double"), json!(-2.0), b"\0\0\0\0\0\0\0\xc0"),
        (json!("string"), json!("foo"), b"\x06foo"),
        (json!("bytes"), json!("é"), b"\x04\xc3\xa9"),
        (json!({ "type": "fixed", "name": "f", "size": 3 }), json!("abc"), b"abc"),
        (json!({ "type": "enum", "name": "e", "symbols": ["A", "B"] }), json!("B"), b"\x02"),
        (json!({ "type": "array", "items": "long" }), json!([3, 27]), b"\x04\x06\x36\0"),
        (json!({ "type": "array", "items": "long" }), json!([]), b"\0"),
        (json!({ "type": "map", "values": "int" }), json!({ "a": 1 }), b"\x02\x02a\x02\0"),
        (json!(["null", "string"]), json!(null), b"\0"),
        (json!(["null", "string"]), json!("a"), b"\x02\x02a"),
        (
            record(&json!([{ "name": "a", "type": "long" }, { "name": "b", "type": "string" }])),
            json!({ "a": 27, "b": "foo" }),
            b"\x36\x06foo",
        ),
        (list(), json!({ "value": 1, "next": { "value": 2, "next": null } }), b"\x02\x02\x04\0"),
    ] {
        assert_eq!(encoded(&of, &value).as_deref(), Ok(bytes), "{of} {value}");
        assert_eq!(decoded(&of, bytes), Ok(value.to_string()), "{of}");
    }
}

#[test]
fn logical_types_are_the_types_under_them() {
    for (of, value) in [
        (json!({ "type": "int", "logicalType": "date" }), json!(19_000)),
        (json!({ "type": "long", "logicalType": "timestamp-millis" }), json!(1_700_000_000_000_i64)),
        (json!({ "type": "string", "logicalType": "uuid" }), json!("no uuid")),
        (json!({ "type": "fixed", "name": "u", "size": 16, "logicalType": "uuid" }), json!("0123456789abcdef")),
        (json!({ "type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2 }), json!("\u{1}A")),
        (json!({ "type": { "type": "string", "avro.java.string": "String" } }), json!("text")),
    ] {
        let bytes = encoded(&of, &value).expect("it fits");
        assert_eq!(decoded(&of, &bytes), Ok(value.to_string()), "{of}");
    }
}

#[test]
fn blocks_may_tell_their_length_and_come_in_several() {
    let of = json!({ "type": "array", "items": "long" });
    assert_eq!(decoded(&of, b"\x03\x04\x06\x36\x02\x02\0").as_deref(), Ok("[3,27,1]"));
    let of = json!({ "type": "map", "values": "null" });
    assert_eq!(decoded(&of, b"\x01\x04\x02a\x02\x02b\0").as_deref(), Ok(r#"{"a":null,"b":null}"#));
}

#[test]
fn numbers_that_json_does_not_have_are_named() {
    for (number, text) in [(f64::NAN, "\"NaN\""), (f64::INFINITY, "\"Infinity\""), (f64::NEG_INFINITY, "\"-Infinity\"")]
    {
        assert_eq!(decoded(&json!("double"), &number.to_le_bytes()).as_deref(), Ok(text));
    }
    assert_eq!(decoded(&json!("float"), &f32::NAN.to_le_bytes()).as_deref(), Ok("\"NaN\""));
    assert_eq!(decoded(&json!("float"), &0.1_f32.to_le_bytes()).as_deref(), Ok("0.1"));
}

#[test]
fn bytes_that_are_no_text_are_characters_of_their_numbers() {
    assert_eq!(decoded(&json!("bytes"), b"\x04\x00\xff").as_deref(), Ok("\"\\u0000ÿ\""));
    let fixed = json!({ "type": "fixed", "name": "f", "size": 2 });
    assert_eq!(decoded(&fixed, b"\x01\xe9").as_deref(), Ok("\"\\u0001é\""));
    assert_eq!(encoded(&fixed, &json!("\u{1}é")).as_deref(), Ok(&b"\x01\xe9"[..]));
}

#[test]
fn members_that_are_missing_get_their_defaults_and_unknown_ones_are_left_out() {
    let of = record(&json!([
        { "name": "a", "type": "int", "default": 7 },
        { "name": "b", "type": ["null", "string"], "default": null },
        { "name": "c", "type": "bytes", "default": "\u{ff}" },
        { "name": "d", "type": { "type": "array", "items": "int" }, "default": [] },
        { "name": "e", "type": "string", "aliases": ["old"] },
        { "name": "f", "type": { "type": "record", "name": "inner", "fields": [
            { "name": "x", "type": "int", "default": 1 },
        ] }, "default": {} },
    ]));
    assert_eq!(encoded(&of, &json!({ "old": "x", "more": 1 })).as_deref(), Ok(&b"\x0e\0\x02\xff\0\x02x\x02"[..]));
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    let order = record(&json!([
        { "name": "seat", "type": { "type": "record", "name": "seat", "fields": [{ "name": "row", "type": "int" }] } },
        { "name": "prices", "type": { "type": "array", "items": ["null", "double"] }, "default": [] },
        { "name": "state", "type": { "type": "enum", "name": "state", "symbols": ["free", "sold"] }, "default": "free" },
        { "name": "buyer", "type": ["null", { "type": "record", "name": "buyer", "fields": [
            { "name": "name", "type": "string" },
        ] }], "default": null },
    ]));
    for (value, text) in [
        (json!({ "seat": { "row": "x" } }), "data.seat.row must be int, not a text"),
        (json!({ "seat": {} }), "data.seat.row is missing"),
        (json!({}), "data.seat is missing"),
        (json!([1]), "data must be record (an object), not a list"),
        (json!({ "seat": { "row": 1.5 } }), "data.seat.row must be a whole number of 32 bits"),
        (json!({ "seat": { "row": 1_i64 << 31 } }), "data.seat.row must be a whole number of 32 bits"),
        (json!({ "seat": { "row": 1 }, "prices": [1, "x"] }), "data.prices[1] must be null or double, not a text"),
        (json!({ "seat": { "row": 1 }, "state": "held" }), "data.state must be one of free, sold"),
        (json!({ "seat": { "row": 1 }, "buyer": { "name": 1 } }), "data.buyer.name must be string, not a number"),
        (json!({ "seat": { "row": 1 }, "buyer": {} }), "data.buyer.name is missing"),
    ] {
        assert_eq!(misfit(&order, &value), text, "{value}");
    }
    assert_eq!(misfit(&json!("float"), &json!(1e300)), "data must be a float, which it is too large for");
    let fixed = json!({ "type": "fixed", "name": "f", "size": 2 });
    assert_eq!(misfit(&fixed, &json!("abc")), "data must be a text of 2 bytes");
    let huge: Value = serde_json::from_str("1e999").expect("JSON");
    assert_eq!(misfit(&json!("double"), &huge), "data must be a double");
    assert_eq!(misfit(&json!("long"), &json!(u64::MAX)), "data must be a whole number of 64 bits");
}

#[test]
fn schemas_that_contain_themselves_end_somewhere() {
    let endless = record(&json!([{ "name": "a", "type": "r", "default": {} }]));
    assert!(misfit(&endless, &json!({})).ends_with("is nested too deep"));
    assert_eq!(decoded(&endless, b""), Err(DecodeError::TooDeep(127)));
    let long = vec![2; 1_000_000];
    assert_eq!(decoded(&list(), &long), Err(DecodeError::TooDeep(127)));
    // Either record fits at every level but the last.
    let (a, b) = (
        json!(["null", "n.r", "n.s"]),
        json!({ "type": "record", "name": "s", "fields": [
        { "name": "next", "type": ["null", "r", "s"] },
    ] }),
    );
    let ambiguous =
        record(&json!([{ "name": "first", "type": ["null", b], "default": null }, { "name": "next", "type": a }]));
    let value = (0..120).fold(json!("end"), |next, _| json!({ "next": next }));
    assert!(misfit(&ambiguous, &value).contains("too many types"));
}

#[test]
fn names_are_found_in_their_namespaces() {
    let of = json!({ "type": "record", "name": "a.b.outer", "fields": [
        { "name": "x", "type": { "type": "enum", "name": "kind", "symbols": ["K"] } },
        { "name": "y", "type": "kind" },
        { "name": "z", "type": "a.b.kind" },
        { "name": "o", "type": { "type": "fixed", "name": "size", "namespace": "", "size": 1 } },
        { "name": "p", "type": "size" },
    ] });
    let value = json!({ "x": "K", "y": "K", "z": "K", "o": "o", "p": "p" });
    assert_eq!(encoded(&of, &value).as_deref(), Ok(&b"\0\0\0op"[..]));
}

#[test]
fn what_is_no_schema_is_refused_with_its_reason() {
    for (json, text) in [
        ("", "it is no JSON"),
        ("1", "a type of it must be"),
        ("{}", "\"type\" of a type must be there"),
        (r#""text""#, "the type \"text\" is not defined in it"),
        ("[]", "a union has types"),
        (r#"["null",["int"]]"#, "a union has types"),
        (r#"{"type":"record","fields":[]}"#, "the name of a type must be a text"),
        (r#"{"type":"record","name":"r"}"#, "fields of r must be a list"),
        (r#"{"type":"record","name":"r","fields":[{"type":"int"}]}"#, "the name of a field of r must be a text"),
        (r#"{"type":"record","name":"r","fields":[{"name":"a"}]}"#, "\"type\" of r.a must be there"),
        (r#"{"type":"enum","name":"e","symbols":[1]}"#, "symbols of e must be texts"),
        (r#"{"type":"fixed","name":"f","size":-1}"#, "size of f must be a number of bytes"),
        (r#"[{"type":"fixed","name":"f","size":1},{"type":"fixed","name":"f","size":2}]"#, "\"f\" is defined twice"),
        (r#"{"type":"array"}"#, "items of array must be a type"),
    ] {
        let error = Schema::parse(json).expect_err(json).to_string();
        assert!(error.contains(text), "{json}: {error}");
    }
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(10_000), "}".repeat(10_000));
    assert!(matches!(Schema::parse(&deep), Err(SchemaError::NotJson(_))));
    assert!(Schema::parse(r#"{"type":"record","name":"nämé 1","fields":[]}"#).is_ok(), "names are taken as they are");
}

#[test]
fn lengths_and_counts_that_lie_cost_nothing() {
    let most = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let least = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let nulls = json!({ "type": "array", "items": "null" });
    for of in [json!("string"), json!("bytes")] {
        assert!(matches!(decoded(&of, most), Err(DecodeError::Short { .. })), "{of}");
        assert!(matches!(decoded(&of, least), Err(DecodeError::Malformed { .. })), "{of}");
    }
    assert_eq!(decoded(&nulls, most), Err(DecodeError::TooLong(1 << 20)));
    assert!(matches!(decoded(&nulls, &[&least[..], &most[..]].concat()), Err(DecodeError::Malformed { .. })));
    assert_eq!(decoded(&nulls, &[&least[..], b"\0"].concat()), Err(DecodeError::TooLong(1 << 20)));
    let nothings = json!({ "type": "array", "items": record(&json!([])) });
    assert_eq!(decoded(&nothings, most), Err(DecodeError::TooLong(1 << 20)));
    let longs = json!({ "type": "array", "items": "long" });
    assert_eq!(decoded(&longs, most), Err(DecodeError::Short { at: 10, wanted: 1 }));
    let huge = json!({ "type": "fixed", "name": "f", "size": u64::MAX });
    assert!(matches!(decoded(&huge, b"x"), Err(DecodeError::Short { .. })));
}

#[test]
fn values_that_are_not_of_the_schema_to_their_last_byte_are_refused() {
    let union = json!(["null", "int"]);
    for (of, bytes) in [
        (json!("boolean"), &b"\x02"[..]),
        (json!("boolean"), b""),
        (json!("int"), b"\xfe\xff\xff\xff\x1f"),
        (json!("long"), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
        (json!("long"), b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        (json!("long"), b"\x80"),
        (json!("float"), b"\0\0\0"),
        (json!("string"), b"\x02\xff"),
        (json!("string"), b"\x04a"),
        (json!("null"), b"\0"),
        (union.clone(), b"\x04"),
        (union.clone(), b"\x01"),
        (union, b""),
        (json!({ "type": "enum", "name": "e", "symbols": ["A"] }), b"\x02"),
        (json!({ "type": "array", "items": "int" }), b"\x02\x02"),
        (json!({ "type": "array", "items": "int" }), b"\x01\x7e\x02\0"),
    ] {
        assert!(decoded(&of, bytes).is_err(), "{of} {bytes:?}");
    }
}

/// Schemas that arbitrary bytes are read by.
fn schemas() -> Vec<Value> {
    let all = record(&json!([
        { "name": "n", "type": "null" },
        { "name": "b", "type": "boolean" },
        { "name": "f", "type": "float" },
        { "name": "d", "type": "double" },
        { "name": "t", "type": { "type": "map", "values": ["null", "bytes", "r"] } },
        { "name": "x", "type": { "type": "fixed", "name": "x", "size": 2 } },
        { "name": "e", "type": { "type": "enum", "name": "e", "symbols": ["A", "B", "C"] } },
    ]));
    let anything = json!(["null", "boolean", "int", "long", "float", "double", "bytes", "string",
        { "type": "array", "items": all }, { "type": "map", "values": "n.r" }]);
    vec![anything, list(), json!({ "type": "array", "items": list() }), json!({ "type": "array", "items": "null" })]
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic_and_what_it_gives_is_json_within_its_limits(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..8], 0..200),
        max_json_bytes in 0_usize..4_096,
        max_depth in 0_usize..8,
    ) {
        for of in schemas() {
            let Ok(json) = decode(&schema(&of), &bytes, &DecodeLimits { max_depth, max_json_bytes }) else { continue };
            prop_assert!(json.len() <= max_json_bytes);
            let value: Value = serde_json::from_slice(&json).expect("it is JSON");
            let _fits_or_not = encoded(&of, &value);
        }
    }

    #[test]
    fn no_text_makes_reading_a_schema_panic(text in "[\\[\\]{}:,\"a-z0-9]{0,80}") {
        let _a_schema_or_not = Schema::parse(&text);
    }
}
