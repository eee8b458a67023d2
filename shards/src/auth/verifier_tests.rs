use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::*;
use crate::auth::algorithm::Algorithms;
use crate::auth::compact::MAX_DEPTH;
use crate::auth::key::{KeyError, Material};
use crate::auth::{jwk, pem};

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

macro_rules! key_file {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/keys/", $name))
    };
}

/// A blacklist of one name.
#[derive(Debug)]
struct Blacklisted(&'static str);

impl SessionList for Blacklisted {
    fn is_blacklisted(&self, session: &str) -> bool {
        session == self.0
    }
}

fn private(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).expect("a PEM file")
}

fn signature(algorithm: Algorithm, text: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |padding: &'static dyn RsaEncoding| {
        let pair = RsaKeyPair::from_pkcs8(&private(key_file!("rsa.private.pem"))).unwrap();
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(padding, &random, text, &mut signature).unwrap();
        signature
    };
    let ecdsa = |kind, pem: &str| {
        let pair = EcdsaKeyPair::from_pkcs8(kind, &private(pem), &random).unwrap();
        pair.sign(&random, text).unwrap().as_ref().to_vec()
    };
    let mac = |hash| hmac::sign(&hmac::Key::new(hash, SECRET), text).as_ref().to_vec();
    match algorithm {
        Algorithm::Hs256 => mac(hmac::HMAC_SHA256),
        Algorithm::Hs384 => mac(hmac::HMAC_SHA384),
        Algorithm::Hs512 => mac(hmac::HMAC_SHA512),
        Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
        Algorithm::Rs384 => rsa(&RSA_PKCS1_SHA384),
        Algorithm::Rs512 => rsa(&RSA_PKCS1_SHA512),
        Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
        Algorithm::Ps384 => rsa(&RSA_PSS_SHA384),
        Algorithm::Ps512 => rsa(&RSA_PSS_SHA512),
        Algorithm::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, key_file!("p256.private.pem")),
        Algorithm::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, key_file!("p384.private.pem")),
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private(key_file!("ed25519.private.pem"))).unwrap();
            pair.sign(text).as_ref().to_vec()
        }
    }
}

fn material(algorithm: Algorithm) -> Material {
    let text = match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return Material::secret(SECRET).unwrap(),
        Algorithm::Es256 => key_file!("p256.pem"),
        Algorithm::Es384 => key_file!("p384.pem"),
        Algorithm::EdDsa => key_file!("ed25519.pem"),
        _ => key_file!("rsa.pem"),
    };
    pem::read(text).unwrap().remove(0)
}

