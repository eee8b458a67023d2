//! The internal port: health, metrics, API definitions, the session blacklist and publishing without checks, on a tokio runtime of its own thread. Nothing on the
//! path of an event goes through it.

mod apis;
mod exposition;
mod health;
mod messages;
mod metrics;
mod refusals;
mod responses;
mod router;
mod server;
mod sessions;

pub use health::{Health, Ping};
pub use metrics::MetricSources;
pub use responses::AnswerDesk;
pub use server::{Control, ControlParts};
