//! The hub in the gateway: events are posted to its internal port and come back over an event stream, as to any client.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::time::timeout;

use super::courier::Fate;
use super::outbox::Letter;
use super::sse::Parser;
use super::{Feed, Heard};
use crate::demo::client::{CallError, GatewayClient, open_stream};
use crate::demo::event::Event;
use crate::demo::service::Delivery;

/// The gateway sends a heartbeat every 15 s; a stream this quiet is dead.
const SILENCE: Duration = Duration::from_secs(45);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Says that a subscription is in force.
const IN_FORCE: &str = "rig.subscriptions_set";

/// A gateway by its two ports.
#[derive(Debug, Clone)]
pub(in crate::demo) struct GatewayHub {
    /// Where events are published and calls are answered.
    pub(in crate::demo) internal: http::uri::Authority,
    /// Where events come from.
    pub(in crate::demo) inbound: http::uri::Authority,
}

impl GatewayHub {
    /// A client of the internal port.
    pub(super) fn client(&self) -> GatewayClient {
        GatewayClient::new(self.internal.clone())
    }

    /// Keeps a subscription alive for as long as anybody wants its events.
    pub(super) async fn read(self, feed: Feed) {
        let subscriptions: Vec<_> = feed.types.iter().map(|event_type| json!({ "eventType": event_type })).collect();
        let subscriptions = json!(subscriptions).to_string();
        let subscriptions = utf8_percent_encode(&subscriptions, NON_ALPHANUMERIC);
        let path = format!("/_rig/v1/connection/sse?subscriptions={subscriptions}");
        let mut retry_in = FIRST_RETRY;
        while !feed.deliveries.is_closed() {
            if let Err(error) = self.read_stream(&path, &feed).await {
                tracing::debug!(%error, "a service of the ticket shop has no event stream; it keeps trying");
            }
            if feed.live.send_replace(false) {
                retry_in = FIRST_RETRY;
            }
            tokio::time::sleep(retry_in).await;
            retry_in = (retry_in * 2).min(LONGEST_RETRY);
        }
    }

    async fn read_stream(&self, path: &str, feed: &Feed) -> Result<(), CallError> {
        let mut body = open_stream(&self.inbound, path).await?;
        let mut parser = Parser::default();
        loop {
            let frame = timeout(SILENCE, body.frame()).await.map_err(|_| CallError::Late(self.inbound.clone()))?;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| CallError::Http(self.inbound.clone(), error))?;
            for data in frame.data_ref().map(|bytes| parser.feed(bytes)).unwrap_or_default() {
                let Ok(event) = Event::read(&data) else { continue };
                let heard = if event.event_type == IN_FORCE {
                    feed.live.send_replace(true);
                    Heard::Subscribed
                } else if feed.types.contains(&event.event_type.as_str()) {
                    Heard::Event(Delivery { event, reply: None })
                } else {
                    continue;
                };
                if feed.deliveries.send(heard).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Posts a letter to the internal port.
pub(super) async fn post(gateway: &mut GatewayClient, letter: &Letter) -> Fate {
    let answer = match letter {
        Letter::Event { body, .. } => {
            let headers = [("content-type", "application/cloudevents+json")];
            gateway.call(Method::POST, "/v3/messages", &headers, body.clone()).await
        }
        Letter::Answer { to, status, body } => {
            let headers = [
                ("content-type", "application/json"),
                ("rig-correlation", &to.correlation),
                ("rig-response-code", status.as_str()),
            ];
            gateway.call(Method::POST, "/v3/responses", &headers, body.clone()).await
        }
    };
    match answer {
        Ok((status, answer)) => fate(status, &answer),
        Err(error) => Fate::Retry(error.to_string()),
    }
}

fn fate(status: StatusCode, answer: &Bytes) -> Fate {
    let reason = || format!("status {status}: {}", String::from_utf8_lossy(answer));
    match status {
        _ if status.is_success() => Fate::Arrived,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Fate::Retry(reason()),
        _ if status.is_client_error() => Fate::Refused(reason()),
        _ => Fate::Retry(reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clients_own_mistake_is_not_tried_again() {
        let fate = |status| fate(status, &Bytes::new());
        assert_eq!(fate(StatusCode::ACCEPTED), Fate::Arrived);
        assert!(matches!(fate(StatusCode::BAD_REQUEST), Fate::Refused(_)));
        assert!(matches!(fate(StatusCode::TOO_MANY_REQUESTS), Fate::Retry(_)));
        assert!(matches!(fate(StatusCode::SERVICE_UNAVAILABLE), Fate::Retry(_)));
    }
}
