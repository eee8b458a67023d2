//! What ingress and egress need to read and write events.

use std::io;
use std::sync::Arc;

use tidegate_shards::event::EventLimits;

use crate::avro::registry::Registry;
use crate::config::Config;
use crate::ingress::Decoder;

/// Depth of JSON in events.
pub(super) const MAX_JSON_DEPTH: usize = 128;

/// The schemas of Avro, where there are Kafka and a registry.
pub(super) fn registry(config: &Config) -> io::Result<Option<Arc<Registry>>> {
    let Some(url) = config.schema_registry.as_ref().filter(|_| config.kafka.is_some()) else { return Ok(None) };
    Ok(Some(Arc::new(Registry::start(url, config.proxy.ca_pem.clone())?)))
}

/// What decoding depends on.
pub(super) fn decoder(config: &Config, schemas: Option<&Arc<Registry>>) -> Decoder {
    Decoder {
        extractors: Arc::clone(&config.extractors),
        limits: EventLimits { max_depth: MAX_JSON_DEPTH, max_body_bytes: config.max_event_bytes },
        schemas: schemas.cloned(),
    }
}
