//! Seats, prices and sales: who comes first gets the seat. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Prices and row lengths, front to back: 300 seats in rows A to T.
const PLAN: [(&str, u32, &[u8]); 3] = [
    ("Front stalls", 95, &[12, 12, 13, 13, 13]),
    ("Stalls", 65, &[14, 14, 14, 15, 15, 15, 15, 16]),
    ("Balcony", 38, &[16, 16, 17, 17, 17, 18, 18]),
];

/// What is on; after the last one, it begins anew.
const SHOWS: [&str; 5] = [
    "Die Zauberflöte · tonight, 19:30",
    "An evening with the Tidewater Quartet",
    "Swan Lake · gala performance",
    "The Tempest · opening night",
    "New Year's concert",
];

/// One seat, written as row letter and number from 1: `C14`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    /// Row from the front, 0 is A.
    row: u8,
    /// Number in the row, from 1.
    number: u8,
}

impl Seat {
    /// The row's letter.
    pub(super) fn row(self) -> char {
        char::from(b'A' + self.row)
    }

    /// The number in its row, from 1.
    pub(super) fn number(self) -> u8 {
        self.number
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.row(), self.number)
    }
}

/// A text that names no seat of this hall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such seat: rows are A to T, and a seat is written like C14")]
pub(super) struct NoSuchSeat;

impl FromStr for Seat {
    type Err = NoSuchSeat;

    fn from_str(text: &str) -> Result<Self, NoSuchSeat> {
        let (letter, digits) = text.split_at_checked(1).ok_or(NoSuchSeat)?;
        if digits.starts_with(['0', '+']) {
            return Err(NoSuchSeat);
        }
        let number = digits.parse().map_err(|_| NoSuchSeat)?;
        let row = letter.bytes().next().and_then(|byte| byte.checked_sub(b'A')).ok_or(NoSuchSeat)?;
        let seats = row_lengths().nth(usize::from(row)).ok_or(NoSuchSeat)?;
        if (1..=seats).contains(&number) { Ok(Self { row, number }) } else { Err(NoSuchSeat) }
    }
}

/// What is known of somebody who has, or wants, a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Id of the order.
    pub(super) order: String,
    /// The buyer's name.
    pub(super) name: String,
}

/// The seat already is somebody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whose.
    pub(super) by: Holder,
    /// It is paid for, so it won't come back.
    pub(super) for_good: bool,
}

/// One evening's sales.
#[derive(Debug, Default)]
pub(super) struct Hall {
    held: BTreeMap<Seat, Holder>,
    sold: BTreeMap<Seat, Holder>,
    sequence: u64,
    show: usize,
    opening: u64,
}

impl Hall {
    /// A hall whose seats are all free; `opening` is the number of its first show.
    pub(super) fn new(opening: u64) -> Self {
        Self { opening, ..Self::default() }
    }

    /// Number of the show: each has a greater one than that before it, in every run of the shop.
    pub(super) fn opening(&self) -> u64 {
        self.opening
    }

