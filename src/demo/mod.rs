//! The ticket shop of `tidegate demo`: a backend as a user of the gateway would write one.
//!
//! Three services that share nothing and talk by events only: tickets owns the seats, payment owns the purses, mail writes to
//! buyers. A page calls the gateway to buy a seat; the call becomes an event, and the answer finds its way back to the open
//! call. The shop knows nothing of the gateway but two URLs (and of Kafka its brokers), so it runs beside it in one process
//! or alone against any other.
//!
//! Read on in this order: [`event`] (what they tell each other), [`service`] (what they have in common), [`tickets`] with
//! [`hall`], [`payment`], [`mail`] (no I/O in any of them), [`api`] (what the gateway is told), [`desk`] (calls become
//! events where there is no Kafka), [`hub`] (how events travel), [`shop`] (the website), [`accounts`] (who signs in), [`crowd`] (simulated buyers),
//! [`audience`] (how many look on).

mod accounts;
mod api;
mod audience;
mod client;
mod command;
mod crowd;
mod desk;
mod event;
mod hall;
mod hub;
mod mail;
mod payment;
mod recent;
mod service;
mod shop;
#[cfg(test)]
mod tests;
mod tickets;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use http::Uri;
use http::uri::Authority;
use tokio::sync::oneshot;

use crate::config::KafkaSettings;
pub use accounts::TokenKey;
use api::Backend;
use client::GatewayClient;
pub use command::DemoArguments;
use hub::{GatewayHub, Hub, KafkaHub, Live};
use mail::Mail;
use payment::Payment;
use service::Service;
use tickets::Tickets;

/// How long a stop waits for threads that wait for Kafka.
const FAREWELL: Duration = Duration::from_secs(2);

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
    /// Name or address under which the gateway reaches the shop.
    pub host: String,
    /// Number of simulated buyers.
    pub buyers: u16,
    /// Kafka, if the gateway has one, and the topics that it takes answers from; else the gateway's hub carries the events.
    pub kafka: Option<(KafkaSettings, Vec<String>)>,
    /// What the tokens of people who sign in are signed with; `None`: there are no tokens.
    pub token_key: Option<TokenKey>,
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
    /// librdkafka refuses a setting.
    #[error("the ticket shop cannot use Kafka: {0}")]
    Kafka(rdkafka::error::KafkaError),
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
    /// Tells once that the gateway knows the shop, so that seats can be bought.
    opened: Option<std::sync::mpsc::Receiver<()>>,
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
    let DemoOptions { listen, gateway_internal, gateway_inbound, host, buyers, kafka, token_key } = options;
    let gateway =
        GatewayHub { internal: client::authority(&gateway_internal)?, inbound: client::authority(&gateway_inbound)? };
    let hub = match kafka {
        Some((settings, responses)) => {
            Hub::Kafka(Arc::new(KafkaHub::new(&settings, &responses).map_err(DemoError::Kafka)?))
        }
        None => Hub::Gateway(gateway.clone()),
    };

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
    let (opening, opened) = std::sync::mpsc::channel();
    let premises = Premises {
        hub,
        gateway,
        backend: Backend { host, port: address.port() },
        gateway_inbound: gateway_inbound.clone(),
        buyers,
        token_key,
    };

    let thread = thread::Builder::new()
        .name("ticket-shop".into())
        .spawn(move || {
            runtime.block_on(async {
                let router = premises.open(opening);
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the ticket shop no longer serves its page");
                        }
                    }
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(FAREWELL);
        })
        .map_err(DemoError::Thread)?;
    let (stop, thread, opened) = (Some(stop), Some(thread), Some(opened));
    Ok(Shop { address, gateway_internal, gateway_inbound, opened, stop, thread })
}

/// What the services work with.
#[derive(Debug)]
struct Premises {
    hub: Hub,
    gateway: GatewayHub,
    backend: Backend,
    gateway_inbound: Uri,
    buyers: u16,
    token_key: Option<TokenKey>,
}

impl Premises {
    /// Starts every task of the shop; gives the website. `opening` is told once seats can be bought.
    fn open(self, opening: std::sync::mpsc::Sender<()>) -> Router {
        let first_show = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        let (tickets, board) = Tickets::open(first_show);
        let services = vec![self.serve(tickets), self.serve(Payment::default()), self.serve(Mail::default())];
        let client = |authority: &Authority| GatewayClient::new(authority.clone());
        let mut website = shop::router(board, self.gateway_inbound).merge(accounts::router(self.token_key));
        let own_streams = match &self.hub {
            Hub::Gateway(_) => {
                website = website.merge(desk::router(self.hub.outbox()));
                services.clone()
            }
            Hub::Kafka(hub) => {
                let hub = Arc::clone(hub);
                tokio::spawn(async move { hub.create_topics().await });
                Vec::new()
            }
        };
        tokio::spawn(audience::run(self.hub.outbox(), client(&self.gateway.internal), own_streams));
        let definition = api::definition(&self.hub, &self.backend);
        tokio::spawn(api::register(client(&self.gateway.internal), definition, services, opening));
        for _ in 0..self.buyers {
            tokio::spawn(crowd::run(client(&self.gateway.inbound)));
        }
        website
    }

    fn serve<S: Service>(&self, service: S) -> Live {
        let (inbox, live) = self.hub.subscribe(S::LISTENS_TO);
        tokio::spawn(service::run(service, inbox, self.hub.outbox()));
        live
    }
}
