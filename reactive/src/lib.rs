//! Request and response over Kafka: a caller sees one call and one answer, while the request travels to a service through
//! one topic and its answer comes back through another.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate_reactive::{ClientSettings, Destination, Headers, ReactiveClient};
//!
//! # async fn call() -> Result<(), Box<dyn std::error::Error>> {
//! let client = ReactiveClient::connect(ClientSettings::new("localhost:9092", "replies")).await?;
//! let hello: Destination = "kafka:greetings/hello".parse()?;
//! let answer = client.request::<String>(&hello, "Jane", Headers::new(), Duration::from_secs(1)).await?;
//! println!("{}", answer.payload);
//! # Ok(())
//! # }
//! ```
//!
//! # A tour
//!
//! A request goes from left to right, its answer from right to left:
//!
//! ```text
//!  caller          ReactiveClient                    Kafka                ReactiveServer            handler
//!  request() ──► ledger ──► envelope ──► producer ──► request topic ──► reader ──► envelope ──► service ──► pool ─┐
//!                  │ slot, deadline                   (any partition)     │ progress: offset held               │
//!  Outcome  ◄── ledger ◄── envelope ◄── reply reader ◄── reply topic ◄── producer ◄── envelope ◄─── ticket ◄──────┘
//!                                                     (own partition)     │ acknowledged: offset may be committed
//! ```
//!
//! The core knows no sockets and no clock; time and bytes are passed in:
//!
//! 1. [`correlation`] names a request, and signs the name where it leaves for the outside.
//! 2. [`pending`] holds the requests that wait for their answers; the name is the slot. [`wheel`] ends those that nobody
//!    answered in time.
//! 3. [`destination`], [`headers`], [`payload`] and [`envelope`] are what a message says, and how.
//! 4. [`outcome`] is how a call can end.
//! 5. [`progress`] knows which offsets a server may commit; [`idempotency`] remembers answers.
//!
//! Around it, with the feature `kafka` (on by default):
//!
//! 6. [`client`]: callers produce on their own threads; one thread reads answers and turns the wheel, one serves
//!    acknowledgements.
//! 7. [`server`]: one thread reads and commits, one serves acknowledgements and turns the wheel, handlers have pools of theirs.
//! 8. [`service`]: what the application adds.
//!
//! The gateway's own requests over Kafka run on the same core.

#[cfg(feature = "kafka")]
pub mod client;
pub mod correlation;
pub mod destination;
pub mod envelope;
pub mod error;
pub mod headers;
pub mod histogram;
pub mod idempotency;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod ledger;
pub mod outcome;
pub mod payload;
pub mod pending;
#[cfg(feature = "kafka")]
mod pool;
pub mod progress;
#[cfg(feature = "kafka")]
pub mod server;
#[cfg(feature = "kafka")]
pub mod service;
pub mod wheel;

/// The examples of the README compile.
#[cfg(all(doctest, feature = "kafka"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "kafka")]
pub use client::{ClientSettings, Overflow, ReactiveClient};
pub use destination::Destination;
pub use envelope::Envelope;
pub use error::Error;
pub use headers::Headers;
#[cfg(feature = "kafka")]
pub use kafka::{Acks, Connection};
pub use outcome::{Answer, Failure, Outcome};
pub use payload::{Decode, Encode, Json, Payload};
#[cfg(feature = "kafka")]
pub use server::{Delivery, ReactiveServer, ServerSettings};
#[cfg(feature = "kafka")]
pub use service::{Refusal, Request, Response, Service};
