//! Requests to backends over HTTP.

use ::http::StatusCode;
use hyper::body::Incoming;

use super::Call;
use crate::runtime::SharedWorld;
use crate::runtime::service::{Answer, Caller, text};

/// Sends the request to the endpoint's backend and streams its answer back.
pub(super) async fn forward(_world: &SharedWorld, _caller: &Caller, _call: &Call<'_>, _body: Incoming) -> Answer {
    text(StatusCode::BAD_GATEWAY, "Bad gateway.")
}
