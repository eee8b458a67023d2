//! A producer and the queue of its events: what became of its messages is taken from librdkafka a batch at a time.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as ffi;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::IntoOpaque as _;

use super::turns::Turns;

/// One message that Kafka has taken, or has not.
pub(crate) type Report<C> = (Result<(), KafkaError>, <C as ProducerContext<Turns>>::DeliveryOpaque);

/// Is told what became of messages.
pub(crate) trait Reports: ProducerContext<Turns> {
    /// These were dealt with, all at once.
    fn report(&self, reports: &mut dyn Iterator<Item = Report<Self>>);
}

/// A producer whose events are taken from its queue directly.
pub(crate) struct Line<C: Reports + 'static> {
    queue: NonNull<ffi::rd_kafka_queue_t>,
    producer: BaseProducer<C, Turns>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl<C: Reports> Send for Line<C> {}
// SAFETY: as above; every use of the queue is one call of librdkafka, which locks it.
unsafe impl<C: Reports> Sync for Line<C> {}

impl<C: Reports> Line<C> {
    pub(crate) fn new(config: &ClientConfig, context: C) -> Result<Self, KafkaError> {
        let producer: BaseProducer<C, Turns> = config.create_with_context(context)?;
        // SAFETY: the client is live.
        let queue = unsafe { ffi::rd_kafka_queue_get_main(producer.client().native_ptr()) };
        let queue = NonNull::new(queue).expect("invariant: every client of librdkafka has a main queue");
        Ok(Self { queue, producer })
    }

    pub(crate) fn producer(&self) -> &BaseProducer<C, Turns> {
        &self.producer
    }

    /// Messages that were handed to librdkafka and are not yet reported.
    pub(crate) fn under_way(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    /// Ends the wait of whoever is in [`serve`](Self::serve), or the next one.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue is live.
        unsafe { ffi::rd_kafka_queue_yield(self.queue.as_ptr()) };
    }

    /// Waits for an event, at most so long, and serves it and all others that are there.
    pub(crate) fn serve(&self, wait: Duration) {
        let mut wait_ms = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        loop {
            // SAFETY: the queue is live; the event is ours until it is destroyed.
            let event = unsafe { ffi::rd_kafka_queue_poll(self.queue.as_ptr(), wait_ms) };
            let Some(event) = NonNull::new(event) else { return };
            self.take(event);
            // SAFETY: the event came from the queue, and is destroyed once.
            unsafe { ffi::rd_kafka_event_destroy(event.as_ptr()) };
            wait_ms = 0;
        }
    }

    fn take(&self, event: NonNull<ffi::rd_kafka_event_t>) {
        let context = self.producer.client().context();
        // SAFETY: the event is live.
        match unsafe { ffi::rd_kafka_event_type(event.as_ptr()) } {
            ffi::RD_KAFKA_EVENT_DR => context.report(&mut std::iter::from_fn(|| {
                // SAFETY: the event is live, and its messages live as long.
                let message = unsafe { ffi::rd_kafka_event_message_next(event.as_ptr()).as_ref() }?;
                let result = match message.err {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
                    error => Err(KafkaError::MessageProduction(error.into())),
                };
                // SAFETY: the pointer was made from such a value when the message was sent, and each message is reported once.
                Some((result, unsafe { C::DeliveryOpaque::from_ptr(message._private) }))
            })),
            ffi::RD_KAFKA_EVENT_ERROR => {
                // SAFETY: the event is live.
                let (code, text) = unsafe {
                    (ffi::rd_kafka_event_error(event.as_ptr()), ffi::rd_kafka_event_error_string(event.as_ptr()))
                };
                let reason = if text.is_null() {
                    String::new()
                } else {
                    // SAFETY: librdkafka's text ends with a zero and lives as long as the event.
                    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
                };
                context.error(KafkaError::Global(code.into()), reason.trim());
            }
            _ => {}
        }
    }
}

impl<C: Reports> Drop for Line<C> {
    fn drop(&mut self) {
        // SAFETY: the reference to the queue was taken in `new`, and the client, which is dropped after this, is live.
        unsafe { ffi::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}
