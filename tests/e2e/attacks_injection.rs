//! Attempts to write header fields, or to choose the host, through what a definition rewrites and adds.

use serde_json::{Value, json};

use crate::support::backend::{Backend, api, gateway};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;

/// An API whose paths are rewritten, and to whose requests this is added.
fn rewriting(port: u16, replacement: &str, added: &Value) -> Value {
    let mut api = api("shop", "http://127.0.0.1", port);
    api["version_data"]["default"]["transform_request_headers"] = json!({ "add_headers": added });
    api["version_data"]["default"]["endpoints"] = json!([{
        "id": "rewriting",
        "method": "GET",
        "path_regex": "/to/(.*)",
        "path_replacement": replacement,
        "transform_request_headers": true,
    }]);
    json!([api])
}

#[test]
fn header_injection_through_path_rewriting_stays_in_the_path() {
    let (backend, notes) = Backend::noting();
    let gateway = gateway(&rewriting(backend.port(), r"/in/\1?from=\1", &json!({"x-team": "blue"})), &[]);
    let http2 = Http2Connection::open(&gateway);
    for sent in [
        "x%0d%0ax-evil:%201",
        "x%0D%0A%0D%0AGET%20/evil%20HTTP/1.1",
        "x%0ax-evil:1",
        "x%0dx-evil:1",
        "x%20HTTP/1.1%0d%0ahost:%20evil.example%0d%0a",
        "%C4%8D%C4%8Ax-evil:1",
        "x%00",
    ] {
        let target = format!("/to/{sent}");
        for over_http_2 in [false, true] {
            let status = if over_http_2 {
                http2.call("GET", &target, None, b"").status().as_u16()
            } else {
                gateway.call(Request::get(&target)).status
            };
            let Some(got) = notes.try_next() else {
                assert_eq!(status, 400, "{target} is passed on or refused");
                continue;
            };
            assert!(got.target.starts_with("/in/") && !got.target.contains(['\r', '\n', ' ']), "{:?}", got.target);
            assert_eq!(got.header("x-evil"), None, "{target}: {got:?}");
            assert_eq!(got.header("x-team"), Some("blue"));
            assert_eq!(got.header("host"), Some(format!("127.0.0.1:{}", backend.port()).as_str()));
            assert!(notes.try_next().is_none(), "{target} became two requests");
        }
    }
}

#[test]
fn raw_control_characters_never_reach_the_rewriting() {
    let (backend, notes) = Backend::noting();
    let gateway = gateway(&rewriting(backend.port(), r"/in/\1", &json!({})), &[]);
    for target in ["/to/x\rx-evil: 1", "/to/x\nx-evil: 1", "/to/x\0", "/to/x y", "/to/x\u{7f}"] {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        connection.finish_sending();
        let answer = connection.until_end();
        assert!(
            answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 505"),
            "{target:?}: {:?}",
            String::from_utf8_lossy(&answer)
        );
        assert!(notes.try_next().is_none(), "{target:?} reached the backend");
    }
}

#[test]
fn header_injection_through_add_headers_is_refused_with_the_definition() {
    let running = Gateway::start();
    for added in [
        json!({"x-a": "1\r\nx-evil: 1"}),
        json!({"x-a": "1\nx-evil: 1"}),
        json!({"x-a": "1\u{0}"}),
        json!({"x-a\r\nx-evil": "1"}),
        json!({"x-a: 1\r\nx-evil": "1"}),
        json!({"x a": "1"}),
    ] {
        let definitions = rewriting(1, "/in", &added);
        let refusal = Gateway::refused(&[("PROXY_CONFIG_FILE", &definitions.to_string())]);
        assert_eq!(refusal.status.code(), Some(2), "{added}: {}", refusal.text);
        assert!(refusal.text.contains("add_headers"), "{added}: {}", refusal.text);
        let answer = running.call_internal(Request::new("POST", "/v3/apis").json(&definitions[0]));
        assert_eq!(answer.status, 400, "{added}: {answer:?}");
    }
}

#[test]
fn added_headers_neither_frame_a_request_nor_choose_its_host() {
    let (backend, notes) = Backend::noting();
    for framing in ["content-length", "transfer-encoding", "connection"] {
        let definitions = rewriting(backend.port(), "/in", &json!({ framing: "5" })).to_string();
        let refusal = Gateway::refused(&[("PROXY_CONFIG_FILE", &definitions)]);
        assert!(refusal.text.contains(framing), "{}", refusal.text);
    }
    let added = json!({"host": "evil.example", "x-team": "blue"});
    let gateway = gateway(&rewriting(backend.port(), "/in", &added), &[]);
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200);
    let got = notes.next();
    assert_eq!(got.header("host"), Some(format!("127.0.0.1:{}", backend.port()).as_str()));
    assert_eq!((got.header("content-length"), got.header("transfer-encoding")), (None, None));
    assert_eq!(got.header("x-team"), Some("blue"));
}

#[test]
fn only_the_operator_says_which_host_a_request_goes_to() {
    let (backend, notes) = Backend::noting();
    let (other, reached) = Backend::noting();
    let evil = format!("127.0.0.1:{}", other.port());
    // The worst that a definition can do: everything that is sent comes from the client.
    for replacement in [r"\1", r"/\1", r"/in/\1"] {
        let gateway = gateway(&rewriting(backend.port(), replacement, &json!({})), &[]);
        let http2 = Http2Connection::open(&gateway);
        for sent in [
            format!("@{evil}/"),
            format!("/{evil}/"),
            format!("//{evil}/"),
            format!("http://{evil}/"),
            format!("http:%2f%2f{evil}/"),
            format!("%2f%2f{evil}/"),
            format!("..%2f..%2f@{evil}"),
            format!(":{}/", other.port()),
            format!("%5c%5c{evil}/"),
            format!("x#@{evil}/"),
        ] {
            for request in [
                Request::get(&format!("/to/{sent}")),
                Request::get(&format!("/to/{sent}")).header("host", &evil),
                Request::get(&format!("/to/{sent}")).header("x-forwarded-host", &evil),
                Request::get(&format!("/to/{sent}")).header("forwarded", format!("host={evil}")),
                Request::get(&format!("http://{evil}/to/{sent}")),
            ] {
                let status = gateway.call(request).status;
                match notes.try_next() {
                    Some(got) => {
                        assert_eq!(got.header("host"), Some(format!("127.0.0.1:{}", backend.port()).as_str()));
                        assert!(got.target.starts_with('/'), "{sent} arrived as {}", got.target);
                    }
                    None => assert!([400, 404, 502].contains(&status), "{sent}: {status}"),
                }
            }
            if !sent.contains('#') {
                http2.call("GET", &format!("/to/{sent}"), None, b"");
                while notes.try_next().is_some() {}
            }
        }
        assert!(reached.try_next().is_none(), "another host was reached with {replacement}");
        assert_eq!(other.accepted(), 0);
    }
}
