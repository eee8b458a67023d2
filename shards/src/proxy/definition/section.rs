//! Reads the fields of one JSON object and notes what is wrong with them, in RIG's words.

use serde_json::{Map, Value};

use super::errors::DefinitionErrors;

/// An object of a definition, and where its errors go.
pub(super) struct Section<'a, 'e> {
    pub(super) place: &'e str,
    pub(super) fields: &'a Map<String, Value>,
    pub(super) errors: &'e mut DefinitionErrors,
}

impl<'a> Section<'a, '_> {
    pub(super) fn error(&mut self, field: &str, text: impl Into<String>) {
        self.errors.add(self.place, field, text);
    }

    /// The field's value; null is as if absent.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// Text that must be there.
    pub(super) fn required_text(&mut self, field: &str) -> Option<&'a str> {
        if self.get(field).is_none() {
            self.error(field, "must be string");
            self.error(field, TOO_SHORT);
            return None;
        }
        self.optional_text(field)
    }

    /// Text that may be absent, but not empty.
    pub(super) fn optional_text(&mut self, field: &str) -> Option<&'a str> {
        match self.get(field)? {
            Value::String(text) if text.is_empty() => {
                self.error(field, TOO_SHORT);
                None
            }
            Value::String(text) => Some(text),
            _ => {
                self.error(field, "must be string");
                None
            }
        }
    }

    /// Text that must be there for a reason: RIG then asks for its presence.
    pub(super) fn present_text(&mut self, field: &str) -> Option<&'a str> {
        match self.get(field) {
            None => {
                self.error(field, PRESENT);
                None
            }
            Some(Value::String(text)) if text.trim().is_empty() => {
                self.error(field, PRESENT);
                None
            }
            Some(_) => self.optional_text(field),
        }
    }

    /// True or false; absent is false.
    pub(super) fn switch(&mut self, field: &str) -> bool {
        match self.get(field) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.error(field, "must be boolean");
                false
            }
        }
    }

    /// An object that may be absent.
    pub(super) fn optional_map(&mut self, field: &str) -> Option<&'a Map<String, Value>> {
        match self.get(field)? {
            Value::Object(map) => Some(map),
            _ => {
                self.error(field, "must be map");
                None
            }
        }
    }

    /// An object that must be there.
    pub(super) fn present_map(&mut self, field: &str) -> Option<&'a Map<String, Value>> {
        if self.get(field).is_none() {
            self.error(field, PRESENT);
        }
        self.optional_map(field)
    }

    /// One of these words; absent gives `None`.
    pub(super) fn word(&mut self, field: &str, words: &[&str]) -> Option<&'a str> {
        match self.get(field)? {
            Value::String(text) if words.contains(&text.as_str()) => Some(text),
            _ => {
                self.error(field, one_of(words));
                None
            }
        }
    }
}

pub(super) const PRESENT: &str = "must be present";
const TOO_SHORT: &str = "must have a length of at least 1";

pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("must be one of [{}]", quoted.join(", "))
}
