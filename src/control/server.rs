//! The control thread: a tokio runtime of one thread that serves the internal port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::serve::ListenerExt;
use tidegate_shards::event::EventLimits;
use tidegate_shards::submit::EventSink;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::router::{Api, router};
use super::{AnswerDesk, Health, MetricSources};
use crate::proxy::Apis;
use crate::sessions::Blacklist;
use crate::takeover;

/// How long open calls may go on after the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the internal port serves from.
pub struct ControlParts {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Health.
    pub health: Health,
    /// Metrics; `None` serves none.
    pub metrics: Option<MetricSources>,
    /// API definitions.
    pub apis: Arc<Apis>,
    /// Blacklisted sessions.
    pub blacklist: Arc<Blacklist>,
    /// Where published events go.
    pub sink: Arc<dyn EventSink>,
    /// Takes answers of services.
    pub desk: AnswerDesk,
    /// Limits of published events.
    pub limits: EventLimits,
}

impl std::fmt::Debug for ControlParts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ControlParts")
            .field("listen", &self.listen)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// The running control thread.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Binds the port and starts the thread.
    ///
    /// # Errors
    /// The port can't be bound, or the thread can't be started.
    pub fn start(parts: ControlParts) -> io::Result<Self> {
        let listen = parts.listen;
        let wrap = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("the internal port can't listen on {listen}: {error}; set API_HTTP_PORT or INTERNAL_HOST"),
            )
        };
        let listener = takeover::bind(listen).map_err(wrap)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let ControlParts { health, metrics, apis, blacklist, sink, desk, limits, .. } = parts;
        let api = Api { health, metrics, apis, blacklist, sink, desk, limits };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, api, stopped)) {
                tracing::error!(%error, "the internal port has ended");
            }
        })?;
        Ok(Self { address, stop, thread })
    }

    /// The address it listens on (port 0 resolved).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets open calls end within a bounded time, and waits for the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

async fn serve(listener: std::net::TcpListener, api: Api, stopped: watch::Receiver<bool>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the internal port answers with Nagle's delay");
        }
    });
    let wait = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the sender has gone, which is a stop too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let drained = axum::serve(listener, router(api)).with_graceful_shutdown(wait(stopped.clone()));
    tokio::select! {
        result = drained => result,
        () = async { wait(stopped).await; tokio::time::sleep(DRAIN_TIMEOUT).await } => Ok(()),
    }
}
