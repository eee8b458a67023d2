//! The shop over HTTP: the page, and the calls it makes.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::hall::{NoSuchSeat, Seat, Snapshot, Taken};
use super::office::BoxOffice;

/// Largest body of a call.
const MAX_BODY_BYTES: usize = 4 << 10;
/// Longest name of a buyer.
const MAX_NAME_CHARS: usize = 40;

/// Path, content type and text of everything the page consists of.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("../../examples/tickets/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../examples/tickets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../../examples/tickets/icon.svg")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/app.js")),
    ("/clock.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/clock.js")),
    ("/hall.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/hall.js")),
    ("/live.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/live.js")),
    ("/meter.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/meter.js")),
];

/// The page loads from the shop alone, and talks to the shop and a gateway.
const POLICY: &str = "default-src 'self'; connect-src 'self' http: https: ws: wss:";

#[derive(Debug, Clone)]
struct Counter {
    office: Arc<BoxOffice>,
    gateway_inbound: Uri,
}

/// The shop's routes; the page connects to `gateway_inbound`.
pub(super) fn router(office: Arc<BoxOffice>, gateway_inbound: Uri) -> Router {
    let files = FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        let headers = [
            (CONTENT_TYPE, content_type),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        router.route(path, get(async move || (headers, text)))
    });
    files
        .route("/config.json", get(config))
        .route("/api/hall", get(hall))
        .route("/api/seats/{seat}/buy", post(buy))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Counter { office, gateway_inbound })
}

async fn config(State(counter): State<Counter>, headers: HeaderMap) -> Response {
    let opened_as = headers.get(HOST).and_then(|host| host.to_str().ok());
    let gateway = gateway_as_seen_from(opened_as, &counter.gateway_inbound);
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "gateway": gateway }))).into_response()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HallAnswer {
    time_ms: f64,
    #[serde(flatten)]
    hall: Snapshot,
}

async fn hall(State(counter): State<Counter>) -> Response {
    let hall = counter.office.snapshot();
    let time_ms = jiff::Timestamp::now().as_duration().as_secs_f64() * 1_000.0;
    ([(CACHE_CONTROL, "no-store")], Json(HallAnswer { time_ms, hall })).into_response()
}

#[derive(Debug, Deserialize)]
struct Purchase {
    buyer: String,
}

/// Why a purchase did not come about.
#[derive(Debug)]
enum Refusal {
    Body(JsonRejection),
    Name,
    Seat(NoSuchSeat),
    Taken { seat: Seat, by: Taken },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Body(rejection) => (rejection.status(), json!({ "error": rejection.body_text() })),
            Self::Name => {
                let error = format!("`buyer` must be a name of 1 to {MAX_NAME_CHARS} printable characters");
                (StatusCode::BAD_REQUEST, json!({ "error": error }))
            }
            Self::Seat(error) => (StatusCode::NOT_FOUND, json!({ "error": error.to_string() })),
            Self::Taken { seat, by: Taken { buyer } } => {
                let error = format!("Too late: row {} seat {} went to {buyer}.", seat.row(), seat.number());
                (StatusCode::CONFLICT, json!({ "error": error, "buyer": buyer }))
            }
        };
        (status, Json(body)).into_response()
    }
}

async fn buy(
    State(counter): State<Counter>,
    Path(seat): Path<String>,
    purchase: Result<Json<Purchase>, JsonRejection>,
) -> Result<Response, Refusal> {
    let seat: Seat = seat.parse().map_err(Refusal::Seat)?;
    let Json(Purchase { buyer }) = purchase.map_err(Refusal::Body)?;
    let buyer = buyer.trim();
    if buyer.is_empty() || buyer.chars().count() > MAX_NAME_CHARS || buyer.contains(char::is_control) {
        return Err(Refusal::Name);
    }
    let sale = counter.office.buy(seat, buyer).map_err(|by| Refusal::Taken { seat, by })?;
    Ok(Json(json!({ "seat": seat.to_string(), "price": sale.price, "sequence": sale.sequence })).into_response())
}

/// The gateway's base URL for a browser that reached the shop under the `Host` it sent: where the configured URL only
/// means "this machine", the name in `Host` is what works from there.
fn gateway_as_seen_from(host: Option<&str>, inbound: &Uri) -> String {
    let configured = inbound.to_string().trim_end_matches('/').to_owned();
    let this_machine = matches!(inbound.host(), Some("localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]"));
    match host.and_then(|host| host.parse::<Authority>().ok()) {
        Some(opened_as) if this_machine => {
            format!("http://{}:{}", opened_as.host(), inbound.port_u16().unwrap_or(80))
        }
        _ => configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_opened_from_a_phone_finds_the_gateway_on_the_same_machine() {
        let local = Uri::from_static("http://127.0.0.1:4000");
        assert_eq!(gateway_as_seen_from(Some("192.168.1.7:4040"), &local), "http://192.168.1.7:4000");
        assert_eq!(gateway_as_seen_from(Some("localhost:4040"), &local), "http://localhost:4000");
        assert_eq!(gateway_as_seen_from(Some("[::1]:4040"), &local), "http://[::1]:4000");
    }

    #[test]
    fn a_gateway_elsewhere_is_named_as_configured() {
        let remote = Uri::from_static("http://gateway.example:4000");
        assert_eq!(gateway_as_seen_from(Some("192.168.1.7:4040"), &remote), "http://gateway.example:4000");
        assert_eq!(gateway_as_seen_from(None, &Uri::from_static("http://localhost:4000")), "http://localhost:4000");
        assert_eq!(
            gateway_as_seen_from(Some("no host"), &Uri::from_static("http://localhost:1")),
            "http://localhost:1"
        );
    }

    #[test]
    fn the_page_names_no_file_that_the_shop_does_not_serve() {
        let served: Vec<&str> = FILES.iter().map(|(path, ..)| *path).collect();
        let quoted = FILES.iter().flat_map(|(.., text)| text.split('"'));
        let files = quoted.filter_map(|text| text.strip_prefix('.').or(Some(text)));
        let local =
            files.filter(|text| text.starts_with('/') && [".js", ".css", ".svg"].iter().any(|end| text.ends_with(end)));
        let mut seen = 0;
        for file in local {
            assert!(served.contains(&file), "{file} is not served");
            seen += 1;
        }
        assert!(seen >= 7, "the page has a style sheet, an icon and modules");
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for (path, _, text) in FILES {
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("://"), "{path}");
        }
    }
}
