//! The ingress side of the event path: interest, segments and the queues to the shards.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::SegQueue;

use crate::event::Event;
use crate::interest::{Interest, InterestChange};
use crate::mailbox::EventLane;
use crate::record::{self, Scratch};
use crate::segment::{Segment, SegmentWriter};

/// Where an event stands in its source; per source partition, offsets rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Index of the source partition on this node (ingress numbers its topic partitions; the local hub is 0).
    pub partition: u32,
    /// Offset in that partition.
    pub offset: u64,
}

/// A shard's queue is full: stop polling the source and try again once the bell rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Changes of interest on their way to ingress. Unbounded by itself; what can wait in it is bounded
/// by the subscriptions that the node's connections may hold.
pub type InterestLane = Arc<SegQueue<InterestChange>>;

/// Owned by the ingress thread.
#[derive(Debug)]
pub struct Publisher {
    interest: Interest,
    changes: InterestLane,
    lanes: Vec<EventLane>,
    unanswered: VecDeque<(usize, u64)>,
    writer: SegmentWriter,
    segment_bytes: usize,
    history: VecDeque<Arc<Segment>>,
    history_bytes: usize,
    history_limit_bytes: usize,
    scratch: Scratch,
}

impl Publisher {
    /// A publisher for the shards behind `lanes`, in their order.
    #[must_use]
    pub fn new(lanes: Vec<EventLane>, changes: InterestLane, segment_bytes: usize, history_limit_bytes: usize) -> Self {
        Self {
            interest: Interest::new(lanes.len()),
            changes,
            lanes,
            unanswered: VecDeque::new(),
            writer: SegmentWriter::new(0, segment_bytes),
            segment_bytes,
            history: VecDeque::new(),
            history_bytes: 0,
            history_limit_bytes,
            scratch: Scratch::default(),
        }
    }

    /// Applies the changes of interest that shards have sent since the last call. Call once per turn of the loop.
    pub fn apply_interest(&mut self) {
        while let Some(change) = self.changes.pop() {
            match change {
                InterestChange::Add { shard, event_type, transports, ticket } => {
                    self.interest.add(shard, event_type, transports);
                    self.unanswered.push_back((shard, ticket));
                }
                InterestChange::Remove { shard, event_type } => self.interest.remove(shard, &event_type),
            }
        }
        for _ in 0..self.unanswered.len() {
            let Some((shard, ticket)) = self.unanswered.pop_front() else { break };
            if self.lanes[shard].has_room(1) {
                self.lanes[shard].push_interest_known(ticket);
            } else {
                self.unanswered.push_back((shard, ticket));
            }
        }
        self.flush();
    }

