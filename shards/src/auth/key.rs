//! Keys that tokens are verified with. The arithmetic is ring's, which rustls uses here too.

use std::fmt;

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};
use thiserror::Error;

use super::algorithm::{Algorithm, Algorithms};

/// Bits of an RSA key: ring verifies no shorter and no longer ones.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Why a key can't be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not the textual form of a public key.
    #[error("no PEM public key or certificate")]
    Pem,
    /// A private key, which has no business here.
    #[error("a private key; give the public one, and treat the private one as disclosed")]
    Private,
    /// Not a JSON Web Key.
    #[error("no usable JSON Web Key")]
    Jwk,
    /// A secret in a set that came over the network.
    #[error("a secret among keys that everybody can read")]
    PublicSecret,
    /// An algorithm or a curve that ring doesn't have (P-521, secp256k1, Ed448).
    #[error("a kind of key or curve that can't be verified (RSA, P-256, P-384 and Ed25519 can)")]
    Unsupported,
    /// An RSA key out of range.
    #[error("an RSA key of fewer than 2048 or more than 8192 bits, or with a bad exponent")]
    RsaSize,
    /// Nothing, which everybody knows.
    #[error("an empty secret")]
    Empty,
    /// None of the allowed algorithms is for this kind of key.
    #[error("a key that fits none of the configured algorithms")]
    Algorithm,
}

/// What a signature is verified with.
#[derive(Clone)]
pub struct Material(Kind);

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a node has few keys, and a list of them is shared")]
enum Kind {
    Secret([hmac::Key; 3]),
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl fmt::Debug for Material {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Kind::Secret(_) => "secret",
            Kind::Rsa { .. } => "RSA",
            Kind::P256(_) => "P-256",
            Kind::P384(_) => "P-384",
            Kind::Ed25519(_) => "Ed25519",
        })
    }
}

impl Material {
    /// A shared secret.
    ///
    /// # Errors
    /// It is empty.
    pub fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let hashes = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
        Ok(Self(Kind::Secret(hashes.map(|hash| hmac::Key::new(hash, secret)))))
    }

    /// An RSA key: modulus and public exponent, both big-endian.
    ///
    /// # Errors
    /// It is too short, too long, or can't be one.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let trimmed =
            |digits: &[u8]| -> Box<[u8]> { digits[digits.iter().take_while(|digit| **digit == 0).count()..].into() };
        let (modulus, exponent) = (trimmed(modulus), trimmed(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        let odd = |digits: &[u8]| digits.last().is_some_and(|last| last & 1 == 1);
        let plausible = odd(&modulus) && odd(&exponent) && exponent.len() <= 4 && *exponent != [1];
        if !RSA_BITS.contains(&bits) || !plausible {
            return Err(KeyError::RsaSize);
        }
        Ok(Self(Kind::Rsa { modulus, exponent }))
    }

    /// An uncompressed point of P-256.
    ///
    /// # Errors
    /// It is none.
    pub fn p256(point: &[u8]) -> Result<Self, KeyError> {
        point_of(point, 65).map(|point| Self(Kind::P256(point)))
    }

    /// An uncompressed point of P-384.
    ///
    /// # Errors
    /// It is none.
    pub fn p384(point: &[u8]) -> Result<Self, KeyError> {
        point_of(point, 97).map(|point| Self(Kind::P384(point)))
    }

    /// A key of Ed25519.
    ///
    /// # Errors
    /// It is none.
    pub fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        if key.len() == 32 { Ok(Self(Kind::Ed25519(key.into()))) } else { Err(KeyError::Unsupported) }
    }

    /// The algorithms that this kind of key can be used with.
    #[must_use]
    pub fn algorithms(&self) -> Algorithms {
        use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self.0 {
            Kind::Secret(_) => [Hs256, Hs384, Hs512].into_iter().collect(),
            Kind::Rsa { .. } => [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512].into_iter().collect(),
            Kind::P256(_) => Es256.into(),
            Kind::P384(_) => Es384.into(),
            Kind::Ed25519(_) => EdDsa.into(),
        }
    }

    /// The algorithm it is used with where nobody says another one.
    fn usual(&self) -> Algorithm {
        match self.0 {
            Kind::Secret(_) => Algorithm::Hs256,
            Kind::Rsa { .. } => Algorithm::Rs256,
            Kind::P256(_) => Algorithm::Es256,
            Kind::P384(_) => Algorithm::Es384,
            Kind::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let asymmetric: &dyn signature::VerificationAlgorithm = match (&self.0, algorithm) {
            (Kind::Secret([key, _, _]), Algorithm::Hs256)
            | (Kind::Secret([_, key, _]), Algorithm::Hs384)
            | (Kind::Secret([_, _, key]), Algorithm::Hs512) => return hmac::verify(key, signed, signature).is_ok(),
            (Kind::Rsa { modulus, exponent }, _) => {
                let parameters = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                return key.verify(parameters, signed, signature).is_ok();
            }
            (Kind::P256(_), Algorithm::Es256) => &signature::ECDSA_P256_SHA256_FIXED,
            (Kind::P384(_), Algorithm::Es384) => &signature::ECDSA_P384_SHA384_FIXED,
            (Kind::Ed25519(_), Algorithm::EdDsa) => &signature::ED25519,
            _ => return false,
        };
        let (Kind::P256(key) | Kind::P384(key) | Kind::Ed25519(key)) = &self.0 else { return false };
        UnparsedPublicKey::new(asymmetric, key).verify(signed, signature).is_ok()
    }
}

fn point_of(point: &[u8], len: usize) -> Result<Box<[u8]>, KeyError> {
    if point.len() == len && point[0] == 4 { Ok(point.into()) } else { Err(KeyError::Unsupported) }
}

/// A key, what it is called, and what it may be used for.
#[derive(Clone, Debug)]
pub struct Key {
    id: Option<Box<str>>,
    algorithms: Algorithms,
    material: Material,
}

impl Key {
    /// A key for those of the `allowed` algorithms that are for its kind; if none is named, for the usual one alone.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] where that leaves nothing.
    pub fn new(id: Option<&str>, material: Material, allowed: Algorithms) -> Result<Self, KeyError> {
        let allowed = if allowed.is_empty() { material.usual().into() } else { allowed };
        let algorithms = material.algorithms().and(allowed);
        if algorithms.is_empty() {
            return Err(KeyError::Algorithm);
        }
        Ok(Self { id: id.map(Into::into), algorithms, material })
    }

    /// `kid` of the tokens that it has signed, where it has a name.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The algorithms that it may be used with.
    #[must_use]
    pub fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// Whether it has signed these bytes, with an algorithm that it may be used with.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        self.algorithms.contains(algorithm) && self.material.verifies(algorithm, signed, signature)
    }
}

/// SHA-256 of some bytes, in order.
pub(super) fn fingerprint<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for piece in pieces {
        context.update(piece);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
