//! Tokens at the front door: on connections, on secured endpoints, with keys of every origin.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::sessions_api::blacklist;
use crate::support::backend::{Backend, api, gateway, ok};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::{jwt, wait_for};

fn private(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).expect("a PEM file")
}

fn p256() -> EcdsaKeyPair {
    let key = private(include_str!("../data/keys/p256.private.pem"));
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &SystemRandom::new()).expect("a key")
}

fn text(header: &Value, claims: &Value) -> String {
    let mut all = json!({ "exp": jwt::now_s() + 3_600 });
    all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
    [header, &all].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn rs256(claims: &Value) -> String {
    let text = text(&json!({ "alg": "RS256" }), claims);
    let key = RsaKeyPair::from_pkcs8(&private(include_str!("../data/keys/rsa.private.pem"))).expect("a key");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("it signs");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn es256(kid: &str, claims: &Value) -> String {
    let text = text(&json!({ "alg": "ES256", "kid": kid }), claims);
    let signature = p256().sign(&SystemRandom::new(), text.as_bytes()).expect("it signs");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn key_set(kid: &str) -> String {
    let pair = p256();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y }] }).to_string()
}

fn opens(gateway: &Gateway, token: &str) -> bool {
    let answer = gateway.call(Request::get(&format!("/_rig/v1/connection/longpolling?jwt={token}")));
    assert!(matches!(answer.status, 200 | 400), "{}: {}", answer.status, answer.text());
    answer.status == 200
}

/// A definition whose endpoints want a token in these places.
fn secured(auth: &Value, port: u16) -> Value {
    let mut definition = api("shop", "http://127.0.0.1", port);
    definition["auth_type"] = json!("jwt");
    definition["auth"] = auth.clone();
    let endpoints = definition["version_data"]["default"]["endpoints"].as_array_mut().expect("a list");
    endpoints.iter_mut().for_each(|endpoint| endpoint["secured"] = json!(true));
    definition
}

#[test]
fn a_secured_endpoint_lets_valid_tokens_through_where_its_definition_says() {
    let backend = Backend::answering(|_| ok("ok"));
    let auth = json!({ "use_header": true, "header_name": "X-Token", "use_query": true, "query_name": "token" });
    let gateway = gateway(&json!([secured(&auth, backend.port())]), &[jwt::SETTING]);
    let token = jwt::of_session("me");
    let status = |request: Request| gateway.call(request).status;
    let with = |name: &str, value: &str| status(Request::get("/to/x").header(name, value));
    assert_eq!(with("authorization", &format!("Bearer {token}")), 200);
    assert_eq!(with("authorization", &format!("Basic abc, Bearer {token}")), 200, "one of several");
    assert_eq!(with("x-token", &token), 200);
    assert_eq!(with("x-token", &format!("Bearer {token}")), 200);
    assert_eq!(status(Request::get(&format!("/to/x?token={token}"))), 200);
    for (name, value) in [("x-token", "a.b.c"), ("x-other", token.as_str()), ("authorization", token.as_str())] {
        assert_eq!(with(name, value), 401, "{name}: {value}");
    }
    assert_eq!(status(Request::get(&format!("/to/x?jwt={token}"))), 401, "another parameter");
    let expired = jwt::token(&json!({ "exp": jwt::now_s() - 1 }));
    let refused = gateway.call(Request::get("/to/x").header("authorization", format!("Bearer {expired}")));
    assert_eq!((refused.status, refused.text()), (401, "Authentication failed."));
    assert_eq!(gateway.metrics().sum_where("tidegate_tokens_refused_total", &[("reason", "expired")]), 1.0);
    assert!(gateway.metrics().sum("tidegate_tokens_cached_total") >= 1.0);
}

#[test]
fn a_bearer_token_is_accepted_without_auth_and_refused_once_its_session_is_blacklisted() {
    let backend = Backend::answering(|_| ok("ok"));
    let mut definition = secured(&json!({}), backend.port());
    definition.as_object_mut().expect("an object").remove("auth");
    let gateway = gateway(&json!([definition]), &[jwt::SETTING]);
    let status = |session: &str| {
        let bearer = format!("Bearer {}", jwt::of_session(session));
        gateway.call(Request::get("/to/x").header("authorization", bearer)).status
    };
    assert_eq!((status("thief"), status("owner")), (200, 200));
    assert_eq!(gateway.call(Request::get("/to/x")).status, 401);
    blacklist(&gateway, "thief", 600);
    assert_eq!((status("thief"), status("owner")), (401, 200));
}

#[test]
fn a_query_that_is_not_utf_8_is_no_token_and_hides_none() {
    let backend = Backend::answering(|_| ok("ok"));
    let auth = json!({ "use_query": true, "query_name": "token" });
    let gateway = gateway(&json!([secured(&auth, backend.port())]), &[jwt::SETTING]);
    let token = jwt::of_session("me");
    for (query, expected) in [
        ("token=%FF".to_owned(), 401),
        ("%FF=%zz&token=".to_owned(), 401),
        (format!("%FF=%zz&x=%FF&token={token}"), 200),
    ] {
        assert_eq!(gateway.call(Request::get(&format!("/to/x?{query}"))).status, expected, "{query}");
    }
}

