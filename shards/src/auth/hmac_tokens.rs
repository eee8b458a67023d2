//! Tokens signed with a shared secret (HS256, HS384, HS512; RFC 7518 section 3.2).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};

use super::{SessionList, TokenRefusal, Verified};
use crate::pointer::JsonPointer;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Verifies tokens.
#[derive(Clone, Debug)]
pub struct Verifier {
    algorithm: &'static str,
    secret: Arc<[u8]>,
    session: JsonPointer,
    sessions: Arc<dyn SessionList>,
}

impl Verifier {
    /// Tokens of this algorithm and secret only.
    #[must_use]
    pub fn new(algorithm: &'static str, secret: &[u8], session: JsonPointer, sessions: Arc<dyn SessionList>) -> Self {
        Self { algorithm, secret: secret.into(), session, sessions }
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// See [`TokenRefusal`].
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Arc<Verified>, TokenRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenRefusal::Malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenRefusal::Malformed);
        let read = |text: &str| {
            serde_json::from_slice::<Map<String, Value>>(&decode(text)?).map_err(|_| TokenRefusal::Malformed)
        };
        if read(header)?.get("alg").and_then(Value::as_str) != Some(self.algorithm) {
            return Err(TokenRefusal::Malformed);
        }
        if !self.is_signed(signed.as_bytes(), &decode(signature)?) {
            return Err(TokenRefusal::Signature);
        }
        let claims = read(payload)?;
        let expires_at_s = claims.get("exp").and_then(seconds).ok_or(TokenRefusal::Expired)?;
        if expires_at_s <= now_unix_s {
            return Err(TokenRefusal::Expired);
        }
        if claims.get("nbf").is_some_and(|nbf| seconds(nbf).is_none_or(|nbf| nbf > now_unix_s)) {
            return Err(TokenRefusal::NotYet);
        }
        let session: Option<Box<str>> = match self.session.resolve_in(&claims) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.as_str().into()),
            Some(Value::Number(number)) => Some(number.to_string().into()),
            _ => None,
        };
        if session.as_deref().is_some_and(|session| self.sessions.is_blacklisted(session)) {
            return Err(TokenRefusal::Blacklisted);
        }
        Ok(Arc::new(Verified { session, expires_at_s, claims }))
    }

    fn is_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        macro_rules! verified {
            ($hash:ty) => {
                Hmac::<$hash>::new_from_slice(&self.secret)
                    .is_ok_and(|mac| mac.chain_update(text).verify_slice(signature).is_ok())
            };
        }
        match self.algorithm {
            "HS384" => verified!(Sha384),
            "HS512" => verified!(Sha512),
            _ => verified!(Sha256),
        }
    }
}

fn seconds(claim: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float becomes the nearest u64")]
    let from_float = |float: f64| float.is_finite().then_some(float as u64);
    claim.as_u64().or_else(|| claim.as_f64().and_then(from_float))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sessions::{Fingerprint, SessionWriter};

    const NOW_S: u64 = 1_800_000_000;

    fn verifier(algorithm: &'static str) -> (Verifier, SessionWriter) {
        let writer = SessionWriter::new(NOW_S * 1_000);
        let sessions = Arc::clone(writer.table()) as Arc<dyn SessionList>;
        (Verifier::new(algorithm, b"secret", JsonPointer::parse("/jti").unwrap(), sessions), writer)
    }

    fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(header), encode(claims));
        let tag = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&text).finalize().into_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn token(claims: &Value) -> String {
        signed(&json!({ "alg": "HS256" }), claims, b"secret")
    }

    fn outcome(claims: Value) -> Result<Option<String>, TokenRefusal> {
        let (verifier, _writer) = verifier("HS256");
        verifier.verify(&token(&claims), NOW_S).map(|verified| verified.session.as_deref().map(str::to_owned))
    }

    #[test]
    fn the_example_of_rfc_7515_is_signed() {
        let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                    cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = URL_SAFE_NO_PAD.decode(key).unwrap();
        let (mut verifier, _writer) = verifier("HS256");
        verifier.secret = key.into();
        assert_eq!(verifier.verify(text, 1_300_819_379).unwrap().expires_at_s, 1_300_819_380);
        assert_eq!(verifier.verify(text, 1_300_819_380), Err(TokenRefusal::Expired));
    }

    #[test]
    fn another_algorithm_or_key_and_a_stripped_signature_are_refused() {
        let claims = json!({ "exp": NOW_S + 1 });
        let (verifier, _writer) = verifier("HS256");
        for alg in [json!("none"), json!("HS384"), json!("hs256"), json!(null), json!(["HS256"])] {
            let token = signed(&json!({ "alg": alg }), &claims, b"secret");
            assert_eq!(verifier.verify(&token, NOW_S), Err(TokenRefusal::Malformed), "{alg}");
        }
        let foreign = signed(&json!({ "alg": "HS256" }), &claims, b"");
        assert_eq!(verifier.verify(&foreign, NOW_S), Err(TokenRefusal::Signature));
        let whole = token(&claims);
        let (stripped, _) = whole.rsplit_once('.').unwrap();
        for broken in
            ["", ".", "..", "a.b.c", stripped, &format!("{stripped}."), &format!("{whole}A"), &"x.".repeat(20_000)]
        {
            assert!(verifier.verify(broken, NOW_S).is_err(), "{broken:.20}");
        }
    }

    #[test]
    fn a_token_needs_a_number_in_the_future_to_expire() {
        assert_eq!(outcome(json!({ "exp": NOW_S + 1 })), Ok(None));
        assert_eq!(outcome(json!({ "exp": 1_800_000_001.5 })), Ok(None));
        for exp in [json!(NOW_S), json!(0), json!(-5), json!("1900000000"), json!(null), json!([1])] {
            assert_eq!(outcome(json!({ "exp": exp })), Err(TokenRefusal::Expired), "{exp}");
        }
        assert_eq!(outcome(json!({})), Err(TokenRefusal::Expired));
        assert_eq!(outcome(json!({ "exp": NOW_S + 1, "nbf": NOW_S })), Ok(None));
        assert_eq!(outcome(json!({ "exp": NOW_S + 1, "nbf": NOW_S + 1 })), Err(TokenRefusal::NotYet));
        assert_eq!(outcome(json!({ "exp": NOW_S + 1, "nbf": "soon" })), Err(TokenRefusal::NotYet));
    }

    #[test]
    fn a_session_is_a_text_or_the_digits_of_a_number() {
        for (jti, session) in [(json!("s"), Some("s")), (json!(7), Some("7")), (json!(""), None), (json!(null), None)] {
            assert_eq!(outcome(json!({ "exp": NOW_S + 1, "jti": jti })), Ok(session.map(str::to_owned)), "{jti}");
        }
        assert_eq!(outcome(json!({ "exp": NOW_S + 1, "jti": ["s"] })), Ok(None));
    }

    #[test]
    fn tokens_of_a_blacklisted_session_are_refused_and_no_others() {
        let (verifier, mut writer) = verifier("HS256");
        let of = |session: &str| verifier.verify(&token(&json!({ "exp": NOW_S + 9, "jti": session })), NOW_S);
        assert!(of("s").is_ok());
        writer.set(Fingerprint::of("s"), (NOW_S + 60) * 1_000).unwrap();
        assert_eq!(of("s"), Err(TokenRefusal::Blacklisted));
        assert!(of("t").is_ok());
    }
}
