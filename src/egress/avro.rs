//! Requests whose endpoint has a schema, written in Avro on the schema registry's thread before they go to Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tidegate_shards::proxy::outbound::RequestMessage;
use tidegate_shards::submit::SubmitError;

use super::requests::{Asker, Outgoing};
use crate::avro::codec;
use crate::avro::frame;
use crate::avro::registry::{Latest, NoSchema, Registry};

/// Bytes of messages that may wait for their schemas.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// What a message costs beside its value, in bytes.
const MESSAGE_BYTES: usize = 1 << 10;

/// Writes messages by the latest versions of their schemas.
#[derive(Debug)]
pub(super) struct Writer {
    schemas: Arc<Registry>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Writer {
    pub(super) fn new(schemas: Arc<Registry>) -> Self {
        Self { schemas, waiting_bytes: Arc::default() }
    }

    /// Sends the message once it is written; doesn't wait. Too many that wait for a registry which doesn't answer are
    /// refused.
    pub(super) fn write(&self, message: RequestMessage, asker: Asker, outgoing: Arc<Outgoing>) {
        let bytes = message.value.len() + MESSAGE_BYTES;
        let waiting_bytes = Arc::clone(&self.waiting_bytes);
        if waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_WAITING_BYTES {
            waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            outgoing.refuse(&message, asker, SubmitError::Overloaded);
            return;
        }
        let subject = message.schema.clone().unwrap_or_default();
        self.schemas.with_latest(subject, move |latest| {
            waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match written(&message, latest) {
                Ok(value) => {
                    outgoing.send(&RequestMessage { value: value.into(), schema: None, ..message }, asker);
                }
                Err(error) => outgoing.refuse(&message, asker, error),
            }
        });
    }
}

fn written(message: &RequestMessage, latest: Result<Latest, NoSchema>) -> Result<Vec<u8>, SubmitError> {
    let Latest { id, schema } = latest.map_err(|error| match error {
        NoSchema::Unusable(reason) => SubmitError::NoSchema(reason.to_string()),
        NoSchema::Away(reason) => SubmitError::RegistryUnreachable(reason.to_string()),
    })?;
    let data: Value =
        serde_json::from_slice(&message.value).map_err(|error| SubmitError::Misfit(format!("data: {error}")))?;
    let mut value = frame(id);
    codec::encode(&schema, &data, &mut value).map_err(|misfit| {
        let subject = message.schema.as_deref().unwrap_or_default();
        SubmitError::Misfit(format!("{misfit}, says the Avro schema {subject}"))
    })?;
    Ok(value)
}
