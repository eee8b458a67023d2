//! Producing: what clients and backends publish goes to Kafka, and is answered once Kafka has acknowledged it.

pub mod producer;