    /// Number of changes so far: it grows by one with each sale and each reset.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What is on.
    pub(super) fn show(&self) -> &'static str {
        SHOWS[self.show]
    }

    /// Number of seats sold.
    pub(super) fn sold(&self) -> usize {
        self.sold.len()
    }

    /// No seat is left.
    pub(super) fn is_sold_out(&self) -> bool {
        self.sold.len() == capacity()
    }

    /// Holds the seat for somebody, if it is free; gives its price in euros.
    ///
    /// # Errors
    /// [`Taken`] names who was faster.
    pub(super) fn reserve(&mut self, seat: Seat, holder: Holder) -> Result<u32, Taken> {
        let taken = |by: &Holder, for_good| Err(Taken { by: by.clone(), for_good });
        if let Some(owner) = self.sold.get(&seat) {
            return taken(owner, true);
        }
        if let Some(holder) = self.held.get(&seat) {
            return taken(holder, false);
        }
        self.held.insert(seat, holder);
        Ok(price(seat))
    }

    /// Sells the seat to whom it is held for; gives the number of this change. `None` if nobody holds it.
    pub(super) fn sell(&mut self, seat: Seat) -> Option<u64> {
        let holder = self.held.remove(&seat)?;
        self.sold.insert(seat, holder);
        self.sequence += 1;
        Some(self.sequence)
    }

    /// Gives a held seat back.
    pub(super) fn release(&mut self, seat: Seat) {
        self.held.remove(&seat);
    }

    /// Whether a seat was sold by this order.
    pub(super) fn has_sold(&self, order: &str) -> bool {
        self.sold.values().any(|owner| owner.order == order)
    }

    /// Everybody has left: the next show, and every seat is free again.
    pub(super) fn reset(&mut self) {
        self.sold.clear();
        self.sequence += 1;
        self.show = (self.show + 1) % SHOWS.len();
        self.opening += 1;
    }

    /// Every seat that is sold, and to whom.
    pub(super) fn sales(&self) -> impl Iterator<Item = (Seat, &Holder)> {
        self.sold.iter().map(|(seat, holder)| (*seat, holder))
    }

    /// Everything a page needs to draw the hall, save for the time.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            show: self.show().to_owned(),
            sequence: self.sequence,
            opening: self.opening,
            sections: plan(),
            sold: self
                .sold
                .iter()
                .map(|(seat, owner)| SoldSeat { seat: seat.to_string(), buyer: owner.name.clone() })
                .collect(),
        }
    }
}

/// The hall at one moment, as `GET /api/hall` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    show: String,
    sequence: u64,
    opening: u64,
    sections: Vec<Section>,
    sold: Vec<SoldSeat>,
}

