//! librdkafka's simple consumer: partitions by assignment, no group, batches of borrowed messages.
//! All of ingress's `unsafe` for Kafka is in here.

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
use tidegate_shards::bell::Bell;

/// Messages are fetched into the cache this many before they are looked at; what a fetch brought is mostly in no cache.
const AHEAD: usize = 8;

/// A consumer owned by one thread. Topics are named by their index in the list given at creation.
#[derive(Debug)]
pub(crate) struct Consumer {
    client: NonNull<ffi::rd_kafka_t>,
    queue: NonNull<ffi::rd_kafka_queue_t>,
    topics: Vec<NonNull<ffi::rd_kafka_topic_t>>,
    started: Vec<(usize, i32)>,
    /// Keeps the eventfd open that librdkafka writes to.
    bell: Bell,
}

// SAFETY: librdkafka's handles may be used from any thread; `Consumer` is moved, never shared (it isn't `Sync`).
unsafe impl Send for Consumer {}

impl Consumer {
    /// Creates the client. Whenever its queue gets a message after it was found empty, the eventfd of `bell` is written.
    ///
    /// # Errors
    /// A setting that librdkafka refuses, or a name that can't be a topic's.
    pub(crate) fn new(config: &ClientConfig, topics: &[String], bell: &Bell) -> KafkaResult<Self> {
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
        // SAFETY: `client` is a live handle; rd_kafka_queue_new doesn't fail.
        let queue = unsafe { ffi::rd_kafka_queue_new(client.as_ptr()) };
        let queue = NonNull::new(queue).expect("invariant: librdkafka aborts rather than return no queue");
        let mut consumer =
            Self { client, queue, topics: Vec::with_capacity(topics.len()), started: Vec::new(), bell: bell.clone() };
        for topic in topics {
            consumer.add_topic(topic)?;
        }
        let payload = 1_u64;
        // SAFETY: the queue is live, librdkafka copies the 8 bytes of the payload, and the bell's descriptor stays open
        // until writing is ended in `drop`.
        unsafe {
            ffi::rd_kafka_queue_io_event_enable(
                consumer.queue.as_ptr(),
                consumer.bell.fd(),
                (&raw const payload).cast(),
                size_of::<u64>(),
            );
        }
        Ok(consumer)
    }

    fn add_topic(&mut self, topic: &str) -> KafkaResult<()> {
        let name = CString::new(topic)?;
        // SAFETY: client and name are live; without a configuration the client's default for topics holds.
        let topic = unsafe { ffi::rd_kafka_topic_new(self.client.as_ptr(), name.as_ptr(), ptr::null_mut()) };
        self.topics.push(NonNull::new(topic).ok_or_else(last_error)?);
        Ok(())
    }

    /// Starts reading a partition at `offset`; one that is being read goes on there instead.
    ///
    /// # Errors
    /// librdkafka refuses the partition or the offset.
    pub(crate) fn start(&mut self, topic: usize, partition: u32, offset: u64) -> KafkaResult<()> {
        self.stop(topic, partition);
        let (partition, offset) = (to_i32(partition), i64::try_from(offset).unwrap_or(i64::MAX));
        let handle = self.topics[topic].as_ptr();
        // SAFETY: topic and queue are live handles of this client.
        let result = unsafe { ffi::rd_kafka_consume_start_queue(handle, partition, offset, self.queue.as_ptr()) };
        if result != 0 {
            return Err(last_error());
        }
        self.started.push((topic, partition));
        Ok(())
    }

    /// Ends reading of a partition; what is queued of it is dropped.
    pub(crate) fn stop(&mut self, topic: usize, partition: u32) {
        let partition = to_i32(partition);
        let Some(index) = self.started.iter().position(|entry| *entry == (topic, partition)) else { return };
        self.started.swap_remove(index);
        // SAFETY: the topic is a live handle, and the partition was started on it.
        unsafe { ffi::rd_kafka_consume_stop(self.topics[topic].as_ptr(), partition) };
    }

    /// Fills `batch`, without waiting, with what is queued, at most its capacity. Messages of the batch before are released.
    pub(crate) fn consume(&mut self, batch: &mut Batch) {
        batch.release();
        // SAFETY: the queue is live; `messages` has room for its capacity of pointers.
        let count = unsafe {
            ffi::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                0,
                batch.messages.as_mut_ptr(),
                batch.messages.capacity(),
            )
        };
        // SAFETY: librdkafka has written that many valid pointers, never more than the capacity it was told.
        unsafe { batch.messages.set_len(usize::try_from(count).unwrap_or(0)) };
    }

    /// Serves librdkafka's callbacks (errors of brokers, throttling). Call when idle.
    pub(crate) fn serve(&mut self) {
        // SAFETY: the client is a live handle.
        unsafe { ffi::rd_kafka_poll(self.client.as_ptr(), 0) };
    }

    /// The index of the topic a message is of.
    pub(crate) fn topic_index(&self, message: &Message<'_>) -> Option<usize> {
        self.topics.iter().position(|topic| topic.as_ptr() == message.raw.rkt)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        for (topic, partition) in std::mem::take(&mut self.started) {
            // SAFETY: the topic is a live handle, and the partition was started on it.
            unsafe { ffi::rd_kafka_consume_stop(self.topics[topic].as_ptr(), partition) };
        }
        // SAFETY: each handle is destroyed once, the client last; batches hold no reference to them that is used after
        // (the ingress loop drops its batch first).
        unsafe {
            ffi::rd_kafka_queue_io_event_enable(self.queue.as_ptr(), -1, ptr::null(), 0);
            for topic in &self.topics {
                ffi::rd_kafka_topic_destroy(topic.as_ptr());
            }
            ffi::rd_kafka_queue_destroy(self.queue.as_ptr());
            ffi::rd_kafka_destroy(self.client.as_ptr());
        }
    }
}

