//! Against the crate `apache-avro`: what one writes, the other reads, and both mean the same.

use apache_avro::types::Value as Avro;
use apache_avro::{from_avro_datum, to_avro_datum};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Schema, decode, encode};
use super::LIMITS;

/// A type whose values can be made up.
#[derive(Clone, Debug)]
enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    Fixed(usize),
    Enum(usize),
    Array(Box<Kind>),
    Map(Box<Kind>),
    Record(Vec<Kind>),
    Nullable(Box<Kind>),
}

impl Kind {
    /// Its schema; `named` counts the names given so far.
    fn schema(&self, named: &mut usize) -> Value {
        let mut name = || {
            *named += 1;
            format!("t{named}")
        };
        match self {
            Self::Null => json!("null"),
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Text => json!("string"),
            Self::Bytes => json!("bytes"),
            Self::Fixed(size) => json!({ "type": "fixed", "name": name(), "size": size }),
            Self::Enum(count) => {
                let symbols: Vec<_> = (0..*count).map(|number| format!("S{number}")).collect();
                json!({ "type": "enum", "name": name(), "symbols": symbols })
            }
            Self::Array(items) => json!({ "type": "array", "items": items.schema(named) }),
            Self::Map(values) => json!({ "type": "map", "values": values.schema(named) }),
            Self::Record(kinds) => {
                let name = name();
                let fields = kinds.iter().enumerate();
                let fields: Vec<_> = fields
                    .map(|(number, kind)| json!({ "name": format!("f{number}"), "type": kind.schema(named) }))
                    .collect();
                json!({ "type": "record", "name": name, "fields": fields })
            }
            Self::Nullable(kind) => json!(["null", kind.schema(named)]),
        }
    }

    fn values(&self) -> BoxedStrategy<(Value, Avro)> {
        match self {
            Self::Null => Just((Value::Null, Avro::Null)).boxed(),
            Self::Boolean => any::<bool>().prop_map(|value| (json!(value), Avro::Boolean(value))).boxed(),
            Self::Int => any::<i32>().prop_map(|value| (json!(value), Avro::Int(value))).boxed(),
            Self::Long => any::<i64>().prop_map(|value| (json!(value), Avro::Long(value))).boxed(),
            Self::Float => any::<f32>()
                .prop_filter("JSON has it", |value| value.is_finite())
                .prop_map(|value| (shortest(value), Avro::Float(value)))
                .boxed(),
            Self::Double => any::<f64>()
                .prop_filter("JSON has it", |value| value.is_finite())
                .prop_map(|value| (json!(value), Avro::Double(value)))
                .boxed(),
            Self::Text => any::<String>().prop_map(|text| (json!(text), Avro::String(text))).boxed(),
            Self::Bytes => any::<String>().prop_map(|text| (json!(text), Avro::Bytes(text.into_bytes()))).boxed(),
            Self::Fixed(size) => prop::collection::vec(0_u8..0x80, *size)
                .prop_map(|bytes| {
                    let text = String::from_utf8(bytes.clone()).expect("ASCII");
                    (json!(text), Avro::Fixed(bytes.len(), bytes))
                })
                .boxed(),
            Self::Enum(count) => (0..*count)
                .prop_map(|number| {
                    let symbol = format!("S{number}");
                    (json!(symbol), Avro::Enum(u32::try_from(number).expect("a small number"), symbol))
                })
                .boxed(),
            Self::Array(items) => prop::collection::vec(items.values(), 0..5)
                .prop_map(|items| {
                    let (json, avro): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    (Value::Array(json), Avro::Array(avro))
                })
                .boxed(),
            // One entry at most: the order of more is nobody's business.
            Self::Map(values) => prop::option::of((any::<String>(), values.values()))
                .prop_map(|entry| match entry {
                    None => (json!({}), Avro::Map([].into())),
                    Some((key, (json, avro))) => (json!({ key.clone(): json }), Avro::Map([(key, avro)].into())),
                })
                .boxed(),
            Self::Record(kinds) => kinds
                .iter()
                .map(Self::values)
                .collect::<Vec<_>>()
                .prop_map(|values| {
                    let named = values.into_iter().enumerate();
                    let (json, avro): (serde_json::Map<_, _>, Vec<_>) = named
                        .map(|(number, (json, avro))| {
                            let name = format!("f{number}");
                            ((name.clone(), json), (name, avro))
                        })
                        .unzip();
                    (Value::Object(json), Avro::Record(avro))
                })
                .boxed(),
            Self::Nullable(kind) => prop_oneof![
                Just((Value::Null, Avro::Union(0, Box::new(Avro::Null)))),
                kind.values().prop_map(|(json, avro)| (json, Avro::Union(1, Box::new(avro)))),
            ]
            .boxed(),
        }
    }
}

/// The JSON of a float: not that of the double nearest to it.
fn shortest(value: f32) -> Value {
    let text = serde_json::to_string(&value).expect("a number");
    serde_json::from_str(&text).expect("JSON")
}

fn kinds() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::Null),
        Just(Kind::Boolean),
        Just(Kind::Int),
        Just(Kind::Long),
        Just(Kind::Float),
        Just(Kind::Double),
        Just(Kind::Text),
        Just(Kind::Bytes),
        (1_usize..20).prop_map(Kind::Fixed),
        (1_usize..5).prop_map(Kind::Enum),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            inner.clone().prop_map(|kind| Kind::Array(Box::new(kind))),
            inner.clone().prop_map(|kind| Kind::Map(Box::new(kind))),
            prop::collection::vec(inner.clone(), 0..5).prop_map(Kind::Record),
            inner.prop_map(|kind| match kind {
                Kind::Null | Kind::Nullable(_) => kind,
                kind => Kind::Nullable(Box::new(kind)),
            }),
        ]
    })
}

fn cases() -> impl Strategy<Value = (String, Value, Avro)> {
    kinds().prop_flat_map(|kind| {
        let schema = kind.schema(&mut 0).to_string();
        kind.values().prop_map(move |(json, avro)| (schema.clone(), json, avro))
    })
}

proptest! {
    #[test]
    fn what_is_written_here_is_read_there_and_the_other_way_round((schema, json, avro) in cases()) {
        let theirs = apache_avro::Schema::parse_str(&schema).expect("it is a schema there");
        let ours = Schema::parse(&schema).expect("it is a schema here");
        let mut written = Vec::new();
        encode(&ours, &json, &mut written).expect("it fits");
        let read = from_avro_datum(&theirs, &mut &written[..], None).expect("it is read there");
        prop_assert_eq!(&read, &avro, "{} {}", schema, json);
        let from_there = to_avro_datum(&theirs, avro).expect("it is written there");
        let back = decode(&ours, &from_there, &LIMITS).expect("it is read here");
        prop_assert_eq!(String::from_utf8(back).expect("UTF-8"), json.to_string());
        let own = decode(&ours, &written, &LIMITS).expect("it is read here");
        prop_assert_eq!(String::from_utf8(own).expect("UTF-8"), json.to_string());
    }
}
