//! HTTP/1.1 to the ports of other nodes, over kept connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::wire::PROOF_HEADER;

/// Unused connections that are kept, per node.
const MAX_IDLE: usize = 64;
/// Largest answer: a poll that fetches a session full of large events.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the call can't be written: {0}")]
    Request(#[from] axum::http::Error),
    #[error("the answer breaks off or is too large: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

type Sender = SendRequest<Full<Bytes>>;

/// Makes calls; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    idle: Arc<Mutex<HashMap<String, Vec<Sender>>>>,
}

impl Client {
    /// POSTs to a node and reads the whole answer. A kept connection that turns out to be closed is replaced by a new one.
    pub(super) async fn call(
        &self,
        address: &str,
        path: &str,
        proof: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = || {
            let mut request = Request::post(path).header(header::HOST, address).header(PROOF_HEADER, proof);
            if let Some(map) = request.headers_mut() {
                map.extend(headers.clone());
            }
            request.body(Full::new(body.clone()))
        };
        let (response, sender) = loop {
            let Some(mut sender) = self.take(address) else {
                let mut sender = connect(address).await?;
                break (sender.send_request(request()?).await?, sender);
            };
            match sender.send_request(request()?).await {
                Ok(response) => break (response, sender),
                Err(error) if error.is_canceled() => {}
                Err(error) => return Err(error.into()),
            }
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(CallError::Body)?;
        self.keep(address, sender);
        Ok((status, body.to_bytes()))
    }

    fn take(&self, address: &str) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.get_mut(address)?;
        while let Some(sender) = senders.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        idle.remove(address);
        None
    }

    fn keep(&self, address: &str, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Nodes that have ended leave closed connections only.
        idle.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        let senders = idle.entry(address.to_owned()).or_default();
        if senders.len() < MAX_IDLE && !sender.is_closed() {
            senders.push(sender);
        }
    }
}

async fn connect(address: &str) -> Result<Sender, CallError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to another node broke");
        }
    });
    Ok(sender)
}