fn encoded(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn signed(algorithm: Algorithm, header: &Value, claims: &Value) -> String {
    let text = encoded(header, claims);
    let signature = signature(algorithm, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token with these claims and an hour to live, unless they say otherwise.
fn token(algorithm: Algorithm, claims: Value) -> String {
    let mut all = json!({"exp": NOW_S + 3_600});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    signed(algorithm, &json!({"alg": algorithm.name(), "typ": "JWT"}), &all)
}

fn key(algorithm: Algorithm) -> Key {
    Key::new(None, material(algorithm), algorithm.into()).unwrap()
}

fn verifier_of(issuers: Vec<Issuer>) -> Verifier {
    let settings = TokenSettings { issuers, ..TokenSettings::default() };
    Verifier::new(&settings, Arc::new(Blacklisted("banned")), Arc::default())
}

fn verifier(algorithm: Algorithm) -> Verifier {
    verifier_of(vec![Issuer { keys: [key(algorithm)].into(), ..Issuer::default() }])
}

fn refusal(verifier: &Verifier, token: &str) -> TokenRefusal {
    verifier.verify(token, NOW_S).expect_err("it is refused")
}

fn refused_claims(claims: Value) -> TokenRefusal {
    refusal(&verifier(Algorithm::Hs256), &token(Algorithm::Hs256, claims))
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_others() {
    let tokens: Vec<_> = Algorithm::ALL.map(|algorithm| token(algorithm, json!({"a": 1}))).into();
    for algorithm in Algorithm::ALL {
        let verifier = verifier(algorithm);
        for (other, token) in Algorithm::ALL.into_iter().zip(&tokens) {
            let outcome = verifier.verify(token, NOW_S);
            if other == algorithm {
                assert_eq!(outcome.unwrap_or_else(|refusal| panic!("{algorithm}: {refusal}")).claims["a"], 1);
            } else {
                assert_eq!(outcome, Err(TokenRefusal::Algorithm), "{algorithm} takes no {other}");
            }
        }
    }
}

#[test]
fn a_changed_token_is_refused_whatever_the_algorithm() {
    for algorithm in Algorithm::ALL {
        let verifier = verifier(algorithm);
        let good = token(algorithm, json!({"user": "me"}));
        let other = token(algorithm, json!({"user": "you"}));
        let (claims, _) = other.rsplit_once('.').unwrap();
        let (_, signature) = good.rsplit_once('.').unwrap();
        assert_eq!(refusal(&verifier, &format!("{claims}.{signature}")), TokenRefusal::Signature, "{algorithm}");
        assert!(verifier.verify(&good, NOW_S).is_ok());
    }
}

#[test]
fn attack_alg_none_is_refused() {
    for algorithm in [Algorithm::Hs256, Algorithm::Rs256] {
        let verifier = verifier(algorithm);
        for name in ["none", "None", "NONE", "nOnE", ""] {
            let text = encoded(&json!({"alg": name}), &json!({"exp": NOW_S + 9}));
            assert_eq!(refusal(&verifier, &format!("{text}.")), TokenRefusal::Signature, "{name}");
            assert_eq!(refusal(&verifier, &format!("{text}.AAAA")), TokenRefusal::Algorithm, "{name}");
        }
    }
}

#[test]
fn attack_algorithm_confusion_with_the_public_key_as_a_secret_is_refused() {
    let verifier = verifier(Algorithm::Rs256);
    let text = encoded(&json!({"alg": "HS256"}), &json!({"exp": NOW_S + 9}));
    let pem = key_file!("rsa.pem");
    let der = private(pem);
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der, b""] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(refusal(&verifier, &forged), TokenRefusal::Algorithm);
    }
}

#[test]
fn attack_signature_stripping_is_refused() {
    let verifier = verifier(Algorithm::Rs256);
    let whole = token(Algorithm::Rs256, json!({}));
    let (text, _) = whole.rsplit_once('.').unwrap();
    assert_eq!(refusal(&verifier, text), TokenRefusal::Malformed);
    assert_eq!(refusal(&verifier, &format!("{text}.")), TokenRefusal::Signature);
    let cut_short = &whole[..text.len() + 1 + 4 * 50];
    assert_eq!(refusal(&verifier, cut_short), TokenRefusal::Signature);
}

#[test]
fn attack_kid_injection_names_no_other_key() {
    let named = Key::new(Some("a"), material(Algorithm::Hs256), Algorithm::Hs256.into()).unwrap();
    let verifier = verifier_of(vec![Issuer { keys: [named].into(), ..Issuer::default() }]);
    let with_kid =
        |kid: Value| signed(Algorithm::Hs256, &json!({"alg": "HS256", "kid": kid}), &json!({"exp": NOW_S + 9}));
    assert!(verifier.verify(&with_kid(json!("a")), NOW_S).is_ok());
    for kid in ["../../dev/null", "/etc/hostname", "' OR 1=1 --", "http://evil.example/key", "A", ""] {
        assert_eq!(refusal(&verifier, &with_kid(json!(kid))), TokenRefusal::UnknownKey, "{kid}");
    }
    assert_eq!(refusal(&verifier, &with_kid(json!({"a": 1}))), TokenRefusal::Malformed);
    let own =
        json!({"alg": "HS256", "kid": "b", "jwk": {"kty": "oct", "k": "AA"}, "jku": "http://evil.example", "x5u": "x"});
    let with_own_key = signed(Algorithm::Hs256, &own, &json!({"exp": NOW_S + 9}));
    assert_eq!(refusal(&verifier, &with_own_key), TokenRefusal::UnknownKey, "no key comes from the token");
}

#[test]
fn attack_expired_tokens_are_refused_and_so_are_those_that_never_expire() {
    for exp in [json!(NOW_S), json!(0), json!(-5), json!(1.5)] {
        assert_eq!(refused_claims(json!({"exp": exp})), TokenRefusal::Expired, "{exp}");
    }
    for exp in [json!("9999999999"), json!(null), json!(true), json!([NOW_S + 9])] {
        assert_eq!(refused_claims(json!({"exp": exp})), TokenRefusal::Times, "{exp}");
    }
    let without = signed(Algorithm::Hs256, &json!({"alg": "HS256"}), &json!({"sub": "me"}));
    assert_eq!(refusal(&verifier(Algorithm::Hs256), &without), TokenRefusal::Times);
}

#[test]
fn attack_tokens_that_are_not_valid_yet_are_refused() {
    assert_eq!(refused_claims(json!({"nbf": NOW_S + 1})), TokenRefusal::NotYetValid);
    assert_eq!(refused_claims(json!({"nbf": "now"})), TokenRefusal::Times);
    assert!(verifier(Algorithm::Hs256).verify(&token(Algorithm::Hs256, json!({"nbf": NOW_S})), NOW_S).is_ok());
}

#[test]
fn leeway_moves_both_ends() {
    let settings = TokenSettings {
        issuers: vec![Issuer { keys: [key(Algorithm::Hs256)].into(), ..Issuer::default() }],
        leeway_s: 10,
        ..TokenSettings::default()
    };
    let verifier = Verifier::new(&settings, Arc::new(Blacklisted("")), Arc::default());
    let at_end = token(Algorithm::Hs256, json!({"exp": NOW_S - 9, "nbf": NOW_S + 10}));
    assert_eq!(verifier.verify(&at_end, NOW_S).unwrap().expires_at_s, NOW_S + 1);
    assert_eq!(verifier.verify(&at_end, NOW_S + 1), Err(TokenRefusal::Expired), "also from the cache");
    assert_eq!(refusal(&verifier, &token(Algorithm::Hs256, json!({"nbf": NOW_S + 11}))), TokenRefusal::NotYetValid);
}

#[test]
fn attack_wrong_audience_and_wrong_issuer_are_refused() {
    let issuer = Issuer {
        name: Some("https://id.example".into()),
        audiences: ["shop".into()].into(),
        keys: [key(Algorithm::Hs256)].into(),
        refresh: None,
    };
    let verifier = verifier_of(vec![issuer]);
    let of = |iss: Value, aud: Value| token(Algorithm::Hs256, json!({"iss": iss, "aud": aud}));
    assert!(verifier.verify(&of(json!("https://id.example"), json!("shop")), NOW_S).is_ok());
    assert!(verifier.verify(&of(json!("https://id.example"), json!(["bank", "shop"])), NOW_S).is_ok());
    for aud in [json!("bank"), json!(["bank"]), json!([]), json!(null), json!({"shop": 1}), json!("shop ")] {
        assert_eq!(refusal(&verifier, &of(json!("https://id.example"), aud.clone())), TokenRefusal::Audience, "{aud}");
    }
    for iss in [json!("https://evil.example"), json!(null), json!(["https://id.example"])] {
        assert_eq!(refusal(&verifier, &of(iss.clone(), json!("shop"))), TokenRefusal::Issuer, "{iss}");
    }
}

#[test]
fn an_issuer_can_not_sign_for_another() {
    let issuer =
        |name: &str, algorithm| Issuer { name: Some(name.into()), keys: [key(algorithm)].into(), ..Issuer::default() };
    let verifier = verifier_of(vec![issuer("a", Algorithm::Es256), issuer("b", Algorithm::EdDsa)]);
    assert!(verifier.verify(&token(Algorithm::Es256, json!({"iss": "a"})), NOW_S).is_ok());
    assert!(verifier.verify(&token(Algorithm::EdDsa, json!({"iss": "b"})), NOW_S).is_ok());
    assert_eq!(refusal(&verifier, &token(Algorithm::EdDsa, json!({"iss": "a"}))), TokenRefusal::Algorithm);
}

#[test]
fn attack_oversized_and_deeply_nested_tokens_are_refused() {
    assert_eq!(refused_claims(json!({"a": "x".repeat(MAX_TOKEN_BYTES)})), TokenRefusal::Oversized);
    let nested = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(refused_claims(json!({"a": nested})), TokenRefusal::TooDeep);
}

#[test]
fn an_empty_secret_is_no_key_and_without_a_key_every_token_is_refused() {
    assert_eq!(Material::secret(b"").unwrap_err(), KeyError::Empty);
    let text = encoded(&json!({"alg": "HS256"}), &json!({"exp": NOW_S + 9}));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), text.as_bytes());
    let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(refusal(&verifier_of(Vec::new()), &forged), TokenRefusal::UnknownKey);
    assert_eq!(refusal(&verifier(Algorithm::Hs256), &forged), TokenRefusal::Signature);
}

