//! How a published event leaves a shard or the internal port: a submission goes to the node's
//! sink, which answers once the event is safe.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;

use crate::checkpoints::CheckpointSource;
use crate::peers::Peers;
use crate::proxy::outbound::{RequestLog, RequestSink};
use crate::replay::ReplaySource;
use crate::snapshot::SnapshotSource;

/// One validated event on its way into the hub.
#[derive(Debug)]
pub struct Submission {
    /// The structured JSON text of the event.
    pub body: Bytes,
    /// Its CloudEvents `type`.
    pub event_type: Box<str>,
    /// Its CloudEvents `subject`: the Kafka key.
    pub subject: Option<Box<str>>,
}

/// Why a submission was not taken.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubmitError {
    /// The hub takes no more at the moment; a retry later helps.
    #[error("the hub is overloaded; retry later")]
    Overloaded,
    /// Kafka can't be reached; a retry later helps.
    #[error("Kafka can't be reached: {0}")]
    Unreachable(String),
    /// Kafka refused the event; a retry doesn't help.
    #[error("Kafka refused the event: {0}")]
    Refused(String),
    /// It doesn't fit the Avro schema that it is to be written by; the text names the member.
    #[error("{0}")]
    Misfit(String),
    /// There is no schema to write it by; a retry doesn't help.
    #[error("there is no schema to write it by: {0}")]
    NoSchema(String),
    /// The schema registry can't be reached; a retry later helps.
    #[error("the schema registry can't be reached: {0}")]
    RegistryUnreachable(String),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Answer to one call: `Ok` once every event of it is safe (acknowledged by Kafka, or sequenced by the local hub).
pub type SubmitAnswer = oneshot::Receiver<Result<(), SubmitError>>;

/// Where published events go; shared by all threads of a node. `submit` never blocks.
pub trait EventSink: Send + Sync + 'static {
    /// Hands over the events of one call, in order.
    fn submit(&self, events: Vec<Submission>) -> SubmitAnswer;
}

/// Where everything goes that leaves a shard for the rest of the process.
#[derive(Clone)]
pub struct Sinks {
    /// Published events.
    pub events: Arc<dyn EventSink>,
    /// Messages of the API proxy; `None` without Kafka.
    pub requests: Option<Arc<dyn RequestSink>>,
    /// Who reads events again; `None` where the ring is all there is.
    pub replay: Option<Arc<dyn ReplaySource>>,
    /// Who looks up checkpoints that cursors refer to; `None` where there are none.
    pub checkpoints: Option<Arc<dyn CheckpointSource>>,
    /// Who gives snapshots; `None` where nobody does.
    pub snapshots: Option<Arc<dyn SnapshotSource>>,
    /// The request log, where there is one.
    pub log: Option<Arc<dyn RequestLog>>,
    /// Other nodes; `None` where this one knows of no other.
    pub peers: Option<Arc<dyn Peers>>,
}

impl fmt::Debug for Sinks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sinks")
            .field("requests", &self.requests.is_some())
            .field("log", &self.log.is_some())
            .field("peers", &self.peers.is_some())
            .finish_non_exhaustive()
    }
}
