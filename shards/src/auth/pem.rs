//! Public keys in the textual form of RFC 7468: `PUBLIC KEY`, `RSA PUBLIC KEY` and `CERTIFICATE`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::der::{self, Reader};
use super::key::{KeyError, Material};

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// All public keys in a text, in their order. Line ends may be written as `\n`, as they are in environment variables.
///
/// # Errors
/// There is none, or one of them can't be used.
pub fn read(text: &str) -> Result<Vec<Material>, KeyError> {
    let text = if text.contains('\n') { text.to_owned() } else { text.replace("\\n", "\n") };
    let mut keys = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----").ok_or(KeyError::Pem)?;
        let (body, after) = after.split_once(&format!("-----END {label}-----")).ok_or(KeyError::Pem)?;
        rest = after;
        let base64: String = body.split_whitespace().collect();
        let der = STANDARD.decode(base64).map_err(|_| KeyError::Pem)?;
        keys.push(match label {
            "PUBLIC KEY" => structured(Reader::new(&der))?,
            "RSA PUBLIC KEY" => rsa(Reader::new(&der))?,
            "CERTIFICATE" => structured(der::key_of_certificate(&der).ok_or(KeyError::Pem)?)?,
            label if label.contains("PRIVATE") => return Err(KeyError::Private),
            _ => return Err(KeyError::Pem),
        });
    }
    if keys.is_empty() { Err(KeyError::Pem) } else { Ok(keys) }
}

/// `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
fn structured(mut reader: Reader<'_>) -> Result<Material, KeyError> {
    let mut info = reader.sequence().ok_or(KeyError::Pem)?;
    let mut algorithm = info.sequence().ok_or(KeyError::Pem)?;
    let kind = algorithm.object_id().ok_or(KeyError::Pem)?;
    let key = info.bits().ok_or(KeyError::Pem)?;
    match kind {
        RSA => rsa(Reader::new(key)),
        ED25519 => Material::ed25519(key),
        EC => match algorithm.object_id() {
            Some(P256) => Material::p256(key),
            Some(P384) => Material::p384(key),
            _ => Err(KeyError::Unsupported),
        },
        _ => Err(KeyError::Unsupported),
    }
}

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa(mut reader: Reader<'_>) -> Result<Material, KeyError> {
    let mut key = reader.sequence().ok_or(KeyError::Pem)?;
    let modulus = key.unsigned().ok_or(KeyError::Pem)?;
    let exponent = key.unsigned().ok_or(KeyError::Pem)?;
    Material::rsa(modulus, exponent)
}
