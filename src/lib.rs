//! Tidegate: events from Kafka to every subscribed browser, phone and device.
//!
//! One event's way through this crate: [`ingress`] takes it from its source (Kafka, or the local hub) and hands it to the
//! shards (crate `tidegate-shards`), which bring it to their clients. What clients publish leaves through [`egress`] or
//! the local hub. [`positions`] keeps what their cursors refer to. [`proxy`] keeps the API definitions, [`replies`] brings back the answers of services. [`sessions`] keeps the blacklist. [`avro`] reads and writes Avro by the schemas of a registry. [`control`] serves the internal port, [`tls`] keeps the certificates of both. [`gateway`] assembles the threads; [`config`] says how.
//! Read in the order `config`, `gateway`, `ingress`, `egress`, `control`, `check`.

pub mod auth;
pub mod avro;
pub mod check;
pub mod command;
pub mod config;
pub mod control;
pub mod cores;
pub mod demo;
pub mod egress;
mod fetch;
pub mod gateway;
pub mod ingress;
pub mod kafka;
pub mod limits;
pub mod logging;
pub mod nodes;
pub mod positions;
pub mod proxy;
pub mod replies;
pub mod sessions;
pub mod signals;
pub mod systemd;
pub mod takeover;
pub mod tls;
pub mod tune;
