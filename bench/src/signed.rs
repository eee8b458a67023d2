//! Tokens as an issuer signs them, for the check and for the crypto library's bare verification.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::error::Unspecified;
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

/// The time of all checks, in seconds since 1970.
pub const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const RSA: &str = include_str!("../../tests/data/keys/rsa.pem");
const RSA_PRIVATE: &str = include_str!("../../tests/data/keys/rsa.private.pem");
const P256: &str = include_str!("../../tests/data/keys/p256.pem");
const P256_PRIVATE: &str = include_str!("../../tests/data/keys/p256.private.pem");

/// A token, and its parts as the crypto library wants them.
pub struct Signed {
    /// The whole token.
    pub token: String,
    algorithm: Algorithm,
    text: String,
    signature: Vec<u8>,
    bare: Bare,
}

enum Bare {
    Hmac(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl Signed {
    /// A token of an hour with common claims. `algorithm` is HS256, RS256 or ES256.
    ///
    /// # Panics
    /// The keys of the repository's tests are broken.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let text = text(algorithm);
        let (signature, bare) = match algorithm {
            Algorithm::Rs256 => {
                let key = RsaKeyPair::from_pkcs8(&der(RSA_PRIVATE)).expect("invariant: an RSA key");
                let mut signature = vec![0; key.public().modulus_len()];
                let signed = key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature);
                signed.expect("invariant: there is room for the signature");
                let public = key.public().as_ref().to_vec();
                (signature, Bare::Public(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)))
            }
            Algorithm::Es256 => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der(P256_PRIVATE), &random);
                let key = key.expect("invariant: a P-256 key");
                let signature = key.sign(&random, text.as_bytes()).expect("invariant: there are random numbers");
                let public = key.public_key().as_ref().to_vec();
                (signature.as_ref().to_vec(), Bare::Public(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)))
            }
            _ => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
                (hmac::sign(&key, text.as_bytes()).as_ref().to_vec(), Bare::Hmac(key))
            }
        };
        let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(&signature));
        Self { token, algorithm, text, signature, bare }
    }

    /// The library's verification of the signature alone.
    ///
    /// # Errors
    /// It is wrong.
    pub fn verify_bare(&self) -> Result<(), Unspecified> {
        match &self.bare {
            Bare::Hmac(key) => hmac::verify(key, self.text.as_bytes(), &self.signature),
            Bare::Public(key) => key.verify(self.text.as_bytes(), &self.signature),
        }
    }

    /// What checks such tokens and remembers them in so many bytes; with 0, every token is checked anew.
    ///
    /// # Panics
    /// The keys of the repository's tests are broken.
    #[must_use]
    pub fn verifier(&self, cache_bytes: usize) -> Verifier {
        let public = |pem: &str| pem::read(pem).expect("invariant: a public key").remove(0);
        let material = match self.algorithm {
            Algorithm::Rs256 => public(RSA),
            Algorithm::Es256 => public(P256),
            _ => Material::secret(SECRET).expect("invariant: a secret that is long enough"),
        };
        let key = Key::new(None, material, self.algorithm.into()).expect("invariant: the key is for the algorithm");
        let issuer = Issuer { keys: [key].into(), ..Issuer::default() };
        let settings = TokenSettings { issuers: vec![issuer], cache_bytes, ..TokenSettings::default() };
        Verifier::new(&settings, Arc::new(SessionTable::default()), Arc::default())
    }
}

fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).expect("invariant: a PEM file")
}

fn text(algorithm: Algorithm) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let claims = format!(
        r#"{{"iss":"https://id.example","sub":"5f2b9a10","aud":"shop","jti":"0a1b2c3d4e5f","name":"Jo Doe","exp":{}}}"#,
        NOW_S + 3_600
    );
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_verified_bare_and_by_the_check() {
        for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256] {
            let signed = Signed::new(algorithm);
            assert!(signed.verify_bare().is_ok(), "{algorithm}");
            assert!(signed.verifier(0).verify(&signed.token, NOW_S).is_ok(), "{algorithm}");
        }
    }
}
