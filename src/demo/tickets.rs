//! The tickets service: owns the seats. Who asks first holds the seat until the payment is decided.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::event::{
    AUDIENCE_COUNTED, Accepted, Confirmed, Counted, Draft, HALL_RESET, ORDER_CONFIRMED, Opened, PAYMENT_ACCEPTED,
    PAYMENT_REFUSED, PURCHASE_REQUESTED, Place, Refused, Released, Reserved, SEAT_RELEASED, SEAT_RESERVED, SEAT_SOLD,
    STATS, Sold,
};
use super::hall::{Hall, Holder, Seat, Snapshot, Taken, capacity, price};
use super::service::{Caller, Delivery, Output, Service};

/// How long a seat is held for a payment. Shorter than the gateway waits, so that the buyer hears of it.
const HOLD: Duration = Duration::from_secs(3);
/// Between two figures.
const FIGURES: Duration = Duration::from_secs(1);
/// How long a sold-out hall is shown before the next show opens.
const CURTAIN: Duration = Duration::from_secs(10);
/// Longest name, and longest id, of a buyer.
const MAX_BUYER_CHARS: usize = 64;

/// The hall, and the orders whose payment is open.
#[derive(Debug)]
pub(super) struct Tickets {
    hall: Hall,
    /// By order id; one per held seat at most.
    orders: BTreeMap<String, Order>,
    board: watch::Sender<Snapshot>,
    viewers: Option<u64>,
    figures_due: Option<Instant>,
    sold_out_since: Option<Instant>,
}

#[derive(Debug)]
struct Order {
    seat: Seat,
    reserved: Reserved,
    caller: Caller,
    until: Instant,
}

/// Body of a request to buy a seat.
#[derive(Debug, Deserialize)]
struct Purchase {
    /// The buyer's id: a secret of the buyer, to which the mail goes.
    buyer: String,
    /// The buyer's name, shown to everybody.
    name: String,
}

impl Tickets {
    /// A hall whose seats are all free, and the board that shows it; see [`Hall::new`].
    pub(super) fn open(opening: u64) -> (Self, watch::Receiver<Snapshot>) {
        let hall = Hall::new(opening);
        let (board, shown) = watch::channel(hall.snapshot());
        let (orders, viewers) = (BTreeMap::new(), None);
        (Self { hall, orders, board, viewers, figures_due: None, sold_out_since: None }, shown)
    }

    fn request(&mut self, delivery: &Delivery, now: Instant) -> Vec<Output> {
        let order = &delivery.event.id;
        let (Some(caller), Some(request)) = (delivery.caller(), &delivery.event.request) else {
            tracing::warn!(order, "a request that nobody waits for");
            return Vec::new();
        };
        if self.orders.contains_key(order) || self.hall.has_sold(order) {
            return Vec::new();
        }
        match self.reserve(order, &request.path, &delivery.event.data) {
            Ok((seat, reserved)) => {
                let output = Output::Publish(Draft::new(SEAT_RESERVED, &reserved));
                self.orders.insert(order.clone(), Order { seat, reserved, caller, until: now + HOLD });
                vec![output]
            }
            Err((status, body)) => vec![Output::Answer { to: caller, status, body }],
        }
    }

    fn reserve(&mut self, order: &str, path: &str, body: &Value) -> Result<(Seat, Reserved), (StatusCode, Value)> {
        let refuse = |status, error: String| Err((status, json!({ "error": error })));
        let seat: Seat = match seat_in(path).parse() {
            Ok(seat) => seat,
            Err(error) => return refuse(StatusCode::NOT_FOUND, format!("{path}: {error}")),
        };
        let Ok(Purchase { buyer, name }) = Purchase::deserialize(body) else {
            return refuse(
                StatusCode::BAD_REQUEST,
                r#"the body must be JSON: {"buyer": "id", "name": "…"}"#.to_owned(),
            );
        };
        let (buyer, name) = (buyer.trim(), name.trim());
        for (member, text) in [("buyer", buyer), ("name", name)] {
            if text.is_empty() || text.chars().count() > MAX_BUYER_CHARS || text.contains(char::is_control) {
                let error = format!("`{member}` must have 1 to {MAX_BUYER_CHARS} printable characters");
                return refuse(StatusCode::BAD_REQUEST, error);
            }
        }
        match self.hall.reserve(seat, Holder { order: order.to_owned(), name: name.to_owned() }) {
            Ok(price) => {
                let (buyer, name) = (buyer.to_owned(), name.to_owned());
                Ok((seat, Reserved { order: order.to_owned(), seat: seat.to_string(), price, buyer, name }))
            }
            Err(Taken { by: Holder { name, .. }, for_good }) => {
                let what = if for_good { "went to" } else { "is just being paid for by" };
                let error = format!("Too late: row {} seat {} {what} {name}.", seat.row(), seat.number());
                Err((StatusCode::CONFLICT, json!({ "error": error, "name": name, "sold": for_good })))
            }
        }
    }

