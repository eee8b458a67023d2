//! `POST /v3/responses`: answers of services that speak HTTP, to requests that wait on this node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_channel::oneshot;
use tidegate_shards::node::Answers;
use tidegate_shards::proxy::answer::{self, AnswerError};

use super::router::RETRY_AFTER_SECONDS;
use crate::nodes::Nodes;
use crate::replies::{Correlator, ReplyMetrics, Unresolved};

/// RIG's text for an answer that has been handed on.
const SENT: &str = "message sent to correlated reverse proxy request";

/// Where answers are handed in.
#[derive(Clone, Debug)]
pub struct AnswerDesk {
    /// Knows the ids of this node.
    pub correlator: Correlator,
    /// Brings answers to the shards.
    pub answers: Answers,
    /// Counts what can't be brought to anybody.
    pub metrics: Arc<ReplyMetrics>,
    /// The other nodes, where there may be some.
    pub nodes: Option<Arc<Nodes>>,
}

impl AnswerDesk {
    /// Answers a call that another node has passed on: it is for this node, or for nobody.
    pub async fn here(&self, structured: bool, headers: &HeaderMap, body: Bytes) -> Response {
        answer(&Self { nodes: None, ..self.clone() }, structured, headers, body).await
    }
}

/// Why an answer isn't handed on.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("Failed to parse the response: {0}.")]
    Answer(#[from] AnswerError),
    #[error("The answer can't be handed on: {0}. An answer goes to the node that sent the request, or over Kafka.")]
    Id(#[from] Unresolved),
    #[error("No request waits for this answer: it has been answered, it took too long, or its client has gone.")]
    NobodyWaits,
    #[error("The gateway is overloaded. Try again in a second.")]
    Overloaded,
    #[error("The node that waits for this answer can't be reached. Try again in a second.")]
    Unreachable,
    #[error("{1}")]
    Elsewhere(StatusCode, String),
}

/// Answers the call. With `structured` (`/v2/responses`), the id may be in the body.
pub(super) async fn answer(desk: &AnswerDesk, structured: bool, headers: &HeaderMap, body: Bytes) -> Response {
    let (status, text) = match hand_on(desk, structured, headers, body).await {
        Ok(()) => (StatusCode::ACCEPTED, SENT.to_owned()),
        Err(error @ (Refused::Overloaded | Refused::Unreachable)) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(Refused::Elsewhere(status, text)) => (status, text),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

async fn hand_on(desk: &AnswerDesk, structured: bool, headers: &HeaderMap, body: Bytes) -> Result<(), Refused> {
    let AnswerDesk { correlator, answers, metrics, nodes } = desk;
    let count_malformed = |_: &AnswerError| {
        metrics.malformed.fetch_add(1, Ordering::Relaxed);
    };
    let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let (correlation, code) = match answer::correlation(fields) {
        Some(correlation) => (correlation.to_vec(), None),
        None if structured => {
            let (correlation, code) = answer::from_event(&body).inspect_err(count_malformed)?;
            (correlation.into_bytes(), code)
        }
        None => return Err(AnswerError::NoCorrelation).inspect_err(count_malformed)?,
    };
    if let (Some(nodes), Err(Unresolved::Foreign)) = (nodes, correlator.resolve(&correlation)) {
        match nodes.pass_answer(&correlation, structured, headers, body.clone()).await {
            Ok(Some((StatusCode::ACCEPTED, _))) => return Ok(()),
            Ok(Some((status, text))) => {
                return Err(Refused::Elsewhere(status, String::from_utf8_lossy(&text).into_owned()));
            }
            Ok(None) => {}
            Err(_) => return Err(Refused::Unreachable),
        }
    }
    let (id, shard) = correlator.resolve(&correlation).inspect_err(|error| {
        let counter = if *error == Unresolved::Forged { &metrics.forged } else { &metrics.foreign };
        counter.fetch_add(1, Ordering::Relaxed);
    })?;
    let answer = answer::from_call(headers, body, code).inspect_err(count_malformed)?;
    let (reply, waited) = oneshot::channel();
    answers.send(shard, id, answer, Some(reply)).map_err(|_| Refused::Overloaded)?;
    if waited.await.unwrap_or(false) { Ok(()) } else { Err(Refused::NobodyWaits) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_reactive::correlation::{CorrelationId, CorrelationKey};

    use super::*;

    const NODE: u64 = 1 << 16;

    /// Hands in an answer for a request of this instance, at a node of one shard that knows no other node yet.
    fn hand_in(instance: u64) -> Response {
        let key = CorrelationKey::derive_from(b"secret");
        let correlation = key.seal(CorrelationId { instance, slot: 0, generation: 1 });
        let desk = AnswerDesk {
            correlator: Correlator::new(key.clone(), NODE, 1),
            answers: Answers::default(),
            metrics: Arc::new(ReplyMetrics::new(&[])),
            nodes: Some(Nodes::new(NODE, "secret", key, Duration::ZERO)),
        };
        let value = HeaderValue::from_str(&correlation).expect("a header's value");
        let headers = HeaderMap::from_iter([(header::HeaderName::from_static("rig-correlation"), value)]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(answer(&desk, false, &headers, Bytes::new()))
    }

    #[test]
    fn where_a_retry_helps_the_answer_says_when() {
        for (what, instance) in [("a node out of reach", 2 * NODE), ("a shard that is far behind", NODE)] {
            let response = hand_in(instance);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
            assert_eq!(response.headers()[header::RETRY_AFTER], RETRY_AFTER_SECONDS, "{what}");
        }
    }
}
