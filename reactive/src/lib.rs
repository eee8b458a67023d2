//! Request and response over Kafka: a caller sees one call and one answer, while the request travels to a service through
//! one topic and its answer comes back through another.
//!
//! The core knows no sockets and no clock; time is passed in:
//!
//! 1. [`correlation`] names a request, and signs the name where it leaves for the outside.
//! 2. [`pending`] holds the requests that wait for their answers; the name is the slot.
//! 3. [`wheel`] ends those that nobody answered in time.
//!
//! The gateway's own requests over Kafka run on the same core.

pub mod correlation;
pub mod pending;
pub mod wheel;
