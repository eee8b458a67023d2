//! Issue 4: connections to backends are pooled, bounded and, where a backend speaks it, TLS or HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::DEADLINE;
use crate::support::backend::{Backend, Gate, api, gateway, notes, ok};
use crate::support::backend_http2::{ModernBackend, Speech};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;
use crate::support::wait_for;

#[test]
fn connections_to_a_backend_are_bounded_and_the_other_requests_wait() {
    let (busy, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (working, highest) = (Arc::clone(&busy), Arc::clone(&peak));
    let backend = Backend::answering(move |_| {
        highest.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        working.fetch_sub(1, Ordering::SeqCst);
        ok("ok")
    });
    let gateway = backend.gateway(&[("PROXY_MAX_CONNECTIONS", "3")]);
    let mut clients: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = Connection::open(gateway.inbound());
            connection.send(Request::get("/to/x").to_bytes());
            connection
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    assert!(peak.load(Ordering::SeqCst) <= 3);
    assert!(backend.accepted() <= 3, "{} connections", backend.accepted());
}

#[test]
fn requests_that_wait_for_a_connection_are_served_in_their_order() {
    let gate = Gate::default();
    let opened = gate.clone();
    let (note, order) = notes();
    let backend = Backend::answering(move |request| {
        if request.target == "/to/first" {
            note("/to/first".to_owned());
            opened.wait();
        } else {
            note(request.target.clone());
        }
        ok("ok")
    });
    let gateway = backend.gateway(&[("PROXY_MAX_CONNECTIONS", "1"), ("PROXY_RECV_TIMEOUT", "20000")]);
    let mut clients = Vec::new();
    let mut send = |target: &str| {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(Request::get(target).to_bytes());
        clients.push(connection);
        let expected = clients.len() as f64;
        wait_for("the gateway to have the connection", || {
            (gateway.metrics().sum("tidegate_connections") == expected).then_some(())
        });
    };
    send("/to/first");
    assert_eq!(order.recv_timeout(DEADLINE).as_deref(), Ok("/to/first"));
    let targets: Vec<_> = (0..10).map(|number| format!("/to/{number}")).collect();
    for target in &targets {
        send(target);
    }
    // One that gives up before its turn takes nobody's place.
    drop(clients.remove(3));
    wait_for("it to be gone", || (gateway.metrics().sum("tidegate_connections") == 10.0).then_some(()));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    let served: Vec<_> = order.try_iter().collect();
    let expected: Vec<_> = targets.iter().filter(|target| *target != "/to/2").cloned().collect();
    assert_eq!(served, expected);
}

#[test]
fn a_request_that_waits_too_long_for_a_connection_is_late() {
    let backend = Backend::scripted(|peer| {
        peer.request();
        peer.until_end();
    });
    let gateway = backend.gateway(&[("PROXY_MAX_CONNECTIONS", "1"), ("PROXY_RECV_TIMEOUT", "400")]);
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = Connection::open(gateway.inbound());
            connection.send(Request::get("/to/x").to_bytes());
            connection
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.response().status, 504);
    }
}

#[test]
fn unused_connections_are_ended() {
    let backend = Backend::answering(|_| ok("ok"));
    let gateway = backend.gateway(&[("PROXY_KEEP_ALIVE", "200")]);
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200);
    wait_for("the connection to be ended", || (backend.open() == 0).then_some(()));
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200);
}

#[test]
fn a_connection_that_the_backend_has_closed_is_let_go() {
    let backend = Backend::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(ok("ok"));
        }
    });
    let gateway = backend.gateway(&[]);
    let sockets = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("Linux").count();
    let before = sockets();
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200);
    wait_for("the descriptor to be closed", || (sockets() <= before).then_some(()));
}

fn secure(backend: &ModernBackend, target_url: &str) -> Gateway {
    let definitions = json!([api("shop", target_url, backend.port())]);
    let ca = backend.ca_file();
    gateway(&definitions, &[("PROXY_CA_CERTFILE", ca.to_str().expect("a path is text"))])
}

