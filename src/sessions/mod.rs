//! The session blacklist of a node: entries come from the internal API and, with Kafka, from other nodes; they are kept in a
//! compacted topic where there is Kafka, else in a file.
//!
//! Read [`ledger`] (what is listed, and until when; no I/O), [`file`](mod@file), then [`Blacklist`], which puts them together.

mod blacklist;
pub mod file;
pub mod ledger;

pub use blacklist::{Blacklist, BlacklistCounts, BlacklistSources, NotListed};
