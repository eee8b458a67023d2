//! Issue 5, item 4: all that works on the plain port works over TLS.

use std::io::{Read, Write};

use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::support::backend::{self, Backend, Peer};
use crate::support::clients::{Client, TRANSPORTS, Transport, put_request, query, to_type};
use crate::support::events::{accepted, batch, event, publish};
use crate::support::http::{Connection, Request};
use crate::support::http2::Http2Connection;
use crate::support::longpolling::LongPolling;
use crate::support::tls::Authority;
use crate::support::wait_for;
use crate::support::websocket_frames::{ACCEPT, upgrade};

#[test]
fn every_transport_gets_its_events_over_tls_1_2_and_1_3() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let mut gateway = authority.gateway(&[]);
        let _tunnel = authority.client().version(version).in_front_of(&mut gateway);
        let mut clients = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
        let ids: Vec<_> = (0..50).map(|id| id.to_string()).collect();
        for id in &ids {
            publish(&gateway, &event("greeting", id, &json!("x".repeat(1_000))));
        }
        for client in &mut clients {
            client.expect_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let label = if version.version == TLS12.version { "1.2" } else { "1.3" };
        let shaken = gateway.metrics().sum_where("tidegate_tls_handshakes_total", &[("version", label)]);
        assert!(shaken >= 53.0, "{shaken} handshakes of TLS {label}");
        gateway.assert_alive();
    }
}

#[test]
fn subscriptions_are_replaced_over_tls() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    for transport in TRANSPORTS {
        let mut client = Client::of_type(&gateway, transport, "before");
        let answer = gateway.call(put_request(transport.path(), &client.token, &to_type("after")));
        assert_eq!(answer.status, 204, "{transport:?}: {answer:?}");
        assert_eq!(client.next()["type"], "rig.subscriptions_set");
        publish(&gateway, &event("before", "1", &json!(null)));
        publish(&gateway, &event("after", "2", &json!(null)));
        client.expect_ids(&["2"]);
    }
}

#[test]
fn requests_on_one_connection_are_followed_by_a_stream_on_it() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    let mut connection = Connection::open(gateway.inbound());
    for _ in 0..3 {
        assert_eq!(connection.request(&Request::get("/_rig/health")).text(), "OK");
        assert_eq!(connection.request(&Request::get("/nothing")).status, 404);
    }
    let target = format!("/_rig/v1/connection/sse?{}", query(&to_type("greeting")));
    connection.send(Request::get(&target).to_bytes());
    let mut stream = crate::support::sse::EventStream::on_connection(connection);
    for _ in 0..2 {
        stream.next_event();
    }
    publish(&gateway, &event("greeting", "1", &json!(null)));
    assert!(stream.next_event().data.contains("\"id\":\"1\""));
}

#[test]
fn http_2_carries_calls_and_event_streams() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    let _tunnel = authority.client().protocols(&["h2"]).in_front_of(&mut gateway);
    let connection = Http2Connection::open(&gateway);
    let (head, mut stream) = connection.event_stream(&query(&to_type("greeting")));
    assert_eq!(head.status(), 200);
    assert_eq!(connection.call("GET", "/_rig/health", None, b"").body().as_ref(), b"OK");
    for _ in 0..2 {
        stream.next_event();
    }
    let body = event("greeting", "1", &json!("x".repeat(100_000))).to_string();
    let answer = connection.call("POST", "/_rig/v1/events", Some("application/cloudevents+json"), body.as_bytes());
    assert_eq!(answer.status(), 202);
    assert!(stream.next_event().data.contains("\"id\":\"1\""));
}

#[test]
fn the_protocol_is_the_first_that_both_speak() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[]);
    for (offered, chosen) in [
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec!["http/1.0", "http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let stream = authority.client().protocols(&offered).connect(gateway.inbound_tls(), "localhost");
        let stream = stream.expect("a handshake");
        assert_eq!(stream.conn.alpn_protocol(), chosen.map(str::as_bytes), "of {offered:?}");
    }
    authority.client().protocols(&["smtp"]).connect(gateway.inbound_tls(), "localhost").expect_err("nothing in common");
    let failed = gateway.metrics().sum_where("tidegate_tls_handshake_failures_total", &[("reason", "incompatible")]);
    assert_eq!(failed, 1.0);
}

#[test]
fn backends_are_called_and_learn_that_the_client_came_over_tls() {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let (backend, notes) = Backend::noting();
    let mut gateway = backend.gateway(&[("HTTPS_CERTFILE", &pair.certificate), ("HTTPS_KEYFILE", &pair.key)]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    let body = "b".repeat(300_000);
    let answer = gateway.call(Request::new("POST", "/to/x").body(&body));
    assert_eq!(answer.status, 200);
    let received = notes.next();
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.body.len(), body.len());
}

