//! The events of the shop: `CloudEvents` 1.0 in JSON (structured mode). They are all that its services know of each other.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hall::Seat;

/// Somebody asks for a seat; carries the address for the answer.
pub(super) const PURCHASE_REQUESTED: &str = "com.tidegate.tickets.purchase.requested";
/// A seat is held for its buyer until the payment is decided.
pub(super) const SEAT_RESERVED: &str = "com.tidegate.tickets.seat.reserved";
/// The buyer has paid.
pub(super) const PAYMENT_ACCEPTED: &str = "com.tidegate.tickets.payment.accepted";
/// The buyer can't pay.
pub(super) const PAYMENT_REFUSED: &str = "com.tidegate.tickets.payment.refused";
/// Seat and payment belong together for good.
pub(super) const ORDER_CONFIRMED: &str = "com.tidegate.tickets.order.confirmed";
/// Number of viewers, as the gateway counts them.
pub(super) const AUDIENCE_COUNTED: &str = "com.tidegate.tickets.audience.counted";

/// A seat found its buyer; its subject is the seat.
pub(super) const SEAT_SOLD: &str = "com.tidegate.tickets.seat.sold";
/// A seat that was held is free again.
pub(super) const SEAT_RELEASED: &str = "com.tidegate.tickets.seat.released";
/// A show opens, and every seat is free. Told again where a hub has forgotten it.
pub(super) const HALL_RESET: &str = "com.tidegate.tickets.hall.reset";
/// Figures, once per second.
pub(super) const STATS: &str = "com.tidegate.tickets.stats";
/// A mail to one buyer; clients get it who subscribe with that buyer's id.
pub(super) const MAIL_SENT: &str = "com.tidegate.tickets.mail.sent";

/// What pages subscribe to. With Kafka, everything else stays in a topic that the gateway doesn't read.
pub(super) const FOR_PAGES: [&str; 5] = [SEAT_SOLD, SEAT_RELEASED, HALL_RESET, STATS, MAIL_SENT];

/// Data of [`SEAT_RESERVED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reserved {
    /// Id of the request; the same in all events about it.
    pub(super) order: String,
    pub(super) seat: String,
    /// Price in euros.
    pub(super) price: u32,
    /// The buyer's secret id.
    pub(super) buyer: String,
    /// The buyer's name, for everybody to see.
    pub(super) name: String,
}

/// Data of [`PAYMENT_ACCEPTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) order: String,
    /// What the buyer has left, in euros.
    pub(super) left: u32,
}

/// Data of [`PAYMENT_REFUSED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) order: String,
    /// A sentence for the buyer.
    pub(super) reason: String,
}

/// Data of [`ORDER_CONFIRMED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirmed {
    #[serde(flatten)]
    pub(super) reserved: Reserved,
    pub(super) show: String,
    /// What the buyer has left, in euros.
    pub(super) left: u32,
}

/// Data of [`SEAT_SOLD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sold {
    #[serde(flatten)]
    pub(super) place: Place,
    /// Price in euros.
    pub(super) price: u32,
    /// The buyer's name.
    pub(super) buyer: String,
    /// Number of this change of the hall.
    pub(super) sequence: u64,
    /// The show that it is sold for, see [`Opened`].
    pub(super) opening: u64,
}

/// Data of [`HALL_RESET`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    /// What is on.
    pub(super) show: String,
    /// Number of this change of the hall.
    pub(super) sequence: u64,
    /// The show's number: greater than that of any show before it.
    pub(super) opening: u64,
}

/// Data of [`SEAT_RELEASED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Released {
    pub(super) order: String,
    /// `None` where the seat was given back before, and only the money is late.
    #[serde(flatten)]
    pub(super) place: Option<Place>,
    /// The name of the buyer who did not get it.
    pub(super) buyer: String,
}

/// Data of [`AUDIENCE_COUNTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// `None` where the gateway can't be asked.
    pub(super) viewers: Option<u64>,
}

/// A seat with its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) seat: String,
    pub(super) row: char,
    pub(super) number: u8,
}

impl From<Seat> for Place {
    fn from(seat: Seat) -> Self {
        Self { seat: seat.to_string(), row: seat.row(), number: seat.number() }
    }
}

/// An event before it has an id and a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) event_type: &'static str,
    /// What it is about: the key in Kafka. One key means one partition, hence one order, and for who comes late the newest event.
    pub(super) subject: String,
    pub(super) data: Value,
    /// Of requests alone.
    pub(super) request: Option<Request>,
}

