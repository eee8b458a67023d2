//! Counts once per second how many look on, as the gateway sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::client::GatewayClient;
use super::event::{AUDIENCE_COUNTED, Counted, Draft};
use super::hub::Live;
use super::hub::outbox::Outbox;
use super::service::{Output, post};

const PERIOD: Duration = Duration::from_secs(1);
/// The gateway's gauge of open connections, labelled with their transport.
const CONNECTIONS: &str = "tidegate_connections";

/// Counts for ever. `own` are the event streams of the shop's services, which are no viewers.
pub(super) async fn run(outbox: Arc<Outbox>, mut gateway: GatewayClient, own: Vec<Live>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let viewers = match gateway.get("/metrics").await {
            Ok((status, body)) if status.is_success() => viewers(&String::from_utf8_lossy(&body)),
            Ok((status, _)) => {
                tracing::debug!(%status, "the gateway has no metrics");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "viewers are unknown");
                None
            }
        };
        let own = own.iter().filter(|live| *live.borrow()).count() as u64;
        let counted = Counted { viewers: viewers.map(|viewers| viewers.saturating_sub(own)) };
        post(&outbox, "/audience", Output::Figures(Draft::new(AUDIENCE_COUNTED, &counted)));
    }
}

/// Sum of the open event streams, WebSockets and long-polling sessions of all shards, from Prometheus text.
/// `None` if there is no such gauge.
fn viewers(metrics: &str) -> Option<u64> {
    metrics.lines().filter_map(viewers_of_sample).reduce(|sum, count| sum + count)
}

fn viewers_of_sample(line: &str) -> Option<u64> {
    let (labels, value) = line.strip_prefix(CONNECTIONS)?.strip_prefix('{')?.split_once('}')?;
    let long_lived = ["sse", "ws", "longpolling"];
    if !long_lived.iter().any(|transport| labels.split(',').any(|label| label == format!("transport=\"{transport}\"")))
    {
        return None;
    }
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_the_long_lived_connections_of_all_shards() {
        let metrics = "# TYPE tidegate_connections gauge\n\
            tidegate_connections{shard=\"0\",transport=\"sse\"} 3\n\
            tidegate_connections{shard=\"1\",transport=\"ws\"} 2\n\
            tidegate_connections{shard=\"1\",transport=\"http\"} 7\n\
            tidegate_connections_accepted_total{transport=\"ws\"} 99\n";
        assert_eq!(viewers(metrics), Some(5));
    }

    #[test]
    fn without_the_gauge_viewers_are_unknown() {
        assert_eq!(viewers("rig_subscriptions_total 4\n"), None);
        assert_eq!(viewers("tidegate_connections{transport=\"ws\"} many\n"), None);
        assert_eq!(viewers("tidegate_connections{transport=\"ws\""), None);
    }
}
