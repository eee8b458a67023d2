//! The API proxy's decisions: which endpoint a request means, and what goes out for it. No sockets, no clock.
//!
//! Read [`endpoint`] (what an operator defines, compiled), [`table`] (a request finds its endpoint), and [`outbound`] (what
//! leaves a shard on the way to Kafka, and the correlated answers that come back). [`forward`] rewrites the heads that go to and
//! come from HTTP backends, [`deadline`] ends exchanges that take too long.

pub mod deadline;
pub mod endpoint;
pub mod forward;
pub mod outbound;
pub mod table;
