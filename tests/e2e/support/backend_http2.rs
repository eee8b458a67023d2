//! Backends that speak TLS, HTTP/2, or both.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/2 in the clear, without asking.
    Http2,
    /// TLS, and in it HTTP/1.1 or HTTP/2 as agreed, of those that are named here.
    Tls(&'static [&'static str]),
}

/// A backend that answers each request with its protocol, its authority and its body, and with a trailer where it can.
pub(crate) struct ModernBackend {
    _runtime: Runtime,
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    authority: tempfile::TempDir,
}

impl ModernBackend {
    /// Starts one whose certificate is for `localhost`.
    pub(crate) fn start(speech: Speech) -> Self {
        Self::for_name(speech, "localhost")
    }

    /// Starts one whose certificate is for another name.
    pub(crate) fn for_name(speech: Speech, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let certificate = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate can be made");
        let authority = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(authority.path().join("ca.pem"), certificate.cert.pem()).expect("a file can be written");
        let acceptor = match speech {
            Speech::Http2 => None,
            Speech::Tls(protocols) => Some(acceptor(&certificate, protocols)),
        };
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, acceptor.clone()));
            }
        });
        Self { _runtime: runtime, address, accepted, authority }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The file of the certificate to trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.authority.path().join("ca.pem")
    }
}

fn acceptor(certified: &rcgen::CertifiedKey<rcgen::KeyPair>, protocols: &[&str]) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions are known")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("key and certificate belong together");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    let Some(acceptor) = acceptor else { return drop(serve_http2(stream).await) };
    let Ok(stream) = acceptor.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        drop(serve_http2(stream).await);
    } else {
        drop(serve_http1(stream).await);
    }
}

async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        if request.uri().path() == "/to/freeze" {
            // Neither reads nor writes from here on, and ends nothing, as behind a network that has gone.
            std::future::pending::<()>().await;
        }
        tokio::spawn(answer(request, respond));
    }
    Ok(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut incoming) = request.into_parts();
    if head.uri.path() == "/to/hang" {
        // Until the gateway gives up.
        std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
        return Ok(());
    }
    let mut body = BytesMut::new();
    while let Some(piece) = incoming.data().await {
        let piece = piece?;
        incoming.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let authority = head.uri.authority().map(ToString::to_string).unwrap_or_default();
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let response = Response::builder()
        .header("x-protocol", "h2")
        .header("x-authority", authority)
        .header("x-te", text("te"))
        .header("x-cookie", text("cookie"))
        .body(())
        .expect("a valid answer");
    let mut stream = respond.send_response(response, false)?;
    let mut body = body.freeze();
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(granted) = granted.transpose()? else { return Ok(()) };
        stream.send_data(body.split_to(granted.min(body.len())), false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("9"));
    stream.send_trailers(trailers)
}

async fn serve_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        while let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            read.drain(..end + 4);
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nx-protocol: http/1.1\r\nx-authority: {host}\r\ncontent-length: 2\r\n\r\nok"
            );
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}
