//! Issue 5, item 4: handshakes are bounded in time and number, and those that fail are counted by reason.

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::tls::Authority;
use crate::support::wait_for;

fn failures(gateway: &Gateway, port: &str, reason: &str) -> f64 {
    let labels = [("port", port), ("reason", reason)];
    gateway.metrics().sum_where("tidegate_tls_handshake_failures_total", &labels)
}

fn wait_for_failure(gateway: &Gateway, port: &str, reason: &str) {
    wait_for(&format!("a failure {reason} on the {port} port"), || {
        (failures(gateway, port, reason) >= 1.0).then_some(())
    });
}

#[test]
fn plain_http_on_the_tls_ports_is_told_so() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    for (address, port) in [(gateway.inbound_tls(), "inbound"), (gateway.internal_tls(), "internal")] {
        let answer = Request::get("/_rig/health").send_to(address);
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("speaks TLS"), "{answer:?}");
        wait_for_failure(&gateway, port, "not_tls");
        let mut connection = Connection::open(address);
        connection.send([0; 100]);
        connection.assert_closed();
    }
    gateway.assert_alive();
}

#[test]
fn what_is_no_handshake_ends_the_connection() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[]);
    let mut connection = Connection::open(gateway.inbound_tls());
    connection.send(b"\x16\x03\x01\x00\x05hello");
    connection.until_end();
    wait_for_failure(&gateway, "inbound", "malformed");
    let mut connection = Connection::open(gateway.inbound_tls());
    connection.send(b"\x16\x03\x01");
    drop(connection);
    wait_for_failure(&gateway, "inbound", "closed");
    gateway.assert_alive();
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_counted() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[]);
    for (address, port) in [(gateway.inbound_tls(), "inbound"), (gateway.internal_tls(), "internal")] {
        authority.client().suspicious().connect(address, "localhost").expect_err("it trusts nobody");
        wait_for_failure(&gateway, port, "refused_by_client");
    }
}

#[test]
fn a_handshake_has_its_time() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[("HTTPS_HANDSHAKE_TIMEOUT_MS", "100")]);
    for (address, port) in [(gateway.inbound_tls(), "inbound"), (gateway.internal_tls(), "internal")] {
        let mut silent = Connection::open(address);
        let mut begun = Connection::open(address);
        begun.send(b"\x16\x03\x01\x02\x00\x01");
        silent.assert_closed();
        begun.until_end();
        wait_for(&format!("two timeouts on the {port} port"), || {
            (failures(&gateway, port, "timeout") >= 2.0).then_some(())
        });
    }
    assert_eq!(gateway.metrics().sum("tidegate_tls_handshakes_in_progress"), 0.0);
    gateway.assert_alive();
}

#[test]
fn only_so_many_handshakes_are_in_progress() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[("HTTPS_MAX_HANDSHAKES", "2")]);
    for (address, port) in [(gateway.inbound_tls(), "inbound"), (gateway.internal_tls(), "internal")] {
        let silent = [Connection::open(address), Connection::open(address)];
        let mut third = Connection::open(address);
        third.assert_closed();
        wait_for_failure(&gateway, port, "too_many");
        drop(silent);
        wait_for("room for another", || authority.client().connect(address, "localhost").ok());
    }
}

#[test]
fn a_header_of_the_proxy_protocol_comes_before_the_handshake_and_counts_for_its_client() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("PROXY_PROTOCOL", "true"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "1"),
    ]);
    let client = authority.client();
    let connect = |address: &str| {
        let header = format!("PROXY TCP4 {address} 192.0.2.1 4711 443\r\n");
        client.connect_after(header.as_bytes(), gateway.inbound_tls(), "localhost")
    };
    let first = connect("198.51.100.7").expect("a handshake");
    connect("198.51.100.7").expect_err("it holds as many as it may, and isn't told so in the clear");
    connect("198.51.100.8").expect("another client's handshake");
    client.connect(gateway.inbound_tls(), "localhost").expect_err("the proxy must say whom it speaks for");
    drop(first);
    wait_for("its place to be free", || connect("198.51.100.7").ok());
    let refused = gateway.metrics().sum_where("tidegate_connections_refused_total", &[("limit", "per_address")]);
    assert!(refused >= 1.0, "{refused} were refused");
}
