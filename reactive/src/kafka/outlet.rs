//! The producer of a client or server, replaced should it ever fail for good.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::explain;
use crate::error::Error;

/// Makes the context of a producer.
type NewContext<C> = Box<dyn Fn() -> C + Send + Sync>;

/// A producer for messages whose delivery reports go to `C`.
pub(crate) struct Outlet<C: ProducerContext + 'static> {
    producer: RwLock<Arc<BaseProducer<C>>>,
    config: ClientConfig,
    context: NewContext<C>,
}

impl<C: ProducerContext + 'static> fmt::Debug for Outlet<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outlet").finish_non_exhaustive()
    }
}

/// A message to be written.
pub(crate) struct Parcel<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: OwnedHeaders,
    pub(crate) value: &'a [u8],
}

impl<C: ProducerContext + 'static> Outlet<C> {
    pub(crate) fn new(config: ClientConfig, context: impl Fn() -> C + Send + Sync + 'static) -> Result<Self, Error> {
        let producer = create(&config, context())?;
        Ok(Self { producer: RwLock::new(producer), config, context: Box::new(context) })
    }

    pub(crate) fn producer(&self) -> Arc<BaseProducer<C>> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands a message to librdkafka; what becomes of it is reported to the context.
    pub(crate) fn send(
        &self,
        parcel: Parcel<'_>,
        opaque: C::DeliveryOpaque,
    ) -> Result<(), (KafkaError, C::DeliveryOpaque)> {
        let mut record = BaseRecord::with_opaque_to(parcel.topic, opaque).payload(parcel.value).headers(parcel.headers);
        if let Some(key) = parcel.key {
            record = record.key(key);
        }
        if let Some(partition) = parcel.partition {
            record = record.partition(partition);
        }
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        producer.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
    }

    /// Serves delivery reports, and replaces a producer that has failed for good (an idempotent one may, after a broker
    /// lost what it had acknowledged).
    pub(crate) fn serve(&self, wait: Duration) {
        let producer = self.producer();
        producer.poll(wait);
        let Some((code, reason)) = producer.client().fatal_error() else { return };
        match create(&self.config, (self.context)()) {
            Ok(fresh) => {
                tracing::error!(target: "tidegate::reactive", %code, reason, "the producer failed for good and is replaced");
                *self.producer.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                // Dropping the old one purges it: what it still held is reported as failed.
            }
            Err(error) => tracing::error!(target: "tidegate::reactive", %error, "the producer can't be replaced yet"),
        }
    }

    /// Waits until everything has been reported, at most so long.
    pub(crate) fn flush(&self, wait: Duration) {
        if let Err(error) = self.producer().flush(wait) {
            tracing::warn!(target: "tidegate::reactive", %error, "messages were still unacknowledged at the stop");
        }
    }
}

fn create<C: ProducerContext + 'static>(config: &ClientConfig, context: C) -> Result<Arc<BaseProducer<C>>, Error> {
    let producer: Result<BaseProducer<C>, _> = config.create_with_context(context);
    producer.map(Arc::new).map_err(|error| explain("librdkafka refuses a setting of the producer", error))
}

/// Collects Kafka headers one by one.
#[derive(Debug)]
pub(crate) struct HeaderList(Option<OwnedHeaders>);

impl HeaderList {
    pub(crate) fn with_capacity(headers: usize) -> Self {
        Self(Some(OwnedHeaders::new_with_capacity(headers)))
    }

    pub(crate) fn put(&mut self, key: &str, value: &[u8]) {
        self.0 = self.0.take().map(|list| list.insert(Header { key, value: Some(value) }));
    }

    pub(crate) fn finish(self) -> OwnedHeaders {
        self.0.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::bindings::rd_kafka_test_fatal_error;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    #[test]
    fn a_producer_that_failed_for_good_is_replaced() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("enable.idempotence", "true");
        let outlet = Outlet::new(config, || DefaultProducerContext).unwrap();
        let first = outlet.producer();
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client is live and the text ends with a zero.
        unsafe { rd_kafka_test_fatal_error(first.client().native_ptr(), error, c"a test".as_ptr()) };
        assert!(first.client().fatal_error().is_some());
        outlet.serve(Duration::ZERO);
        assert!(outlet.producer().client().fatal_error().is_none());
        let parcel = Parcel { topic: "t", partition: None, key: None, headers: OwnedHeaders::new(), value: b"x" };
        assert!(outlet.send(parcel, ()).is_ok());
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_is_an_error_that_names_it() {
        let mut config = ClientConfig::new();
        config.set("no.such.setting", "1");
        let error = Outlet::new(config, || DefaultProducerContext).unwrap_err();
        assert!(error.to_string().contains("no.such.setting"), "{error}");
        assert_eq!(error.kind(), crate::error::Kind::Settings);
    }
}
