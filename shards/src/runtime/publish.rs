//! Publishing over HTTP on the inbound port.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::SharedWorld;
use super::service::{Answer, busy, text, uncached};
use crate::publication::{self, Publication};
use crate::submit::SubmitError;

/// Answers `POST /_rig/v1/events`.
pub(super) async fn answer(world: &SharedWorld, headers: &HeaderMap, body: Bytes) -> Answer {
    let publication = match publication::read(headers, body, &world.settings.extractors, world.settings.max_body_bytes)
    {
        Ok(publication) => publication,
        Err(refused) => {
            world.shard.borrow().metrics().events_refused.add(1);
            let status = StatusCode::from_u16(refused.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            return text(status, refused.to_string());
        }
    };
    let Publication { submissions, answer } = publication;
    match world.sinks.events.submit(submissions).await {
        Ok(Ok(())) => {
            let mut accepted = text(StatusCode::ACCEPTED, answer);
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            accepted.headers_mut().insert(header::CONTENT_TYPE, json);
            uncached(accepted)
        }
        Ok(Err(SubmitError::Refused(reason))) => {
            text(StatusCode::BAD_GATEWAY, format!("Kafka refused the event: {reason}."))
        }
        // Published events are written as JSON.
        Ok(Err(error @ (SubmitError::Misfit(_) | SubmitError::NoSchema(_) | SubmitError::RegistryUnreachable(_)))) => {
            text(StatusCode::BAD_GATEWAY, error.to_string())
        }
        Ok(Err(SubmitError::Unreachable(reason))) => {
            let mut unavailable = text(StatusCode::SERVICE_UNAVAILABLE, format!("Kafka can't be reached: {reason}."));
            unavailable.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            unavailable
        }
        Ok(Err(SubmitError::Overloaded | SubmitError::ShuttingDown)) | Err(_) => busy(),
    }
}
