//! Brings the outbox's events to the gateway, one after the other, each until it has arrived.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::client::GatewayClient;
use super::office::BoxOffice;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// What an answer means for the event it is about.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Arrived,
    /// Sending it again would end the same way.
    Refused,
    Retry,
}

/// Publishes for ever.
pub(super) async fn run(office: Arc<BoxOffice>, mut gateway: GatewayClient) {
    let mut retry_in = FIRST_RETRY;
    loop {
        let letter = office.outbox.oldest().await;
        let answer = gateway.post("/v3/messages", "application/cloudevents+json", letter.body.clone()).await;
        let (fate, reason) = match answer {
            Ok(status) => (fate(status), format!("status {status}")),
            Err(error) => (Fate::Retry, error.to_string()),
        };
        match fate {
            Fate::Arrived => office.outbox.done(&letter),
            Fate::Refused => {
                tracing::error!(%reason, "the gateway refuses an event of the ticket shop; it is lost");
                office.outbox.done(&letter);
            }
            Fate::Retry => {
                if retry_in == FIRST_RETRY {
                    tracing::warn!(%reason, "the ticket shop cannot publish; it keeps trying");
                }
                tokio::time::sleep(retry_in).await;
                retry_in = (retry_in * 2).min(LONGEST_RETRY);
                continue;
            }
        }
        retry_in = FIRST_RETRY;
    }
}

fn fate(status: StatusCode) -> Fate {
    match status {
        _ if status.is_success() => Fate::Arrived,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Fate::Retry,
        _ if status.is_client_error() => Fate::Refused,
        _ => Fate::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clients_own_mistake_is_not_tried_again() {
        assert_eq!(fate(StatusCode::ACCEPTED), Fate::Arrived);
        assert_eq!(fate(StatusCode::BAD_REQUEST), Fate::Refused);
        assert_eq!(fate(StatusCode::TOO_MANY_REQUESTS), Fate::Retry);
        assert_eq!(fate(StatusCode::SERVICE_UNAVAILABLE), Fate::Retry);
    }
}
