//! Certificates, TLS clients, and a tunnel that lets the other clients of these tests speak TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::DEADLINE;
use super::gateway::Gateway;

/// An authority and the certificates it has signed, in a folder.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// Files of a certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Its name must differ from that of what it signs, or that looks self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder can be written to");
        Self { issuer, folder }
    }

    /// Where a file of this name is, or will be.
    pub(crate) fn path(&self, file: &str) -> String {
        let path: PathBuf = self.folder.path().join(file);
        path.to_string_lossy().into_owned()
    }

    /// Signs a certificate for these names; the files are called after the first, and replace earlier ones.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_as(names[0], names)
    }

    /// [`Self::issue`] with another name for the files.
    pub(crate) fn issue_as(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_with_key(file, names, &KeyPair::generate().expect("a key"))
    }

    /// [`Self::issue_as`] with a key of the caller's.
    pub(crate) fn issue_with_key(&self, file: &str, names: &[&str], key: &KeyPair) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        let pair = Pair { certificate: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        fs::write(&pair.certificate, certificate.pem()).expect("the folder can be written to");
        fs::write(&pair.key, key.serialize_pem()).expect("the folder can be written to");
        pair
    }

    /// A gateway with a certificate for `localhost` and these settings besides.
    pub(crate) fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        let pair = self.issue(&["localhost"]);
        let tls = [("HTTPS_CERTFILE", &*pair.certificate), ("HTTPS_KEYFILE", &*pair.key)];
        Gateway::with(&[&tls, settings].concat())
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        TlsClient { roots, versions: rustls::ALL_VERSIONS.to_vec(), protocols: Vec::new(), own: None }
    }
}

/// What a TLS client offers.
#[derive(Clone)]
pub(crate) struct TlsClient {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    own: Option<Pair>,
}

/// An open TLS connection.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    /// Trusts nobody.
    pub(crate) fn suspicious(mut self) -> Self {
        self.roots = RootCertStore::empty();
        self
    }

    pub(crate) fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub(crate) fn protocols(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) fn certificate(mut self, pair: &Pair) -> Self {
        self.own = Some(pair.clone());
        self
    }

    fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&self.versions).expect("versions");
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_file(&pair.certificate).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        Arc::new(config)
    }

    /// Connects, and brings the handshake to its end.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream> {
        self.connect_after(b"", address, name)
    }

    /// [`Self::connect`], with bytes that are sent before the handshake.
    pub(crate) fn connect_after(&self, first: &[u8], address: SocketAddr, name: &str) -> io::Result<TlsStream> {
        let mut socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        socket.write_all(first)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut stream =
            StreamOwned::new(ClientConnection::new(self.config(), name).map_err(io::Error::other)?, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// The text of an answer to a call on a connection of its own, head and all; TLS 1.3 tells of a refused certificate only
    /// here.
    pub(crate) fn call(&self, address: SocketAddr, request: &str) -> io::Result<String> {
        let mut stream = self.connect(address, "localhost")?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        loop {
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Lets the other clients of these tests reach `gateway` over TLS: its inbound address becomes that of a tunnel.
    pub(crate) fn in_front_of(&self, gateway: &mut Gateway) -> Tunnel {
        let target = gateway.inbound_tls();
        let tunnel = Tunnel::start(self.config(), target);
        gateway.call_through(tunnel.address);
        tunnel
    }
}

/// Forwards plain connections over TLS until it is dropped.
pub(crate) struct Tunnel {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Tunnel {
    fn start(config: Arc<ClientConfig>, target: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = TlsConnector::from(Arc::clone(&config));
                tokio::spawn(async move {
                    let name = ServerName::try_from("localhost").expect("a name");
                    let socket = tokio::net::TcpStream::connect(target).await?;
                    socket.set_nodelay(true)?;
                    plain.set_nodelay(true)?;
                    let mut secure = connector.connect(name, socket).await?;
                    tokio::io::copy_bidirectional(&mut plain, &mut secure).await
                });
            }
        });
        Self { address, _runtime: runtime }
    }
}

/// The names in a certificate that a server has shown.
pub(crate) fn names_of(stream: &TlsStream) -> Vec<String> {
    let chain = stream.conn.peer_certificates().expect("a server shows its certificate");
    let certificate = openssl::x509::X509::from_der(&chain[0]).expect("DER");
    let names = certificate.subject_alt_names().expect("names");
    names.iter().filter_map(|name| name.dnsname().map(str::to_owned)).collect()
}
