//! The API proxy's decisions: which endpoint a request means, and what goes out for it. No sockets, no clock.
//!
//! Read [`endpoint`] (what an operator defines, compiled), [`table`] (a request finds its endpoint), and [`outbound`] (what
//! leaves a shard on the way to Kafka, and the correlated answers that come back).

pub mod endpoint;
pub mod outbound;
pub mod table;
