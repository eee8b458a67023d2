//! Contract, section 4, target http: what a backend gets and what a client gets back.

use serde_json::json;

use crate::support::backend::{Backend, api, gateway, ok};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn method_path_raw_query_headers_and_body_go_to_the_backend() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let request = Request::new(method, "/to/a%20b/c?x=%31&&y=[1]")
            .header("x-own", "one")
            .header("x-own", "two")
            .header("accept-encoding", "gzip")
            .header("content-type", "text/plain")
            .body("hello");
        let answer = gateway.call(request);
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{method}");
        let got = notes.next();
        assert_eq!((got.method.as_str(), got.target.as_str()), (method, "/to/a%20b/c?x=%31&&y=[1]"));
        assert_eq!(got.headers_named("x-own"), ["one", "two"], "{method}");
        assert_eq!(got.header("accept-encoding"), Some("gzip"));
        assert_eq!(got.header("content-type"), Some("text/plain"));
        assert_eq!(got.header("content-length"), Some("5"), "{method}");
        assert_eq!(got.body, b"hello", "{method}: a body passes with every method");
    }
    assert_eq!(backend.accepted(), 1, "all on one connection that was kept alive");
}

#[test]
fn host_is_the_targets_with_its_port_and_the_client_is_named() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    let request = Request::get("/to/x")
        .header("host", "www.example.org")
        .header("forwarded", "for=evil;host=evil")
        .header("x-forwarded-for", "203.0.113.7");
    gateway.call(request);
    let got = notes.next();
    let host = format!("127.0.0.1:{}", backend.port());
    assert_eq!(got.header("host"), Some(host.as_str()));
    assert_eq!(got.header("forwarded"), Some("for=127.0.0.1;by=127.0.0.1"));
    assert_eq!(got.header("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    assert_eq!(got.header("x-forwarded-host"), Some("www.example.org"));
    assert_eq!(got.header("x-forwarded-proto"), Some("http"));
    assert_eq!(got.header("user-agent"), None, "none is invented");
    Http2Connection::open(&gateway).call("GET", "/to/x", None, b"");
    assert_eq!(notes.next().header("x-forwarded-host"), Some("localhost"), "HTTP/2 names it in its authority");
}

#[test]
fn a_trace_goes_on_with_a_new_span() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    gateway.call(Request::get("/to/x").header("traceparent", TRACE).header("tracestate", "a=b"));
    let got = notes.next();
    let ours = got.header("traceparent").expect("a trace");
    assert_eq!(ours[..36], TRACE[..36], "the same trace");
    assert_ne!(ours, TRACE, "a new span");
    assert_eq!(got.header("tracestate"), Some("a=b"));
    gateway.call(Request::get("/to/x").header("tracestate", "a=b"));
    let got = notes.next();
    assert!(got.header("traceparent").is_some_and(|ours| ours.ends_with("-01")), "a new trace is sampled");
    assert_eq!(got.header("tracestate"), None, "there is no trace that it belongs to");
}

#[test]
fn a_body_without_content_type_gets_one() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    for (method, expected) in [
        ("POST", Some("application/octet-stream")),
        ("PUT", Some("application/octet-stream")),
        ("PATCH", Some("application/octet-stream")),
        ("DELETE", None),
    ] {
        gateway.call(Request::new(method, "/to/x").body("b"));
        assert_eq!(notes.next().header("content-type"), expected, "{method}");
    }
    gateway.call(Request::new("POST", "/to/x"));
    assert_eq!(notes.next().header("content-length"), Some("0"), "an empty body has its length");
}

