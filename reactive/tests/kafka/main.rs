//! Client and server against a real Kafka, on tokio and on a bare `block_on`.

mod answers;
mod broker;
mod calls;
mod delivery;
mod faults;
mod json;
mod stage;
