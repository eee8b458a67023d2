//! One GET over HTTP/1.1, for threads that are no shards. Redirects are not followed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tidegate_shards::auth::check::CheckUrl;
use tidegate_shards::node::backend_tls;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Bytes of the largest answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Fetches what is behind URLs, on a thread that may be blocked.
#[derive(Debug)]
pub(crate) struct Fetcher {
    runtime: tokio::runtime::Runtime,
    ca_pem: Option<Arc<[u8]>>,
}

impl Fetcher {
    /// `ca_pem` is an authority beside the system's.
    pub(crate) fn new(ca_pem: Option<Arc<[u8]>>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, ca_pem })
    }

    /// The body of a successful answer.
    ///
    /// # Errors
    /// Why there is none in this time.
    pub(crate) fn get(&self, url: &CheckUrl, timeout: Duration) -> Result<Bytes, String> {
        let ca_pem = self.ca_pem.as_deref();
        let got =
            self.runtime.block_on(async { tokio::time::timeout(timeout, get(url, ca_pem, MAX_ANSWER_BYTES)).await });
        match got {
            Ok(Ok((StatusCode::OK, body))) => Ok(body),
            Ok(Ok((status, _))) => Err(format!("the answer is {status}")),
            Ok(Err(reason)) => Err(reason),
            Err(_late) => Err("no answer in time".to_owned()),
        }
    }
}

/// Status and body of the answer. `ca_pem` is an authority beside the system's.
///
/// # Errors
/// Why there is none. It may also take for ever, which is for the caller to bound.
pub(crate) async fn get(
    url: &CheckUrl,
    ca_pem: Option<&[u8]>,
    max_answer_bytes: usize,
) -> Result<(StatusCode, Bytes), String> {
    let backend = &url.backend;
    let stream = TcpStream::connect((&*backend.host, backend.port)).await.map_err(|error| error.to_string())?;
    if !backend.tls {
        return exchange(TokioIo::new(stream), url, max_answer_bytes).await;
    }
    let mut config = (*backend_tls(ca_pem).map_err(|error| error.to_string())?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(backend.host.to_string()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(TokioIo::new(stream), url, max_answer_bytes).await
}

async fn exchange(
    stream: impl Read + Write + Unpin + Send + 'static,
    url: &CheckUrl,
    max_answer_bytes: usize,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let _ended_with_this = AbortOnDrop(tokio::spawn(connection));
    let host = &url.backend.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let request = Request::get(&*url.path)
        .header(header::HOST, format!("{host}:{}", url.backend.port))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "tidegate")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), max_answer_bytes).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

/// A connection that nobody waits for any more is closed.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