#[test]
fn headers_of_one_connection_are_dropped_both_ways() {
    let backend = Backend::answering(|request| {
        for name in ["x-secret", "keep-alive", "proxy-authorization", "upgrade", "te", "connection"] {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert_eq!(request.header("x-kept"), Some("1"));
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
          proxy-authenticate: Basic\r\nx-kept: 2\r\ncontent-length: 2\r\n\r\nok"
            .to_vec()
    });
    let gateway = backend.gateway(&[]);
    let request = Request::get("/to/x")
        .header("connection", "keep-alive, X-Secret")
        .header("x-secret", "1")
        .header("keep-alive", "timeout=1")
        .header("proxy-authorization", "Basic eDp5")
        .header("te", "gzip")
        .header("x-kept", "1");
    let answer = gateway.call(request);
    assert_eq!(answer.text(), "ok");
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-kept"), Some("2"));
}

#[test]
fn an_answer_passes_as_the_backend_made_it() {
    let backend = Backend::answering(|_| {
        b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: shop\r\ncache-control: max-age=5\r\n\
          x-request-id: own\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-encoding: gzip\r\nlocation: /elsewhere\r\n\
          content-length: 3\r\n\r\n\x1f\x8b\x08"
            .to_vec()
    });
    let gateway = backend.gateway(&[]);
    let answer = gateway.call(Request::get("/to/x").header("origin", "http://a"));
    assert_eq!(answer.header("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    assert_eq!(answer.header("server"), Some("shop"));
    assert_eq!(answer.header("cache-control"), Some("max-age=5"));
    assert_eq!(answer.header("x-request-id"), Some("own"));
    assert_eq!(answer.headers_named("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body, b"\x1f\x8b\x08");
    for name in ["access-control-allow-origin", "traceparent"] {
        assert_eq!(answer.header(name), None, "{name} is the backend's to add");
    }
}

#[test]
fn redirects_and_every_status_that_http_has_pass() {
    let backend = Backend::answering(|request| {
        let status = request.target.rsplit('/').next().unwrap_or_default();
        let length = if matches!(status, "204" | "304") { "" } else { "content-length: 0\r\n" };
        format!("HTTP/1.1 {status} Whatever\r\nlocation: /to/200\r\n{length}\r\n").into_bytes()
    });
    let gateway = backend.gateway(&[]);
    for status in [200, 201, 202, 204, 205, 301, 302, 304, 307, 400, 401, 404, 418, 500, 503, 599, 799, 999] {
        let answer = gateway.call(Request::get(&format!("/to/{status}")));
        assert_eq!((answer.status, answer.header("location")), (status, Some("/to/200")));
    }
    for status in ["99", "1000", "abc"] {
        let answer = gateway.call(Request::get(&format!("/to/{status}")));
        assert_eq!((answer.status, answer.text()), (502, "Bad gateway."), "{status}");
    }
}

#[test]
fn a_head_request_gets_the_headers_alone() {
    let backend = Backend::answering(|request| {
        assert_eq!(request.method, "HEAD");
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\netag: \"x\"\r\n\r\n".to_vec()
    });
    let gateway = backend.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound());
    for _ in 0..3 {
        let answer = connection.request(&Request::new("HEAD", "/to/x"));
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000000")));
        assert_eq!(answer.header("etag"), Some("\"x\""));
    }
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn added_headers_take_the_place_of_the_clients() {
    let (backend, notes) = Backend::noting();
    let mut api = api("shop", "http://127.0.0.1", backend.port());
    api["version_data"]["default"]["transform_request_headers"] = json!({"add_headers": {"x-team": "blue"}});
    api["version_data"]["default"]["endpoints"] = json!([
        {"id": "with", "method": "GET", "path_regex": "/to/with", "transform_request_headers": true},
        {"id": "without", "method": "GET", "path_regex": "/to/without"},
    ]);
    let gateway = gateway(&json!([api]), &[]);
    gateway.call(Request::get("/to/with").header("X-Team", "red"));
    assert_eq!(notes.next().headers_named("x-team"), ["blue"]);
    gateway.call(Request::get("/to/without").header("X-Team", "red"));
    assert_eq!(notes.next().headers_named("x-team"), ["red"]);
}

#[test]
fn no_path_reaches_another_host() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    let host = format!("127.0.0.1:{}", backend.port());
    for target in
        ["/to/@other.example/", "http://other.example/to/x", "/to//other.example/x", "/to/x?u=http://o.example"]
    {
        let answer = gateway.call(Request::get(target));
        assert_eq!(answer.status, 200, "{target}");
        let got = notes.next();
        assert_eq!(got.header("host"), Some(host.as_str()), "{target}");
        assert!(got.target.starts_with("/to/"), "{target} arrived as {}", got.target);
    }
}

#[test]
fn a_path_is_rewritten_with_its_groups_before_it_goes_to_the_backend() {
    let (backend, notes) = Backend::noting();
    let mut api = api("shop", "http://127.0.0.1", backend.port());
    api["version_data"]["default"]["endpoints"] = json!([
        {"id": "seat", "method": "GET", "path_regex": "/halls/(\\d+)/(.*)", "path_replacement": "/v1/\\2/of/\\1"},
        {"id": "find", "method": "GET", "path_regex": "/find/(\\w+)", "path_replacement": "/search?what=\\1"},
    ]);
    let gateway = gateway(&json!([api]), &[]);
    for (target, expected) in [
        ("/HALLS/7/seats%2Fleft?a=%31&b", "/v1/seats%2Fleft/of/7?a=%31&b"),
        ("/find/jazz", "/search?what=jazz"),
        ("/find/jazz?page=2", "/search?what=jazz&page=2"),
    ] {
        assert_eq!(gateway.call(Request::get(target)).status, 200, "{target}");
        assert_eq!(notes.next().target, expected);
    }
}

#[test]
fn what_was_matched_is_what_the_backend_gets_and_dots_lead_nowhere_else() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    for (target, expected) in [
        ("/to/a/../b//c/%2e%2e/%64?x=/../y", "/to/b/d?x=/../y"),
        ("/../..//to/./x", "/to/x"),
        ("/elsewhere/../to/%61%20b/", "/to/a%20b/"),
    ] {
        assert_eq!(gateway.call(Request::get(target)).status, 200, "{target}");
        assert_eq!(notes.next().target, expected);
    }
    for target in ["/to/../etc/passwd", "/to/%2e%2e/admin", "/to/..%2fadmin", "/to/..%5cadmin", "/to/..;/admin"] {
        assert_eq!(gateway.call(Request::get(target)).status, 404, "{target}");
    }
    assert!(notes.try_next().is_none(), "none of them reached the backend");
}

#[test]
fn a_query_that_is_not_utf_8_goes_to_the_backend_as_it_was_sent() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    for target in ["/to/x?a=%FF&b=%C3", "/to/x?%zz=%", "/to/x?"] {
        assert_eq!(gateway.call(Request::get(target)).status, 200, "{target}");
        assert_eq!(notes.next().target, target);
    }
}

#[test]
fn cookies_that_http_2_sends_apart_arrive_in_one_field() {
    let (backend, notes) = Backend::noting();
    let gateway = backend.gateway(&[]);
    let connection = Http2Connection::open(&gateway);
    let answer = connection.call_with("POST", "/to/x", &[("cookie", "a=1"), ("cookie", "b=2")], b"body");
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"ok"[..]));
    let got = notes.next();
    assert_eq!(got.header("cookie"), Some("a=1; b=2"));
    assert_eq!(got.body, b"body");
}