/// Messages taken at once; released when the next batch is taken or when dropped. Must be dropped before its consumer.
#[derive(Debug)]
pub(crate) struct Batch {
    messages: Vec<*mut ffi::rd_kafka_message_t>,
}

impl Batch {
    pub(crate) fn with_capacity(messages: usize) -> Self {
        Self { messages: Vec::with_capacity(messages) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.messages.iter().enumerate().map(|(index, &raw)| {
            self.fetch_ahead(index);
            // SAFETY: the pointers are valid until `release`, which needs the batch mutably.
            Message { raw: unsafe { &*raw }, batch: PhantomData }
        })
    }

    /// Has the processor load what will soon be read: first a message's description, then the beginning of its payload.
    #[inline]
    fn fetch_ahead(&self, index: usize) {
        if let Some(&message) = self.messages.get(index + 2 * AHEAD) {
            prefetch(message.cast());
        }
        if let Some(&message) = self.messages.get(index + AHEAD) {
            // SAFETY: as above.
            let payload = unsafe { (*message).payload }.cast::<u8>();
            prefetch(payload);
            prefetch(payload.wrapping_add(64));
        }
    }

    fn release(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each pointer came from rd_kafka_consume_batch_queue and is destroyed once.
            unsafe { ffi::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.release();
    }
}

/// A message borrowed from a batch, or an error that librdkafka put in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    raw: &'a ffi::rd_kafka_message_t,
    batch: PhantomData<&'a Batch>,
}

impl<'a> Message<'a> {
    /// The error it stands for, if it isn't a message.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.raw.err.into())
    }

    pub(crate) fn partition(&self) -> u32 {
        u32::try_from(self.raw.partition).unwrap_or(u32::MAX)
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::try_from(self.raw.offset).unwrap_or(0)
    }

    /// The value; `None` for a tombstone.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        if self.raw.payload.is_null() {
            return None;
        }
        // SAFETY: librdkafka states the length of the payload, which lives as long as the message, that is 'a.
        Some(unsafe { slice::from_raw_parts(self.raw.payload.cast::<u8>(), self.raw.len) })
    }

    /// The key, where it has one.
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        if self.raw.key.is_null() {
            return None;
        }
        // SAFETY: librdkafka states the length of the key, which lives as long as the message, that is 'a.
        Some(unsafe { slice::from_raw_parts(self.raw.key.cast::<u8>(), self.raw.key_len) })
    }

    /// The headers, in order.
    pub(crate) fn headers(&self) -> Headers<'a> {
        let mut list = ptr::null_mut();
        // SAFETY: the message is live; `list` is only used where librdkafka says it has set it.
        let result = unsafe { ffi::rd_kafka_message_headers(self.raw, &raw mut list) };
        let found = result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        Headers { list: if found { list } else { ptr::null_mut() }, next: 0, message: PhantomData }
    }
}

/// Names and values of a message's headers; names that aren't UTF-8 are left out, a null value is empty.
#[derive(Clone, Debug)]
pub(crate) struct Headers<'a> {
    list: *const ffi::rd_kafka_headers_t,
    next: usize,
    message: PhantomData<&'a [u8]>,
}

impl Headers<'_> {
    pub(crate) fn none(&self) -> bool {
        self.list.is_null()
    }
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

/// The id by which Kafka tells a topic from one of the same name made later (KIP-516); `None` where the brokers don't say, or
/// don't answer within `timeout`.
pub(super) fn topic_id(client: *mut ffi::rd_kafka_t, topic: &str, timeout: Duration) -> Option<u128> {
    let name = CString::new(topic).ok()?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let mut text = [0 as c_char; 256];
    let mut names = [name.as_ptr()];
    // SAFETY: the client is live for the whole call, all handles are made here and destroyed below, each once; what a result
    // points to is read while its event lives.
    unsafe {
        let queue = ffi::rd_kafka_queue_new(client);
        let options =
            ffi::rd_kafka_AdminOptions_new(client, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        ffi::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text.as_mut_ptr(), text.len());
        let topics = ffi::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        ffi::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = ffi::rd_kafka_queue_poll(queue, timeout_ms);
        let result = if event.is_null() { ptr::null() } else { ffi::rd_kafka_event_DescribeTopics_result(event) };
        let id = if result.is_null() { None } else { first_topic_id(result) };
        if !event.is_null() {
            ffi::rd_kafka_event_destroy(event);
        }
        ffi::rd_kafka_TopicCollection_destroy(topics);
        ffi::rd_kafka_AdminOptions_destroy(options);
        ffi::rd_kafka_queue_destroy(queue);
        id
    }
}

/// # Safety
/// `result` must belong to a live event.
unsafe fn first_topic_id(result: *const ffi::rd_kafka_DescribeTopics_result_t) -> Option<u128> {
    let mut count = 0_usize;
    // SAFETY: the caller vouches for the result; its topics, and their ids, live as long as it.
    unsafe {
        let topics = ffi::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return None;
        }
        let id = ffi::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let high = ffi::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = ffi::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        Some((u128::from(high) << 64) | u128::from(low)).filter(|id| *id != 0)
    }
}

/// A hint only: any address will do, and where there is no such instruction nothing happens.
#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

fn to_i32(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn last_error() -> KafkaError {
    // SAFETY: reads a value of the calling thread.
    KafkaError::Global(unsafe { ffi::rd_kafka_last_error() }.into())
}

unsafe extern "C" fn on_log(_: *const ffi::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    // SAFETY: librdkafka passes strings that end with a zero and live across the call.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    crate::kafka::log(level, &facility.to_string_lossy(), &text.to_string_lossy());
}

#[cfg(test)]
mod tests;
