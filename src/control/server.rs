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
use super::{Access, AnswerDesk, Health, MetricSources};
use crate::proxy::Apis;
use crate::sessions::Blacklist;
use crate::takeover;
use crate::tls::listener::{Handshakes, TlsListener};

/// How long open calls may go on after the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the internal port serves from.
pub struct ControlParts {
    /// Address of the plain port; `None` opens none.
    pub listen: Option<SocketAddr>,
    /// The TLS port; `None` opens none.
    pub tls: Option<InternalTls>,
    /// Who may call.
    pub access: Access,
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

/// The TLS port of the internal API.
#[derive(Debug)]
pub struct InternalTls {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// How its handshakes are done.
    pub handshakes: Handshakes,
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
    plain: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Binds the ports and starts the thread.
    ///
    /// # Errors
    /// A port can't be bound, or the thread can't be started.
    pub fn start(parts: ControlParts) -> io::Result<Self> {
        let ControlParts { listen, tls, access, health, metrics, apis, blacklist, sink, desk, limits } = parts;
        let plain = listen.map(|listen| bind(listen, "API_HTTP_PORT")).transpose()?;
        let tls = match tls {
            Some(tls) => Some((bind(tls.listen, "API_HTTPS_PORT")?, tls.handshakes)),
            None => None,
        };
        let plain_address = plain.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
        let tls_address = tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let api = Api { access, health, metrics, apis, blacklist, sink, desk, limits };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(plain, tls, api, stopped)) {
                tracing::error!(%error, "the internal port has ended");
            }
        })?;
        Ok(Self { plain: plain_address, tls: tls_address, stop, thread })
    }

    /// The address of the plain port (port 0 resolved), where it is open.
    #[must_use]
    pub fn plain(&self) -> Option<SocketAddr> {
        self.plain
    }

    /// The address of the TLS port, where it is open.
    #[must_use]
    pub fn tls(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// Takes no more connections, lets open calls end within a bounded time, and waits for the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

fn bind(listen: SocketAddr, setting: &str) -> io::Result<std::net::TcpListener> {
    takeover::bind(listen).map_err(|error| {
        let text = format!("the internal port can't listen on {listen}: {error}; set {setting} or INTERNAL_HOST");
        io::Error::new(error.kind(), text)
    })
}

async fn serve(
    plain: Option<std::net::TcpListener>,
    tls: Option<(std::net::TcpListener, Handshakes)>,
    api: Api,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = router(api);
    let plain = async {
        let Some(listener) = plain else { return Ok(()) };
        let listener = TcpListener::from_std(listener)?.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "the internal port answers with Nagle's delay");
            }
        });
        axum::serve(listener, router.clone()).with_graceful_shutdown(stop(stopped.clone())).await
    };
    let tls = async {
        let Some((listener, handshakes)) = tls else { return Ok(()) };
        let listener = TlsListener::start(TcpListener::from_std(listener)?, handshakes)?;
        axum::serve(listener, router.clone()).with_graceful_shutdown(stop(stopped.clone())).await
    };
    tokio::select! {
        result = async { tokio::try_join!(plain, tls) } => result.map(|((), ())| ()),
        () = async { stop(stopped.clone()).await; tokio::time::sleep(DRAIN_TIMEOUT).await } => Ok(()),
    }
}

async fn stop(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender has gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}
