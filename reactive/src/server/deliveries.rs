//! The server's second thread: serves delivery reports, and gives handlers up whose time is over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::metrics::ServerMetrics;
use super::{Shared, serving};
use crate::kafka;
use crate::kafka::events::{Report, Reports};
use crate::kafka::turns::Turns;
use crate::progress::Token;
use crate::wheel::TICK_MS;

/// Time for what is in librdkafka when a server ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until nothing more will be sent.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut next_turn_ms = 0;
    while !shared.drained.load(Ordering::Acquire) {
        shared.outlet.serve(Duration::from_millis(TICK_MS));
        let now_ms = shared.now_ms();
        if now_ms >= next_turn_ms {
            next_turn_ms = now_ms + TICK_MS;
            let mut late = Vec::new();
            shared.timers().expire(now_ms, |_, ticket| late.push(ticket));
            late.into_iter().for_each(|ticket| serving::give_up(shared, &ticket));
        }
    }
    shared.outlet.flush(FLUSH_TIMEOUT);
}

/// A message on its way: what is dealt with once Kafka has it.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) token: Option<Token>,
    pub(super) is_answer: bool,
    pub(super) at: Instant,
}

/// Receives what became of answers and dead letters.
#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) owner: Arc<OnceLock<Weak<Shared>>>,
    pub(super) turns: Turns,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidegate::reactive", %error, reason, "librdkafka reports");
    }
}

impl ProducerContext<Turns> for Deliveries {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        self.report(&mut std::iter::once((result, sent)));
    }

    fn get_custom_partitioner(&self) -> Option<&Turns> {
        Some(&self.turns)
    }
}

impl Reports for Deliveries {
    fn report(&self, reports: &mut dyn Iterator<Item = Report<Self>>) {
        let Some(shared) = self.owner.get().and_then(Weak::upgrade) else { return };
        let (metrics, now) = (&shared.metrics, Instant::now());
        shared.settle_all(reports.filter_map(|(result, sent)| {
            match result {
                Ok(()) if sent.is_answer => {
                    ServerMetrics::count(&metrics.answered);
                    metrics.answering.record(now.saturating_duration_since(sent.at));
                }
                Ok(()) => ServerMetrics::count(&metrics.dead_letters),
                Err(error) => {
                    // At the end: it isn't known whether Kafka has it, so its request is not done.
                    if matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight)) {
                        return None;
                    }
                    ServerMetrics::count(&metrics.unanswered);
                    tracing::warn!(target: "tidegate::reactive", %error, "Kafka did not take an answer or a dead letter");
                }
            }
            sent.token
        }));
    }
}
