//! The API definitions of a node with their history: a state machine without I/O.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_shards::proxy::definition::{Definition, DefinitionErrors, Surroundings};
use tidegate_shards::proxy::table::Route;

/// Why a change is refused; the texts are RIG's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The definition is wrong.
    #[error("{0}")]
    Invalid(DefinitionErrors),
    /// There is an active API with this id.
    #[error("API with id={0} already exists.")]
    Exists(String),
    /// There is no active API with this id.
    #[error("API with id={0} doesn't exists.")]
    Missing(String),
}

/// An API as it is stored, listed and shown: the definition with `ref_number`, `timestamp`, `active` and `node_name`.
#[derive(Clone, Debug)]
pub struct Record {
    id: String,
    fields: Map<String, Value>,
    /// `None` if this version can't serve it (it came from elsewhere).
    definition: Option<Definition>,
}

impl Record {
    /// `id` of the API.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Everything that is stored of it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    /// Whether an endpoint of it needs a token.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.definition.as_ref().is_some_and(Definition::is_secured)
    }

    fn is_active(&self) -> bool {
        self.fields.get("active") != Some(&Value::Bool(false))
    }

    fn ref_number(&self) -> u64 {
        self.fields.get("ref_number").and_then(Value::as_u64).unwrap_or(0)
    }
}

/// Who changes something, and when.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// `node_name` of the record.
    pub node_name: &'a str,
    /// `timestamp` of the record, RFC 3339.
    pub timestamp: &'a str,
}

/// Fields that every definition has, and that a PUT must give again.
const REQUIRED: [&str; 3] = ["name", "proxy", "version_data"];

/// All records, hidden ones included.
#[derive(Debug, Default)]
pub struct Store {
    records: BTreeMap<String, Record>,
}

impl Store {
    /// The record that a definition of the start becomes.
    #[must_use]
    pub fn initial(definition: &Definition, change: Change<'_>) -> Record {
        record(definition.clone(), 0, change)
    }

    /// What `POST /v3/apis` makes.
    ///
    /// # Errors
    /// The definition is wrong, or the id is taken.
    pub fn post(&self, body: &Value, change: Change<'_>, surroundings: &Surroundings<'_>) -> Result<Record, Refusal> {
        let definition = Definition::parse(body, surroundings).map_err(Refusal::Invalid)?;
        let before = self.records.get(&*definition.id);
        if before.is_some_and(Record::is_active) {
            return Err(Refusal::Exists(definition.id.into()));
        }
        let ref_number = before.map_or(0, |record| record.ref_number() + 1);
        Ok(record(definition, ref_number, change))
    }

    /// What `PUT /v3/apis/{id}` makes: the members of `body` take the place of those before.
    ///
    /// # Errors
    /// There is no such API, `body` lacks a required member, or the result is wrong.
    pub fn put(
        &self,
        id: &str,
        body: &Value,
        change: Change<'_>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Record, Refusal> {
        let before = self.active(id)?;
        let Some(members) = body.as_object() else {
            let mut errors = DefinitionErrors::default();
            errors.add("api", "definition", "must be map");
            return Err(Refusal::Invalid(errors));
        };
        let mut merged = before.fields.clone();
        merged.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
        for name in REQUIRED {
            // What isn't given is missing, though the stored definition has it.
            merged.insert(name.to_owned(), members.get(name).cloned().unwrap_or(Value::Null));
        }
        merged.insert("id".to_owned(), id.into());
        let definition = Definition::parse(&Value::Object(merged), surroundings).map_err(Refusal::Invalid)?;
        Ok(record(definition, before.ref_number() + 1, change))
    }

    /// What `DELETE /v3/apis/{id}` makes: the same, hidden.
    ///
    /// # Errors
    /// There is no such API.
    pub fn delete(&self, id: &str, change: Change<'_>) -> Result<Record, Refusal> {
        let mut record = self.active(id)?.clone();
        record.fields.insert("active".to_owned(), false.into());
        let ref_number = record.ref_number() + 1;
        stamp(&mut record.fields, ref_number, change);
        record.definition = record.definition.map(|definition| Definition { matches: false, ..definition });
        Ok(record)
    }

    /// A record as it was stored. What this version can't serve is kept and doesn't match.
    ///
    /// # Errors
    /// What was stored is no record at all.
    pub fn read(json: &[u8], surroundings: &Surroundings<'_>) -> Result<(Record, Option<DefinitionErrors>), String> {
        let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let id = value.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = id.ok_or("it has no id")?.to_owned();
        let (definition, errors) = match Definition::parse(&value, surroundings) {
            Ok(definition) => (Some(definition), None),
            Err(errors) => (None, Some(errors)),
        };
        let Value::Object(fields) = value else { return Err("it is no object".to_owned()) };
        Ok((Record { id, fields, definition }, errors))
    }

    /// Puts a record in the place of the one before.
    pub fn apply(&mut self, record: Record) {
        self.records.insert(record.id.clone(), record);
    }

    /// Forgets a record.
    pub fn remove(&mut self, id: &str) {
        self.records.remove(id);
    }

    /// The active API with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn active(&self, id: &str) -> Result<&Record, Refusal> {
        let found = self.records.get(id).filter(|record| record.is_active());
        found.ok_or_else(|| Refusal::Missing(id.to_owned()))
    }

    /// All active APIs, by id.
    pub fn list(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| record.is_active())
    }

    /// The routes of all APIs that match, in order.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        let definitions = self.records.values().filter_map(|record| record.definition.as_ref());
        definitions.filter(|definition| definition.matches).flat_map(|definition| definition.routes.clone()).collect()
    }
}

fn record(definition: Definition, ref_number: u64, change: Change<'_>) -> Record {
    let mut fields = definition.fields.clone();
    let given = match fields.get("auth") {
        Some(Value::Object(auth)) => auth.clone(),
        _ => Map::new(),
    };
    let mut auth = Map::new();
    for (name, default) in [
        ("use_header", json!(false)),
        ("header_name", json!("")),
        ("use_query", json!(false)),
        ("query_name", json!("")),
    ] {
        auth.insert(name.to_owned(), given.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(default));
    }
    auth.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
    fields.insert("auth".to_owned(), Value::Object(auth));
    for (name, default) in [("auth_type", json!("none")), ("versioned", json!(false)), ("active", json!(true))] {
        if fields.get(name).is_none_or(Value::is_null) {
            fields.insert(name.to_owned(), default);
        }
    }
    stamp(&mut fields, ref_number, change);
    Record { id: definition.id.to_string(), fields, definition: Some(definition) }
}

fn stamp(fields: &mut Map<String, Value>, ref_number: u64, change: Change<'_>) {
    fields.insert("ref_number".to_owned(), ref_number.into());
    fields.insert("timestamp".to_owned(), change.timestamp.into());
    fields.insert("node_name".to_owned(), change.node_name.into());
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
