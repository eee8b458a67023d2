//! Development tasks, and what the tests need from outside: a real Kafka above all.
//!
//! A tour: [`kafka`] fetches Apache Kafka and runs a broker on loopback, for `cargo xtask kafka` and for every test that
//! wants one; [`skip`] decides what a test does when it can't have one. [`provision`] brings the rest of what tests need,
//! [`steps`] runs checks in a row, [`programs`] builds what they run, [`smoke`] tries benchmarks, load scenarios and demo, [`chaos`]
//! kills and cuts off gateways, [`licences`] reads the licences of the dependencies. [`report`] holds what the benchmarks of whole processes found. [`repository`] knows where things lie.
//! The commands are in `src/commands/`, one module each.

pub mod chaos;
pub mod kafka;
pub mod licences;
pub mod programs;
pub mod provision;
pub mod report;
pub mod repository;
pub mod skip;
pub mod smoke;
pub mod steps;
