//! From a Kafka message to the event in it.

use std::sync::Arc;

use tidegate_shards::event::{
    BinaryTransport, Event, EventError, EventLimits, KafkaMode, decode_binary, decode_structured, peek_type,
};
use tidegate_shards::extractor::Extractors;

use super::message::Envelope;
use super::native::Message;
use crate::avro;
use crate::avro::codec::{self, DecodeError, DecodeLimits};
use crate::avro::registry::{Lookup, Registry};

/// Content type of data that was Avro: here it becomes JSON.
const JSON: &str = "application/json";

/// Why a message is not handed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a tombstone (null value) is no event")]
    Tombstone,
    #[error("batches are for HTTP; send one event per Kafka message")]
    Batch,
    #[error("Avro needs a schema registry (KAFKA_SCHEMA_REGISTRY_HOST)")]
    NoRegistry,
    #[error("Avro begins with a zero byte and four bytes of the schema's id")]
    Unframed,
    /// The schema registry is being asked: try again.
    #[error("its schema is being asked for")]
    SchemaAsked,
    #[error("{0}")]
    NoSchema(Arc<str>),
    #[error(transparent)]
    Avro(#[from] DecodeError),
    #[error(transparent)]
    Event(#[from] EventError),
}

/// What decoding depends on.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The fields to find in events.
    pub extractors: Arc<Extractors>,
    /// What an event may cost.
    pub limits: EventLimits,
    /// The schemas of Avro, where there is a registry.
    pub schemas: Option<Arc<Registry>>,
}

impl Decoder {
    /// The event of a message, if its type is wanted. What nobody wants is dropped by its type alone.
    pub(super) fn decode<'m>(
        &self,
        message: &Message<'m>,
        wants: impl Fn(&str) -> bool,
    ) -> Result<Option<Event<'m>>, MessageError> {
        let Self { extractors, limits, .. } = self;
        let body = message.payload().ok_or(MessageError::Tombstone)?;
        let headers = message.headers();
        let envelope = if headers.none() { Envelope::STRUCTURED } else { Envelope::read(headers.clone()) };
        if envelope.event_type.is_some_and(|event_type| !wants(event_type)) && envelope.mode == KafkaMode::Binary {
            return Ok(None);
        }
        if envelope.is_avro(body) {
            let json = self.json_of(body)?;
            let event = if envelope.is_structured_avro() {
                decode_structured(&json, extractors, limits)?.into_owned()
            } else {
                decode_binary(BinaryTransport::Kafka, headers, Some(JSON), &json, extractors, limits)?
            };
            return Ok(wants(&event.event_type).then_some(event));
        }
        match envelope.mode {
            KafkaMode::Structured => {
                if peek_type(body).is_some_and(|event_type| !wants(&event_type)) {
                    return Ok(None);
                }
                let event = decode_structured(body, extractors, limits)?;
                Ok(wants(&event.event_type).then_some(event))
            }
            KafkaMode::Binary => {
                let (transport, content_type) = (BinaryTransport::Kafka, envelope.content_type);
                let event = decode_binary(transport, headers, content_type, body, extractors, limits)?;
                Ok(wants(&event.event_type).then_some(event))
            }
            KafkaMode::Batch => Err(MessageError::Batch),
        }
    }

    /// Has this message to wait until the schema registry has answered?
    pub(super) fn waits_for_schema(&self, message: &Message<'_>) -> bool {
        let (Some(schemas), Some(body)) = (&self.schemas, message.payload()) else { return false };
        let Some((id, _)) = avro::unframe(body) else { return false };
        Envelope::read(message.headers()).is_avro(body) && matches!(schemas.by_id(id), Lookup::Asked)
    }

    /// The JSON of a framed Avro value.
    fn json_of(&self, body: &[u8]) -> Result<Vec<u8>, MessageError> {
        let max_bytes = self.limits.max_body_bytes;
        if body.len() > max_bytes {
            return Err(EventError::BodyTooLarge { bytes: body.len(), max_bytes }.into());
        }
        let schemas = self.schemas.as_ref().ok_or(MessageError::NoRegistry)?;
        let (id, value) = avro::unframe(body).ok_or(MessageError::Unframed)?;
        let schema = match schemas.by_id(id) {
            Lookup::Known(schema) => schema,
            Lookup::Unusable(reason) => return Err(MessageError::NoSchema(reason)),
            Lookup::Asked => return Err(MessageError::SchemaAsked),
        };
        let limits = DecodeLimits { max_depth: self.limits.max_depth.saturating_sub(1), max_json_bytes: max_bytes };
        Ok(codec::decode(&schema, value, &limits)?)
    }
}