impl Snapshot {
    /// Up to `size` free seats side by side that start at the `choice`th free seat (counted modulo their number).
    pub(super) fn side_by_side(&self, choice: usize, size: usize) -> Vec<Seat> {
        let sold: BTreeSet<&str> = self.sold.iter().map(|sold| sold.seat.as_str()).collect();
        let free: Vec<Seat> = seats().filter(|seat| !sold.contains(seat.to_string().as_str())).collect();
        let Some(start) = choice.checked_rem(free.len()) else { return Vec::new() };
        let first = free[start];
        free[start..]
            .iter()
            .zip(first.number..)
            .take(size)
            .take_while(|(seat, number)| seat.row == first.row && seat.number == *number)
            .map(|(seat, _)| *seat)
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Section {
    name: String,
    price: u32,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    row: char,
    seats: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SoldSeat {
    seat: String,
    buyer: String,
}

fn plan() -> Vec<Section> {
    let mut letters = 'A'..;
    PLAN.iter()
        .map(|(name, price, rows)| Section {
            name: (*name).to_owned(),
            price: *price,
            rows: rows.iter().zip(letters.by_ref()).map(|(seats, row)| Row { row, seats: *seats }).collect(),
        })
        .collect()
}

/// Number of seats in the hall.
pub(super) fn capacity() -> usize {
    row_lengths().map(usize::from).sum()
}

fn row_lengths() -> impl Iterator<Item = u8> {
    PLAN.iter().flat_map(|(_, _, rows)| rows.iter().copied())
}

pub(super) fn seats() -> impl Iterator<Item = Seat> {
    row_lengths().zip(0..).flat_map(|(length, row)| (1..=length).map(move |number| Seat { row, number }))
}

pub(super) fn price(seat: Seat) -> u32 {
    let prices = PLAN.iter().flat_map(|(_, price, rows)| rows.iter().map(|_| *price));
    prices.clone().nth(usize::from(seat.row)).expect("invariant: a seat's row is one of the plan")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(text: &str) -> Seat {
        text.parse().expect("a seat of the hall")
    }

    fn holder(name: &str) -> Holder {
        Holder { order: format!("order of {name}"), name: name.to_owned() }
    }

    fn sell(hall: &mut Hall, text: &str, name: &str) -> u64 {
        hall.reserve(seat(text), holder(name)).expect("free");
        hall.sell(seat(text)).expect("held")
    }

    #[test]
    fn of_two_buyers_the_first_gets_the_seat_and_the_second_learns_who_has_it() {
        let mut hall = Hall::default();
        assert_eq!(hall.reserve(seat("C13"), holder("Mia")), Ok(95));
        let taken = |for_good| Err(Taken { by: holder("Mia"), for_good });
        assert_eq!(hall.reserve(seat("C13"), holder("Ben")), taken(false));
        assert_eq!((hall.sold(), hall.sequence(), hall.has_sold("order of Mia")), (0, 0, false));
        assert_eq!(hall.sell(seat("C13")), Some(1));
        assert_eq!(hall.reserve(seat("C13"), holder("Ben")), taken(true));
        assert_eq!(hall.sell(seat("C13")), None, "a seat is sold once");
        assert_eq!((hall.sold(), hall.sequence(), hall.has_sold("order of Mia")), (1, 1, true));
    }

    #[test]
    fn a_seat_that_was_given_back_is_free_and_no_change_that_viewers_count() {
        let mut hall = Hall::default();
        hall.reserve(seat("C13"), holder("Mia")).expect("free");
        hall.release(seat("C13"));
        assert_eq!((hall.sell(seat("C13")), hall.sequence()), (None, 0));
        assert_eq!(hall.reserve(seat("C13"), holder("Ben")), Ok(95));
    }

    #[test]
    fn a_seat_is_a_row_letter_and_a_number_of_that_row() {
        for text in ["A1", "A12", "T18"] {
            assert_eq!(seat(text).to_string(), text);
        }
        for text in ["", "A", "A0", "A01", "A13", "U1", "a1", "A-1", "A+1", "A300", "ä1", "@1", "1A"] {
            assert_eq!(text.parse::<Seat>(), Err(NoSuchSeat), "{text}");
        }
    }

    #[test]
    fn prices_fall_from_the_front_to_the_back() {
        assert_eq!(["A1", "E1", "F1", "M1", "N1", "T1"].map(|text| price(seat(text))), [95, 95, 65, 65, 38, 38]);
    }

    #[test]
    fn a_sold_out_hall_is_free_again_after_the_reset_and_shows_something_else() {
        let mut hall = Hall::default();
        let first_show = hall.show();
        for seat in seats() {
            assert!(!hall.is_sold_out());
            sell(&mut hall, &seat.to_string(), "Ada");
        }
        assert!(hall.is_sold_out());
        assert_eq!(hall.snapshot().side_by_side(7, 2), []);
        hall.reset();
        assert_eq!((hall.sold(), hall.sequence(), hall.opening()), (0, 301, 1));
        assert_ne!(hall.show(), first_show);
    }

    #[test]
    fn a_party_sits_side_by_side_in_one_row_or_becomes_smaller() {
        let mut hall = Hall::default();
        sell(&mut hall, "A3", "Ada");
        let hall = hall.snapshot();
        assert_eq!(hall.side_by_side(0, 3), [seat("A1"), seat("A2")]);
        assert_eq!(hall.side_by_side(2, 3), [seat("A4"), seat("A5"), seat("A6")]);
        assert_eq!(hall.side_by_side(10, 4), [seat("A12")]);
        assert_eq!(hall.side_by_side(299, 1), [seat("A1")], "299 seats are free: the 299th is the first again");
    }

    #[test]
    fn the_snapshot_names_every_row_and_every_sold_seat() {
        let mut hall = Hall::default();
        sell(&mut hall, "B2", "Ada");
        let json = serde_json::to_value(hall.snapshot()).expect("plain data");
        let rows: Vec<_> =
            json["sections"].as_array().into_iter().flatten().flat_map(|s| s["rows"].as_array()).flatten().collect();
        assert_eq!((rows.len(), rows[19]["row"].as_str()), (20, Some("T")));
        assert_eq!(rows.iter().filter_map(|row| row["seats"].as_u64()).sum::<u64>(), 300);
        assert_eq!(json["sold"], serde_json::json!([{"seat": "B2", "buyer": "Ada"}]));
        assert_eq!(json["sequence"], serde_json::json!(1));
    }
}
