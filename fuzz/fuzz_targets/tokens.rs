//! Tokens, and what keys are read from: PEM, key sets, credentials in heads.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use tidegate_shards::auth::algorithm::Algorithms;
use tidegate_shards::auth::compact::{Compact, MAX_TOKEN_BYTES};
use tidegate_shards::auth::key::{Key, Material};
use tidegate_shards::auth::settings::{Issuer, TokenSettings};
use tidegate_shards::auth::{Verifier, credentials, jwk, pem};
use tidegate_shards::sessions::SessionTable;

fuzz_target!(|bytes: &[u8]| {
    thread_local! {
        static VERIFIER: OnceLock<Verifier> = const { OnceLock::new() };
    }
    let _ = jwk::read(bytes, Algorithms::default(), true);
    assert!(credentials::any([bytes].into_iter()).count() <= credentials::MAX_CREDENTIALS);
    assert!(credentials::cookie([bytes].into_iter(), "a").count() <= credentials::MAX_CREDENTIALS);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = pem::read(text);
    if Compact::parse(text).is_ok() {
        assert!(text.len() <= MAX_TOKEN_BYTES);
    }
    VERIFIER.with(|verifier| {
        let refused = verifier.get_or_init(new_verifier).verify(text, 0);
        assert!(refused.is_err(), "nobody knows the key");
    });
});

fn new_verifier() -> Verifier {
    let material = Material::secret(b"what the fuzzer can't guess").expect("a key");
    let key = Key::new(None, material, Algorithms::default()).expect("a key");
    let settings =
        TokenSettings { issuers: vec![Issuer { keys: [key].into(), ..Issuer::default() }], ..TokenSettings::default() };
    Verifier::new(&settings, Arc::new(SessionTable::default()), Arc::default())
}
