//! Blacklisted sessions, as the shards see them: one table that one thread writes and every shard reads without a lock.
//!
//! Read [`fingerprint`](Fingerprint) (what stands for a session), [`table`](SessionTable) (is it listed?), and `changes`
//! (how a shard hears which of its connections must end). [`record`] is an entry as it is stored.

mod changes;
mod fingerprint;
pub mod record;
mod table;

pub use changes::News;
pub use fingerprint::Fingerprint;
pub use table::{MAX_SESSIONS, SessionTable, SessionWriter, TableFull};
