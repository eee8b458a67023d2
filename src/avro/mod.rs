//! Avro by the schemas of a registry (contract, sections 3 and 4): [`codec`] turns it into JSON and back, [`registry`]
//! knows the schemas. Ingress decodes with it, the API proxy's producer encodes.

pub mod codec;
mod frame;
pub mod registry;

pub use frame::{frame, is_framed, unframe};
