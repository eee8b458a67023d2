//! A real Apache Kafka on loopback: one process, broker and controller at once (KRaft), its data in a folder of its own.
//!
//! ```no_run
//! use xtask::kafka::{Kafka, Options};
//!
//! let Some(mut kafka) = Kafka::start_or_skip("events reach their subscribers", Options::default()) else { return };
//! println!("{}", kafka.brokers());
//! kafka.kill().unwrap(); // SIGKILL: what a crash looks like to clients
//! kafka.restart().unwrap(); // same port, same data
//! ```
//!
//! Topics appear when they are first used, with [`Options::partitions`] partitions. The broker ends with the value that
//! holds it, and also if the process of that value is killed.

mod broker;
mod detached;
mod error;
mod jars;
mod ports;
mod probe;
mod properties;

pub use broker::{Kafka, Options};
pub use detached::{Detached, start_detached, stop_detached};
pub use error::{Error, Unavailable};
pub(crate) use jars::find_java;
pub use jars::{Jars, VERSION, ensure_jars};
pub use ports::free_ports;
pub use properties::Listener;
