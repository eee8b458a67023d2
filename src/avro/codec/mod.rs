//! Avro's binary encoding (specification 1.12, section "Binary encoding") from and to JSON text, by a schema.
//!
//! Read in this order: `schema` reads schemas, `decode` makes JSON of what comes from Kafka, `encode` makes Avro of
//! what goes there. No input panics, and what decoding costs is bounded by [`DecodeLimits`], whatever lengths and
//! counts it claims.
//!
//! Written here rather than taken from the crate `apache-avro`, with which the tests compare it: there (0.21), a name
//! that isn't one panics, room is made for as many items as a block claims, nothing bounds the depth of a schema that
//! contains itself, a text that ends early is null, and a UUID of 16 bytes is read as a text.
//!
//! Values are plain, as RIG has them: a logical type is the type under it; `bytes` and `fixed` are text in UTF-8, and
//! where they are none, each byte is the character of its number (as in Avro's own JSON); a union is the value in it.

mod decode;
mod encode;
mod schema;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, DecodeLimits, decode};
pub use encode::{Misfit, encode};
pub use schema::{Schema, SchemaError};
