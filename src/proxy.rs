//! API definitions of a node: where they come from, how they change, and where changes are kept.
//!
//! Read [`store`] (what is defined, and what a change makes of it; no I/O), then [`apis`] (changes from the internal API
//! and from other nodes come into force on the shards). Changes are kept in a compacted topic ([`crate::kafka::compacted`]) where there is
//! Kafka, else in a [`file`](mod@file). [`request_log`] writes down the calls.

pub mod apis;
pub mod file;
mod offsets;
pub mod request_log;
pub mod store;

pub use apis::{Apis, ChangeError};
