//! Who may subscribe and publish: `SUBSCRIPTION_CHECK` and `SUBMISSION_CHECK` (contract, section 2).

use serde_json::json;

use crate::support::backend::{Backend, ok};
use crate::support::clients::{Client, Transport, put_request, query, to_type};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::jwt;
use crate::support::websocket::WebSocketClient;

const DENIED: &str = "Subscription denied.";

fn event() -> Request {
    Request::new("POST", "/_rig/v1/events")
        .json(&json!({ "specversion": "0.2", "type": "t", "id": "1", "source": "/x" }))
}

/// What the connection call of each transport says to this query.
fn assert_denied(gateway: &Gateway, query: &str) {
    for transport in ["sse", "longpolling"] {
        let answer = gateway.call(Request::get(&format!("/_rig/v1/connection/{transport}?{query}")));
        assert_eq!((answer.status, answer.text()), (400, DENIED), "{transport}");
    }
    let close = WebSocketClient::open(gateway, query).wait_for_close();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "Bad request."));
}

#[test]
fn jwt_validation_of_subscriptions_wants_a_valid_token_on_every_transport_and_the_put() {
    let gateway = Gateway::with(&[jwt::SETTING, ("SUBSCRIPTION_CHECK", "JWT_Validation")]);
    let wanted = query(&to_type("t"));
    assert_denied(&gateway, &wanted);
    let token = jwt::of_session("me");
    for transport in [Transport::Sse, Transport::WebSocket, Transport::LongPolling] {
        let client = Client::with_query(&gateway, transport, &format!("{wanted}&jwt={token}"));
        assert_eq!(client.subscriptions[0]["eventType"], "t");
        let put = |authorization: Option<String>| {
            let request = put_request("sse", &client.token, &to_type("u"));
            let request = match authorization {
                Some(value) => request.header("authorization", value),
                None => request,
            };
            let answer = gateway.call(request);
            (answer.status, answer.text().to_owned())
        };
        assert_eq!(put(None), (403, DENIED.to_owned()));
        assert_eq!(put(Some("Bearer a.b.c".to_owned())), (403, DENIED.to_owned()));
        assert_eq!(put(Some(format!("Bearer {token}"))).0, 204);
        assert_eq!(put(Some(token.clone())).0, 204, "bare");
        Client::with_query(&gateway, transport, "");
    }
}

#[test]
fn jwt_validation_of_submissions_wants_a_valid_token() {
    let gateway = Gateway::with(&[jwt::SETTING, ("SUBMISSION_CHECK", "jwt_validation")]);
    let answer = gateway.call(event());
    assert_eq!((answer.status, answer.text()), (403, "Submission denied."));
    let token = jwt::of_session("me");
    assert_eq!(gateway.call(event().header("authorization", format!("Bearer {token}"))).status, 202);
    assert_eq!(gateway.metrics().sum_where("tidegate_checks_total", &[("outcome", "denied")]), 1.0);
    assert_eq!(gateway.metrics().sum_where("tidegate_checks_total", &[("outcome", "allowed")]), 1.0);
}

#[test]
fn a_url_decides_over_submissions_by_their_body_type_and_authorization() {
    let (service, notes) = Backend::noting();
    let url = format!("http://127.0.0.1:{}/May/I?x=Y", service.port());
    let gateway = Gateway::with(&[("SUBMISSION_CHECK", &url)]);
    let request = event().header("authorization", "Bearer one").header("authorization", "two").header("x-other", "z");
    assert_eq!(gateway.call(request).status, 202);
    let asked = notes.next();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/May/I?x=Y"));
    assert_eq!(asked.header("authorization"), Some("Bearer one, two"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.header("x-other"), None);
    assert!(asked.body.starts_with(b"{\"specversion\""), "the body as it came");
    assert_eq!(gateway.call(event()).status, 202);
    assert_eq!(notes.next().header("authorization"), Some(""), "empty without one");
    assert_eq!(service.accepted(), 1, "the connection is used again");
}

#[test]
fn a_url_decides_over_subscriptions_on_every_transport_and_the_put() {
    let (service, notes) = Backend::noting();
    let url = format!("http://127.0.0.1:{}/check", service.port());
    let gateway = Gateway::with(&[jwt::SETTING, ("SUBSCRIPTION_CHECK", &url)]);
    let token = jwt::of_session("me");
    let wanted = query(&json!([{ "oneOf": [], "eventType": "t" }]));
    for transport in [Transport::Sse, Transport::WebSocket, Transport::LongPolling] {
        let client = Client::with_query(&gateway, transport, &format!("{wanted}&jwt={token}"));
        let asked = notes.next();
        assert_eq!(asked.body, br#"{"subscriptions":[{"eventType":"t","oneOf":[]}]}"#, "sorted");
        assert_eq!(asked.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(asked.header("authorization"), Some(format!("Bearer {token}").as_str()));
        assert_eq!(gateway.call(put_request("sse", &client.token, &to_type("u"))).status, 204);
        assert_eq!(notes.next().body, json!({ "subscriptions": to_type("u") }).to_string().into_bytes());
        Client::with_query(&gateway, transport, "");
        assert!(notes.try_next().is_none(), "nobody is asked where nothing is subscribed to by hand");
    }
}

#[test]
fn what_a_url_refuses_redirects_or_leaves_unanswered_is_denied() {
    for answer in ["403 Forbidden", "302 Found\r\nlocation: /yes", "500 Internal Server Error"] {
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").into_bytes();
        let service = Backend::answering(move |_| answer.clone());
        let url = format!("http://127.0.0.1:{}/", service.port());
        let gateway = Gateway::with(&[("SUBSCRIPTION_CHECK", &url), ("SUBMISSION_CHECK", &url)]);
        assert_denied(&gateway, &query(&to_type("t")));
        assert_eq!(gateway.call(event()).status, 403);
    }
    let silent = Backend::scripted(|peer| peer.until_end());
    for (port, timeout_ms) in [(silent.port(), "200"), (1, "5000")] {
        let url = format!("http://127.0.0.1:{port}/");
        let settings = [("SUBSCRIPTION_CHECK", url.as_str()), ("CHECK_TIMEOUT_MS", timeout_ms)];
        let gateway = Gateway::with(&settings);
        assert_denied(&gateway, &query(&to_type("t")));
        gateway.wait_for_log("gave no answer");
        assert_eq!(gateway.metrics().sum_where("tidegate_checks_total", &[("outcome", "unanswered")]), 3.0);
    }
}

#[test]
fn an_answer_is_kept_for_the_same_question_where_that_is_configured() {
    let (service, notes) = Backend::noting();
    let url = format!("http://127.0.0.1:{}/", service.port());
    let gateway = Gateway::with(&[("SUBMISSION_CHECK", &url), ("CHECK_CACHE_MS", "3600000")]);
    for _ in 0..3 {
        assert_eq!(gateway.call(event()).status, 202);
    }
    notes.next();
    assert!(notes.try_next().is_none(), "asked once");
    assert_eq!(gateway.call(event().header("authorization", "Bearer x")).status, 202);
    assert_eq!(notes.next().header("authorization"), Some("Bearer x"), "another question");
}

#[test]
fn a_service_that_allows_everything_lets_events_through() {
    let service = Backend::answering(|_| ok(""));
    let url = format!("http://127.0.0.1:{}/", service.port());
    let gateway = Gateway::with(&[("SUBMISSION_CHECK", &url), ("SUBSCRIPTION_CHECK", &url)]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "t");
    assert_eq!(gateway.call(event()).status, 202);
    assert_eq!(client.next()["id"], "1");
}
