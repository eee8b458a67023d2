//! Attacks from pages of other web sites, and what pages of several own sites may do.

use serde_json::json;

use crate::support::backend::{Backend, notes, ok};
use crate::support::clients::{query, to_type};
use crate::support::events::structured;
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::http2::Http2Connection;
use crate::support::sse::EventStream;
use crate::support::websocket_frames::upgrade;

const SHOP: &str = "https://shop.example";
const DESK: &str = "https://desk.example:8443";
const EVIL: &str = "https://evil.example";
const ALLOWED: (&str, &str) = ("ALLOWED_ORIGINS", "https://shop.example, https://DESK.example:8443");

/// The answer's head to a WebSocket that a page of this origin opens, on a fresh connection and on a used one.
fn handshakes(gateway: &Gateway, target: &str, origin: Option<&str>) -> [Response; 2] {
    [false, true].map(|used| {
        let mut connection = Connection::open(gateway.inbound());
        if used {
            assert_eq!(connection.request(&Request::get("/_rig/health")).status, 200);
        }
        let request = match origin {
            Some(origin) => upgrade(target).header("origin", origin),
            None => upgrade(target),
        };
        connection.send(request.to_bytes());
        connection.head()
    })
}

#[test]
fn cross_site_web_socket_hijacking_is_refused_with_403() {
    let gateway = Gateway::with(&[ALLOWED]);
    let target = format!("/_rig/v1/connection/ws?{}", query(&to_type("a")));
    for origin in [EVIL, "null", "https://shop.example.evil.example", "http://shop.example", "https://desk.example", ""]
    {
        for answer in handshakes(&gateway, &target, Some(origin)) {
            assert_eq!(answer.status, 403, "{origin:?}: {answer:?}");
        }
    }
    for origin in [Some(SHOP), Some(DESK), Some("https://SHOP.example"), None] {
        for answer in handshakes(&gateway, &target, origin) {
            assert_eq!(answer.status, 101, "{origin:?}: {answer:?}");
        }
    }
    assert_eq!(gateway.metrics().sum("tidegate_origins_refused_total"), 12.0);
}

#[test]
fn cross_site_web_socket_hijacking_reaches_no_backend() {
    let (note, requests) = notes();
    let backend = Backend::answering(move |request| {
        note(request.header("origin").map(str::to_owned));
        ok("no WebSocket here")
    });
    let gateway = backend.gateway(&[ALLOWED]);
    for answer in handshakes(&gateway, "/to/socket", Some(EVIL)) {
        assert_eq!(answer.status, 403);
    }
    assert!(requests.try_recv().is_err(), "nothing reached the backend");
    for answer in handshakes(&gateway, "/to/socket", Some(SHOP)) {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Some(SHOP.to_owned()), Some(SHOP.to_owned())]);
    // The check is for WebSockets alone: browsers guard the rest by CORS.
    assert_eq!(gateway.call(Request::get("/to/x").header("origin", EVIL)).status, 200);
}

#[test]
fn without_a_list_pages_of_every_origin_may_open_web_sockets_as_with_rig() {
    let gateway = Gateway::start();
    for origin in [Some(EVIL), Some("null"), None] {
        for answer in handshakes(&gateway, "/_rig/v1/connection/ws", origin) {
            assert_eq!(answer.status, 101, "{origin:?}");
        }
    }
}

/// What an answer says to pages of other sites.
fn allowed(answer: &Response) -> (Option<&str>, Option<&str>) {
    (answer.header("access-control-allow-origin"), answer.header("vary"))
}

#[test]
fn of_several_cors_origins_the_one_that_asks_is_answered() {
    let gateway = Gateway::with(&[("CORS", "https://shop.example, https://desk.example:8443")]);
    let event = r#"{"specversion":"0.2","type":"a","source":"/t","id":"1"}"#;
    let calls = [
        ("event", structured(event)),
        ("refused event", structured("{}")),
        ("long polling", Request::get("/_rig/v1/connection/longpolling")),
        ("refused event stream", Request::get("/_rig/v1/connection/sse?subscriptions=%5B")),
        ("preflight", Request::new("OPTIONS", "/_rig/v1/events")),
        ("miss", Request::get("/nothing")),
    ];
    for (what, request) in calls {
        for origin in [SHOP, DESK] {
            let answer = gateway.call(request.clone().header("origin", origin));
            assert_eq!(allowed(&answer), (Some(origin), Some("origin")), "{what}");
        }
        let answer = gateway.call(request.clone().header("origin", EVIL));
        assert_eq!(allowed(&answer), (None, Some("origin")), "{what} for a stranger");
        assert_eq!(allowed(&gateway.call(request)), (None, Some("origin")), "{what} for no page");
    }
    let request = Request::get("/_rig/v1/connection/sse").header("origin", DESK);
    let stream = EventStream::with_request(&gateway, &request);
    assert_eq!(allowed(&stream.head), (Some(DESK), Some("origin")));
    let over_http_2 = Http2Connection::open(&gateway).call_with("GET", "/_rig/health", &[("origin", SHOP)], b"");
    assert_eq!(over_http_2.headers()["access-control-allow-origin"], SHOP);
    assert_eq!(over_http_2.headers()["vary"], "origin");
}

#[test]
fn an_origin_that_carries_header_fields_is_not_sent_back() {
    let gateway = Gateway::with(&[("CORS", "https://shop.example, https://desk.example:8443")]);
    let answer = gateway.call(Request::get("/_rig/health").header("origin", "https://shop.example\tx: y"));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    let refusal = Gateway::refused(&[("CORS", "https://shop.example, https://a.example\r\nx: y")]);
    assert!(refusal.text.contains("CORS"), "{}", refusal.text);
    assert_eq!(json!(refusal.status.code()), json!(2));
}
