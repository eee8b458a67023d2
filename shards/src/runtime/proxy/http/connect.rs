//! Connecting to a backend: each of its addresses in turn, TLS where it is asked for, HTTP/1.1 or HTTP/2.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures_rustls::TlsConnector;
use futures_util::io::AsyncWrite;
use glommio::net::TcpStream;
use hyper::client::conn::http2;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Type};

use super::line::Line;
use super::pool::Pool;
use super::transport::{Transport, Wire};
use super::upload::RequestBody;
use crate::clock;
use crate::proxy::deadline::Deadline;
use crate::runtime::SharedWorld;
use crate::runtime::http::Spawner;
use crate::runtime::readiness::Socket;

/// Bytes of one answer that a backend may send ahead on HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of all answers on one connection: clients that don't read must not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A connection that has just been made.
pub(super) enum Connected {
    /// For one request at a time.
    Line(Box<Line>),
    /// For many.
    Multiplexed(http2::SendRequest<RequestBody>),
}

/// The deadline passed first.
pub(super) struct Late;

/// Waits for `future` until the deadline.
pub(super) async fn before<T>(deadline: &Deadline, future: impl Future<Output = T>) -> Result<T, Late> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => deadline.poll(cx).map(|()| Err(Late)),
    })
    .await
}

/// Connects within the time for it; `upgrade` asks for HTTP/1.1, which alone can change to another protocol here.
///
/// # Errors
/// Why the backend is out of reach.
pub(super) async fn connect(world: &SharedWorld, pool: &Pool, upgrade: bool) -> Result<Connected, Arc<str>> {
    let until_ms = clock::now_ms() + world.settings.proxy.connect_timeout_ms;
    let deadline = world.proxy.deadlines.at(until_ms);
    let resolver = &world.proxy.resolver;
    let late = |Late| -> Arc<str> { "the name server did not answer in time (PROXY_CONNECT_TIMEOUT)".into() };
    let addresses = before(&deadline, pool.addresses(resolver, &world.proxy.deadlines)).await.map_err(late)??;
    let tls = match pool.backend.tls {
        true => Some(before(&deadline, resolver.tls()).await.map_err(late)??),
        false => None,
    };
    let tls = if upgrade { tls.map(|config| without_http2(&config)) } else { tls };
    let count = addresses.len();
    let mut failures = String::new();
    for attempt in 0..count {
        let index = (pool.preferred.get() + attempt) % count;
        let address = addresses[index];
        let now_ms = clock::now_ms();
        let left = (count - attempt) as u64;
        deadline.set(now_ms + until_ms.saturating_sub(now_ms) / left);
        let failure = match before(&deadline, wire(world, address, tls.as_ref(), pool)).await {
            Ok(Ok(wire)) => {
                pool.preferred.set(index);
                return speak(world, pool, wire, deadline, upgrade).await.map_err(|error| error.to_string().into());
            }
            Ok(Err(error)) => format!("{address}: {error}"),
            Err(Late) if tls.is_some() => format!("{address}: no connection with TLS in time (PROXY_CONNECT_TIMEOUT)"),
            Err(Late) => format!("{address}: no connection in time (PROXY_CONNECT_TIMEOUT)"),
        };
        if !failures.is_empty() {
            failures.push_str("; ");
        }
        failures.push_str(&failure);
    }
    pool.doubt_addresses();
    Err(failures.into())
}

async fn wire(
    world: &SharedWorld,
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    pool: &Pool,
) -> io::Result<Wire> {
    let stream = Socket::new(open(address).await?, &world.readiness);
    let Some(config) = tls else { return Ok(Wire::Plain(stream)) };
    let name = ServerName::try_from(pool.backend.host.to_string()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    Ok(Wire::Tls(Box::new(stream)))
}

/// Opens a socket. Dropping the future at any time closes it and nothing else, other than with glommio's own way to connect.
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // SAFETY: the descriptor is a socket that nobody else owns any more.
    let mut stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
    // Sending nothing succeeds once the connection stands, and fails as it failed.
    poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &[])).await?;
    Ok(stream)
}

fn without_http2(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn speak(
    world: &SharedWorld,
    pool: &Pool,
    wire: Wire,
    deadline: Deadline,
    upgrade: bool,
) -> hyper::Result<Connected> {
    let buffer = Rc::clone(&world.read_buffer);
    let prior_knowledge = pool.backend.http2 && !pool.backend.tls && !upgrade;
    let multiplexed = wire.agreed_on_http2() || prior_knowledge;
    if !multiplexed {
        return Ok(Connected::Line(Line::new(wire, buffer, deadline).await?));
    }
    let received = Rc::default();
    let transport = Transport { wire, buffer, received: Rc::clone(&received) };
    let (sender, connection) = http2::Builder::new(Spawner)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake::<_, RequestBody>(transport)
        .await?;
    // It ends by itself when the last sender and the last exchange are gone.
    glommio::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to a backend has broken");
        }
    })
    .detach();
    pool.keep_multiplexed(sender.clone(), received);
    Ok(Connected::Multiplexed(sender))
}
