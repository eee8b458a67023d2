//! Avro (contract, sections 3 and 4): [`codec`] turns it into JSON and back.

pub mod codec;
mod frame;

pub use frame::{frame, is_framed, unframe};