#[test]
fn attack_a_million_bogus_tokens_leave_the_memory_bounded_and_a_good_one_cached() {
    let verifier = verifier(Algorithm::Hs256);
    let good = token(Algorithm::Hs256, json!({"jti": "me"}));
    verifier.verify(&good, NOW_S).unwrap();
    let (text, _) = good.rsplit_once('.').unwrap();
    for number in 0_u32..1_000_000 {
        let bogus = format!("{text}.{}", URL_SAFE_NO_PAD.encode(number.to_be_bytes()));
        assert_eq!(verifier.verify(&bogus, NOW_S), Err(TokenRefusal::Signature));
    }
    assert_eq!(verifier.cache.borrow().len(), 1, "nothing bogus is kept with the good ones");
    verifier.verify(&good, NOW_S).unwrap();
    assert_eq!(verifier.metrics.tokens.cached.get(), 1, "the good one was still there");
    assert_eq!(verifier.metrics.tokens.refused[TokenRefusal::Signature as usize].get(), 1_000_000);
}

#[test]
fn a_token_of_a_blacklisted_session_is_refused_though_it_is_cached() {
    let verifier = verifier(Algorithm::Hs256);
    assert_eq!(refusal(&verifier, &token(Algorithm::Hs256, json!({"jti": "banned"}))), TokenRefusal::Blacklisted);
    for (jti, session) in [(json!("s"), Some("s")), (json!(7), Some("7")), (json!(""), None), (json!(["s"]), None)] {
        let verified = verifier.verify(&token(Algorithm::Hs256, json!({"jti": jti})), NOW_S).unwrap();
        assert_eq!(verified.session.as_deref(), session, "{jti}");
    }
}

