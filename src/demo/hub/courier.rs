//! Brings an outbox's letters to the hub, one after the other, each until it has arrived.

use std::sync::Arc;
use std::time::Duration;

use super::Hub;
use super::outbox::Outbox;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// What became of one attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrived,
    /// Sending it again would end the same way.
    Refused(String),
    Retry(String),
}

/// Carries for ever.
pub(super) async fn run(outbox: Arc<Outbox>, hub: Hub) {
    let mut gateway = match &hub {
        Hub::Gateway(hub) => Some(hub.client()),
        Hub::Kafka(_) => None,
    };
    let mut retry_in = FIRST_RETRY;
    loop {
        let letter = outbox.oldest().await;
        let fate = match (&hub, &mut gateway) {
            (Hub::Kafka(hub), _) => hub.produce(&letter).await,
            (Hub::Gateway(_), Some(gateway)) => super::gateway::post(gateway, &letter).await,
            (Hub::Gateway(_), None) => return,
        };
        match fate {
            Fate::Arrived => {}
            Fate::Refused(reason) => tracing::warn!(%reason, "a letter of the ticket shop is refused; it is lost"),
            Fate::Retry(reason) => {
                if retry_in == FIRST_RETRY {
                    tracing::warn!(%reason, "the ticket shop cannot publish; it keeps trying");
                }
                tokio::time::sleep(retry_in).await;
                retry_in = (retry_in * 2).min(LONGEST_RETRY);
                continue;
            }
        }
        outbox.done();
        retry_in = FIRST_RETRY;
    }
}
