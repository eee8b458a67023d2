//! librdkafka's simple consumer on the reply topic: partitions by assignment, no group, batches of borrowed messages.
//! All of this crate's `unsafe` is in here.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as ffi;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr, RDKafkaType};

/// Messages handed over at once.
const BATCH_MESSAGES: usize = 512;

/// A consumer of one topic, owned by one thread.
#[derive(Debug)]
pub(crate) struct ReplyReader {
    client: NonNull<ffi::rd_kafka_t>,
    queue: NonNull<ffi::rd_kafka_queue_t>,
    topic: NonNull<ffi::rd_kafka_topic_t>,
    started: Vec<i32>,
    batch: Vec<*mut ffi::rd_kafka_message_t>,
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
        // SAFETY: `client` is a live handle; rd_kafka_queue_new doesn't fail.
        let queue = unsafe { ffi::rd_kafka_queue_new(client.as_ptr()) };
        let queue = NonNull::new(queue).expect("invariant: librdkafka aborts rather than return no queue");
        Ok(Self { client, queue, topic: handle, started: Vec::new(), batch: Vec::with_capacity(BATCH_MESSAGES) })
    }

    /// Starts reading a partition at `offset`.
    pub(crate) fn start(&mut self, partition: i32, offset: i64) -> KafkaResult<()> {
        // SAFETY: topic and queue are live handles of this client.
        let result =
            unsafe { ffi::rd_kafka_consume_start_queue(self.topic.as_ptr(), partition, offset, self.queue.as_ptr()) };
        if result != 0 {
            return Err(last_error());
        }
        self.started.push(partition);
        Ok(())
    }

    /// Waits for messages, at most so long, and gives all that are there, up to a bound. They are borrowed until the next
    /// call.
    pub(crate) fn read(&mut self, wait: Duration) -> impl Iterator<Item = Message<'_>> {
        self.release();
        let wait_ms = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is live; a message that is returned belongs to us until it is destroyed.
        let first = unsafe { ffi::rd_kafka_consume_queue(self.queue.as_ptr(), wait_ms) };
        if !first.is_null() {
            self.batch.push(first);
            let room = self.batch.capacity() - 1;
            // SAFETY: the queue is live; there is room for `room` pointers behind the first one.
            let count = unsafe {
                ffi::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.batch.as_mut_ptr().add(1), room)
            };
            // SAFETY: librdkafka has written that many valid pointers behind the first one.
            unsafe { self.batch.set_len(1 + usize::try_from(count).unwrap_or(0)) };
        }
        // SAFETY: the pointers are valid until `release`, which needs the reader mutably.
        self.batch.iter().map(|&raw| Message { raw: unsafe { &*raw }, batch: PhantomData })
    }

    /// Serves librdkafka's other events.
    pub(crate) fn serve(&mut self) {
        // SAFETY: the client is a live handle.
        unsafe { ffi::rd_kafka_poll(self.client.as_ptr(), 0) };
    }

    fn release(&mut self) {
        for message in self.batch.drain(..) {
            // SAFETY: each pointer came from librdkafka's queue and is destroyed once.
            unsafe { ffi::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for ReplyReader {
    fn drop(&mut self) {
        self.release();
        for partition in std::mem::take(&mut self.started) {
            // SAFETY: the topic is a live handle, and the partition was started on it.
            unsafe { ffi::rd_kafka_consume_stop(self.topic.as_ptr(), partition) };
        }
        // SAFETY: each handle is destroyed once, the client last, and no message is left.
        unsafe {
            ffi::rd_kafka_topic_destroy(self.topic.as_ptr());
            ffi::rd_kafka_queue_destroy(self.queue.as_ptr());
            ffi::rd_kafka_destroy(self.client.as_ptr());
        }
    }
}

/// A message borrowed from a batch, or an error that librdkafka put in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    raw: &'a ffi::rd_kafka_message_t,
    batch: PhantomData<&'a ReplyReader>,
}

impl<'a> Message<'a> {
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.raw.err.into())
    }

    pub(crate) fn value(&self) -> &'a [u8] {
        if self.raw.payload.is_null() {
            return &[];
        }
        // SAFETY: librdkafka states the length of the payload, which lives as long as the message, that is 'a.
        unsafe { slice::from_raw_parts(self.raw.payload.cast::<u8>(), self.raw.len) }
    }

    /// Names and values of the headers in their order; names that aren't UTF-8 are left out, a null value is empty.
    pub(crate) fn headers(&self) -> Headers<'a> {
        let mut list = ptr::null_mut();
        // SAFETY: the message is live; `list` is only used where librdkafka says it has set it.
        let result = unsafe { ffi::rd_kafka_message_headers(self.raw, &raw mut list) };
        let found = result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        Headers { list: if found { list } else { ptr::null_mut() }, next: 0, message: PhantomData }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Headers<'a> {
    list: *const ffi::rd_kafka_headers_t,
    next: usize,
    message: PhantomData<&'a [u8]>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.list.is_null() {
            let (mut name, mut value, mut len) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0_usize);
            // SAFETY: the list belongs to a live message; the three places outlive the call.
            let result = unsafe {
                ffi::rd_kafka_header_get_all(self.list, self.next, &raw mut name, &raw mut value, &raw mut len)
            };
            if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            self.next += 1;
            // SAFETY: on success the name is a string that ends with a zero and lives as long as the message.
            let Ok(name) = unsafe { CStr::from_ptr::<'a>(name) }.to_str() else { continue };
            let value = if value.is_null() {
                &[][..]
            } else {
                // SAFETY: on success the value has `len` bytes and lives as long as the message.
                unsafe { slice::from_raw_parts(value.cast::<u8>(), len) }
            };
            return Some((name, value));
        }
        None
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
