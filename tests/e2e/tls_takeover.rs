//! Draining and taking over with TLS: the TLS ports do what the plain ones do.

use crate::support::gateway::Gateway;
use crate::support::sse::{EventStream, Item};
use crate::support::tls::Authority;
use crate::support::wait_for;
use crate::support::websocket::WebSocketClient;

const HEALTH: &str = "GET /_rig/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[test]
fn clients_with_tls_are_moved_away_in_order() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    let mut stream = EventStream::open(&gateway, "");
    stream.next_event();
    stream.next_event();
    let socket = WebSocketClient::open(&gateway, "");
    gateway.signal("TERM");
    let Some(Item::Event(last)) = stream.next_item() else { panic!("a last block is expected") };
    assert_eq!(last.fields, ["retry"]);
    assert_eq!(stream.next_item(), None, "the stream ends in order");
    assert_eq!(u16::from(socket.wait_for_close().code), 1012);
    assert!(gateway.wait_for_end().success());
}

#[test]
fn both_tls_ports_are_refused_while_another_gateway_has_them_and_can_be_taken_over() {
    let authority = Authority::new();
    let mut old = authority.gateway(&[]);
    let client = authority.client();
    let (inbound, internal) = (old.inbound_tls(), old.internal_tls());
    let (inbound_port, internal_port) = (inbound.port().to_string(), internal.port().to_string());
    let pair = authority.issue(&["localhost"]);
    let files = [("HTTPS_CERTFILE", &*pair.certificate), ("HTTPS_KEYFILE", &*pair.key)];
    for port in [("INBOUND_HTTPS_PORT", &*inbound_port), ("API_HTTPS_PORT", &*internal_port)] {
        let refusal = Gateway::refused(&[&files[..], &[port]].concat());
        assert!(!refusal.status.success());
        assert!(refusal.text.contains("TAKEOVER=true"), "{}", refusal.text);
    }
    let new = authority.gateway(&[
        ("INBOUND_HTTPS_PORT", &*inbound_port),
        ("API_HTTPS_PORT", &*internal_port),
        ("TAKEOVER", "true"),
    ]);
    assert_eq!((new.inbound_tls(), new.internal_tls()), (inbound, internal));
    let held = client.connect(inbound, "localhost").expect("a handshake");
    old.signal("TERM");
    drop(held);
    assert!(old.wait_for_end().success());
    wait_for("the new process to answer", || client.call(inbound, HEALTH).ok());
    for _ in 0..20 {
        let answer = client.call(inbound, HEALTH).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let answer = client.call(internal, &HEALTH.replace("/_rig", "")).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
