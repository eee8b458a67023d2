//! A TLS client for tests, driven by hand.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::Session;

/// One certificate for all tests.
fn certificate() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
    static CERTIFICATE: OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap())
}

/// A server with that certificate.
pub(crate) fn server_config() -> Arc<ServerConfig> {
    let own = certificate();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A client that speaks one version and offers one application protocol.
pub(crate) struct TestClient {
    pub(crate) tls: ClientConnection,
}

impl TestClient {
    pub(crate) fn new(version: &'static SupportedProtocolVersion, protocol: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate().cert.der().clone()).unwrap();
        Self::trusting(roots, version, protocol)
    }

    pub(crate) fn trusting(roots: RootCertStore, version: &'static SupportedProtocolVersion, protocol: &str) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self { tls: ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap() }
    }

    /// What the client has to send.
    pub(crate) fn outgoing(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        out
    }

    /// Takes what the server has sent; the plaintext so far.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            self.tls.process_new_packets()?;
            let mut reader = self.tls.reader();
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut piece) {
                plain.extend_from_slice(&piece[..len]);
            }
        }
        Ok(plain)
    }

    /// Encrypts.
    pub(crate) fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        self.outgoing()
    }

    /// Brings the handshake to its end; each side gets `step` bytes at a time.
    pub(crate) fn shake(&mut self, session: &mut Session, step: usize) {
        for _ in 0..8 {
            for piece in self.outgoing().chunks(step) {
                session.receive(&mut piece.to_vec()).unwrap();
            }
            let waiting = session.waiting().to_vec();
            session.sent(waiting.len());
            for piece in waiting.chunks(step) {
                self.take(piece).unwrap();
            }
        }
        assert!(!session.is_handshaking() && !self.tls.is_handshaking());
    }
}
