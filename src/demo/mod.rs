//! The ticket shop of `tidegate demo`: a backend as a user of the gateway would write one.
//!
//! It owns the truth (who has which seat), answers the page's calls, and tells the world about every change by posting
//! CloudEvents to the gateway's internal port. It knows nothing of the gateway but two URLs, so it runs beside it in one
//! process or alone against any other.
//!
//! Read on in this order: [`hall`] (seats and sales, no I/O), [`event`] (what is published), [`office`] (a sale and its
//! event, in one step), [`outbox`] and [`publisher`] (on to the gateway, in order), [`shop`] (the page and its calls),
//! [`crowd`] (simulated buyers), [`audience`] (how many look on).

mod audience;
mod client;
mod command;
mod crowd;
mod event;
mod hall;
mod office;
mod outbox;
mod publisher;
mod shop;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::{io, thread};

use http::Uri;
use tokio::sync::oneshot;

use client::GatewayClient;
pub use command::DemoArguments;
use office::BoxOffice;

/// What the shop is told at start.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where the shop listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Base URL of the gateway's internal port, where events are published: `http://127.0.0.1:4010`.
    pub gateway_internal: Uri,
    /// Base URL of the gateway's inbound port, as browsers reach it. Where it names this machine itself, the page gets the
    /// name it was opened under instead, so that a phone in the same network works too.
    pub gateway_inbound: Uri,
    /// Number of simulated buyers.
    pub buyers: u16,
}

/// Why the shop did not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The port is taken, or may not be used.
    #[error("the ticket shop cannot listen on {address}: {cause}; choose another port with --port")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// A gateway URL that cannot be used.
    #[error("{url} is no usable gateway URL: {reason}")]
    GatewayUrl {
        /// The URL as given.
        url: Uri,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No thread or no runtime for the shop.
    #[error("the ticket shop's thread cannot start: {0}")]
    Thread(io::Error),
}

/// A running shop; closed when dropped.
#[derive(Debug)]
pub struct Shop {
    address: SocketAddr,
    gateway_internal: Uri,
    gateway_inbound: Uri,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Shop {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Shop {
    /// Waits for the shop's thread.
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the ticket shop ended with a panic");
        }
    }
}

/// Starts the shop on a thread of its own and returns once it listens.
///
/// # Errors
/// See [`DemoError`]. A gateway that is away is no error: the shop waits for it.
pub fn start(options: DemoOptions) -> Result<Shop, DemoError> {
    let DemoOptions { listen, gateway_internal, gateway_inbound, buyers } = options;
    let publisher = GatewayClient::new(&gateway_internal)?;
    let metrics = GatewayClient::new(&gateway_internal)?;
    client::authority(&gateway_inbound)?;

    let listening = |cause| DemoError::Listen { address: listen, cause };
    let listener = TcpListener::bind(listen).map_err(listening)?;
    listener.set_nonblocking(true).map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DemoError::Thread)?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(listening)?
    };
    let (stop, stopped) = oneshot::channel();
    let office = Arc::new(BoxOffice::default());
    let router = shop::router(Arc::clone(&office), gateway_inbound.clone());

    let thread = thread::Builder::new()
        .name("ticket-shop".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::spawn(publisher::run(Arc::clone(&office), publisher));
                tokio::spawn(audience::run(Arc::clone(&office), metrics));
                for _ in 0..buyers {
                    tokio::spawn(crowd::run(Arc::clone(&office)));
                }
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the ticket shop no longer serves its page");
                        }
                    }
                    _ = stopped => {}
                }
            });
        })
        .map_err(DemoError::Thread)?;
    Ok(Shop { address, gateway_internal, gateway_inbound, stop: Some(stop), thread: Some(thread) })
}
