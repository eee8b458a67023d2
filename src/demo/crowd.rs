//! Simulated buyers: small parties that come at random and buy seats side by side.

use std::sync::Arc;
use std::time::Duration;

use super::office::BoxOffice;

/// Mean time between two purchases of one buyer.
const PAUSE: Duration = Duration::from_secs(5);
/// While more events than this wait for the gateway, nobody buys: the shop follows the pace of its publisher.
const MAX_WAITING_EVENTS: usize = 32;
/// The largest party.
const PARTY: usize = 4;

const NAMES: [&str; 24] = [
    "Ada", "Amir", "Ben", "Chloe", "Dana", "Elif", "Emil", "Farid", "Grace", "Hana", "Ines", "Jonas", "Kofi", "Lena",
    "Mia", "Nils", "Olga", "Priya", "Quinn", "Rosa", "Sven", "Tariq", "Uma", "Wei",
];

/// Comes and buys, for ever.
pub(super) async fn run(office: Arc<BoxOffice>) {
    loop {
        tokio::time::sleep(pause(fastrand::f64())).await;
        if office.outbox.len() > MAX_WAITING_EVENTS {
            continue;
        }
        let name = NAMES[fastrand::usize(..NAMES.len())];
        for seat in office.side_by_side(fastrand::usize(..), fastrand::usize(1..=PARTY)) {
            // Between the look at the map and the purchase somebody may be faster: then this party is one smaller.
            if office.buy(seat, name).is_err() {
                tracing::debug!(%seat, name, "somebody was faster");
            }
        }
    }
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
