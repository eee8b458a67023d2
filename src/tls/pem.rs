//! PEM files: certificate chains, and keys with and without a passphrase.
//!
//! Encrypted keys are opened by the OpenSSL that Kafka's client brings along: it knows PKCS#8 (RFC 5958) and the traditional
//! form with all their ciphers. The connections themselves are rustls' alone.

use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;
use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Identity;

/// What is wrong with a file, and with which of a pair.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The certificates.
    Certificate(String),
    /// The key.
    Key(String),
    /// The passphrase.
    Passphrase(String),
}

/// Reads a certificate chain and its key, and checks that they belong together.
pub(super) fn identity(chain: &[u8], key: &[u8], passphrase: Option<&str>) -> Result<Identity, Wrong> {
    let chain = certificates(chain).map_err(Wrong::Certificate)?;
    let leaf = X509::from_der(&chain[0]).map_err(|_| Wrong::Certificate("its first certificate is broken".into()))?;
    let key = private_key(key, passphrase)?;
    let key = any_supported_type(&key).map_err(|error| Wrong::Key(format!("the key can't be used ({error})")))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| Wrong::Key("the key is not that of the certificate".into()))?;
    let expires_unix_s = expiry(&leaf).map_err(|_| Wrong::Certificate("its expiry can't be read".into()))?;
    Ok(Identity { key: Arc::new(certified), names: names(&leaf), expires_unix_s })
}

/// Reads certificate authorities.
pub(super) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("a certificate can't be used as an authority ({error})"))?;
    }
    Ok(roots)
}

/// Not empty.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("not PEM ({error})"))?;
    if all.is_empty() { Err("it holds no certificate".into()) } else { Ok(all) }
}

fn private_key(pem: &[u8], passphrase: Option<&str>) -> Result<PrivateKeyDer<'static>, Wrong> {
    let holds = |marker: &[u8]| pem.windows(marker.len()).any(|window| window == marker);
    if !holds(b"BEGIN ENCRYPTED PRIVATE KEY") && !holds(b"Proc-Type: 4,ENCRYPTED") {
        return PrivateKeyDer::from_pem_slice(pem).map_err(|error| Wrong::Key(format!("it holds no key ({error})")));
    }
    let Some(passphrase) = passphrase else { return Err(Wrong::Key("the key is encrypted".into())) };
    let opened = PKey::private_key_from_pem_passphrase(pem, passphrase.as_bytes());
    let plain = opened.and_then(|key| key.private_key_to_pkcs8());
    let plain = plain.map_err(|_| Wrong::Passphrase("it doesn't open the key, or the key is broken".into()))?;
    Ok(PrivateKeyDer::Pkcs8(plain.into()))
}

/// The DNS names it is for; of an old certificate without any, its common name.
fn names(certificate: &X509) -> Vec<String> {
    let named: Vec<_> = certificate
        .subject_alt_names()
        .into_iter()
        .flatten()
        .filter_map(|name| name.dnsname().map(str::to_owned))
        .collect();
    if !named.is_empty() {
        return named;
    }
    let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    common.filter_map(|entry| entry.data().to_string().ok()).collect()
}

fn expiry(certificate: &X509) -> Result<i64, openssl::error::ErrorStack> {
    let until = Asn1Time::from_unix(0)?.diff(certificate.not_after())?;
    Ok(i64::from(until.days) * 86_400 + i64::from(until.secs))
}
