//! The mail service: tells a buyer, and nobody else, that the tickets are on their way.

use std::time::Instant;

use serde_json::json;

use super::event::{Confirmed, Draft, MAIL_SENT, ORDER_CONFIRMED, Reserved};
use super::recent::Recent;
use super::service::{Delivery, Output, Service};

/// Orders that are remembered, so that none gets a second mail.
const MAX_ORDERS: usize = 4_096;

/// Who has got mail, and the number of the next ticket.
#[derive(Debug)]
pub(super) struct Mail {
    written: Recent<()>,
    tickets: u32,
}

impl Default for Mail {
    fn default() -> Self {
        Self { written: Recent::new(MAX_ORDERS), tickets: 0 }
    }
}

impl Mail {
    fn write(&mut self, confirmed: &Confirmed) -> Option<Output> {
        let Confirmed { reserved: Reserved { order, seat, price, buyer, name }, show, left } = confirmed;
        if self.written.get(order).is_some() {
            return None;
        }
        self.written.insert(order, ());
        self.tickets += 1;
        let data = json!({
            "buyer": buyer,
            "subject": format!("Your ticket for seat {seat}"),
            "text": format!("Dear {name}, seat {seat} is yours for €{price}. {show}. Your purse holds €{left} more."),
            "ticket": format!("TG-{:05}", self.tickets),
            "seat": seat,
        });
        Some(Output::Publish(Draft::new(MAIL_SENT, &data)))
    }
}

impl Service for Mail {
    const SOURCE: &'static str = "/mail";
    const LISTENS_TO: &'static [&'static str] = &[ORDER_CONFIRMED];

    fn handle(&mut self, delivery: &Delivery, _now: Instant) -> Vec<Output> {
        let confirmed = delivery.event.data().filter(|_| delivery.event.event_type == ORDER_CONFIRMED);
        confirmed.and_then(|confirmed| self.write(&confirmed)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::event::Event;

    fn confirm(mail: &mut Mail, order: &str) -> Vec<Output> {
        let data = json!({
            "order": order, "seat": "C13", "price": 95, "buyer": "secret", "name": "Mia",
            "show": "Swan Lake · gala performance", "left": 305,
        });
        let event = Event { id: "any".into(), event_type: ORDER_CONFIRMED.into(), data, request: None };
        mail.handle(&Delivery { event, reply: None }, Instant::now())
    }

    #[test]
    fn a_confirmed_order_is_worth_one_mail_to_its_buyer() {
        let mut mail = Mail::default();
        let text = "Dear Mia, seat C13 is yours for €95. Swan Lake · gala performance. Your purse holds €305 more.";
        let data = json!({
            "buyer": "secret", "subject": "Your ticket for seat C13", "text": text, "ticket": "TG-00001", "seat": "C13",
        });
        assert_eq!(confirm(&mut mail, "1"), [Output::Publish(Draft::new(MAIL_SENT, &data))]);
        assert_eq!(confirm(&mut mail, "1"), [], "the event came twice");
        assert_eq!(confirm(&mut mail, "2").len(), 1);
    }
}