#[test]
fn informational_answers_do_not_disturb() {
    let backend = Backend::answering(|_| {
        [
            &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nx: y\r\n\r\n"[..],
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n",
            &ok("final"),
        ]
        .concat()
    });
    let gateway = backend.gateway(&[]);
    let answer = gateway.call(Request::get("/to/x"));
    assert_eq!((answer.status, answer.text()), (200, "final"));
    assert_eq!(answer.header("link"), None);
}

#[test]
fn a_change_of_protocols_that_nobody_asked_for_is_a_broken_answer() {
    let backend =
        Backend::saying("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let gateway = backend.gateway(&[]);
    let answer = gateway.call(Request::get("/to/x"));
    assert_eq!((answer.status, answer.text()), (502, "Bad gateway."));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "an answer of the gateway's own");
}

#[test]
fn a_target_that_an_environment_variable_names_is_found() {
    let (backend, notes) = Backend::noting();
    let mut api = api("shop", "SHOP_HOST", backend.port());
    api["proxy"]["use_env"] = json!(true);
    let definitions = json!([api]).to_string();
    let gateway = Gateway::with(&[("PROXY_CONFIG_FILE", &definitions), ("SHOP_HOST", "localhost")]);
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200);
    let host = format!("localhost:{}", backend.port());
    assert_eq!(
        notes.next().header("host"),
        Some(host.as_str()),
        "the name was resolved, an address that refuses skipped"
    );
}
