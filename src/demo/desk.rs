//! The desk, where there is no Kafka: takes calls to buy a seat from the gateway, and makes events of them. It decides nothing:
//! the tickets service answers the call later, to the gateway.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderName, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::event::{Draft, PURCHASE_REQUESTED, Request};
use super::hub::outbox::Outbox;
use super::service::{Output, post as put_into};

/// Largest body of a call.
const MAX_BODY_BYTES: usize = 4 << 10;

/// Pages come from another origin than the gateway, which passes a backend's headers on as they are.
const CORS: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
];

/// The desk's only call, and its preflight.
pub(super) fn router(outbox: Arc<Outbox>) -> Router {
    Router::new()
        .route("/tickets/seats/{seat}/buy", post(take).options(async || (StatusCode::NO_CONTENT, CORS)))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(outbox)
}

async fn take(State(outbox): State<Arc<Outbox>>, uri: Uri, body: Result<Json<Value>, JsonRejection>) -> Response {
    let refuse = |status: StatusCode, error: &str| (status, CORS, Json(json!({ "error": error }))).into_response();
    let body = match body {
        Ok(Json(body)) => body,
        Err(rejection) => return refuse(rejection.status(), &rejection.body_text()),
    };
    let Some(request) = request(&uri) else {
        return refuse(StatusCode::BAD_REQUEST, "`correlation` is missing: this call has to come through the gateway");
    };
    let draft = Draft { request: Some(request), ..Draft::new(PURCHASE_REQUESTED, &body) };
    if put_into(&outbox, "/desk", Output::Publish(draft)) {
        StatusCode::ACCEPTED.into_response()
    } else {
        refuse(StatusCode::SERVICE_UNAVAILABLE, "The shop is overloaded. Nothing was bought.")
    }
}

/// What the gateway says about the call: its `correlation` parameter, and the path.
fn request(uri: &Uri) -> Option<Request> {
    let parameters = uri.query()?.split('&');
    let correlation = parameters.filter_map(|parameter| parameter.strip_prefix("correlation=")).next_back()?;
    let correlation = percent_decode_str(correlation).decode_utf8().ok()?.into_owned();
    Some(Request { correlation, path: uri.path().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_correlation_is_found_among_the_parameters() {
        let request = |uri: &'static str| request(&Uri::from_static(uri));
        let found = Request { correlation: "a-b_1".into(), path: "/tickets/seats/C3/buy".into() };
        assert_eq!(request("/tickets/seats/C3/buy?x=1&correlation=a%2Db_1"), Some(found));
        assert_eq!(request("/tickets/seats/C3/buy?x=1"), None);
        assert_eq!(request("/tickets/seats/C3/buy"), None);
    }
}
