//! Producing: what clients and backends publish, and the API proxy's requests, go to Kafka and are answered once Kafka has
//! acknowledged them.

mod avro;
mod murmur3;
pub mod producer;
pub mod requests;
