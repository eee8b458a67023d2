//! Simulated buyers: small parties that come at random and buy seats side by side, by the same calls as a page.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use super::client::{CallError, GatewayClient};
use super::hall::{Seat, Snapshot};

/// Mean time between two purchases of one buyer.
const PAUSE: Duration = Duration::from_secs(5);
/// The largest party.
const PARTY: usize = 4;

const NAMES: [&str; 24] = [
    "Ada", "Amir", "Ben", "Chloe", "Dana", "Elif", "Emil", "Farid", "Grace", "Hana", "Ines", "Jonas", "Kofi", "Lena",
    "Mia", "Nils", "Olga", "Priya", "Quinn", "Rosa", "Sven", "Tariq", "Uma", "Wei",
];

/// One person, who buys until the purse is empty.
#[derive(Debug)]
struct Person {
    id: String,
    name: &'static str,
}

impl Person {
    fn any() -> Self {
        Self { id: uuid::Uuid::new_v4().to_string(), name: NAMES[fastrand::usize(..NAMES.len())] }
    }
}

/// Comes and buys, for ever.
pub(super) async fn run(mut gateway: GatewayClient) {
    let mut person = Person::any();
    loop {
        tokio::time::sleep(pause(fastrand::f64())).await;
        match visit(&mut gateway, &person).await {
            Ok(StatusCode::PAYMENT_REQUIRED) => person = Person::any(),
            Ok(status) => tracing::debug!(%status, name = person.name, "a simulated buyer has been to the shop"),
            Err(error) => tracing::debug!(%error, name = person.name, "a simulated buyer stays at home"),
        }
    }
}

/// Looks at the hall and buys for a party; gives the last status.
async fn visit(gateway: &mut GatewayClient, person: &Person) -> Result<StatusCode, CallError> {
    let (status, hall) = gateway.get("/tickets/hall").await?;
    let Ok(hall) = serde_json::from_slice::<Snapshot>(&hall) else { return Ok(status) };
    let mut status = status;
    for seat in hall.side_by_side(fastrand::usize(..), fastrand::usize(1..=PARTY)) {
        // Between the look at the map and the purchase somebody may be faster: then this party is one smaller.
        status = buy(gateway, seat, person).await?;
        if status != StatusCode::OK && status != StatusCode::CONFLICT {
            break;
        }
    }
    Ok(status)
}

async fn buy(gateway: &mut GatewayClient, seat: Seat, person: &Person) -> Result<StatusCode, CallError> {
    let body = json!({ "buyer": person.id, "name": person.name }).to_string();
    let path = format!("/tickets/seats/{seat}/buy");
    let headers = [("content-type", "application/json")];
    Ok(gateway.call(Method::POST, &path, &headers, body.into()).await?.0)
}

/// Exponentially distributed, so that purchases come as a Poisson process; `uniform` is in 0..1.
fn pause(uniform: f64) -> Duration {
    let scale = -(1.0 - uniform).ln();
    PAUSE.mul_f64(scale.clamp(0.0, 6.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded_and_have_their_median_at_ln_2() {
        assert_eq!(pause(0.0), Duration::ZERO);
        assert_eq!(pause(0.5).as_millis(), 3_465);
        assert_eq!(pause(1.0), PAUSE * 6);
    }
}
