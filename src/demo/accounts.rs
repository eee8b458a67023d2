//! Who buys: people sign in with a name and a PIN, and are the same buyer on every device.
//!
//! The first who signs in with a name chooses its PIN. What they get is a token (RFC 7519) whose `sub` is the buyer's secret
//! id; the gateway verifies it with the same key and sends that buyer's mail to whoever presents it.

use std::fmt;
use std::sync::Mutex;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::recent::Recent;
use crate::config::values::Values;

/// People who are known; the oldest is forgotten, and another may choose that name.
const MAX_PEOPLE: usize = 10_000;
const MAX_NAME_CHARS: usize = 32;
const MAX_PIN_CHARS: usize = 64;
const MAX_BODY_BYTES: usize = 1_024;
/// How long a token is good, in seconds.
const TOKEN_LIFE_S: i64 = 12 * 3_600;

/// The key that tokens are signed with (HS256), the gateway's `JWT_SECRET_KEY`. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey(String);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl TokenKey {
    /// The gateway's key. Where it has none yet and belongs to the demo, it gets one, which nobody else knows. `None` where
    /// the shop could sign no token that the gateway takes.
    #[must_use]
    pub fn agree(values: &mut Values, shop_only: bool) -> Option<Self> {
        if values.is_set("JWT_ALG") {
            return None;
        }
        if let Some(key) = values.text("JWT_SECRET_KEY") {
            return Some(Self(key.to_owned()));
        }
        if shop_only {
            return None;
        }
        let key = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        values.set("JWT_SECRET_KEY", &key);
        Some(Self(key))
    }

    /// A token for this buyer (RFC 7515 section 3.1, RFC 7519 section 4.1).
    fn token(&self, buyer: &str, name: &str, now_s: i64) -> String {
        let session = uuid::Uuid::new_v4().to_string();
        let claims = json!({ "sub": buyer, "name": name, "jti": session, "iat": now_s, "exp": now_s + TOKEN_LIFE_S });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
        let signature = authenticate(self.0.as_bytes(), &signed);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn authenticate(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("invariant: HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// What a page sends.
#[derive(Debug, Deserialize)]
struct SignIn {
    name: String,
    pin: String,
}

/// Everybody who has signed in.
#[derive(Debug)]
struct Accounts {
    /// PINs, hashed, by name.
    people: Recent<[u8; 32]>,
    secret: [u8; 16],
    tokens: Option<TokenKey>,
}

impl Accounts {
    fn new(tokens: Option<TokenKey>) -> Self {
        Self { people: Recent::new(MAX_PEOPLE), secret: *uuid::Uuid::new_v4().as_bytes(), tokens }
    }

    /// Who signs in, and the token if there are any; or why not.
    fn sign_in(&mut self, SignIn { name, pin }: &SignIn, now_s: i64) -> Result<Value, (StatusCode, String)> {
        let name = name.trim();
        for (what, text, most) in [("name", name, MAX_NAME_CHARS), ("pin", pin.as_str(), MAX_PIN_CHARS)] {
            if text.is_empty() || text.chars().count() > most || text.contains(char::is_control) {
                let error = format!("`{what}` must have 1 to {most} printable characters");
                return Err((StatusCode::BAD_REQUEST, error));
            }
        }
        let proof = authenticate(&self.secret, &format!("pin {name}\n{pin}"));
        match self.people.get(name) {
            Some(known) if *known != proof => {
                return Err((StatusCode::FORBIDDEN, format!("{name} has signed in before, with another PIN.")));
            }
            Some(_) => {}
            None => self.people.insert(name, proof),
        }
        let id = authenticate(&self.secret, &format!("id {name}"));
        let id: String = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let token = self.tokens.as_ref().map(|key| key.token(&id, name, now_s));
        Ok(json!({ "id": id, "name": name, "token": token }))
    }
}

/// The route `POST /api/sign-in`.
pub(super) fn router(tokens: Option<TokenKey>) -> Router {
    let accounts = std::sync::Arc::new(Mutex::new(Accounts::new(tokens)));
    Router::new().route("/api/sign-in", post(sign_in)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(accounts)
}

async fn sign_in(State(accounts): State<std::sync::Arc<Mutex<Accounts>>>, Json(who): Json<SignIn>) -> Response {
    let now_s = jiff::Timestamp::now().as_second();
    let Ok(mut accounts) = accounts.lock() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let (status, answer) = match accounts.sign_in(&who, now_s) {
        Ok(buyer) => (StatusCode::OK, buyer),
        Err((status, error)) => (status, json!({ "error": error })),
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str, pin: &str) -> SignIn {
        SignIn { name: name.to_owned(), pin: pin.to_owned() }
    }

    #[test]
    fn the_same_name_and_pin_are_the_same_buyer_on_every_device() {
        let mut accounts = Accounts::new(Some(TokenKey("secret".to_owned())));
        let first = accounts.sign_in(&who("Mia", "1234"), 1_000).expect("a new name");
        let second = accounts.sign_in(&who(" Mia ", "1234"), 2_000).expect("the same again");
        assert_eq!((&first["id"], &first["name"]), (&second["id"], &json!("Mia")));
        assert_ne!(first["token"], second["token"], "each has a session of its own");
        let other = accounts.sign_in(&who("Ben", "1234"), 1_000).expect("another name");
        assert_ne!(first["id"], other["id"]);
    }

    #[test]
    fn a_name_with_another_pin_is_refused_and_so_is_what_is_empty_or_endless() {
        let mut accounts = Accounts::new(None);
        let first = accounts.sign_in(&who("Mia", "1234"), 1_000).expect("a new name");
        assert_eq!(first["token"], Value::Null, "no key, no token");
        let refusal = accounts.sign_in(&who("Mia", "4321"), 1_000).expect_err("somebody else");
        assert_eq!(refusal.0, StatusCode::FORBIDDEN);
        for (name, pin) in [("", "1"), ("a", ""), (&"x".repeat(33), "1"), ("a\nb", "1")] {
            assert_eq!(accounts.sign_in(&who(name, pin), 0).expect_err("bad").0, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_token_is_signed_with_the_key_and_says_who_until_when() {
        let token = TokenKey("secret".to_owned()).token("id-of-Mia", "Mia", 1_000);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        assert_eq!(URL_SAFE_NO_PAD.decode(signature).expect("base64"), authenticate(b"secret", signed));
        let claims = signed.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("claims");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!((&claims["sub"], &claims["exp"]), (&json!("id-of-Mia"), &json!(1_000 + TOKEN_LIFE_S)));
    }

    #[test]
    fn a_demo_with_its_own_gateway_makes_the_key_and_a_lone_shop_needs_to_be_told() {
        let mut values = Values::default();
        assert_eq!(TokenKey::agree(&mut values, true), None);
        let key = TokenKey::agree(&mut values, false).expect("its own gateway");
        assert_eq!(values.text("JWT_SECRET_KEY"), Some(key.0.as_str()));
        assert_eq!(TokenKey::agree(&mut values, true), Some(key));
        values.set("JWT_ALG", "RS256");
        assert_eq!(TokenKey::agree(&mut values, false), None, "the shop holds no private key");
    }
}
