//! The internal TLS port's connections, for axum: handshakes run beside each other, bounded in time and number.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ServerConfig;
use tidegate_shards::tls::{HandshakeFailure, answer_to_plain};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::metrics::TlsMetrics;

/// Connections whose handshake is complete and that wait to be served.
const READY_CONNECTIONS: usize = 64;
/// Pause after the process has run out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How handshakes are done.
#[derive(Clone, Debug)]
pub struct Handshakes {
    /// What new connections are served with.
    pub config: watch::Receiver<Arc<ServerConfig>>,
    /// Time for one.
    pub timeout: Duration,
    /// How many may be in progress.
    pub max: usize,
    /// Counts them.
    pub metrics: Arc<TlsMetrics>,
}

type Ready = (TlsStream<TcpStream>, SocketAddr);

/// Gives connections once their handshake is complete.
#[derive(Debug)]
pub struct TlsListener {
    ready: mpsc::Receiver<Ready>,
    address: SocketAddr,
}

impl TlsListener {
    /// Begins to accept; must be called on the runtime that serves.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener, handshakes: Handshakes) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_CONNECTIONS);
        tokio::spawn(accept(listener, handshakes, sender));
        Ok(Self { ready, address })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Ready {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The task that accepts ends with the runtime.
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, handshakes: Handshakes, ready: mpsc::Sender<Ready>) {
    let permits = Arc::new(Semaphore::new(handshakes.max));
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the internal port could not be accepted");
                    sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            },
            () = ready.closed() => return,
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            handshakes.metrics.failed(HandshakeFailure::TooMany);
            continue;
        };
        let (handshakes, ready) = (handshakes.clone(), ready.clone());
        tokio::spawn(async move {
            let shaken = timeout(handshakes.timeout, shake(stream, &handshakes)).await;
            drop(permit);
            match shaken.unwrap_or(Err(HandshakeFailure::Timeout)) {
                Ok(stream) => {
                    handshakes.metrics.internal_handshakes.fetch_add(1, Ordering::Relaxed);
                    let _stopped = ready.send((stream, peer)).await;
                }
                Err(failure) => handshakes.metrics.failed(failure),
            }
        });
    }
}

async fn shake(mut stream: TcpStream, handshakes: &Handshakes) -> Result<TlsStream<TcpStream>, HandshakeFailure> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the internal port answers with Nagle's delay");
    }
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1..) => {}
        Ok(0) | Err(_) => return Err(HandshakeFailure::Closed),
    }
    if let Some(answer) = answer_to_plain(first[0]) {
        let _gone = stream.write_all(answer).await;
        return Err(HandshakeFailure::NotTls);
    }
    let config = Arc::clone(&handshakes.config.borrow());
    TlsAcceptor::from(config).accept(stream).await.map_err(|error| {
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        reason.map_or(HandshakeFailure::Closed, HandshakeFailure::from)
    })
}
