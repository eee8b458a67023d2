//! `/health`: tests the data path itself, not just that a port answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_channel::oneshot;
use tidegate_shards::clock;

use crate::kafka::Reachability;

/// Time for a shard to show life.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks a shard, by its index, for a sign of life.
pub type Ping = Arc<dyn Fn(usize) -> oneshot::Receiver<()> + Send + Sync>;

/// What health depends on.
#[derive(Clone)]
pub struct Health {
    /// Asks one shard.
    pub ping: Ping,
    /// Number of shards.
    pub shards: usize,
    /// Kafka, and the seconds it may be out of reach.
    pub kafka: Option<(Arc<Reachability>, u64)>,
    /// Whether the node moves its clients away, and takes no more.
    pub draining: Arc<AtomicBool>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Health")
            .field("shards", &self.shards)
            .field("kafka", &self.kafka)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// Asks all shards at once and looks at Kafka.
    ///
    /// # Errors
    /// Every reason why this node isn't healthy, one per line.
    pub async fn check(&self) -> Result<(), String> {
        let pings: Vec<_> = (0..self.shards).map(|shard| (self.ping)(shard)).collect();
        let deadline = tokio::time::Instant::now() + PING_TIMEOUT;
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("draining".to_owned());
        }
        for (shard, ping) in pings.into_iter().enumerate() {
            match tokio::time::timeout_at(deadline, ping).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => reasons.push(format!("shard {shard} has ended, or is too far behind to be asked")),
                Err(_) => reasons.push(format!("shard {shard} did not answer within {} s", PING_TIMEOUT.as_secs())),
            }
        }
        reasons.extend(self.kafka_reason(clock::now_ms()));
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("\n")) }
    }

    fn kafka_reason(&self, now_ms: u64) -> Option<String> {
        let (reachability, seconds) = self.kafka.as_ref()?;
        let out_of_reach_ms = reachability.out_of_reach_ms(now_ms).filter(|ms| *ms >= seconds * 1_000)?;
        Some(format!("Kafka has been out of reach for {} s: {}", out_of_reach_ms / 1_000, reachability.last_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(health: &Health) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(health.check())
    }

    fn answering() -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        sender.send(()).expect("the receiver is there");
        receiver
    }

    #[test]
    fn all_shards_alive_is_healthy() {
        let health = Health { ping: Arc::new(|_| answering()), shards: 3, kafka: None, draining: Arc::default() };
        assert_eq!(check(&health), Ok(()));
    }

    #[test]
    fn a_draining_node_takes_no_clients() {
        let draining = Arc::new(AtomicBool::new(true));
        let health = Health { ping: Arc::new(|_| answering()), shards: 1, kafka: None, draining };
        assert_eq!(check(&health), Err("draining".to_owned()));
    }

    #[test]
    fn a_shard_that_has_ended_is_named() {
        let ping: Ping = Arc::new(|shard| if shard == 1 { oneshot::channel().1 } else { answering() });
        let health = Health { ping, shards: 2, kafka: None, draining: Arc::default() };
        assert_eq!(check(&health), Err("shard 1 has ended, or is too far behind to be asked".to_owned()));
    }

    #[test]
    fn a_shard_that_does_not_answer_is_named() {
        let kept = std::sync::Mutex::new(Vec::new());
        let ping: Ping = Arc::new(move |_| {
            let (sender, receiver) = oneshot::channel();
            kept.lock().expect("no panic").push(sender);
            receiver
        });
        let health = Health { ping, shards: 1, kafka: None, draining: Arc::default() };
        assert_eq!(check(&health), Err("shard 0 did not answer within 1 s".to_owned()));
    }

    #[test]
    fn kafka_out_of_reach_counts_after_the_configured_time() {
        let reachability = Arc::new(Reachability::new(0));
        let health = Health {
            ping: Arc::new(|_| answering()),
            shards: 0,
            kafka: Some((reachability, 30)),
            draining: Arc::default(),
        };
        assert_eq!(health.kafka_reason(29_999), None);
        assert!(health.kafka_reason(30_000).is_some_and(|reason| reason.contains("30 s")));
    }
}
