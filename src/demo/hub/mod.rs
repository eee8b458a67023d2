//! How the services of the shop talk: through Kafka's topics, or through the gateway's own hub.
//!
//! A service has an [`Inbox`] and an [`Outbox`]; it can't tell which of the two hubs is behind them.

mod courier;
mod gateway;
mod kafka;
pub(super) mod outbox;
mod sse;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub(super) use gateway::GatewayHub;
pub(super) use kafka::{KafkaHub, REQUESTS};

use self::outbox::Outbox;
use super::service::Delivery;

/// Events that may wait for one service; beyond, its subscription is read no further.
const INBOX_CAPACITY: usize = 256;

/// The way of all events.
#[derive(Debug, Clone)]
pub(super) enum Hub {
    /// Posted to the gateway's internal port, received from it as any subscriber does.
    Gateway(GatewayHub),
    /// Kafka's topics.
    Kafka(Arc<KafkaHub>),
}

/// What a service hears.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// Its subscription is in force, for the first time or anew: a hub in a gateway's memory may have forgotten everything.
    Subscribed,
    /// An event of a type that it wants.
    Event(Delivery),
}

/// The reading end of a subscription.
#[derive(Debug)]
pub(super) struct Inbox {
    deliveries: mpsc::Receiver<Heard>,
}

impl Inbox {
    /// What comes next; `None` once the shop closes.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        self.deliveries.recv().await
    }
}

/// Says whether a subscription is in force at the moment.
pub(super) type Live = watch::Receiver<bool>;

/// The writing end of an inbox.
#[derive(Debug)]
struct Feed {
    types: &'static [&'static str],
    deliveries: mpsc::Sender<Heard>,
    live: watch::Sender<bool>,
}

impl Hub {
    /// Subscribes to events of these types, for as long as the inbox lives.
    pub(super) fn subscribe(&self, types: &'static [&'static str]) -> (Inbox, Live) {
        let (sender, deliveries) = mpsc::channel(INBOX_CAPACITY);
        let (live, is_live) = watch::channel(false);
        let feed = Feed { types, deliveries: sender, live };
        match self {
            Self::Gateway(hub) => drop(tokio::spawn(hub.clone().read(feed))),
            Self::Kafka(hub) => {
                let hub = Arc::clone(hub);
                drop(tokio::task::spawn_blocking(move || hub.read(&feed)));
            }
        }
        (Inbox { deliveries }, is_live)
    }

    /// An outbox whose letters are brought to where they belong.
    pub(super) fn outbox(&self) -> Arc<Outbox> {
        let outbox = Arc::<Outbox>::default();
        tokio::spawn(courier::run(Arc::clone(&outbox), self.clone()));
        outbox
    }
}
