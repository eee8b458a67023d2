//! The payment service: owns the buyers' purses. Who has too little left is refused.

use std::time::Instant;

use super::event::{
    Accepted, Draft, HALL_RESET, Opened, PAYMENT_ACCEPTED, PAYMENT_REFUSED, Refused, Released, Reserved, SEAT_RELEASED,
    SEAT_RESERVED,
};
use super::recent::Recent;
use super::service::{Delivery, Output, Service};

/// What everybody brings to a show, in euros.
const PURSE: u32 = 400;
/// Buyers that are remembered; who comes again after that has a full purse.
const MAX_BUYERS: usize = 10_000;
/// Charges that can still be taken back.
const MAX_CHARGES: usize = 4_096;

/// Purses by buyer id, and what was taken from them by order.
#[derive(Debug)]
pub(super) struct Payment {
    purses: Recent<u32>,
    charges: Recent<Charge>,
    /// The show that the purses were filled for; 0 as long as none was announced.
    opening: u64,
}

#[derive(Debug)]
struct Charge {
    buyer: String,
    price: u32,
}

impl Default for Payment {
    fn default() -> Self {
        Self { purses: Recent::new(MAX_BUYERS), charges: Recent::new(MAX_CHARGES), opening: 0 }
    }
}

impl Payment {
    fn left(&self, buyer: &str) -> u32 {
        self.purses.get(buyer).copied().unwrap_or(PURSE)
    }

    fn charge(&mut self, Reserved { order, price, buyer, name, .. }: Reserved) -> Output {
        let left = self.left(&buyer);
        if self.charges.get(&order).is_some() {
            return accept(order, left);
        }
        let Some(left) = left.checked_sub(price) else {
            let reason = format!("The payment was refused: {name} has €{left} left, and the seat costs €{price}.");
            return Output::Publish(Draft::new(PAYMENT_REFUSED, &Refused { order, reason }));
        };
        self.purses.insert(&buyer, left);
        self.charges.insert(&order, Charge { buyer, price });
        accept(order, left)
    }

    fn give_back(&mut self, order: &str) {
        if let Some(Charge { buyer, price }) = self.charges.remove(order) {
            let left = self.left(&buyer);
            self.purses.insert(&buyer, (left + price).min(PURSE));
        }
    }
}

fn accept(order: String, left: u32) -> Output {
    Output::Publish(Draft::new(PAYMENT_ACCEPTED, &Accepted { order, left }))
}

impl Service for Payment {
    const SOURCE: &'static str = "/payment";
    const LISTENS_TO: &'static [&'static str] = &[SEAT_RESERVED, SEAT_RELEASED, HALL_RESET];

    fn handle(&mut self, delivery: &Delivery, _now: Instant) -> Vec<Output> {
        let event = &delivery.event;
        match event.event_type.as_str() {
            SEAT_RESERVED => event.data().map(|reserved| self.charge(reserved)).into_iter().collect(),
            SEAT_RELEASED => {
                if let Some(Released { order, .. }) = event.data() {
                    self.give_back(&order);
                }
                Vec::new()
            }
            HALL_RESET => {
                // The same show may be announced more than once.
                if let Some(Opened { opening, .. }) = event.data()
                    && opening > self.opening
                {
                    if self.opening > 0 {
                        self.purses.clear();
                        self.charges.clear();
                    }
                    self.opening = opening;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::demo::event::Event;

    fn tell(payment: &mut Payment, event_type: &str, data: Value) -> Vec<(&'static str, Value)> {
        let event = Event { id: "any".into(), event_type: event_type.into(), data, request: None };
        let outputs = payment.handle(&Delivery { event, reply: None }, Instant::now());
        let publication = |output| match output {
            Output::Publish(draft) => (draft.event_type, draft.data),
            other => panic!("payment answers nobody: {other:?}"),
        };
        outputs.into_iter().map(publication).collect()
    }

    fn reserve(payment: &mut Payment, order: &str, price: u32) -> Vec<(&'static str, Value)> {
        let data = json!({"order": order, "seat": "A1", "price": price, "buyer": "b", "name": "Ben"});
        tell(payment, SEAT_RESERVED, data)
    }

    fn accepted(order: &str, left: u32) -> Vec<(&'static str, Value)> {
        vec![(PAYMENT_ACCEPTED, json!({"order": order, "left": left}))]
    }

    #[test]
    fn a_buyer_pays_until_the_purse_is_empty_and_is_then_refused_with_the_reason() {
        let mut payment = Payment::default();
        assert_eq!(reserve(&mut payment, "1", 390), accepted("1", 10));
        let reason = "The payment was refused: Ben has €10 left, and the seat costs €38.";
        assert_eq!(reserve(&mut payment, "2", 38), [(PAYMENT_REFUSED, json!({"order": "2", "reason": reason}))]);
        assert_eq!(reserve(&mut payment, "3", 10), accepted("3", 0));
    }

    #[test]
    fn a_reservation_that_comes_twice_is_paid_once() {
        let mut payment = Payment::default();
        assert_eq!(reserve(&mut payment, "1", 95), accepted("1", 305));
        assert_eq!(reserve(&mut payment, "1", 95), accepted("1", 305));
        assert_eq!(reserve(&mut payment, "2", 95), accepted("2", 210));
    }

    #[test]
    fn money_for_a_seat_that_was_released_goes_back_once() {
        let mut payment = Payment::default();
        reserve(&mut payment, "1", 95);
        reserve(&mut payment, "2", 65);
        for _ in 0..2 {
            assert_eq!(tell(&mut payment, SEAT_RELEASED, json!({"order": "1", "buyer": ""})), []);
        }
        assert_eq!(tell(&mut payment, SEAT_RELEASED, json!({"order": "unknown", "buyer": ""})), []);
        assert_eq!(reserve(&mut payment, "3", 5), accepted("3", 330));
    }

    #[test]
    fn everybody_comes_to_the_next_show_with_a_full_purse() {
        let mut payment = Payment::default();
        reserve(&mut payment, "1", 400);
        let opened = |opening: u64| json!({"show": "Swan Lake", "sequence": 1, "opening": opening});
        assert_eq!(tell(&mut payment, HALL_RESET, opened(1)), []);
        assert_eq!(tell(&mut payment, HALL_RESET, opened(2)), []);
        assert_eq!(reserve(&mut payment, "2", 95), accepted("2", 305));
        assert_eq!(tell(&mut payment, HALL_RESET, opened(2)), []);
        assert_eq!(reserve(&mut payment, "3", 5), accepted("3", 300), "it is the same show");
        assert_eq!(tell(&mut payment, SEAT_RESERVED, json!("odd")), []);
    }
}
