//! What no gateway can do for less: the same effect by bare system calls or bare librdkafka, without filter, framing or
//! bookkeeping.

pub mod consumer;
pub mod delay;
pub mod pace;
pub mod ping_pong;
pub mod producer;
mod requests;
pub mod server;
pub mod sockets;
