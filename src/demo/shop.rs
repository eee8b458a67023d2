//! The shop's website: the page, and the board that shows which seats are taken. Buying goes through the gateway.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, Uri};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::hall::Snapshot;

/// Path, content type and text of everything the page consists of.
const FILES: [(&str, &str, &str); 11] = [
    ("/", "text/html; charset=utf-8", include_str!("../../examples/tickets/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../examples/tickets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../../examples/tickets/icon.svg")),
    ("/account.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/account.js")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/app.js")),
    ("/box-office.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/box-office.js")),
    ("/clock.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/clock.js")),
    ("/hall.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/hall.js")),
    ("/inbox.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/inbox.js")),
    ("/live.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/live.js")),
    ("/meter.js", "text/javascript; charset=utf-8", include_str!("../../examples/tickets/meter.js")),
];

/// The page loads from the shop alone, and talks to the shop and a gateway.
const POLICY: &str = "default-src 'self'; connect-src 'self' http: https: ws: wss:";

#[derive(Debug, Clone)]
struct Website {
    /// Kept up to date by the tickets service.
    board: watch::Receiver<Snapshot>,
    gateway_inbound: Uri,
}

/// The website's routes; the page connects to `gateway_inbound`.
pub(super) fn router(board: watch::Receiver<Snapshot>, gateway_inbound: Uri) -> Router {
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
        .with_state(Website { board, gateway_inbound })
}

async fn config(State(website): State<Website>, headers: HeaderMap) -> Response {
    let opened_as = headers.get(HOST).and_then(|host| host.to_str().ok());
    let gateway = gateway_as_seen_from(opened_as, &website.gateway_inbound);
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "gateway": gateway }))).into_response()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HallAnswer {
    time_ms: f64,
    #[serde(flatten)]
    hall: Snapshot,
}

async fn hall(State(website): State<Website>) -> Response {
    let hall = website.board.borrow().clone();
    let time_ms = jiff::Timestamp::now().as_duration().as_secs_f64() * 1_000.0;
    ([(CACHE_CONTROL, "no-store")], Json(HallAnswer { time_ms, hall })).into_response()
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
        assert!(seen >= 9, "the page has a style sheet, an icon and modules");
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for (path, _, text) in FILES {
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("://"), "{path}");
        }
    }
}
