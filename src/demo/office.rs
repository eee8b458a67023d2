//! The box office: a sale and its event happen in one step, so events leave in the order of their sequence numbers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event;
use super::hall::{Hall, Sale, Seat, Snapshot, Taken};
use super::outbox::Outbox;

/// How long a sold-out hall is shown before the next show opens.
const CURTAIN: Duration = Duration::from_secs(10);

/// The hall, and the way out for its events.
#[derive(Debug, Default)]
pub(super) struct BoxOffice {
    state: Mutex<State>,
    /// Events on their way to the gateway.
    pub(super) outbox: Outbox,
}

#[derive(Debug, Default)]
struct State {
    hall: Hall,
    sold_out_since: Option<Instant>,
}

impl BoxOffice {
    /// Sells the seat to the first who asks, and tells everybody.
    ///
    /// # Errors
    /// [`Taken`] names who was faster.
    pub(super) fn buy(&self, seat: Seat, buyer: &str) -> Result<Sale, Taken> {
        let hall = &mut self.lock().hall;
        let sale = hall.buy(seat, buyer)?;
        self.outbox.push(event::seat_sold(&sale));
        Ok(sale)
    }

    /// Up to `size` free seats side by side, see [`Hall::side_by_side`].
    pub(super) fn side_by_side(&self, choice: usize, size: usize) -> Vec<Seat> {
        self.lock().hall.side_by_side(choice, size)
    }

    /// The hall as it is.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.lock().hall.snapshot()
    }

    /// Publishes the figures, unless older events still wait for the gateway.
    pub(super) fn publish_stats(&self, viewers: Option<u64>) {
        let state = self.lock();
        if self.outbox.len() == 0 {
            self.outbox.push(event::stats(&state.hall, viewers));
        }
    }

    /// Opens the next show some time after the last seat was sold. To be called regularly.
    pub(super) fn turn_over(&self, now: Instant) {
        let mut state = self.lock();
        if !state.hall.is_sold_out() {
            state.sold_out_since = None;
        } else if now.duration_since(*state.sold_out_since.get_or_insert(now)) >= CURTAIN {
            state.hall.reset();
            state.sold_out_since = None;
            self.outbox.supersede(event::hall_reset(&state.hall));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sell_out(office: &BoxOffice) {
        while let Some(seat) = office.side_by_side(0, 1).first() {
            office.buy(*seat, "Ada").expect("free");
        }
    }

    #[test]
    fn a_refused_purchase_publishes_nothing() {
        let office = BoxOffice::default();
        let seat: Seat = "C3".parse().expect("a seat");
        office.buy(seat, "Mia").expect("free");
        office.buy(seat, "Ben").expect_err("taken");
        assert_eq!(office.outbox.len(), 1);
    }

    #[test]
    fn figures_wait_for_nothing_and_nothing_waits_for_figures() {
        let office = BoxOffice::default();
        office.publish_stats(Some(1));
        office.publish_stats(Some(2));
        assert_eq!(office.outbox.len(), 1);
    }

    #[test]
    fn a_sold_out_hall_reopens_after_the_curtain_and_not_before() {
        let office = BoxOffice::default();
        sell_out(&office);
        let start = Instant::now();
        office.turn_over(start);
        office.turn_over(start + CURTAIN - Duration::from_millis(1));
        assert_eq!(office.outbox.len(), 300);
        office.turn_over(start + CURTAIN);
        assert_eq!(office.outbox.len(), 2, "the event that is under way, and the reset");
        assert_eq!(office.side_by_side(0, 1).len(), 1);
        sell_out(&office);
        office.turn_over(start + CURTAIN * 2);
        assert_eq!(office.side_by_side(0, 1).len(), 0, "the second show gets its own full pause");
    }
}