#[test]
fn large_answers_of_backends_arrive_whole() {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let backend = Backend::saying(backend::ok(&large));
    let mut gateway = backend.gateway(&[("HTTPS_CERTFILE", &pair.certificate), ("HTTPS_KEYFILE", &pair.key)]);
    for version in [&TLS12, &TLS13] {
        let _tunnel = authority.client().version(version).in_front_of(&mut gateway);
        assert!(gateway.call(Request::get("/to/large")).body == large, "every byte is as it was sent");
    }
}

#[test]
fn a_web_socket_passes_to_a_backend() {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let backend = Backend::scripted(|peer: &mut Peer| {
        if peer.head().is_none() {
            return;
        }
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {ACCEPT}\r\n\r\n"
        ));
        while let Some(bytes) = peer.exactly(1) {
            peer.send(bytes);
        }
    });
    let mut gateway = backend.gateway(&[("HTTPS_CERTFILE", &pair.certificate), ("HTTPS_KEYFILE", &pair.key)]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    let mut connection = Connection::open(gateway.inbound());
    connection.send(upgrade("/to/socket").to_bytes());
    assert_eq!(connection.head().status, 101);
    let (mut stream, _) = connection.into_parts();
    for round in 0..100_u8 {
        let sent = [round; 37];
        stream.write_all(&sent).expect("the gateway takes bytes");
        let mut received = [0; 37];
        stream.read_exact(&mut received).expect("they come back");
        assert_eq!(received, sent);
    }
}

#[test]
fn a_client_that_never_reads_is_ended_at_its_bound_and_others_are_unaffected() {
    let bounds = [("MAX_QUEUE_BYTES", "1000000"), ("MAX_EVENT_BYTES", "450000"), ("MAX_BODY_BYTES", "450000")];
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let mut gateway = authority.gateway(&bounds);
        let address = gateway.inbound_tls();
        let _tunnel = authority.client().version(version).in_front_of(&mut gateway);
        let mut others = [Transport::Sse, Transport::WebSocket].map(|each| Client::of_type(&gateway, each, "flood"));
        let mut slow = authority.client().version(version).connect(address, "localhost").expect("a handshake");
        let target = format!("/_rig/v1/connection/sse?{}", query(&to_type("flood")));
        slow.write_all(&Request::get(&target).to_bytes()).expect("the gateway takes the request");
        wait_for("its stream to be open", || {
            (gateway.metrics().sum_where("tidegate_connections", &[("transport", "sse")]) == 2.0).then_some(())
        });
        let data = Value::from("x".repeat(20_000));
        let mut number = 0_u32;
        let mut most_bytes = 0_f64;
        wait_for("the slow client to be ended", || {
            let ids: Vec<_> = (number..number + 20).map(|id| id.to_string()).collect();
            number += 20;
            let events: Vec<_> = ids.iter().map(|id| event("flood", id, &data)).collect();
            accepted(&gateway, batch(json!(events).to_string()));
            for other in &mut others {
                other.expect_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>());
            }
            let metrics = gateway.metrics();
            if metrics.sum("tidegate_connections_slow_total") >= 1.0 {
                return Some(());
            }
            most_bytes = most_bytes.max(metrics.sum("tidegate_queue_bytes"));
            None
        });
        assert!(most_bytes <= 1_000_000.0, "{most_bytes} bytes waited");
        wait_for("the queues to be empty", || (gateway.metrics().sum("tidegate_queue_bytes") == 0.0).then_some(()));
        gateway.assert_alive();
    }
}

#[test]
fn a_client_that_reads_late_gets_every_event_once() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[("MAX_QUEUE_BYTES", "60000000")]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    let mut clients = [Transport::Sse, Transport::WebSocket].map(|each| Client::of_type(&gateway, each, "flood"));
    let data = Value::from("x".repeat(50_000));
    let ids: Vec<_> = (0..400).map(|id| id.to_string()).collect();
    for ids in ids.chunks(10) {
        let events: Vec<_> = ids.iter().map(|id| event("flood", id, &data)).collect();
        accepted(&gateway, batch(json!(events).to_string()));
    }
    wait_for("events to wait", || (gateway.metrics().sum("tidegate_queue_bytes") > 0.0).then_some(()));
    for client in &mut clients {
        client.expect_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    }
    wait_for("the queues to be empty", || (gateway.metrics().sum("tidegate_queue_bytes") == 0.0).then_some(()));
}

#[test]
fn a_long_polling_session_lives_on_across_connections_with_and_without_tls() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    let plain = gateway.inbound();
    let session = {
        let _tunnel = authority.client().in_front_of(&mut gateway);
        LongPolling::open(&gateway, &query(&to_type("greeting")))
    };
    gateway.call_through(plain);
    publish(&gateway, &event("greeting", "1", &json!(null)));
    let answer = session.request().send_to(plain);
    assert_eq!(answer.status, 200);
}
