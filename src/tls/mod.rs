//! Certificates and keys of the TLS ports: [`files`] reads them, [`pem`] understands them, [`names`] chooses among them by
//! the name a client asks for, [`reload`] follows their changes, and [`listener`] serves the internal port with them. Clients
//! are served by the shards, see `tidegate_shards::tls`.

pub mod files;
pub mod listener;
pub mod metrics;
mod names;
mod pem;
pub mod reload;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

/// Application protocols in the order of preference (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What both ports serve with, made from one state of the files.
#[derive(Clone, Debug)]
pub struct Configs {
    /// For clients.
    pub inbound: Arc<ServerConfig>,
    /// For the internal port.
    pub internal: Arc<ServerConfig>,
    /// When the first of the certificates expires, in seconds since 1970.
    pub expires_unix_s: i64,
}

/// A certificate chain with its key, and the names it is for.
#[derive(Debug)]
pub(crate) struct Identity {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    expires_unix_s: i64,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// `identities` is not empty; the first serves clients that name none of them. `client_ca` makes the internal port ask for
/// certificates.
fn configs(identities: Vec<Identity>, client_ca: Option<RootCertStore>) -> Result<Configs, rustls::Error> {
    let expires_unix_s = identities.iter().map(|identity| identity.expires_unix_s).min().unwrap_or(i64::MAX);
    let names = Arc::new(names::ByName::new(identities));
    let config = |client_ca: Option<RootCertStore>| {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|error| {
                    rustls::Error::General(format!("the authorities of clients can't be used: {error}"))
                })?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&names) as _);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // Clients keep what it takes to come back quickly, sealed by us, so there is nothing to store. Each configuration has
        // its own seal: a ticket of the inbound port is worth nothing where certificates are asked for.
        config.ticketer = ring::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok::<_, rustls::Error>(Arc::new(config))
    };
    Ok(Configs { inbound: config(None)?, internal: config(client_ca)?, expires_unix_s })
}
