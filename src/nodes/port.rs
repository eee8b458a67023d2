//! The port on which other nodes call this one. It is a port of its own, and of this process alone: during an upgrade two
//! processes share all others.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use http_body_util::{BodyExt as _, Limited};

use super::{CALL_PREFIX, NodeDesk};
use crate::control::AnswerDesk;
use crate::takeover;

/// Bytes of one call: a list of subscriptions or an answer, which the node that makes the call has held to `MAX_BODY_BYTES`, and
/// what is around it.
const MAX_CALL_BYTES: usize = 1 << 30;

/// Binds the port.
pub(super) fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    takeover::bind(listen).map_err(|error| {
        let text =
            format!("the port for other nodes can't listen on {listen}: {error}; set NODE_PORT or INTERNAL_HOST");
        io::Error::new(error.kind(), text)
    })
}

/// Serves calls of other nodes until the runtime ends.
pub(super) async fn serve(listener: TcpListener, desk: NodeDesk, answers: AnswerDesk) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the port for other nodes answers with Nagle's delay");
        }
    });
    let router = Router::new().fallback(call).layer(DefaultBodyLimit::disable()).with_state(Arc::new((desk, answers)));
    axum::serve(listener, router).await
}

async fn call(State(state): State<Arc<(NodeDesk, AnswerDesk)>>, request: Request) -> Response {
    let (desk, answers) = &*state;
    let (head, body) = request.into_parts();
    if head.method != Method::POST || !head.uri.path().starts_with(CALL_PREFIX) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match Limited::new(body, MAX_CALL_BYTES).collect().await {
        Ok(body) => desk.answer(head.uri.path(), head.headers, body.to_bytes(), answers).await,
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}