#[test]
fn the_request_log_tells_of_calls_that_were_let_in_alone() {
    let backend = Backend::answering(|_| ok("ok"));
    let definitions = json!([secured(&json!({}), backend.port())]);
    let gateway = gateway(&definitions, &[jwt::SETTING, ("REQUEST_LOG", "console")]);
    assert_eq!(gateway.call(Request::new("POST", "/to/x")).status, 401);
    assert_eq!(gateway.call(Request::get("/nowhere")).status, 404);
    let bearer = format!("Bearer {}", jwt::of_session("me"));
    assert_eq!(gateway.call(Request::get("/to/x").header("authorization", bearer)).status, 200);
    gateway.wait_for_log(&format!("CALL: [to-GET] GET /to/.* => http://127.0.0.1:{}", backend.port()));
    assert_eq!(gateway.log().matches("CALL: ").count(), 1, "{}", gateway.log());
}

#[test]
fn a_public_key_in_jwt_secret_key_verifies_its_tokens_and_is_no_secret() {
    let pem = include_str!("../data/keys/rsa.pem");
    let gateway = Gateway::with(&[("JWT_SECRET_KEY", pem), ("JWT_ALG", "RS256")]);
    assert!(opens(&gateway, &rs256(&json!({}))));
    let text = text(&json!({ "alg": "HS256" }), &json!({}));
    for secret in [pem, pem.trim()] {
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
        assert!(!opens(&gateway, &format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))), "algorithm confusion");
    }
    assert!(!opens(&gateway, &format!("{text}.")), "no signature");
}

#[test]
fn an_unset_secret_refuses_every_token_even_one_of_the_empty_key() {
    let gateway = Gateway::with(&[("JWT_SECRET_KEY", "")]);
    let text = text(&json!({ "alg": "HS256" }), &json!({}));
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b""), text.as_bytes());
    assert!(!opens(&gateway, &format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))));
}

#[test]
fn several_issuers_have_their_own_keys_and_audiences() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("keys.json");
    std::fs::write(&path, key_set("1")).expect("a file can be written");
    let rsa = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/rsa.pem");
    let issuers = json!([
        { "issuer": "a", "keys": rsa, "audience": ["shop", "desk"] },
        { "issuer": "b", "jwks": path.to_str().expect("UTF-8") },
    ]);
    let gateway = Gateway::with(&[("JWT_ISSUERS", &issuers.to_string())]);
    assert!(opens(&gateway, &rs256(&json!({ "iss": "a", "aud": "desk" }))));
    assert!(opens(&gateway, &es256("1", &json!({ "iss": "b" }))));
    assert!(!opens(&gateway, &rs256(&json!({ "iss": "a", "aud": "bank" }))), "another audience");
    assert!(!opens(&gateway, &rs256(&json!({ "iss": "b" }))), "the key of another issuer");
    assert!(!opens(&gateway, &es256("1", &json!({ "iss": "c" }))), "an unknown issuer");
}

#[test]
fn keys_behind_a_url_come_into_force_once_it_answers_and_a_new_kid_fetches_them_again() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PHASE: AtomicUsize = AtomicUsize::new(0);
    let provider = Backend::answering(|_| match PHASE.load(Ordering::SeqCst) {
        0 => b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec(),
        1 => ok(key_set("old")),
        _ => ok(key_set("new")),
    });
    let url = format!("http://127.0.0.1:{}/keys", provider.port());
    let gateway = Gateway::with(&[("JWT_JWKS", &url), ("MAX_CONNECTIONS_PER_MINUTE", "100000")]);
    assert!(!opens(&gateway, &es256("old", &json!({}))), "there is no key yet");
    assert!(gateway.metrics().sum_where("tidegate_key_fetches_total", &[("outcome", "failed")]) >= 1.0);
    gateway.wait_for_log("can't be fetched");
    PHASE.store(1, Ordering::SeqCst);
    wait_for("the keys", || opens(&gateway, &es256("old", &json!({}))).then_some(()));
    PHASE.store(2, Ordering::SeqCst);
    wait_for("the new keys", || opens(&gateway, &es256("new", &json!({}))).then_some(()));
    assert!(!opens(&gateway, &es256("old", &json!({}))), "the old key has gone");
}

#[test]
fn a_cookie_holds_a_token_where_it_is_configured() {
    let definitions = json!([]).to_string();
    let settings = [jwt::SETTING, ("JWT_COOKIE", "session"), ("SUBSCRIPTION_CHECK", "jwt_validation")];
    let gateway = Gateway::with(&[&settings[..], &[("PROXY_CONFIG_FILE", &definitions)]].concat());
    let call = |cookie: String| {
        let path = "/_rig/v1/connection/longpolling?subscriptions=%5B%5D";
        gateway.call(Request::get(path).header("cookie", cookie)).status
    };
    assert_eq!(call(format!("a=b; session={}", jwt::of_session("me"))), 200);
    assert_eq!(call(format!("other={}", jwt::of_session("me"))), 400);
    assert_eq!(call("session=a.b.c".to_owned()), 400);
}
