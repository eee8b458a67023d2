//! librdkafka's simple consumer on the reply topic: partitions by assignment, no group, batches of borrowed messages.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as ffi;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaType;

use super::inbox::{BATCH_MESSAGES, Inbox, Message};

/// A consumer of one topic, owned by one thread.
#[derive(Debug)]
pub(crate) struct ReplyReader {
    client: NonNull<ffi::rd_kafka_t>,
    topic: NonNull<ffi::rd_kafka_topic_t>,
    started: Vec<i32>,
    /// Gone before the client is.
    inbox: Option<Inbox>,
}

// SAFETY: librdkafka's handles may be used from any thread; `ReplyReader` is moved, never shared (it isn't `Sync`).
unsafe impl Send for ReplyReader {}

impl ReplyReader {
    pub(crate) fn new(config: &ClientConfig, topic: &str) -> KafkaResult<Self> {
        let name = CString::new(topic)?;
        let native = config.create_native_config()?;
        let mut text = [0 as c_char; 512];
        // SAFETY: `native` is a valid configuration; the callback is a plain function without state.
        unsafe { ffi::rd_kafka_conf_set_log_cb(native.ptr(), Some(on_log)) };
        // SAFETY: the configuration is valid and `text` has the stated size. On success librdkafka owns the configuration.
        let client =
            unsafe { ffi::rd_kafka_new(RDKafkaType::RD_KAFKA_CONSUMER, native.ptr(), text.as_mut_ptr(), text.len()) };
        let Some(client) = NonNull::new(client) else {
            // SAFETY: librdkafka ends its error text with a zero within the buffer, which was zeroed.
            let reason = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            return Err(KafkaError::ClientCreation(reason));
        };
        let _owned_by_client = ManuallyDrop::new(native);
        // SAFETY: client and name are live; without a configuration the client's default for topics holds.
        let handle = unsafe { ffi::rd_kafka_topic_new(client.as_ptr(), name.as_ptr(), ptr::null_mut()) };
        let Some(handle) = NonNull::new(handle) else {
            let error = last_error();
            // SAFETY: the client is live and nothing else refers to it.
            unsafe { ffi::rd_kafka_destroy(client.as_ptr()) };
            return Err(error);
        };
        // SAFETY: the client is live, and the inbox is dropped before it.
        let inbox = unsafe { Inbox::new(client.as_ptr()) };
        Ok(Self { client, topic: handle, started: Vec::new(), inbox: Some(inbox) })
    }

    /// Starts reading a partition at `offset`.
    pub(crate) fn start(&mut self, partition: i32, offset: i64) -> KafkaResult<()> {
        let queue = self.inbox.as_ref().map_or(ptr::null_mut(), Inbox::queue);
        // SAFETY: topic and queue are live handles of this client.
        let result = unsafe { ffi::rd_kafka_consume_start_queue(self.topic.as_ptr(), partition, offset, queue) };
        if result != 0 {
            return Err(last_error());
        }
        self.started.push(partition);
        Ok(())
    }

    /// Waits for messages, at most so long, and gives all that are there, up to a bound. They are borrowed until the next
    /// call.
    pub(crate) fn read(&mut self, wait: Duration) -> impl Iterator<Item = Message<'_>> {
        self.inbox.iter_mut().flat_map(move |inbox| inbox.read(wait, BATCH_MESSAGES))
    }

    /// Serves librdkafka's other events.
    pub(crate) fn serve(&mut self) {
        // SAFETY: the client is a live handle.
        unsafe { ffi::rd_kafka_poll(self.client.as_ptr(), 0) };
    }
}

impl Drop for ReplyReader {
    fn drop(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.release();
        }
        for partition in std::mem::take(&mut self.started) {
            // SAFETY: the topic is a live handle, and the partition was started on it.
            unsafe { ffi::rd_kafka_consume_stop(self.topic.as_ptr(), partition) };
        }
        self.inbox = None;
        // SAFETY: each handle is destroyed once, the client last, and no message is left.
        unsafe {
            ffi::rd_kafka_topic_destroy(self.topic.as_ptr());
            ffi::rd_kafka_destroy(self.client.as_ptr());
        }
    }
}

fn last_error() -> KafkaError {
    // SAFETY: reads a value of the calling thread.
    KafkaError::Global(unsafe { ffi::rd_kafka_last_error() }.into())
}

unsafe extern "C" fn on_log(_: *const ffi::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    // SAFETY: librdkafka passes strings that end with a zero and live across the call.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    super::log(level, &facility.to_string_lossy(), &text.to_string_lossy());
}