#[test]
fn new_keys_come_into_force_at_once_and_old_ones_end() {
    let verifier = verifier(Algorithm::Es256);
    let (old, new) = (token(Algorithm::Es256, json!({})), token(Algorithm::EdDsa, json!({})));
    assert!(verifier.verify(&old, NOW_S).is_ok());
    assert_eq!(refusal(&verifier, &new), TokenRefusal::Algorithm);
    verifier.set_keys(0, [key(Algorithm::Es256), key(Algorithm::EdDsa)].into());
    assert!(verifier.verify(&old, NOW_S).is_ok() && verifier.verify(&new, NOW_S).is_ok(), "both, while keys change");
    verifier.set_keys(0, [key(Algorithm::EdDsa)].into());
    assert_eq!(refusal(&verifier, &old), TokenRefusal::Algorithm, "not even from the cache");
}

#[test]
fn an_unknown_kid_asks_for_newer_keys_once() {
    let (ask, asked) = crossbeam::channel::bounded(1);
    let named = Key::new(Some("a"), material(Algorithm::Hs256), Algorithm::Hs256.into()).unwrap();
    let verifier = verifier_of(vec![Issuer { keys: [named].into(), refresh: Some(ask), ..Issuer::default() }]);
    let with_kid =
        |kid: &str| signed(Algorithm::Hs256, &json!({"alg": "HS256", "kid": kid}), &json!({"exp": NOW_S + 9}));
    verifier.verify(&with_kid("a"), NOW_S).unwrap();
    assert!(asked.try_recv().is_err(), "a known one doesn't");
    for number in 0..100 {
        assert_eq!(refusal(&verifier, &with_kid(&number.to_string())), TokenRefusal::UnknownKey);
    }
    assert_eq!(asked.len(), 1);
}

