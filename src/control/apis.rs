//! `/v3/apis` and `/v2/apis`: API definitions made, changed and hidden while the gateway runs.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::router::{RETRY_AFTER_SECONDS, bad_request, json as json_answer, not_found, read_body};
use crate::proxy::store::Refusal;
use crate::proxy::{Apis, ChangeError};

/// Answers a call; `below` is what follows `/apis` in the path: nothing, or a slash and an id.
pub(super) async fn answer(apis: &Arc<Apis>, below: &str, request: Request, max_body_bytes: usize) -> Response {
    let id = match below.strip_prefix('/') {
        None if below.is_empty() => None,
        Some(id) if !id.contains('/') => match percent_decoded(id) {
            Some(id) => Some(id),
            None => return bad_request(StatusCode::BAD_REQUEST),
        },
        _ => return not_found(),
    };
    let method = request.method().clone();
    match (method, id) {
        (Method::GET | Method::HEAD, None) => json_answer(StatusCode::OK, apis.list().to_string()),
        (Method::GET | Method::HEAD, Some(id)) => match apis.get(&id) {
            Ok(api) => json_answer(StatusCode::OK, api.to_string()),
            Err(refusal) => refused(&refusal),
        },
        (Method::POST, None) => match definition(request, max_body_bytes).await {
            Ok(body) => done(apis.post(body).await, StatusCode::CREATED),
            Err(status) => bad_request(status),
        },
        (Method::PUT, Some(id)) => match definition(request, max_body_bytes).await {
            Ok(body) => done(apis.put(id, body).await, StatusCode::OK),
            Err(status) => bad_request(status),
        },
        (Method::DELETE, Some(id)) => match apis.delete(id).await {
            Ok(()) => (StatusCode::NO_CONTENT, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")]).into_response(),
            error => done(error, StatusCode::NO_CONTENT),
        },
        _ => not_found(),
    }
}

/// Reads the body of a change: JSON, whatever it is.
async fn definition(request: Request, max_body_bytes: usize) -> Result<Value, StatusCode> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let body = read_body(body, max_body_bytes).await?;
    serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)
}

/// A missing content type counts as JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = types.next() else { return true };
    let essence = first.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    types.next().is_none() && (essence == "application/json" || essence.ends_with("+json"))
}

fn done(outcome: Result<(), ChangeError>, status: StatusCode) -> Response {
    match outcome {
        Ok(()) => json_answer(status, json!({ "message": "ok" }).to_string()),
        Err(ChangeError::Refused(refusal)) => refused(&refusal),
        Err(error @ (ChangeError::NotStored(_) | ChangeError::NotInForce(_))) => {
            tracing::error!(%error, "a change of API definitions failed");
            let mut answer =
                json_answer(StatusCode::SERVICE_UNAVAILABLE, json!({ "message": error.to_string() }).to_string());
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            answer
        }
    }
}

fn refused(refusal: &Refusal) -> Response {
    let message = || json!({ "message": refusal.to_string() }).to_string();
    match refusal {
        Refusal::Invalid(errors) => json_answer(StatusCode::BAD_REQUEST, errors.to_json().to_string()),
        Refusal::Exists(_) => json_answer(StatusCode::CONFLICT, message()),
        Refusal::Missing(_) => json_answer(StatusCode::NOT_FOUND, message()),
    }
}

pub(super) fn percent_decoded(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Into::into)
}
