//! Messages of a queue of librdkafka's, borrowed a batch at a time.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

/// Messages handed over at once, at most.
pub(crate) const BATCH_MESSAGES: usize = 512;

/// A queue for messages, owned by one thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Arc<Queue>,
    batch: Vec<*mut ffi::rd_kafka_message_t>,
}

#[derive(Debug)]
struct Queue(NonNull<ffi::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above; every use is one call of librdkafka, which locks the queue.
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue was made by `Inbox::new`, whose caller keeps the client alive, and is destroyed once.
        unsafe { ffi::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

// SAFETY: librdkafka's messages may be used and destroyed from any thread; an `Inbox` is moved, never shared.
unsafe impl Send for Inbox {}

impl Inbox {
    /// An empty queue.
    ///
    /// # Safety
    /// The client is live, and outlives the inbox.
    pub(crate) unsafe fn new(client: *mut ffi::rd_kafka_t) -> Self {
        // SAFETY: the caller promises a live client; rd_kafka_queue_new doesn't fail.
        let queue = unsafe { ffi::rd_kafka_queue_new(client) };
        let queue = NonNull::new(queue).expect("invariant: librdkafka aborts rather than return no queue");
        Self { queue: Arc::new(Queue(queue)), batch: Vec::with_capacity(BATCH_MESSAGES) }
    }

    pub(crate) fn queue(&self) -> *mut ffi::rd_kafka_queue_t {
        self.queue.0.as_ptr()
    }

    /// Leads partitions here.
    pub(crate) fn door(&self) -> Door {
        Door(Arc::downgrade(&self.queue))
    }

    /// Waits for messages, at most so long, and gives all that are there, up to `max` (at least one). They are borrowed
    /// until the next call.
    pub(crate) fn read(&mut self, wait: Duration, max: usize) -> impl Iterator<Item = Message<'_>> {
        self.release();
        let wait_ms = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // A batch call that waits would wait until the batch is full; so only the first message is waited for.
        // SAFETY: the queue is live; a message that is returned belongs to us until it is destroyed.
        let first = unsafe { ffi::rd_kafka_consume_queue(self.queue(), wait_ms) };
        if !first.is_null() {
            self.batch.push(first);
            let room = max.min(self.batch.capacity()).saturating_sub(1);
            // SAFETY: the queue is live; there is room for `room` pointers behind the first one.
            let count =
                unsafe { ffi::rd_kafka_consume_batch_queue(self.queue(), 0, self.batch.as_mut_ptr().add(1), room) };
            // SAFETY: librdkafka has written that many valid pointers behind the first one.
            unsafe { self.batch.set_len(1 + usize::try_from(count).unwrap_or(0)) };
        }
        // SAFETY: the pointers are valid until `release`, which needs the inbox mutably.
        self.batch.iter().map(|&raw| Message { raw: unsafe { &*raw }, batch: PhantomData })
    }

    pub(crate) fn release(&mut self) {
        for message in self.batch.drain(..) {
            // SAFETY: each pointer came from librdkafka's queue and is destroyed once.
            unsafe { ffi::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.release();
    }
}

/// The way into an inbox, for whoever assigns partitions; leads nowhere when the inbox has gone.
#[derive(Clone, Debug)]
pub(crate) struct Door(Weak<Queue>);

impl Door {
    /// Messages of a partition go to the inbox from now on, instead of to the group's common queue.
    ///
    /// # Safety
    /// The client is live, and that of the inbox.
    pub(crate) unsafe fn lead(&self, client: *mut ffi::rd_kafka_t, topic: &str, partition: i32) {
        let (Some(inbox), Ok(topic)) = (self.0.upgrade(), CString::new(topic)) else { return };
        // SAFETY: the caller promises a live client; the name ends with a zero.
        let queue = unsafe { ffi::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
        let Some(queue) = NonNull::new(queue) else { return };
        // SAFETY: both queues are live; the reference to the partition's was just taken, and is given back once.
        unsafe {
            ffi::rd_kafka_queue_forward(queue.as_ptr(), inbox.0.as_ptr());
            ffi::rd_kafka_queue_destroy(queue.as_ptr());
        }
    }
}

/// A message borrowed from a batch, or an error that librdkafka put in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    raw: &'a ffi::rd_kafka_message_t,
    batch: PhantomData<&'a Inbox>,
}

impl<'a> Message<'a> {
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.raw.err.into())
    }

    pub(crate) fn partition(&self) -> i32 {
        self.raw.partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.raw.offset
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
