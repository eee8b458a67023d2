//! What a token costs: found again, and verified for the first time, beside the crypto library's bare verification.

use std::hint::black_box;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use tidegate_shards::auth::Verifier;
use tidegate_shards::auth::algorithm::Algorithm;
use tidegate_shards::auth::key::{Key, Material};
use tidegate_shards::auth::pem;
use tidegate_shards::auth::settings::{Issuer, TokenSettings};
use tidegate_shards::sessions::SessionTable;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

fn private(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).expect("a PEM file")
}

fn text(algorithm: Algorithm) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let claims = format!(
        r#"{{"iss":"https://id.example","sub":"5f2b9a10","aud":"shop","jti":"0a1b2c3d4e5f","name":"Jo Doe","exp":{}}}"#,
        NOW_S + 3_600
    );
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

fn verifier(key: Material, algorithm: Algorithm, cache_bytes: usize) -> Verifier {
    let key = Key::new(None, key, algorithm.into()).expect("the key is for it");
    let issuer = Issuer { keys: [key].into(), ..Issuer::default() };
    let settings = TokenSettings { issuers: vec![issuer], cache_bytes, ..TokenSettings::default() };
    Verifier::new(&settings, Arc::new(SessionTable::default()), Arc::default())
}

fn tokens(criterion: &mut Criterion) {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::from_pkcs8(&private(include_str!("../../tests/data/keys/rsa.private.pem"))).expect("a key");
    let p256 = private(include_str!("../../tests/data/keys/p256.private.pem"));
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &p256, &random).expect("a key");
    let secret = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let public = |pem: &str| pem::read(pem).expect("a key").remove(0);

    let signed = |algorithm| {
        let text = text(algorithm);
        let signature = match algorithm {
            Algorithm::Rs256 => {
                let mut signature = vec![0; rsa.public().modulus_len()];
                rsa.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).expect("it signs");
                signature
            }
            Algorithm::Es256 => p256.sign(&random, text.as_bytes()).expect("it signs").as_ref().to_vec(),
            _ => hmac::sign(&secret, text.as_bytes()).as_ref().to_vec(),
        };
        (format!("{text}.{}", URL_SAFE_NO_PAD.encode(&signature)), text, signature)
    };
    let (token, ..) = signed(Algorithm::Hs256);
    let cached = verifier(Material::secret(SECRET).expect("a key"), Algorithm::Hs256, 1 << 20);
    criterion.bench_function("token check cached", |bencher| {
        bencher.iter(|| cached.verify(black_box(&token), NOW_S).expect("it is valid"));
    });
    for (algorithm, key) in [
        (Algorithm::Hs256, Material::secret(SECRET).expect("a key")),
        (Algorithm::Rs256, public(include_str!("../../tests/data/keys/rsa.pem"))),
        (Algorithm::Es256, public(include_str!("../../tests/data/keys/p256.pem"))),
    ] {
        let (token, text, signature) = signed(algorithm);
        // Without memory, every token is verified anew.
        let uncached = verifier(key, algorithm, 0);
        criterion.bench_function(&format!("token check {algorithm}"), |bencher| {
            bencher.iter(|| uncached.verify(black_box(&token), NOW_S).expect("it is valid"));
        });
        let rsa = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.public().as_ref());
        let p256 = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, p256.public_key().as_ref());
        criterion.bench_function(&format!("bare {algorithm}"), |bencher| {
            bencher.iter(|| match algorithm {
                Algorithm::Rs256 => rsa.verify(black_box(text.as_bytes()), &signature),
                Algorithm::Es256 => p256.verify(black_box(text.as_bytes()), &signature),
                _ => hmac::verify(&secret, black_box(text.as_bytes()), &signature),
            });
        });
    }
}

criterion_group!(benches, tokens);
criterion_main!(benches);
