//! A flow of events that a floor makes itself.

use std::ops::Range;
use std::time::Instant;

use tidegate_shards::ws::encode::{self, OpCode};

use crate::samples::{self, EVENT_TYPE};

/// Sends in one go, after which the sockets are looked at again.
const AT_ONCE: usize = 1_000;

/// Events that the floor makes itself, each for one connection in turn: what is left of unicast without a source, a filter
/// and a queue.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Events a second, over all connections.
    pub rate_per_s: f64,
    /// Payload of each event in bytes.
    pub event_bytes: usize,
    /// It starts when this many are connected.
    pub connections: usize,
}

/// A [`Pace`] under way.
pub(super) struct Schedule {
    pace: Pace,
    frame: Vec<u8>,
    began: Option<Instant>,
    sent: usize,
}

impl Schedule {
    pub(super) fn new(pace: Pace) -> Self {
        let mut frame = Vec::new();
        encode::append_frame(OpCode::Text, &samples::structured(EVENT_TYPE, 0, pace.event_bytes), &mut frame);
        Self { pace, frame, began: None, sent: 0 }
    }

    /// The frame of every event.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The running numbers of the events that are due and now count as sent.
    pub(super) fn due(&mut self, connected: usize) -> Range<usize> {
        if connected == 0 || (self.began.is_none() && connected < self.pace.connections) {
            return 0..0;
        }
        let elapsed = self.began.get_or_insert_with(Instant::now).elapsed();
        let wanted = (elapsed.as_secs_f64() * self.pace.rate_per_s) as usize;
        let due = self.sent..wanted.min(self.sent + AT_ONCE);
        self.sent = due.end;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_until_all_are_connected_and_never_more_at_once_than_the_bound() {
        let mut schedule = Schedule::new(Pace { rate_per_s: 1e12, event_bytes: 300, connections: 2 });
        assert_eq!(schedule.due(1), 0..0);
        schedule.due(2);
        while schedule.due(2).is_empty() {}
        let (one, next) = (schedule.due(1), schedule.due(1));
        assert_eq!((one.len(), next.len(), next.start), (AT_ONCE, AT_ONCE, one.end));
    }
}
