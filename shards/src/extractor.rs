//! Extractors: what a field name in a subscription means.
//!
//! The configuration names, per event type and field, where the field is found in an event and, optionally, in the
//! claims of a token.

use crate::members::{Members, kind_name};
use crate::pointer::JsonPointer;
use ahash::{HashMap, HashMapExt};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The extractor configuration: for each event type, its fields. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Extractors {
    by_type: HashMap<Box<str>, TypeExtractors>,
    /// Sorted.
    type_names: Box<[Box<str>]>,
}

/// The fields of one event type.
#[derive(Clone, Debug)]
pub struct TypeExtractors {
    fields: Box<[FieldExtractor]>,
}

/// Where one field of one event type is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldExtractor {
    /// The name that constraints use.
    pub name: Box<str>,
    /// A number that is unique in the event type and stays the field's for ever.
    pub stable_field_index: u32,
    /// Where the field is in an event, from the whole event down.
    pub event_pointer: Option<JsonPointer>,
    /// Where the field is in a token's claims; makes automatic subscriptions.
    pub jwt_pointer: Option<JsonPointer>,
}

impl Extractors {
    /// Parses RIG's `EXTRACTORS` JSON:
    /// `{"type": {"field": {"stable_field_index": 1, "event": {"json_pointer": "/data/x"}, "jwt": {"json_pointer": "/x"}}}}`.
    /// Unknown members are ignored.
    ///
    /// # Errors
    /// Every error found, each with its event type and field; a list of one if the text is not JSON.
    pub fn parse(json: &str) -> Result<Self, Vec<String>> {
        let types = Members::parse(json).map_err(|error| vec![format!("extractors: not a JSON object: {error}")])?;
        let mut errors = Vec::new();
        let mut by_type: HashMap<Box<str>, TypeExtractors> = HashMap::new();
        for (type_name, fields) in types.0 {
            let parsed = parse_type(&type_name, fields, &mut errors);
            if by_type.insert(type_name.clone().into(), parsed).is_some() {
                errors.push(format!("extractors: event type {type_name:?}: listed twice"));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut type_names: Box<[Box<str>]> = by_type.keys().cloned().collect();
        type_names.sort();
        Ok(Extractors { by_type, type_names })
    }

    /// The fields of an event type, `None` if it has no extractors.
    pub fn for_type(&self, event_type: &str) -> Option<&TypeExtractors> {
        self.by_type.get(event_type)
    }

    /// Every event type with its fields, sorted by type.
    pub fn types(&self) -> impl Iterator<Item = (&str, &TypeExtractors)> {
        self.type_names.iter().filter_map(|name| Some((&**name, self.by_type.get(name)?)))
    }
}

impl TypeExtractors {
    /// The fields in the order of their stable indices. A field's position in this list is its id at run time.
    pub fn fields(&self) -> &[FieldExtractor] {
        &self.fields
    }

    /// The position of the field that constraints call `name`.
    pub fn position(&self, name: &str) -> Option<u16> {
        self.fields.iter().position(|field| &*field.name == name).and_then(|position| u16::try_from(position).ok())
    }
}

fn parse_type(type_name: &str, raw: &RawValue, errors: &mut Vec<String>) -> TypeExtractors {
    let mut fields: BTreeMap<String, FieldExtractor> = BTreeMap::new();
    // Of all fields, those that are wrong otherwise too: one round of mending is to be enough.
    let mut indices: Vec<(u32, String)> = Vec::new();
    let place = format!("extractors: event type {type_name:?}");
    match Members::parse(raw.get()) {
        Err(_) => errors.push(format!("{place}: must be an object of fields, is {}", kind_name(raw))),
        Ok(members) => {
            for (name, definition) in members.0 {
                let place = format!("{place}, field {name:?}");
                let (index, field) = parse_field(&name, definition, &place, errors);
                indices.extend(index.map(|index| (index, name.clone())));
                let Some(field) = field else { continue };
                if fields.insert(name, field).is_some() {
                    errors.push(format!("{place}: listed twice"));
                }
            }
        }
    }
    indices.sort();
    for pair in indices.windows(2) {
        let [(index, first), (other, second)] = pair else { continue };
        if index == other && first != second {
            errors.push(format!(
                "{place}, fields {first:?} and {second:?}: both have stable_field_index {index}; it must be unique in the event type"
            ));
        }
    }
    let mut fields: Box<[FieldExtractor]> = fields.into_values().collect();
    fields.sort_by_key(|field| field.stable_field_index);
    if fields.len() > usize::from(u16::MAX) {
        errors.push(format!("{place}: has {} fields; at most {} are possible", fields.len(), u16::MAX));
    }
    TypeExtractors { fields }
}

/// Reports everything wrong with one field. Its index, and the field if nothing is wrong.
fn parse_field(
    name: &str,
    raw: &RawValue,
    place: &str,
    errors: &mut Vec<String>,
) -> (Option<u32>, Option<FieldExtractor>) {
    let Ok(members) = Members::parse(raw.get()) else {
        errors.push(format!("{place}: must be an object, is {}", kind_name(raw)));
        return (None, None);
    };
    let errors_before = errors.len();
    let mut seen: Vec<&str> = Vec::new();
    for (member, _) in &members.0 {
        if seen.contains(&member.as_str()) {
            errors.push(format!("{place}: {member:?} is given twice"));
        }
        if ["stable_field_index", "event", "jwt"].contains(&member.as_str()) {
            seen.push(member);
        }
    }
    let stable_field_index = match members.first("stable_field_index") {
        None => Err("stable_field_index is missing".to_owned()),
        Some(raw) => raw
            .get()
            .parse::<u32>()
            .map_err(|_| format!("stable_field_index must be an integer from 0 to {}, is {:.40}", u32::MAX, raw.get())),
    };
    let stable_field_index = stable_field_index.map_err(|error| errors.push(format!("{place}: {error}"))).ok();
    let event_pointer = parse_source("event", &members, place, errors);
    let jwt_pointer = parse_source("jwt", &members, place, errors);
    if members.first("event").is_none() && members.first("jwt").is_none() {
        errors.push(format!("{place}: has neither event.json_pointer nor jwt.json_pointer"));
    }
    let field = (errors.len() == errors_before)
        .then_some(stable_field_index)
        .flatten()
        .map(|stable_field_index| FieldExtractor { name: name.into(), stable_field_index, event_pointer, jwt_pointer });
    (stable_field_index, field)
}

/// Reads `{"json_pointer": "…"}` below `member`, `None` if it is absent or wrong.
fn parse_source(member: &str, members: &Members<'_>, place: &str, errors: &mut Vec<String>) -> Option<JsonPointer> {
    let raw = members.first(member)?;
    let parsed = match Members::parse(raw.get()) {
        Err(_) => Err(format!("{member} must be an object with json_pointer, is {}", kind_name(raw))),
        Ok(source) => match source.first("json_pointer") {
            None => Err(format!("{member}.json_pointer is missing")),
            Some(text) => match serde_json::from_str::<String>(text.get()) {
                Err(_) => Err(format!("{member}.json_pointer must be a string, is {}", kind_name(text))),
                Ok(text) => JsonPointer::parse(&text).map_err(|error| format!("{member}.json_pointer: {error}")),
            },
        },
    };
    parsed.map_err(|error| errors.push(format!("{place}: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(json: &str) -> Vec<String> {
        Extractors::parse(json).expect_err(json)
    }

    #[test]
    fn a_configuration_is_read_with_fields_in_the_order_of_their_stable_indices() {
        let extractors = Extractors::parse(
            r#"{"greeting": {
                "room": {"stable_field_index": 7, "event": {"json_pointer": "/data/room"}},
                "name": {"stable_field_index": 1, "jwt": {"json_pointer": "/username"},
                         "event": {"json_pointer": "/data/na~1me"}, "comment": "ignored"}},
              "chat": {}}"#,
        )
        .unwrap();
        let fields = extractors.for_type("greeting").unwrap();
        assert_eq!(fields.position("name"), Some(0));
        assert_eq!(fields.position("room"), Some(1));
        assert_eq!(fields.position("other"), None);
        let name = &fields.fields()[0];
        assert_eq!(name.stable_field_index, 1);
        assert_eq!(name.event_pointer, Some(JsonPointer::parse("/data/na~1me").unwrap()));
        assert_eq!(name.jwt_pointer, Some(JsonPointer::parse("/username").unwrap()));
        assert_eq!(extractors.types().map(|(name, _)| name).collect::<Vec<_>>(), ["chat", "greeting"]);
        assert!(extractors.for_type("none").is_none());
    }

    #[test]
    fn the_default_and_an_empty_object_have_no_types() {
        assert_eq!(Extractors::default().types().count(), 0);
        assert_eq!(Extractors::parse("{}").unwrap().types().count(), 0);
    }

    #[test]
    fn every_error_is_listed_with_its_type_and_field() {
        let found = errors(
            r#"{"a": [], "b": {"f": 5, "g": {}, "h": {"stable_field_index": -1, "event": {"json_pointer": "x"}},
                "i": {"stable_field_index": 1.5, "event": {}},
                "j": {"stable_field_index": "1", "event": "/x", "jwt": {"json_pointer": 7}},
                "k": {"stable_field_index": 4294967296, "jwt": {"json_pointer": "/~"}}}}"#,
        );
        let expected = [
            r#""a": must be an object of fields, is a list"#,
            r#""b", field "f": must be an object, is a number"#,
            r#""b", field "g": stable_field_index is missing"#,
            r#""b", field "g": has neither event.json_pointer nor jwt.json_pointer"#,
            r#""b", field "h": stable_field_index must be an integer from 0 to 4294967295, is -1"#,
            r#""b", field "h": event.json_pointer: the JSON pointer "x" does not start with '/'"#,
            r#""b", field "i": stable_field_index must be an integer from 0 to 4294967295, is 1.5"#,
            r#""b", field "i": event.json_pointer is missing"#,
            r#""b", field "j": stable_field_index must be an integer from 0 to 4294967295, is "1""#,
            r#""b", field "j": event must be an object with json_pointer, is a string"#,
            r#""b", field "j": jwt.json_pointer must be a string, is a number"#,
            r#""b", field "k": stable_field_index must be an integer from 0 to 4294967295, is 4294967296"#,
            r#""b", field "k": jwt.json_pointer: the JSON pointer "/~" has a '~' that is not followed by 0 or 1"#,
        ]
        .map(|text| format!("extractors: event type {text}"));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_stable_index_must_be_unique_in_its_type_only() {
        let field = |index| format!(r#"{{"stable_field_index": {index}, "event": {{"json_pointer": "/data/x"}}}}"#);
        let json = format!(r#"{{"a": {{"x": {0}, "y": {0}}}, "b": {{"x": {0}}}}}"#, field(3));
        let found = errors(&json);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains(r#""a", fields "x" and "y": both have stable_field_index 3"#), "{found:?}");
    }

    #[test]
    fn what_is_listed_twice_is_reported() {
        let field = r#"{"stable_field_index": 1, "stable_field_index": 2, "event": {"json_pointer": "/data/x"}}"#;
        let found = errors(&format!(r#"{{"a": {{}}, "a": {{}}, "b": {{"f": {field}}}}}"#));
        assert_eq!(found.len(), 2);
        assert!(found[0].contains(r#""a": listed twice"#), "{found:?}");
        assert!(found[1].contains(r#""stable_field_index" is given twice"#), "{found:?}");
        let field = r#"{"stable_field_index": 1, "event": {"json_pointer": "/data/x"}}"#;
        assert!(
            errors(&format!(r#"{{"b": {{"f": {field}, "f": {field}}}}}"#))[0].contains(r#"field "f": listed twice"#)
        );
    }

    #[test]
    fn a_text_that_is_no_json_object_is_one_error() {
        for json in ["", "[]", "null", "{", "{} x", "5", "\"x\""] {
            let found = errors(json);
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with("extractors: not a JSON object: "), "{found:?}");
        }
    }
}