    /// Does any shard have a subscriber for this type?
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.interest.wants(event_type)
    }

    /// Archives the event into the current segment and queues it for every interested shard.
    /// `received_us`: monotonic microseconds at which the source handed it over ([`crate::clock::now_us`]).
    ///
    /// # Errors
    /// [`Full`] when an interested shard's queue is full: nothing was published, call again with the same event.
    pub fn publish(&mut self, event: &Event<'_>, position: Position, received_us: u64) -> Result<(), Full> {
        let Some((transports, shards)) = self.interest.of(&event.event_type) else { return Ok(()) };
        let interested = || shards.iter().enumerate().filter(|(_, wish)| !wish.is_empty()).map(|(shard, _)| shard);
        if interested().any(|shard| !self.lanes[shard].has_room(2)) {
            return Err(Full);
        }
        let write = |writer: &mut SegmentWriter, scratch: &mut Scratch| {
            record::write(writer, event, position, received_us, transports, scratch)
        };
        let range = match write(&mut self.writer, &mut self.scratch) {
            Some(range) => range,
            None => {
                let capacity = self.segment_bytes.max(record::space_needed(event));
                let next = SegmentWriter::new(self.writer.segment().number() + 1, capacity);
                let full = std::mem::replace(&mut self.writer, next);
                self.history_bytes += full.segment().capacity();
                self.history.push_back(Arc::clone(full.segment()));
                while self.history_bytes > self.history_limit_bytes {
                    let Some(oldest) = self.history.pop_front() else { break };
                    self.history_bytes -= oldest.capacity();
                }
                match write(&mut self.writer, &mut self.scratch) {
                    Some(range) => range,
                    None => {
                        debug_assert!(false, "a fresh segment of the announced size takes the event");
                        return Ok(());
                    }
                }
            }
        };
        for shard in interested() {
            self.lanes[shard].push_event(self.writer.segment(), range);
        }
        Ok(())
    }

    /// Ends a batch: rings the bell of every shard that got mail since the last flush.
    pub fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::interest::Transports;
    use crate::mailbox::{Inbox, Mail, lanes};

    fn event(event_type: &'static str) -> Event<'static> {
        Event {
            event_type: Cow::Borrowed(event_type),
            id: Cow::Borrowed("1"),
            subject: None,
            body: Cow::Borrowed(br#"{"specversion":"1.0","type":"a","id":"1","source":"/"}"#),
            fields: Vec::new(),
        }
    }

    fn publisher(capacity: usize) -> (Publisher, Vec<Inbox>, InterestLane) {
        let (left, _, left_inbox) = lanes(capacity);
        let (right, _, right_inbox) = lanes(capacity);
        let changes = InterestLane::default();
        let publisher = Publisher::new(vec![left, right], Arc::clone(&changes), 4096, 16_384);
        (publisher, vec![left_inbox, right_inbox], changes)
    }

    fn add(changes: &InterestLane, shard: usize, event_type: &str, ticket: u64) {
        let event_type = event_type.into();
        changes.push(InterestChange::Add { shard, event_type, transports: Transports::WS, ticket });
    }

    #[test]
    fn only_interested_shards_get_an_event_and_hear_that_their_interest_is_known() {
        let (mut publisher, mut inboxes, changes) = publisher(8);
        add(&changes, 1, "a", 42);
        publisher.apply_interest();
        assert!(publisher.wants("a") && !publisher.wants("b"));
        publisher.publish(&event("a"), Position { partition: 0, offset: 0 }, 0).unwrap();
        publisher.publish(&event("b"), Position { partition: 0, offset: 1 }, 0).unwrap();
        assert!(inboxes[0].events.pop().is_err());
        assert!(matches!(inboxes[1].events.pop(), Ok(Mail::InterestKnown(42))));
        assert!(matches!(inboxes[1].events.pop(), Ok(Mail::Segment(_))));
        assert!(matches!(inboxes[1].events.pop(), Ok(Mail::Event(_))));
        assert!(inboxes[1].events.pop().is_err());
    }

    #[test]
    fn a_full_queue_is_back_pressure_and_nothing_is_published_in_part() {
        let (mut publisher, mut inboxes, changes) = publisher(4);
        add(&changes, 0, "a", 1);
        add(&changes, 1, "a", 2);
        publisher.apply_interest();
        inboxes[1].events.pop().unwrap();
        let position = Position { partition: 0, offset: 0 };
        publisher.publish(&event("a"), position, 0).unwrap();
        assert_eq!(publisher.publish(&event("a"), position, 0), Err(Full));
        while inboxes[0].events.pop().is_ok() {}
        publisher.publish(&event("a"), position, 0).unwrap();
        let on_right = std::iter::from_fn(|| inboxes[1].events.pop().ok()).count();
        assert_eq!(on_right, 3, "one segment, two events");
    }

    #[test]
    fn segments_roll_and_the_history_stays_within_its_bytes() {
        let (mut publisher, mut inboxes, changes) = publisher(64);
        add(&changes, 0, "a", 1);
        publisher.apply_interest();
        let mut segments = 0;
        for offset in 0..500 {
            publisher.publish(&event("a"), Position { partition: 0, offset }, 0).unwrap();
            while let Ok(mail) = inboxes[0].events.pop() {
                segments += usize::from(matches!(mail, Mail::Segment(_)));
            }
        }
        assert!(segments > 10, "{segments}");
        assert!(publisher.history_bytes <= 16_384 && !publisher.history.is_empty());
    }
}
