//! The ingress thread: sources to events. It sleeps on one eventfd that shards, the local hub, the watcher of topics and
//! librdkafka's queue all ring; takes a batch; drops at once what nobody on this node wants; decodes the rest once; and
//! hands it to the publisher. A full shard is back-pressure: nothing more is taken from the source until it has room. So is a
//! schema registry that is out of reach.

mod decoder;
mod discovery;
pub mod kafka;
pub(crate) mod limiter;
pub mod local;
mod message;
pub mod metrics;
pub(crate) mod native;
mod outlet;
mod progress;
pub mod replay;
pub(crate) mod sleep;
pub mod snapshot;
pub(crate) mod watch;

pub use decoder::Decoder;
pub use outlet::{Outlet, Stop};
