//! What the gateway is told of the shop: its API definition, by the internal API (`/v3/apis`).

use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{CallError, GatewayClient};
use super::event::PURCHASE_REQUESTED;
use super::hub::{Hub, Live, REQUESTS};

/// Id of the API.
const ID: &str = "tickets";
/// Between two looks whether the gateway still knows the API: one without Kafka may have forgotten it by a restart.
const PERIOD: Duration = Duration::from_millis(500);

/// The shop as the gateway reaches it.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    /// Host, without a scheme.
    pub(super) host: String,
    pub(super) port: u16,
}

/// The definition: how to buy a seat, and how to look at the hall.
pub(super) fn definition(hub: &Hub, backend: &Backend) -> Value {
    let buy_path = "/tickets/seats/([^/]+)/buy";
    let (buy, preflight) = match hub {
        // The request becomes an event in a topic; the answer comes from the partition that the event's headers name.
        Hub::Kafka(_) => (
            json!({
                "id": "buy", "method": "POST", "path_regex": buy_path,
                "target": "kafka", "topic": REQUESTS, "key": "\\1",
                "wrap": { "type": PURCHASE_REQUESTED, "source": "/tickets/page" },
                "response_from": "kafka",
            }),
            json!({
                "id": "buy-preflight", "method": "OPTIONS", "path_regex": buy_path,
                "target": "kafka", "topic": REQUESTS,
            }),
        ),
        // The desk answers 202, and the answer itself comes to /v3/responses.
        Hub::Gateway(_) => (
            json!({
                "id": "buy", "method": "POST", "path_regex": buy_path,
                "target": "http", "response_from": "http_async",
            }),
            json!({ "id": "buy-preflight", "method": "OPTIONS", "path_regex": buy_path, "target": "http" }),
        ),
    };
    let hall = json!({
        "id": "hall", "method": "GET", "path_regex": "/tickets/hall", "path_replacement": "/api/hall", "target": "http",
    });
    json!({
        "id": ID,
        "name": "Ticket shop",
        "auth_type": "none",
        "versioned": false,
        "version_data": { "default": { "endpoints": [buy, preflight, hall] } },
        "proxy": { "use_env": false, "target_url": backend.host, "port": backend.port },
    })
}

/// Keeps the definition registered for ever, but only while all services listen: nobody can buy before.
/// `opened` is told of the first success.
pub(super) async fn register(mut gateway: GatewayClient, definition: Value, services: Vec<Live>, opened: Sender<()>) {
    let mut opened = Some(opened);
    let mut last_problem = String::new();
    loop {
        for mut live in services.clone() {
            if live.wait_for(|live| *live).await.is_err() {
                return;
            }
        }
        match ensure(&mut gateway, &definition, opened.is_some()).await {
            Ok(()) => {
                last_problem.clear();
                if let Some(opened) = opened.take() {
                    // Nobody may have waited for it.
                    let _ = opened.send(());
                }
            }
            Err(problem) if problem != last_problem => {
                tracing::warn!(
                    problem,
                    "the gateway does not take the ticket shop's API definition; it is tried again"
                );
                last_problem = problem;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Registers the definition if the gateway has none, or, by the `first` call, another.
async fn ensure(gateway: &mut GatewayClient, definition: &Value, first: bool) -> Result<(), String> {
    let path = format!("/v3/apis/{ID}");
    let answer = if first { put(gateway, Method::PUT, &path, definition).await } else { gateway.get(&path).await };
    let answer = match answer {
        Ok((StatusCode::NOT_FOUND, _)) => put(gateway, Method::POST, "/v3/apis", definition).await,
        other => other,
    };
    match answer {
        Ok((status, _)) if status.is_success() => Ok(()),
        Ok((status, body)) => Err(format!("status {status}: {}", String::from_utf8_lossy(&body))),
        Err(error) => Err(error.to_string()),
    }
}

async fn put(
    gateway: &mut GatewayClient,
    method: Method,
    path: &str,
    definition: &Value,
) -> Result<(StatusCode, Bytes), CallError> {
    let headers = [("content-type", "application/json")];
    gateway.call(method, path, &headers, definition.to_string().into()).await
}

#[cfg(test)]
mod tests {
    use tidegate_shards::proxy::definition::{Definition, Surroundings};

    use super::*;
    use crate::config::Config;
    use crate::config::values::Values;
    use crate::demo::client::authority;
    use crate::demo::hub::{GatewayHub, KafkaHub};

    fn hubs() -> [Hub; 2] {
        let port = authority(&"http://127.0.0.1:4010".parse().expect("a URL")).expect("usable");
        let mut values = Values::default();
        values.set("KAFKA_BROKERS", "127.0.0.1:1");
        let kafka = Config::validate(&values).ok().and_then(|config| config.kafka).expect("usable settings");
        let kafka = KafkaHub::new(&kafka, &["rig-proxy-response".to_owned()]).expect("librdkafka takes them");
        [Hub::Gateway(GatewayHub { internal: port.clone(), inbound: port }), Hub::Kafka(kafka.into())]
    }

    #[test]
    fn the_gateway_takes_the_definition_for_either_hub_and_finds_three_routes() {
        let backend = Backend { host: "127.0.0.1".into(), port: 4040 };
        for hub in hubs() {
            let definition = definition(&hub, &backend);
            let surroundings = Surroundings { environment: &|_| None, avro: false };
            let compiled = Definition::parse(&definition, &surroundings).expect("a valid definition");
            let routes: Vec<_> = compiled
                .routes
                .iter()
                .map(|route| {
                    (route.endpoint.method.as_str(), route.endpoint.target.name(), route.endpoint.response_from.name())
                })
                .collect();
            let expected = match hub {
                Hub::Gateway(_) => {
                    [("POST", "http", "http_async"), ("OPTIONS", "http", "http"), ("GET", "http", "http")]
                }
                Hub::Kafka(_) => [("POST", "kafka", "kafka"), ("OPTIONS", "kafka", "http"), ("GET", "http", "http")],
            };
            assert_eq!(routes, expected);
            assert!(compiled.matches);
        }
    }
}
