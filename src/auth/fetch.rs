//! One GET over HTTP/1.1, on a thread that may be blocked.

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
use tokio_rustls::TlsConnector;

/// Bytes of the largest answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Fetches what is behind URLs. Redirects are not followed.
#[derive(Debug)]
pub(super) struct Fetcher {
    runtime: tokio::runtime::Runtime,
    ca_pem: Option<Arc<[u8]>>,
}

impl Fetcher {
    /// `ca_pem` is an authority beside the system's.
    pub(super) fn new(ca_pem: Option<Arc<[u8]>>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, ca_pem })
    }

    /// The body of a successful answer.
    ///
    /// # Errors
    /// Why there is none in this time.
    pub(super) fn get(&self, url: &CheckUrl, timeout: Duration) -> Result<Bytes, String> {
        self.runtime.block_on(async {
            let got = tokio::time::timeout(timeout, self.connect_and_get(url)).await;
            got.unwrap_or_else(|_late| Err("no answer in time".to_owned()))
        })
    }

    async fn connect_and_get(&self, url: &CheckUrl) -> Result<Bytes, String> {
        let backend = &url.backend;
        let stream = TcpStream::connect((&*backend.host, backend.port)).await.map_err(|error| error.to_string())?;
        if !backend.tls {
            return get(TokioIo::new(stream), url).await;
        }
        let mut config = (*backend_tls(self.ca_pem.as_deref()).map_err(|error| error.to_string())?).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(backend.host.to_string()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        get(TokioIo::new(stream), url).await
    }
}

async fn get(stream: impl Read + Write + Unpin + Send + 'static, url: &CheckUrl) -> Result<Bytes, String> {
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let host = &url.backend.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let request = Request::get(&*url.path)
        .header(header::HOST, format!("{host}:{}", url.backend.port))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "tidegate")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the answer is {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    Ok(body.to_bytes())
}