    fn paid(&mut self, Accepted { order, left }: Accepted) -> Vec<Output> {
        let Some(Order { seat, reserved, caller, .. }) = self.orders.remove(&order) else {
            return if self.hall.has_sold(&order) { Vec::new() } else { vec![give_back(order)] };
        };
        let Some(sequence) = self.hall.sell(seat) else { return vec![give_back(order)] };
        self.board.send_replace(self.hall.snapshot());
        let body = json!({ "seat": reserved.seat, "price": reserved.price, "sequence": sequence, "left": left });
        vec![
            self.sold(seat, &reserved.name),
            Output::Answer { to: caller, status: StatusCode::OK, body },
            Output::Publish(Draft::new(
                ORDER_CONFIRMED,
                &Confirmed { reserved, show: self.hall.show().to_owned(), left },
            )),
        ]
    }

    fn sold(&self, seat: Seat, buyer: &str) -> Output {
        let (sequence, opening) = (self.hall.sequence(), self.hall.opening());
        let sold = Sold { place: seat.into(), price: price(seat), buyer: buyer.to_owned(), sequence, opening };
        Output::Publish(Draft::new(SEAT_SOLD, &sold).about(seat.to_string()))
    }

    fn opened(&self) -> Output {
        let (show, sequence, opening) = (self.hall.show().to_owned(), self.hall.sequence(), self.hall.opening());
        Output::Publish(Draft::new(HALL_RESET, &Opened { show, sequence, opening }))
    }

    /// The order came to nothing: the seat is free again, and the caller hears why.
    fn release(&mut self, order: &str, status: StatusCode, reason: &str) -> Vec<Output> {
        let Some(Order { seat, reserved, caller, .. }) = self.orders.remove(order) else { return Vec::new() };
        self.hall.release(seat);
        let place = Place::from(seat);
        let released = Released { order: order.to_owned(), place: Some(place), buyer: reserved.name };
        let body = json!({ "error": reason });
        vec![Output::Publish(Draft::new(SEAT_RELEASED, &released)), Output::Answer { to: caller, status, body }]
    }

    fn figures(&mut self, now: Instant) -> Option<Output> {
        if self.figures_due.is_some_and(|due| now < due) {
            return None;
        }
        self.figures_due = Some(now + FIGURES);
        let hall = &self.hall;
        let data = json!({
            "viewers": self.viewers, "sold": hall.sold(), "seats": capacity(), "sequence": hall.sequence(),
        });
        Some(Output::Figures(Draft::new(STATS, &data)))
    }

    /// Opens the next show some time after the last seat was sold.
    fn turn_over(&mut self, now: Instant) -> Option<Output> {
        if !self.hall.is_sold_out() {
            self.sold_out_since = None;
            return None;
        }
        if now.duration_since(*self.sold_out_since.get_or_insert(now)) < CURTAIN {
            return None;
        }
        self.hall.reset();
        self.sold_out_since = None;
        self.board.send_replace(self.hall.snapshot());
        Some(self.opened())
    }
}

impl Service for Tickets {
    const SOURCE: &'static str = "/tickets";
    const LISTENS_TO: &'static [&'static str] =
        &[PURCHASE_REQUESTED, PAYMENT_ACCEPTED, PAYMENT_REFUSED, AUDIENCE_COUNTED];

    fn handle(&mut self, delivery: &Delivery, now: Instant) -> Vec<Output> {
        let event = &delivery.event;
        match event.event_type.as_str() {
            PURCHASE_REQUESTED => self.request(delivery, now),
            PAYMENT_ACCEPTED => event.data().map_or_else(Vec::new, |accepted| self.paid(accepted)),
            PAYMENT_REFUSED => event.data().map_or_else(Vec::new, |Refused { order, reason }| {
                self.release(&order, StatusCode::PAYMENT_REQUIRED, &reason)
            }),
            AUDIENCE_COUNTED => {
                self.viewers = event.data().and_then(|Counted { viewers }| viewers);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// What a page needs that comes late: the show, and each seat that is sold.
    fn introduce(&mut self) -> Vec<Output> {
        let sales = self.hall.sales().map(|(seat, owner)| self.sold(seat, &owner.name));
        std::iter::once(self.opened()).chain(sales).collect()
    }

    fn tick(&mut self, now: Instant) -> Vec<Output> {
        let late: Vec<String> =
            self.orders.iter().filter(|(_, order)| order.until <= now).map(|(id, _)| id.clone()).collect();
        let reason = "The payment service does not answer. The seat is free again, and nothing was charged.";
        let mut outputs: Vec<Output> =
            late.iter().flat_map(|order| self.release(order, StatusCode::SERVICE_UNAVAILABLE, reason)).collect();
        outputs.extend(self.turn_over(now));
        outputs.extend(self.figures(now));
        outputs
    }
}

/// A payment that came too late for its seat: who took the money hears that it has to go back.
fn give_back(order: String) -> Output {
    Output::Publish(Draft::new(SEAT_RELEASED, &Released { order, place: None, buyer: String::new() }))
}

/// The seat in `/tickets/seats/{seat}/buy`.
fn seat_in(path: &str) -> &str {
    path.rsplit('/').nth(1).unwrap_or_default()
}

#[cfg(test)]
#[path = "tickets_tests.rs"]
mod tests;
