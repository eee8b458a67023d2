//! The API proxy's decisions: which endpoint a request means, and what goes out for it. No sockets, no clock.
//!
//! Read [`definition`] (what an operator writes, validated and compiled), [`endpoint`] (the result), [`path`] and [`table`]
//! (a request finds its endpoint), [`counts`] (what became of it), and [`outbound`] (what leaves a shard on the way to
//! Kafka, and the correlated answers that come back). [`forward`] rewrites the heads that go to and come from HTTP backends,
//! [`deadline`] ends exchanges that take too long. [`request_event`] makes an event of a request, [`answer`] an HTTP answer of
//! a service's message; [`preference`] and [`stored`] are for callers that don't wait.

pub mod answer;
pub mod counts;
pub mod deadline;
pub mod definition;
pub mod endpoint;
pub mod forward;
pub mod outbound;
pub mod path;
mod pattern;
pub mod preference;
mod prefilter;
pub mod request_event;
#[cfg(test)]
mod request_event_tests;
pub mod rewrite;
pub mod stored;
pub mod table;
