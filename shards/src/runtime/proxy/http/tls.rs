//! TLS with backends: the system's certificate authorities and one of the operator's.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Reads the authorities; blocks on the disk.
///
/// # Errors
/// `ca_pem` holds no certificate, or there is no authority at all.
pub fn config(ca_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, Arc<str>> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some of the system's certificate authorities can't be read");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(pem) = ca_pem {
        let mut own = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
            own += 1;
        }
        if own == 0 {
            return Err(unusable(&"it holds no certificate"));
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate authority to trust: install the system's (ca-certificates), or set \
                    PROXY_CA_CERTFILE"
            .into());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Arc::from(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn unusable(why: &dyn std::fmt::Display) -> Arc<str> {
    format!("PROXY_CA_CERTFILE is not usable: {why}").into()
}
