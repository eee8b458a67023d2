//! What the shop publishes: `CloudEvents` 1.0 in JSON (structured mode).

use bytes::Bytes;
use serde_json::{Value, json};

use super::hall::{Hall, Sale, capacity};

/// A seat found its buyer.
const SEAT_SOLD: &str = "com.tidegate.tickets.seat.sold";
/// Every seat is free again.
const HALL_RESET: &str = "com.tidegate.tickets.hall.reset";
/// Figures, once per second.
const STATS: &str = "com.tidegate.tickets.stats";

/// The seat of `sale` is gone.
pub(super) fn seat_sold(sale: &Sale) -> Bytes {
    let data = json!({
        "seat": sale.seat.to_string(),
        "row": sale.seat.row(),
        "number": sale.seat.number(),
        "price": sale.price,
        "buyer": sale.buyer,
        "sequence": sale.sequence,
    });
    cloud_event(SEAT_SOLD, &data)
}

/// The hall has been emptied for its next show.
pub(super) fn hall_reset(hall: &Hall) -> Bytes {
    cloud_event(HALL_RESET, &json!({ "show": hall.show(), "sequence": hall.sequence() }))
}

/// How the evening goes; `viewers` is `None` where the gateway can't be asked.
pub(super) fn stats(hall: &Hall, viewers: Option<u64>) -> Bytes {
    let data = json!({ "viewers": viewers, "sold": hall.sold(), "seats": capacity(), "sequence": hall.sequence() });
    cloud_event(STATS, &data)
}

/// All events share a subject: it is the key in Kafka, and one key means one partition, hence one order.
fn cloud_event(event_type: &str, data: &Value) -> Bytes {
    let event = json!({
        "specversion": "1.0",
        "id": uuid::Uuid::new_v4().to_string(),
        "source": "/tickets",
        "type": event_type,
        "subject": "great-hall",
        "time": format!("{:.6}", jiff::Timestamp::now()),
        "datacontenttype": "application/json",
        "data": data,
    });
    Bytes::from(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sale_becomes_a_cloud_event_with_every_required_attribute() {
        let mut hall = Hall::default();
        let sale = hall.buy("C13".parse().expect("a seat"), "Mia \"<b>\"").expect("free");
        let event: Value = serde_json::from_slice(&seat_sold(&sale)).expect("JSON");
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], SEAT_SOLD);
        assert!(event["id"].as_str().is_some_and(|id| id.len() == 36));
        assert!(
            event["time"].as_str().is_some_and(|time| time.len() == "2026-01-01T00:00:00.000000Z".len()),
            "{event}"
        );
        let data = json!({"seat": "C13", "row": "C", "number": 13, "price": 95, "buyer": "Mia \"<b>\"", "sequence": 1});
        assert_eq!(event["data"], data);
    }

    #[test]
    fn unknown_viewers_are_null() {
        let event: Value = serde_json::from_slice(&stats(&Hall::default(), None)).expect("JSON");
        assert_eq!(event["data"], json!({"viewers": null, "sold": 0, "seats": 300, "sequence": 0}));
    }
}