impl Draft {
    /// An event with this data.
    pub(super) fn new(event_type: &'static str, data: &impl Serialize) -> Self {
        let data = serde_json::to_value(data).expect("invariant: the data of events is made of texts and numbers");
        Self { event_type, subject: event_type.to_owned(), data, request: None }
    }

    /// The same about something else than its type.
    pub(super) fn about(self, subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), ..self }
    }

    /// The `CloudEvent`, as of now.
    pub(super) fn write(&self, source: &str) -> Bytes {
        let mut event = json!({
            "specversion": "1.0",
            "id": uuid::Uuid::new_v4().to_string(),
            "source": source,
            "type": self.event_type,
            "subject": self.subject,
            "time": format!("{:.6}", jiff::Timestamp::now()),
            "datacontenttype": "application/json",
            "data": self.data,
        });
        if let Some(request) = &self.request {
            event["rig"] = json!({ "correlation": request.correlation, "path": request.path });
        }
        Bytes::from(event.to_string())
    }
}

/// What the gateway adds to a request that it makes an event of (member `rig`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Request {
    /// Names the call that waits for the answer.
    pub(super) correlation: String,
    /// Path of the call.
    pub(super) path: String,
}

/// An event that has arrived.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Event {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(default)]
    pub(super) data: Value,
    #[serde(default, rename = "rig")]
    pub(super) request: Option<Request>,
}

impl Event {
    /// Reads a structured event.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(body: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }

    /// Its data; `None`, and a line in the log, if that is not what the type promises.
    pub(super) fn data<T: DeserializeOwned>(&self) -> Option<T> {
        T::deserialize(&self.data)
            .inspect_err(|error| tracing::warn!(%error, event_type = self.event_type, "an event with odd data"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(text: &str) -> Seat {
        text.parse().expect("a seat")
    }

    #[test]
    fn a_sale_becomes_a_cloud_event_with_every_required_attribute() {
        let sold = Sold { place: seat("C13").into(), price: 95, buyer: "Mia \"<b>\"".into(), sequence: 1, opening: 7 };
        let draft = Draft::new(SEAT_SOLD, &sold).about("C13");
        let event: Value = serde_json::from_slice(&draft.write("/tickets")).expect("JSON");
        assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("/tickets")));
        assert_eq!((&event["type"], &event["subject"]), (&json!(SEAT_SOLD), &json!("C13")));
        assert!(event["id"].as_str().is_some_and(|id| id.len() == 36));
        assert!(
            event["time"].as_str().is_some_and(|time| time.len() == "2026-01-01T00:00:00.000000Z".len()),
            "{event}"
        );
        let data = json!({"seat": "C13", "row": "C", "number": 13, "price": 95, "buyer": "Mia \"<b>\"", "sequence": 1, "opening": 7});
        assert_eq!(event["data"], data);
        assert_eq!(event.get("rig"), None);
    }

    #[test]
    fn what_one_service_writes_another_reads() {
        let request = Request { correlation: "abc".into(), path: "/tickets/seats/C3/buy".into() };
        let draft = Draft { request: Some(request.clone()), ..Draft::new(PURCHASE_REQUESTED, &json!({"name": "Mia"})) };
        let event = Event::read(&draft.write("/desk")).expect("an event");
        assert_eq!((event.event_type.as_str(), event.request), (PURCHASE_REQUESTED, Some(request)));

        let reserved =
            Reserved { order: "1".into(), seat: "C3".into(), price: 95, buyer: "m".into(), name: "Mia".into() };
        let confirmed = Confirmed { reserved, show: "Swan Lake".into(), left: 305 };
        let event = Event::read(&Draft::new(ORDER_CONFIRMED, &confirmed).write("/tickets")).expect("an event");
        assert_eq!(event.data::<Confirmed>(), Some(confirmed));
        assert_eq!(event.data::<Sold>(), None, "an order is no sale");
    }

    #[test]
    fn a_request_that_the_gateway_wrapped_is_read_whatever_else_it_holds() {
        let text = r#"{"specversion":"0.2","type":"t","id":"7","source":"/page","contenttype":"application/json","data":{"buyer":"b"},
            "rig":{"correlation":"c","remoteip":"::1","host":"h","port":4000,"scheme":"http","headers":[["a","b"]],"method":"POST","path":"/p","query":""}}"#;
        let event = Event::read(text.as_bytes()).expect("an event");
        assert_eq!(event.request, Some(Request { correlation: "c".into(), path: "/p".into() }));
        Event::read(b"[]").expect_err("a list is no event");
    }
}
