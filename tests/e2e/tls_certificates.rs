//! Issue 5, item 4: which certificate is shown, encrypted keys, and changes of the files.

use std::fs;

use rcgen::KeyPair;
use serde_json::json;

use crate::support::clients::{Client, Transport};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::tls::{Authority, names_of};
use crate::support::wait_for;

fn shown(authority: &Authority, gateway: &Gateway, name: &str) -> Vec<String> {
    names_of(&authority.client().connect(gateway.inbound_tls(), name).expect("a handshake"))
}

fn reloads(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metrics().sum_where("tidegate_tls_reloads_total", &[("outcome", outcome)])
}

fn wait_for_reloads(gateway: &Gateway, outcome: &str, count: f64) {
    wait_for(&format!("reloads to be {outcome}"), || (reloads(gateway, outcome) >= count).then_some(()));
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let authority = Authority::new();
    let first = authority.issue(&["localhost"]);
    let shop = authority.issue(&["shop.example", "www.shop.example"]);
    let wildcard = authority.issue_as("wildcard", &["*.shop.example"]);
    let certificates = [&*first.certificate, &shop.certificate, &wildcard.certificate].join(",");
    let keys = [&*first.key, &shop.key, &wildcard.key].join(", ");
    let gateway = Gateway::with(&[("HTTPS_CERTFILE", &certificates), ("HTTPS_KEYFILE", &keys)]);
    assert_eq!(shown(&authority, &gateway, "localhost"), ["localhost"]);
    assert_eq!(shown(&authority, &gateway, "www.shop.example"), ["shop.example", "www.shop.example"]);
    assert_eq!(shown(&authority, &gateway, "api.shop.example"), ["*.shop.example"]);
    // Who asks for another name gets the first, and refuses it.
    let refused = authority.client().connect(gateway.inbound_tls(), "elsewhere.example").expect_err("another name");
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
}

#[test]
fn encrypted_keys_are_opened_with_the_passphrase() {
    let authority = Authority::new();
    let key = KeyPair::generate().expect("a key");
    let pair = authority.issue_with_key("localhost", &["localhost"], &key);
    let opened = openssl::pkey::PKey::private_key_from_pem(key.serialize_pem().as_bytes()).expect("PEM");
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let traditional = opened.ec_key().expect("an EC key").private_key_to_pem_passphrase(cipher, b"open sesame");
    for encrypted in [opened.private_key_to_pem_pkcs8_passphrase(cipher, b"open sesame"), traditional] {
        fs::write(&pair.key, encrypted.expect("PEM")).expect("the folder can be written to");
        let files = [("HTTPS_CERTFILE", &*pair.certificate), ("HTTPS_KEYFILE", &*pair.key)];
        let gateway = Gateway::with(&[&files[..], &[("HTTPS_KEYFILE_PASS", "open sesame")]].concat());
        assert_eq!(shown(&authority, &gateway, "localhost"), ["localhost"]);
        assert!(!gateway.log().contains("sesame"));
        let refusal = Gateway::refused(&[&files[..], &[("HTTPS_KEYFILE_PASS", "guess")]].concat());
        assert_eq!(refusal.status.code(), Some(2));
        assert!(refusal.text.contains("HTTPS_KEYFILE_PASS") && !refusal.text.contains("guess"), "{}", refusal.text);
        let refusal = Gateway::refused(&files);
        assert!(refusal.text.contains("the key is encrypted"), "{}", refusal.text);
    }
}

#[test]
fn settings_that_can_not_serve_tls_are_all_listed() {
    let refusal = Gateway::refused(&[("HTTPS_CERTFILE", "/nope"), ("INTERNAL_TOKEN", "short")]);
    assert_eq!(refusal.status.code(), Some(2));
    for text in ["Please also set HTTPS_KEYFILE to enable HTTPS.", "INTERNAL_TOKEN"] {
        assert!(refusal.text.contains(text), "{text:?} in {}", refusal.text);
    }
    let refusal = Gateway::refused(&[("HTTPS_CERTFILE", "/nope"), ("HTTPS_KEYFILE", "/neither")]);
    for text in ["Could not resolve HTTPS_CERTFILE: \"/nope\"", "Could not resolve HTTPS_KEYFILE: \"/neither\""] {
        assert!(refusal.text.contains(text), "{text:?} in {}", refusal.text);
    }
}

#[test]
fn a_new_certificate_is_shown_after_a_signal_and_no_connection_is_dropped() {
    let authority = Authority::new();
    let mut gateway = authority.gateway(&[("HTTPS_RELOAD_SECONDS", "0")]);
    let _tunnel = authority.client().in_front_of(&mut gateway);
    let mut clients = [Transport::Sse, Transport::WebSocket].map(|each| Client::of_type(&gateway, each, "greeting"));
    let expiry = gateway.metrics().sum("tidegate_tls_certificate_expiry_timestamp_seconds");
    assert!(expiry > 1e9, "{expiry}");

    authority.issue_as("localhost", &["localhost", "new.example"]);
    gateway.signal("HUP");
    wait_for_reloads(&gateway, "in_force", 1.0);
    wait_for("the new certificate", || {
        (shown(&authority, &gateway, "localhost") == ["localhost", "new.example"]).then_some(())
    });

    // A broken file changes nothing.
    fs::write(authority.path("localhost.key"), "nonsense").expect("the folder can be written to");
    gateway.signal("HUP");
    wait_for_reloads(&gateway, "refused", 1.0);
    gateway.wait_for_log("the former ones stay in force");
    assert_eq!(shown(&authority, &gateway, "localhost"), ["localhost", "new.example"]);

    publish(&gateway, &event("greeting", "1", &json!(null)));
    for client in &mut clients {
        client.expect_ids(&["1"]);
    }
    gateway.assert_alive();
}

#[test]
fn changed_files_are_noticed_without_a_signal_on_both_ports() {
    let authority = Authority::new();
    let gateway = authority.gateway(&[("HTTPS_RELOAD_SECONDS", "1")]);
    authority.issue_as("localhost", &["localhost", "new.example"]);
    wait_for_reloads(&gateway, "in_force", 1.0);
    for address in [gateway.inbound_tls(), gateway.internal_tls()] {
        wait_for("the new certificate", || {
            let stream = authority.client().connect(address, "localhost").expect("a handshake");
            (names_of(&stream) == ["localhost", "new.example"]).then_some(())
        });
    }
    assert_eq!(reloads(&gateway, "refused"), 0.0);
}
