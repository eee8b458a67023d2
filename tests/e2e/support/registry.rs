//! A schema registry: schemas by subject and by id, as Confluent's answers. It may be told to be away. Values are
//! written and read by the crate `apache-avro`, not by the gateway's own code.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_avro_datum, to_avro_datum};
use serde_json::{Value, json};

use super::backend::{Backend, Received};

/// A running registry.
pub(crate) struct Registry {
    backend: Backend,
    held: Arc<Mutex<Held>>,
    away: Arc<AtomicBool>,
}

#[derive(Default)]
struct Held {
    /// The id of a schema is its place, counted from 1.
    schemas: Vec<String>,
    latest: BTreeMap<String, usize>,
    asked: Vec<String>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let (held, away) = (Arc::<Mutex<Held>>::default(), Arc::<AtomicBool>::default());
        let (here, gone) = (Arc::clone(&held), Arc::clone(&away));
        let backend = Backend::scripted(move |peer| {
            while let Some(request) = peer.request() {
                // Who is away ends the connection without a word.
                if gone.load(Ordering::SeqCst) || !peer.try_send(lock(&here).answer(&request)) {
                    break;
                }
            }
        });
        Self { backend, held, away }
    }

    /// `KAFKA_SCHEMA_REGISTRY_HOST`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.backend.port())
    }

    /// Holds a schema as the latest of a subject; returns its id.
    pub(crate) fn register(&self, subject: &str, schema: &Value) -> u32 {
        let mut held = lock(&self.held);
        held.schemas.push(schema.to_string());
        let id = held.schemas.len();
        held.latest.insert(subject.to_owned(), id);
        u32::try_from(id).expect("a small number")
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// The paths that were asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        lock(&self.held).asked.clone()
    }
}

impl Held {
    fn answer(&mut self, request: &Received) -> Vec<u8> {
        let path = request.target.clone();
        self.asked.push(path.clone());
        let id = path.strip_prefix("/schemas/ids/").and_then(|id| id.parse::<usize>().ok());
        let subject = path.strip_prefix("/subjects/").and_then(|path| path.strip_suffix("/versions/latest"));
        if let Some(schema) = id.and_then(|id| self.schemas.get(id.wrapping_sub(1))) {
            return json("200 OK", &json!({ "schema": schema }));
        }
        if let Some((subject, id)) = subject.and_then(|subject| self.latest.get_key_value(subject)) {
            let schema = &self.schemas[id - 1];
            return json("200 OK", &json!({ "subject": subject, "version": 1, "id": id, "schema": schema }));
        }
        let (code, message) = if id.is_some() { (40_403, "Schema not found") } else { (40_401, "Subject not found") };
        json("404 Not Found", &json!({ "error_code": code, "message": message }))
    }
}

fn json(status: &str, body: &Value) -> Vec<u8> {
    let (body, kind) = (body.to_string(), "application/vnd.schemaregistry.v1+json");
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value in Confluent's frame.
pub(crate) fn framed(id: u32, schema: &Value, value: Avro) -> Vec<u8> {
    let schema = Schema::parse(schema).expect("a schema");
    let mut framed = vec![0];
    framed.extend_from_slice(&id.to_be_bytes());
    framed.extend(to_avro_datum(&schema, value).expect("the value fits its schema"));
    framed
}

/// Id and value of a framed message.
pub(crate) fn unframed(schema: &Value, message: &[u8]) -> (u32, Avro) {
    let (head, mut value) = message.split_first_chunk::<5>().expect("a frame");
    assert_eq!(head[0], 0, "the first byte of a frame");
    let schema = Schema::parse(schema).expect("a schema");
    let read = from_avro_datum(&schema, &mut value, None).expect("the value is one of the schema");
    assert!(value.is_empty(), "nothing follows the value");
    (u32::from_be_bytes([head[1], head[2], head[3], head[4]]), read)
}

/// A record of apache-avro.
pub(crate) fn record(fields: &[(&str, Avro)]) -> Avro {
    Avro::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}
