//! Tokens signed with HS256 (RFC 7515), by hand.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// The secret of the gateways that [`SETTING`] starts.
const SECRET: &str = "a secret of at least thirty-two bytes";

/// The setting of gateways that accept these tokens.
pub(crate) const SETTING: (&str, &str) = ("JWT_SECRET_KEY", SECRET);

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}

/// A token with these claims, and an hour to live unless they say otherwise.
pub(crate) fn token(claims: &Value) -> String {
    let mut all = json!({ "exp": now_s() + 3_600 });
    let members = all.as_object_mut().expect("an object");
    members.extend(claims.as_object().expect("claims are an object").clone());
    signed(&json!({ "alg": "HS256", "typ": "JWT" }), &all)
}

/// A token of this session.
pub(crate) fn of_session(session: &str) -> String {
    token(&json!({ "jti": session }))
}

fn signed(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(header), encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key of any length");
    mac.update(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
