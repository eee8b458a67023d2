//! What is wrong with API definitions, in RIG's shape.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// Everything that is wrong with one definition or with several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinitionErrors {
    places: BTreeMap<String, Vec<(String, String)>>,
}

impl DefinitionErrors {
    /// Notes that `field` at `place` (`api`, `<id>` or `<id>/<endpoint id>`) is wrong.
    pub fn add(&mut self, place: &str, field: &str, text: impl Into<String>) {
        self.places.entry(place.to_owned()).or_default().push((field.to_owned(), text.into()));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// One text per error.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.places
            .iter()
            .flat_map(|(place, errors)| errors.iter().map(move |(field, text)| format!("{place}: {field} {text}")))
    }

    /// The answer of the internal API: an object of lists of one-key objects.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let one = |(field, text): &(String, String)| {
            Value::Object(Map::from_iter([(field.clone(), Value::String(text.clone()))]))
        };
        let list = |errors: &Vec<(String, String)>| Value::Array(errors.iter().map(one).collect());
        Value::Object(self.places.iter().map(|(place, errors)| (place.clone(), list(errors))).collect())
    }
}

impl fmt::Display for DefinitionErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.lines().collect();
        formatter.write_str(&lines.join("; "))
    }
}

impl std::error::Error for DefinitionErrors {}
