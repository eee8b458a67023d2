//! The port on which other nodes call this one. It is a port of its own, and of this process alone: during an upgrade two
//! processes share all others.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use http_body_util::{BodyExt as _, Collected, LengthLimitError, Limited};
use tokio::sync::Semaphore;

use super::NodeDesk;
use crate::control::AnswerDesk;
use crate::takeover;

/// Bodies that are read at a time; further calls wait for their turn. With the bound on each, it bounds their memory.
const MAX_READING: usize = 16;
/// Time for a body to be read, in which it waits for its turn too.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What the port serves from.
struct Port {
    desk: NodeDesk,
    answers: AnswerDesk,
    max_call_bytes: usize,
    reading: Semaphore,
}

/// Binds the port.
pub(super) fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    takeover::bind(listen).map_err(|error| {
        let text =
            format!("the port for other nodes can't listen on {listen}: {error}; set NODE_PORT or INTERNAL_HOST");
        io::Error::new(error.kind(), text)
    })
}

/// Serves calls of other nodes, with bodies of at most so many bytes, until the runtime ends.
pub(super) async fn serve(
    listener: TcpListener,
    desk: NodeDesk,
    answers: AnswerDesk,
    max_call_bytes: usize,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the port for other nodes answers with Nagle's delay");
        }
    });
    let port = Port { desk, answers, max_call_bytes, reading: Semaphore::new(MAX_READING) };
    let router = Router::new().fallback(call).layer(DefaultBodyLimit::disable()).with_state(Arc::new(port));
    axum::serve(listener, router).await
}

async fn call(State(port): State<Arc<Port>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return StatusCode::NOT_FOUND.into_response();
    }
    // Nothing is kept for whoever has not proven to be a node.
    let admitted = match port.desk.admit(head.uri.path(), &head.headers, super::unix_ms() / 1_000) {
        Ok(admitted) => admitted,
        Err(status) => return status.into_response(),
    };
    match read(body, port.max_call_bytes, &port.reading).await {
        Ok(body) => port.desk.answer(&admitted, head.headers, body, &port.answers).await,
        Err(status) => status.into_response(),
    }
}

/// Reads a body of at most so many bytes as soon as it has its turn.
async fn read(body: Body, max_bytes: usize, reading: &Semaphore) -> Result<Bytes, StatusCode> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let collected = async {
        let _turn = reading.acquire().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let collected = Limited::new(body, max_bytes).collect().await;
        collected.map(Collected::to_bytes).map_err(|error| {
            let too_large = error.is::<LengthLimitError>();
            if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::UNPROCESSABLE_ENTITY }
        })
    };
    tokio::time::timeout(READ_TIMEOUT, collected).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn a_body_is_read_up_to_its_bound() {
        let reading = Semaphore::new(1);
        let read = |body: &'static [u8], max_bytes| run(read(Body::from(body), max_bytes, &reading));
        assert_eq!(read(b"four", 4), Ok(Bytes::from_static(b"four")));
        assert_eq!(read(b"four", 3), Err(StatusCode::PAYLOAD_TOO_LARGE));
        let chunks = futures_util::stream::iter([Ok::<_, io::Error>("fo"), Ok("ur")]);
        let streamed = run(super::read(Body::from_stream(chunks), 3, &reading));
        assert_eq!(streamed, Err(StatusCode::PAYLOAD_TOO_LARGE), "its length is not said");
        let breaks = futures_util::stream::iter([Ok("fo"), Err(io::Error::other("reset"))]);
        let broken = run(super::read(Body::from_stream(breaks), 4, &reading));
        assert_eq!(broken, Err(StatusCode::UNPROCESSABLE_ENTITY));
    }

    #[test]
    fn a_call_that_gets_no_turn_or_no_body_is_given_up() {
        let none = Semaphore::new(0);
        assert_eq!(run(read(Body::from("four"), 4, &none)), Err(StatusCode::REQUEST_TIMEOUT));
        let reading = Semaphore::new(1);
        let silent = futures_util::stream::pending::<Result<Bytes, io::Error>>();
        assert_eq!(run(read(Body::from_stream(silent), 4, &reading)), Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(reading.available_permits(), 1, "the next one has its turn");
    }
}
