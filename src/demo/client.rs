//! A client of one of the gateway's ports: a kept-alive HTTP/1.1 connection, opened anew when it broke.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DemoError;

/// A gateway that does not answer for this long is treated as away. It may wait 5 s itself for an answer from elsewhere.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Why a call brought no answer. A later attempt may succeed in each case.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{0} cannot be reached: {1}")]
    Connect(Authority, std::io::Error),
    #[error("the connection to {0} broke: {1}")]
    Http(Authority, hyper::Error),
    #[error("the answer of {0} cannot be read: {1}")]
    Body(Authority, Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} gives no event stream but status {1}")]
    Status(Authority, StatusCode),
    #[error("no request can be made of that: {0}")]
    Request(http::Error),
    #[error("{0} did not answer within {ANSWER_TIMEOUT:?}")]
    Late(Authority),
}

/// One connection to the gateway, used by one caller at a time.
#[derive(Debug)]
pub(super) struct GatewayClient {
    authority: Authority,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl GatewayClient {
    /// A client of this port. Connects with its first call.
    pub(super) fn new(authority: Authority) -> Self {
        Self { authority, connection: None }
    }

    /// Fetches a resource: status and body.
    pub(super) async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes), CallError> {
        self.call(Method::GET, path, &[], Bytes::new()).await
    }

    /// Makes a call: status and body of the answer.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = request(&self.authority, method, path, headers, Full::new(body))?;
        // The connection comes back only after a complete answer: whatever else happens, the next call opens a new one.
        let connection = self.connection.take();
        let call = async {
            let mut connection = match connection {
                Some(open) if !open.is_closed() => open,
                _ => connect(&self.authority).await?,
            };
            let http = |error| CallError::Http(self.authority.clone(), error);
            connection.ready().await.map_err(http)?;
            let (head, body) = connection.send_request(request).await.map_err(http)?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| CallError::Body(self.authority.clone(), error))?;
            Ok((head.status, body.to_bytes(), connection))
        };
        let (status, body, connection) =
            timeout(ANSWER_TIMEOUT, call).await.map_err(|_| CallError::Late(self.authority.clone()))??;
        self.connection = Some(connection);
        Ok((status, body))
    }
}

/// Opens a stream that has no end: the body of the answer to a GET.
pub(super) async fn open_stream(authority: &Authority, path: &str) -> Result<Incoming, CallError> {
    let request = request(authority, Method::GET, path, &[("accept", "text/event-stream")], Full::default())?;
    let opening = async {
        let mut connection = connect(authority).await?;
        connection.send_request(request).await.map_err(|error| CallError::Http(authority.clone(), error))
    };
    let answer = timeout(ANSWER_TIMEOUT, opening).await.map_err(|_| CallError::Late(authority.clone()))??;
    if answer.status() == StatusCode::OK {
        Ok(answer.into_body())
    } else {
        Err(CallError::Status(authority.clone(), answer.status()))
    }
}

fn request(
    authority: &Authority,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Full<Bytes>,
) -> Result<Request<Full<Bytes>>, CallError> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, authority.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).map_err(CallError::Request)
}

async fn connect(authority: &Authority) -> Result<SendRequest<Full<Bytes>>, CallError> {
    let failed = |error| CallError::Connect(authority.clone(), error);
    let address = (host_name(authority), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| CallError::Http(authority.clone(), error))?;
    // Its errors reach the call that is under way; without one, nobody waits for them.
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(sender)
}

/// The host without the brackets of an IPv6 address.
fn host_name(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

/// Host and port of a gateway's base URL.
///
/// # Errors
/// [`DemoError::GatewayUrl`] for anything but `http://host[:port]`.
pub(super) fn authority(url: &Uri) -> Result<Authority, DemoError> {
    let refuse = |reason| Err(DemoError::GatewayUrl { url: url.clone(), reason });
    match (url.scheme_str(), url.authority()) {
        (Some("http"), Some(authority)) if matches!(url.path(), "" | "/") => Ok(authority.clone()),
        (Some("http"), Some(_)) => refuse("it must not have a path"),
        (Some("http") | None, _) => refuse("it must look like http://host:port"),
        (Some(_), _) => refuse("the demo speaks plain http only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_url_is_a_scheme_a_host_and_perhaps_a_port() {
        for url in ["http://localhost:4010", "http://10.0.0.7/", "http://[::1]:4010"] {
            authority(&url.parse().expect("a URI")).expect(url);
        }
        for url in ["https://localhost:4010", "http://localhost:4010/v3", "localhost:4010", "/v3"] {
            let error = authority(&url.parse().expect("a URI")).expect_err(url);
            assert!(error.to_string().starts_with(url), "{error}");
        }
    }

    #[test]
    fn an_ipv6_host_loses_its_brackets_before_it_is_connected_to() {
        assert_eq!(host_name(&Authority::from_static("[::1]:4010")), "::1");
        assert_eq!(host_name(&Authority::from_static("gateway:4010")), "gateway");
    }
}
