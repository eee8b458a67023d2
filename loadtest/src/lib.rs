//! Load generator for Tidegate and other gateways.
//!
//! # Tour
//!
//! A [`Scenario`] says what to do; [`run`] does it and returns a [`Report`]. Two threads carry a run:
//!
//! - **publishing** (`publish`): a `schedule` says when each event is due; it leaves by HTTP or Kafka with a `marker`
//!   inside, which holds its stream, its sequence number and its *intended* send time. Latency counts from that time, so
//!   a server that stalls can't hide it by stalling the generator too (no coordinated omission).
//! - **receiving** (`receiver`): all clients on one epoll queue and one read buffer. `client` is the state of one of them;
//!   `wire` holds the parsers of WebSocket frames, event streams and HTTP. `tally` finds the markers and counts,
//!   and `audit` checks every sequence number of every client.
//!
//! `run` leads both through the phases of a workload; `report`, `table` and `html` say what came out.
//!
//! Gateways that are killed, frozen and cut off while clients audit what reaches them ([`run_chaos`]) are in `chaos`.
//!
//! Calls that each have an answer (a [`CallScenario`], done by [`run_calls`]) go through `calls`; `backend` and, behind
//! Kafka, `service` are what they may be sent to.

mod audit;
mod backend;
mod calls;
mod chaos;
mod client;
mod clock;
mod endpoint;
mod error;
mod html;
mod latency;
mod marker;
mod process;
mod publish;
mod reactive_service;
mod receiver;
mod report;
mod run;
mod scenario;
mod schedule;
mod service;
mod socket;
mod sys;
mod table;
mod tally;
mod wire;

pub use audit::AuditReport;
pub use backend::{Backend, BackendOptions};
pub use calls::{
    CallCounts, CallLoad, CallPath, CallReport, CallScenario, CallSecond, HttpCalls, ReactiveCalls, ReplyBytes,
    RequestBody, call_progress_line, run_calls,
};
pub use chaos::{
    ChaosMoment, ChaosOptions, ChaosReport, Fault, MoveOptions, MoveReport, MovingClients, Step, Violation, Wrong,
    plan, run_chaos,
};
pub use error::LoadError;
pub use html::html;
pub use latency::{LatencySummary, Percentile};
pub use process::{ProcessSample, ServerUsage};
pub use publish::PublishCounts;
pub use report::{ConnectionCounts, DropFigures, Report, Second, SlowClientFigures};
pub use run::{run, run_with_progress};
pub use scenario::{
    HttpSource, KafkaSource, KeyOrder, Limits, Load, Observe, Scenario, Source, Target, Transport, Workload,
};
pub use service::{ServiceCounts, ServiceOptions, serve};
pub use table::{progress_line, table};
