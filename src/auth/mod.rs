//! Keys of tokens that come over the network.

mod fetch;
mod key_sets;

pub use key_sets::{KeySetMetrics, KeySets};
