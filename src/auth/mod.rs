//! Keys of tokens that come over the network.

mod key_sets;

pub use key_sets::{KeySetMetrics, KeySets};
