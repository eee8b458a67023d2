//! A client's socket, with or without TLS. The certificate is not judged: what is measured is the work, which is the same.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

/// A socket that doesn't block.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<(TcpStream, ClientConnection)>),
}

/// What TLS clients do: each is a stranger to the server, so every handshake is a full one.
#[derive(Clone, Debug)]
pub(crate) struct TlsClients {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClients {
    /// Clients that ask for the host of `authority`.
    ///
    /// # Errors
    /// It is no name that a certificate could be for.
    pub(crate) fn new(authority: &str) -> Result<Self, String> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let verifier = Arc::new(AnyCertificate { provider });
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) fn wrap(&self, tcp: TcpStream) -> io::Result<Socket> {
        let tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)?;
        Ok(Socket::Tls(Box::new((tcp, tls))))
    }
}

impl Socket {
    /// The socket itself, past TLS.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(both) => &both.0,
        }
    }

    /// TLS has something to say that the socket didn't take.
    pub(crate) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(both) if both.1.wants_write())
    }

    /// Takes bytes to send; of TLS, also those that still wait for the handshake.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(both) => both.1.writer().write(bytes),
        }
    }

    /// Sends what TLS has to say, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Self::Tls(both) = self else { return Ok(()) };
        let (tcp, tls) = &mut **both;
        while tls.wants_write() {
            match tls.write_tls(tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads; 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Plain(tcp) = self {
            return tcp.read(buffer);
        }
        loop {
            let Self::Tls(both) = &mut *self else { return Ok(0) };
            let (tcp, tls) = &mut **both;
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            tls.read_tls(tcp)?;
            let processed = tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error));
            self.flush()?;
            processed?;
        }
    }
}

/// Believes every certificate, and checks that the server has its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
