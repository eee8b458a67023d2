//! Requests into Kafka topics.

use ::http::StatusCode;
use hyper::body::Incoming;

use super::Call;
use crate::runtime::SharedWorld;
use crate::runtime::service::{Answer, Caller, text};

/// Produces the request to the endpoint's topic.
pub(super) async fn request(_world: &SharedWorld, _caller: &Caller, _call: &Call<'_>, _body: Incoming) -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, "Kafka can't be reached.")
}
