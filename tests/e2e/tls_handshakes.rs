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