#[test]
fn keys_are_read_from_every_form_of_pem_and_what_can_not_be_used_says_why() {
    let signed = token(Algorithm::Rs256, json!({}));
    for text in [key_file!("rsa.pem"), key_file!("rsa.pkcs1.pem"), key_file!("rsa.certificate.pem")] {
        for text in [text.to_owned(), text.replace('\n', "\\n"), text.replace('\n', "\r\n")] {
            let materials = pem::read(&text).unwrap();
            let keys = materials.into_iter().map(|material| Key::new(None, material, Algorithms::default()).unwrap());
            let verifier = verifier_of(vec![Issuer { keys: keys.collect(), ..Issuer::default() }]);
            assert!(verifier.verify(&signed, NOW_S).is_ok(), "{text}");
        }
    }
    assert_eq!(pem::read(key_file!("rsa.private.pem")).unwrap_err(), KeyError::Private);
    assert_eq!(pem::read(key_file!("p521.pem")).unwrap_err(), KeyError::Unsupported);
    assert_eq!(pem::read(key_file!("rsa1024.pem")).unwrap_err(), KeyError::RsaSize);
    for text in ["", "secret", "-----BEGIN PUBLIC KEY-----", "-----BEGIN X-----\nAAAA\n-----END X-----"] {
        assert_eq!(pem::read(text).unwrap_err(), KeyError::Pem, "{text}");
    }
    let ec = pem::read(key_file!("p256.pem")).unwrap().remove(0);
    assert_eq!(Key::new(None, ec, Algorithm::Rs256.into()).unwrap_err(), KeyError::Algorithm);
}

#[test]
fn a_key_set_gives_its_usable_keys_and_no_secret_from_the_network() {
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    let set = json!({"keys": [
        {"kty": "oct", "k": secret, "kid": "s", "alg": "HS256"},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([1; 32]), "kid": "e"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([1; 32]), "use": "enc"},
        5
    ]})
    .to_string();
    let private = jwk::read(set.as_bytes(), Algorithms::default(), true).unwrap();
    assert_eq!(private.keys.iter().map(Key::id).collect::<Vec<_>>(), [Some("s"), Some("e")]);
    assert_eq!(private.unusable, Some((4, KeyError::Unsupported)));
    let public = jwk::read(set.as_bytes(), Algorithms::default(), false).unwrap();
    assert_eq!(public.keys.iter().map(Key::id).collect::<Vec<_>>(), [Some("e")]);
    let verifier = verifier_of(vec![Issuer { keys: private.keys.into(), ..Issuer::default() }]);
    assert!(verifier.verify(&token(Algorithm::Hs256, json!({})), NOW_S).is_ok());
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
        assert_eq!(jwk::read(bad.as_bytes(), Algorithms::default(), true).unwrap_err(), KeyError::Jwk, "{bad}");
    }
}
