//! A client of the gateway's internal port: one kept-alive HTTP/1.1 connection, opened anew when it broke.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DemoError;

/// A gateway that does not answer for this long is treated as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
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
    #[error("{0} did not answer within {ANSWER_TIMEOUT:?}")]
    Late(Authority),
}

/// One connection to the gateway, used by one caller at a time.
#[derive(Debug)]
pub(super) struct GatewayClient {
    authority: Authority,
    host: HeaderValue,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl GatewayClient {
    /// A client of this base URL. Connects with its first call.
    ///
    /// # Errors
    /// [`DemoError::GatewayUrl`] for anything but `http://host[:port]`.
    pub(super) fn new(url: &Uri) -> Result<Self, DemoError> {
        let authority = authority(url)?;
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| DemoError::GatewayUrl { url: url.clone(), reason: "its host cannot stand in a header" })?;
        Ok(Self { authority, host, connection: None })
    }

    /// Posts JSON of the given content type and gives the answer's status.
    pub(super) async fn post(
        &mut self,
        path: &'static str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<StatusCode, CallError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(self.call(request).await?.0)
    }

    /// Fetches a resource: status and body.
    pub(super) async fn get(&mut self, path: &'static str) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = Uri::from_static(path);
        self.call(request).await
    }

    async fn call(&mut self, mut request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), CallError> {
        request.headers_mut().insert(HOST, self.host.clone());
        // The connection comes back only after a complete answer: whatever else happens, the next call opens a new one.
        let connection = self.connection.take();
        let call = async {
            let mut connection = match connection {
                Some(open) if !open.is_closed() => open,
                _ => self.connect().await?,
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

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let failed = |error| CallError::Connect(self.authority.clone(), error);
        let address = (host_name(&self.authority), self.authority.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| CallError::Http(self.authority.clone(), error))?;
        // Its errors reach the call that is under way; without one, nobody waits for them.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(sender)
    }
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