#[test]
fn an_https_backend_is_trusted_by_a_certificate_authority_of_ones_own() {
    for protocols in [&["http/1.1"][..], &[]] {
        let backend = ModernBackend::start(Speech::Tls(protocols));
        let gateway = secure(&backend, "https://localhost");
        for _ in 0..5 {
            let answer = gateway.call(Request::get("/to/x"));
            assert_eq!((answer.status, answer.text()), (200, "ok"));
            assert_eq!(answer.header("x-protocol"), Some("http/1.1"));
            let authority = format!("localhost:{}", backend.port());
            assert_eq!(answer.header("x-authority"), Some(authority.as_str()));
        }
        assert_eq!(backend.accepted(), 1, "the connection is kept");
    }
}

#[test]
fn an_https_backend_that_nobody_vouches_for_is_a_bad_gateway() {
    let backend = ModernBackend::start(Speech::Tls(&["http/1.1"]));
    let stranger = ModernBackend::start(Speech::Tls(&["http/1.1"]));
    let definitions = json!([api("shop", "https://localhost", backend.port())]);
    let ca = stranger.ca_file();
    let gateway = gateway(&definitions, &[("PROXY_CA_CERTFILE", ca.to_str().expect("a path is text"))]);
    assert_eq!(gateway.call(Request::get("/to/x")).status, 502);
    gateway.wait_for_log("certificate");
    let impostor = ModernBackend::for_name(Speech::Tls(&["http/1.1"]), "other.example");
    assert_eq!(secure(&impostor, "https://localhost").call(Request::get("/to/x")).status, 502);
}

#[test]
fn an_https_backend_that_offers_http_2_is_spoken_to_in_it() {
    let backend = ModernBackend::start(Speech::Tls(&["h2", "http/1.1"]));
    let gateway = secure(&backend, "https://localhost");
    check_http2(&backend, &gateway);
}

#[test]
fn a_backend_is_spoken_to_in_http_2_where_its_definition_says_so() {
    let backend = ModernBackend::start(Speech::Http2);
    let mut api = api("shop", "http://localhost", backend.port());
    api["proxy"]["http2"] = json!(true);
    let gateway = gateway(&json!([api]), &[("PROXY_RECV_TIMEOUT", "500")]);
    check_http2(&backend, &gateway);
    assert_eq!(gateway.call(Request::get("/to/hang")).status, 504);
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200, "one late answer harms no other");
}

#[test]
fn an_http_2_connection_that_nothing_comes_over_any_more_is_replaced() {
    let backend = ModernBackend::start(Speech::Http2);
    let mut api = api("shop", "http://localhost", backend.port());
    api["proxy"]["http2"] = json!(true);
    let gateway = gateway(&json!([api]), &[("PROXY_RECV_TIMEOUT", "500")]);
    assert_eq!(gateway.call(Request::get("/to/x")).status, 200);
    assert_eq!(gateway.call(Request::get("/to/freeze")).status, 504);
    wait_for("an answer over another connection", || (gateway.call(Request::get("/to/x")).status == 200).then_some(()));
}

fn check_http2(backend: &ModernBackend, gateway: &Gateway) {
    let authority = format!("localhost:{}", backend.port());
    for size in [0, 5, 200_000] {
        let body = "b".repeat(size);
        let request =
            Request::new("POST", "/to/x").header("cookie", "a=1").header("connection", "keep-alive").body(&body);
        let answer = gateway.call(request);
        assert_eq!((answer.status, answer.text().len()), (200, size));
        assert_eq!(answer.header("x-protocol"), Some("h2"));
        assert_eq!(answer.header("x-authority"), Some(authority.as_str()));
        assert_eq!(answer.header("x-cookie"), Some("a=1"));
    }
    let client = Http2Connection::open(gateway);
    let answer = client.call_with("POST", "/to/x", &[("te", "trailers")], b"both");
    assert_eq!((&answer.body()[..], &answer.headers()["x-te"]), (&b"both"[..], &"trailers".parse().expect("text")));
    let mut clients: Vec<_> = (0..50)
        .map(|number| {
            let mut connection = Connection::open(gateway.inbound());
            connection.send(Request::new("POST", "/to/x").body(number.to_string()).to_bytes());
            connection
        })
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), number.to_string());
    }
    assert_eq!(backend.accepted(), 1, "all on one connection");
}
