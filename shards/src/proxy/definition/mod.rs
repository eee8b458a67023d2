//! API definitions (contract, section 4): validated with everything that is wrong listed, and compiled to endpoints.

mod api;
mod backend;
mod endpoints;
mod errors;
mod reserved;
mod section;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

pub use self::errors::DefinitionErrors;
use super::table::Route;

/// What a definition's meaning depends on beside itself.
pub struct Surroundings<'a> {
    /// Looks up an environment variable, for `use_env`.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Whether `KAFKA_SERIALIZER=avro`: `schema` counts then.
    pub avro: bool,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Surroundings").field("avro", &self.avro).finish_non_exhaustive()
    }
}

/// A valid API definition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `id`.
    pub id: Box<str>,
    /// Whether it is to match at all: active and not versioned.
    pub matches: bool,
    /// Its endpoints, compiled, in their order.
    pub routes: Vec<Route>,
    /// The definition as it was given, unknown fields included.
    pub fields: Map<String, Value>,
}

impl Definition {
    /// Validates and compiles one definition.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(value: &Value, surroundings: &Surroundings<'_>) -> Result<Self, DefinitionErrors> {
        let mut errors = DefinitionErrors::default();
        let Value::Object(fields) = value else {
            errors.add("api", "definition", "must be map");
            return Err(errors);
        };
        let definition = api::compile(fields, surroundings, &mut errors);
        definition.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// Validates and compiles the text of a `PROXY_CONFIG_FILE`: a list of definitions.
    ///
    /// # Errors
    /// One text for each thing that is wrong with the text or with a definition in it.
    pub fn parse_list(json: &str, surroundings: &Surroundings<'_>) -> Result<Vec<Self>, Vec<String>> {
        let value: Value = serde_json::from_str(json).map_err(|error| vec![format!("not JSON ({error})")])?;
        let Value::Array(list) = value else {
            return Err(vec!["the proxy config must be a list of API definitions".to_owned()]);
        };
        let (mut definitions, mut wrong) = (Vec::<Self>::new(), Vec::new());
        for (index, value) in list.iter().enumerate() {
            match Self::parse(value, surroundings) {
                Ok(definition) if definitions.iter().any(|other| other.id == definition.id) => {
                    wrong.push(format!("definition {}: api: id {:?} occurs twice", index + 1, definition.id));
                }
                Ok(definition) => definitions.push(definition),
                Err(errors) => wrong.extend(errors.lines().map(|line| format!("definition {}: {line}", index + 1))),
            }
        }
        if wrong.is_empty() { Ok(definitions) } else { Err(wrong) }
    }

    /// Whether an endpoint needs a token.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.routes.iter().any(|route| route.endpoint.secured.is_some())
    }
}
