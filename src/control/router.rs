//! The calls of the internal port.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Collected, LengthLimitError, Limited};
use tidegate_shards::event::EventLimits;
use tidegate_shards::submit::{EventSink, SubmitError};

use super::exposition::CONTENT_TYPE;
use super::messages::{self, Refusal};
use super::{Access, AnswerDesk, Health, MetricSources, apis, responses, sessions};
use crate::proxy::Apis;
use crate::sessions::Blacklist;

/// What the calls need.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) access: Access,
    pub(super) health: Health,
    pub(super) metrics: Option<MetricSources>,
    pub(super) apis: Arc<Apis>,
    pub(super) blacklist: Arc<Blacklist>,
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) desk: AnswerDesk,
    pub(super) limits: EventLimits,
}

/// Seconds after which a caller may try again.
pub(super) const RETRY_AFTER_SECONDS: &str = "1";

pub(super) fn router(api: Api) -> Router {
    Router::new().fallback(dispatch).layer(DefaultBodyLimit::disable()).with_state(Arc::new(api))
}

/// Routes by hand: RIG ignores trailing slashes, answers a wrong method like an unknown path, and HEAD like GET.
async fn dispatch(State(api): State<Arc<Api>>, request: Request) -> Response {
    let path = normalize(request.uri());
    if let Some(refusal) = api.access.refuse(&path, request.headers()) {
        return refusal;
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match (path.as_str(), request.method()) {
        ("/health", _) if reads => health(&api).await,
        ("/metrics", &Method::GET | &Method::HEAD | &Method::POST) => match &api.metrics {
            Some(metrics) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.page()).into_response(),
            None => not_found(),
        },
        ("/v3/messages" | "/v2/messages", &Method::POST) => publish(&api, request).await,
        ("/v3/responses" | "/v2/responses", &Method::POST) => {
            let structured = path.starts_with("/v2");
            let (head, body) = request.into_parts();
            match read_body(body, api.limits.max_body_bytes).await {
                Ok(body) => responses::answer(&api.desk, structured, &head.headers, body).await,
                Err(status) => bad_request(status),
            }
        }
        (path, _) => {
            let below = |call| path.strip_prefix("/v3").or_else(|| path.strip_prefix("/v2"))?.strip_prefix(call);
            if let Some(below) = below("/apis") {
                apis::answer(&api.apis, below, request, api.limits.max_body_bytes).await
            } else if let Some(below) = below("/session-blacklist") {
                sessions::answer(&api.blacklist, &path[..path.len() - below.len()], below, request).await
            } else {
                not_found()
            }
        }
    }
}

/// The path without empty segments and without a slash at its end.
fn normalize(uri: &Uri) -> String {
    let segments = uri.path().split('/').filter(|segment| !segment.is_empty());
    segments.fold(String::new(), |path, segment| path + "/" + segment)
}

async fn health(api: &Api) -> Response {
    match api.health.check().await {
        Ok(()) => "OK".into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response(),
    }
}

async fn publish(api: &Api, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match read_body(body, api.limits.max_body_bytes).await {
        Ok(body) => body,
        Err(status) => return bad_request(status),
    };
    let result = match messages::read(&head.headers, body, api.limits.max_body_bytes) {
        Ok(publication) => messages::submit(&api.sink, publication.submissions).await.map(|()| publication.answer),
        Err(refusal) => Err(refusal),
    };
    match result {
        Ok(answer) => json(StatusCode::ACCEPTED, answer),
        Err(Refusal::BadRequest(status)) => bad_request(status),
        Err(Refusal::NotAnEvent(status, text)) => (status, text).into_response(),
        Err(Refusal::NotTaken(error)) => not_taken(&error),
    }
}

pub(super) async fn read_body(body: Body, max_bytes: usize) -> Result<Bytes, StatusCode> {
    let collected = Limited::new(body, max_bytes).collect().await;
    collected.map(Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
    })
}

fn not_taken(error: &SubmitError) -> Response {
    let mut response = match error {
        SubmitError::Refused(_) | SubmitError::NoSchema(_) | SubmitError::Misfit(_) => {
            (StatusCode::BAD_GATEWAY, error.to_string()).into_response()
        }
        SubmitError::Overloaded
        | SubmitError::Unreachable(_)
        | SubmitError::RegistryUnreachable(_)
        | SubmitError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

pub(super) fn bad_request(status: StatusCode) -> Response {
    json(status, r#"{"errors":{"detail":"Bad request"}}"#)
}

pub(super) fn not_found() -> Response {
    json(StatusCode::NOT_FOUND, r#"{"errors":{"detail":"Not found"}}"#)
}

pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.into()).into_response()
}

#[cfg(test)]
mod tests;
