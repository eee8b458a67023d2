//! Issue 5, item 4: the internal port with TLS, client certificates and a token.

use serde_json::json;

use crate::support::clients::{Client, Transport};
use crate::support::events::event;
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::tls::Authority;
use crate::support::wait_for;

const TOKEN: &str = "correct-horse-battery";

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}

#[test]
fn the_internal_port_speaks_tls_beside_the_plain_one() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[]);
    assert_eq!(gateway.call_internal(Request::get("/health")).text(), "OK");
    let answer = authority.client().call(gateway.internal_tls(), &get("/health", "")).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"), "{answer}");
    let stream = authority.client().protocols(&["h2", "http/1.1"]).connect(gateway.internal_tls(), "localhost");
    assert_eq!(stream.expect("a handshake").conn.alpn_protocol(), Some(b"h2".as_slice()));
    let log = gateway.log();
    assert!(log.contains(&format!("https://{}", gateway.internal_tls())), "{log}");
    assert!(log.contains("from this machine only"), "{log}");

    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    let body = event("greeting", "1", &json!(null)).to_string();
    let request = format!(
        "POST /v3/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/cloudevents+json\r\n\r\n{body}",
        body.len()
    );
    let answer = authority.client().call(gateway.internal_tls(), &request).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    client.expect_ids(&["1"]);
}

#[test]
fn a_token_guards_both_internal_ports_and_health_may_stay_open() {
    let authority = Authority::new();
    for open in [true, false] {
        let health_open = ("INTERNAL_HEALTH_OPEN", if open { "true" } else { "false" });
        let gateway = authority.gateway(&[("INTERNAL_TOKEN", TOKEN), health_open]);
        let health = if open { 200 } else { 401 };
        assert_eq!(gateway.call_internal(Request::get("/health")).status, health);
        for path in ["/metrics", "/v3/apis", "/nothing"] {
            let refused = gateway.call_internal(Request::get(path));
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
            let wrong = Request::get(path).header("authorization", "Bearer correct-horse-batterx");
            assert_eq!(gateway.call_internal(wrong).status, 401, "{path}");
        }
        let right = format!("Bearer {TOKEN}");
        let metrics = gateway.call_internal(Request::get("/metrics").header("authorization", &right));
        assert_eq!(metrics.status, 200);
        let post = Request::new("POST", "/v3/messages").json(&event("greeting", "1", &json!(null)));
        assert_eq!(gateway.call_internal(post.clone()).status, 401);
        assert_eq!(gateway.call_internal(post.header("authorization", &right)).status, 202);

        let client = authority.client();
        let answer = client.call(gateway.internal_tls(), &get("/metrics", "")).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let authorization = format!("authorization: {right}\r\n");
        let answer = client.call(gateway.internal_tls(), &get("/metrics", &authorization)).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(gateway.log().contains("with the token") && !gateway.log().contains(TOKEN));
        // Clients are not asked for it.
        assert_eq!(gateway.call(Request::get("/_rig/health")).status, 200);
    }
}

#[test]
fn with_an_authority_for_clients_only_their_certificates_open_the_internal_port() {
    let authority = Authority::new();
    let strangers = Authority::new();
    let (own, foreign) = (authority.issue(&["prometheus"]), strangers.issue(&["stranger"]));
    let gateway = authority.gateway(&[("INTERNAL_CLIENT_CA", &authority.path("ca.pem"))]);
    assert_eq!(gateway.internal(), gateway.internal_tls(), "there is no plain way round");
    assert!(gateway.log().contains("with a client certificate"));
    let request = get("/metrics", "");
    let client = authority.client();
    client.call(gateway.internal_tls(), &request).expect_err("no certificate");
    client.clone().certificate(&foreign).call(gateway.internal_tls(), &request).expect_err("of another authority");
    let client = client.certificate(&own);
    wait_for("both to be counted", || {
        let page = client.call(gateway.internal_tls(), &request).expect("the right certificate");
        page.contains("tidegate_tls_handshake_failures_total{port=\"internal\",reason=\"client_certificate\"} 2")
            .then_some(())
    });
    // Clients of the inbound port need none.
    authority.client().connect(gateway.inbound_tls(), "localhost").expect("a handshake");
}

#[test]
fn the_plain_internal_port_can_be_turned_off() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[("API_HTTP_PORT", "off")]);
    assert_eq!(gateway.internal(), gateway.internal_tls());
    let refusal = Gateway::refused(&[("API_HTTP_PORT", "off")]);
    assert_eq!(refusal.status.code(), Some(2));
    assert!(refusal.text.contains("API_HTTP_PORT"), "{}", refusal.text);
}
