//! The API proxy's decisions: which endpoint a request means, and what goes out for it. No sockets, no clock.
//!
//! Read [`endpoint`] (what an operator defines, compiled), [`table`] (a request finds its endpoint), and [`outbound`] (what
//! leaves a shard on the way to Kafka, and the correlated answers that come back). [`request_event`] makes an event of a
//! request, [`answer`] an HTTP answer of a service's message; [`preference`] and [`stored`] are for callers that don't wait.

pub mod answer;
pub mod endpoint;
pub mod outbound;
pub mod preference;
pub mod request_event;
#[cfg(test)]
mod request_event_tests;
pub mod stored;
pub mod table;
