//! Sets of JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037 section 2).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::{Algorithm, Algorithms};
use super::key::{Key, KeyError, Material};

/// Keys of one set.
pub const MAX_KEYS: usize = 256;

/// What came of a set.
#[derive(Debug)]
pub struct KeySet {
    /// Those that can be used.
    pub keys: Vec<Key>,
    /// How many can't, and why the first of them can't.
    pub unusable: Option<(usize, KeyError)>,
}

/// Reads a set. Keys that are for something else, or that can't be used, are skipped; `secrets` says whether the set is
/// private, so that secrets may be in it.
///
/// # Errors
/// It is no set, or none of its keys can be used.
pub fn read(json: &[u8], allowed: Algorithms, secrets: bool) -> Result<KeySet, KeyError> {
    let set: Value = serde_json::from_slice(json).map_err(|_| KeyError::Jwk)?;
    let list = set.get("keys").and_then(Value::as_array).ok_or(KeyError::Jwk)?;
    let mut read = KeySet { keys: Vec::new(), unusable: None };
    for jwk in list.iter().take(MAX_KEYS) {
        match key(jwk, allowed, secrets) {
            Ok(key) => read.keys.push(key),
            Err(error) => read.unusable.get_or_insert((0, error)).0 += 1,
        }
    }
    if read.keys.is_empty() {
        return Err(read.unusable.map_or(KeyError::Jwk, |(_, error)| error));
    }
    Ok(read)
}

fn key(jwk: &Value, allowed: Algorithms, secrets: bool) -> Result<Key, KeyError> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(KeyError::Jwk);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::Algorithm);
    }
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        if x.len() != length || y.len() != length {
            return Err(KeyError::Jwk);
        }
        Ok([&[4], x.as_slice(), &y].concat())
    };
    let material = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
        (Some("EC"), Some("P-256")) => Material::p256(&point(32)?)?,
        (Some("EC"), Some("P-384")) => Material::p384(&point(48)?)?,
        (Some("OKP"), Some("Ed25519")) => Material::ed25519(&bytes("x")?)?,
        (Some("oct"), _) if secrets => Material::secret(&bytes("k")?)?,
        (Some("oct"), _) => return Err(KeyError::PublicSecret),
        _ => return Err(KeyError::Unsupported),
    };
    let allowed = match text("alg") {
        None => allowed,
        Some(name) => {
            let own = Algorithms::from(Algorithm::named(name).ok_or(KeyError::Unsupported)?);
            let both = if allowed.is_empty() { own } else { own.and(allowed) };
            if both.is_empty() {
                return Err(KeyError::Algorithm);
            }
            both
        }
    };
    Key::new(text("kid"), material, allowed)
}
