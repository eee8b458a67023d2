//! What leaves a shard towards Kafka for the API proxy, and the answers that find their way back to it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::endpoint::Endpoint;
use crate::submit::SubmitAnswer;

/// A message of the API proxy.
#[derive(Debug)]
pub struct RequestMessage {
    /// The topic.
    pub topic: Box<str>,
    /// Key; the partition is murmur3_x86_32(key, seed 0) modulo the number of partitions, any one without key.
    pub key: Option<Bytes>,
    /// Value; with `schema`, the JSON that it is to be made of.
    pub value: Bytes,
    /// Subject of the Avro schema that the value is to be written by.
    pub schema: Option<Box<str>>,
    /// Headers, in order.
    pub headers: Vec<(Box<str>, Bytes)>,
}

/// Where services that honour it send their answers: the `rig-reply-topic` and `rig-reply-partition` headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyAddress {
    /// The topic.
    pub topic: Box<str>,
    /// The partition that this node reads.
    pub partition: i32,
}

/// Where the API proxy's messages go; shared by all shards. Nothing here blocks.
pub trait RequestSink: Send + Sync + 'static {
    /// Hands over one message; `Ok` once all in-sync replicas have it. What doesn't fit its schema is refused.
    fn produce(&self, message: RequestMessage) -> SubmitAnswer;

    /// Where answers reach this node directly; `None` until its reply partition is being read.
    fn reply_address(&self) -> Option<Arc<ReplyAddress>>;

    /// Whether the response topics are being read, so that no answer to a request that leaves now is missed.
    fn receives_answers(&self) -> bool;
}

/// Told of every call that matched an endpoint and was let in (`REQUEST_LOG`); never blocks.
pub trait RequestLog: Send + Sync + 'static {
    /// One call.
    fn call(&self, endpoint: &Arc<Endpoint>, request_path: &str, remote_ip: &str);
}

/// An answer from elsewhere to a request that waits on a shard; validated where it came in.
#[derive(Clone, Debug)]
pub struct CorrelatedAnswer {
    /// Status of the HTTP answer: 200 to 599.
    pub status: StatusCode,
    /// Headers to pass on; none of them frames a message or belongs to the connection.
    pub headers: HeaderMap,
    /// Body, byte for byte.
    pub body: Bytes,
}
