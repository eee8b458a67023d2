//! The local hub, where there is no Kafka: published events are sequenced by the ingress thread of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use futures_channel::oneshot;
use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tidegate_shards::event::{EventLimits, decode_structured};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::publisher::Position;
use tidegate_shards::submit::{EventSink, Submission, SubmitAnswer, SubmitError};

use super::metrics::TypeIndex;
use super::outlet::{Outlet, Stop, Stopped};
use super::snapshot::Snapshots;

/// The name of the local hub in cursors.
const HUB: &str = "local";
/// Calls that may wait for the ingress thread.
const MAX_WAITING_CALLS: usize = 4_096;
/// Bytes of events that may wait for it.
const MAX_WAITING_BYTES: usize = 64 << 20;

#[derive(Debug)]
struct Call {
    events: Vec<Submission>,
    bytes: usize,
    answer: oneshot::Sender<Result<(), SubmitError>>,
}

/// Takes events from any thread; shared.
#[derive(Debug)]
pub struct LocalHub {
    waiting: ArrayQueue<Call>,
    waiting_bytes: AtomicUsize,
    bell: Bell,
    stop: Stop,
}

impl LocalHub {
    /// A hub whose ingress thread sleeps on `bell`.
    #[must_use]
    pub fn new(bell: Bell, stop: Stop) -> Self {
        Self { waiting: ArrayQueue::new(MAX_WAITING_CALLS), waiting_bytes: AtomicUsize::new(0), bell, stop }
    }

    fn refuse(&self, call: Call, error: SubmitError) {
        self.waiting_bytes.fetch_sub(call.bytes, Ordering::Relaxed);
        // The caller may have gone meanwhile; then nobody wants the answer.
        let _ = call.answer.send(Err(error));
    }

    fn take(&self) -> Option<Call> {
        let call = self.waiting.pop()?;
        self.waiting_bytes.fetch_sub(call.bytes, Ordering::Relaxed);
        Some(call)
    }
}

impl EventSink for LocalHub {
    fn submit(&self, events: Vec<Submission>) -> SubmitAnswer {
        let (answer, receiver) = oneshot::channel();
        let bytes = events.iter().map(|event| event.body.len()).sum();
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let call = Call { events, bytes, answer };
        if self.stop.requested() {
            self.refuse(call, SubmitError::ShuttingDown);
        } else if waiting_bytes > MAX_WAITING_BYTES {
            self.refuse(call, SubmitError::Overloaded);
        } else if let Err(call) = self.waiting.push(call) {
            self.refuse(call, SubmitError::Overloaded);
        } else {
            self.bell.ring();
        }
        receiver
    }
}

/// Sequences the hub's events until asked to stop.
pub fn run(hub: &Arc<LocalHub>, mut outlet: Outlet, extractors: &Extractors, snapshots: Option<Arc<Snapshots>>) {
    // A cursor of a process that is gone must be known as such: what it stands for was in that process's memory.
    outlet.positions().name_source(0, HUB, uuid::Uuid::new_v4().as_u128());
    outlet.positions().start(0, 0, 0, 0);
    outlet.keep_all();
    let mut sequencer = Sequencer { next_offset: 0, types: TypeIndex::default(), snapshots };
    while !outlet.stop_requested() {
        outlet.apply_interest();
        let mut taken = 0_usize;
        while taken < MAX_WAITING_CALLS
            && let Some(call) = hub.take()
        {
            taken += 1;
            let result = sequencer.publish_all(&call.events, &mut outlet, extractors);
            let _ = call.answer.send(result);
        }
        outlet.flush();
        if taken == 0 {
            outlet.idle(|| !hub.waiting.is_empty());
        }
    }
    while let Some(call) = hub.take() {
        let _ = call.answer.send(Err(SubmitError::ShuttingDown));
    }
}

#[derive(Debug)]
struct Sequencer {
    next_offset: u64,
    types: TypeIndex,
    snapshots: Option<Arc<Snapshots>>,
}

impl Sequencer {
    fn publish_all(
        &mut self,
        events: &[Submission],
        outlet: &mut Outlet,
        extractors: &Extractors,
    ) -> Result<(), SubmitError> {
        events.iter().try_for_each(|event| self.publish(event, outlet, extractors))
    }

    fn publish(
        &mut self,
        submission: &Submission,
        outlet: &mut Outlet,
        extractors: &Extractors,
    ) -> Result<(), SubmitError> {
        let received_us = clock::now_us();
        let metrics = Arc::clone(outlet.metrics());
        let source = &metrics.sources[0];
        source.consumed.add(1);
        let position = Position { partition: 0, offset: self.next_offset };
        self.next_offset += 1;
        if outlet.wants(&submission.event_type) {
            let event = decode_structured(&submission.body, extractors, &EventLimits::default()).map_err(|error| {
                source.failed.add(1);
                SubmitError::Refused(error.to_string())
            })?;
            self.keep(submission, position.offset);
            outlet.publish(&event, position, received_us).map_err(|Stopped| SubmitError::ShuttingDown)?;
            self.types.count(&metrics.forwarded, &event.event_type);
        } else {
            self.keep(submission, position.offset);
            outlet.positions().advance(0, self.next_offset);
        }
        source.processing_us.record(clock::now_us() - received_us, 1);
        Ok(())
    }

    /// Snapshots must have it before a shard can be told of a position after it.
    fn keep(&self, submission: &Submission, offset: u64) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.put_local(offset, submission.subject.as_deref(), &submission.event_type, &submission.body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn hub() -> LocalHub {
        let bell = Bell::new().expect("an eventfd");
        LocalHub::new(bell.clone(), Stop::new(bell))
    }

    fn submission(bytes: usize) -> Submission {
        Submission { body: Bytes::from(vec![b' '; bytes]), event_type: "t".into(), subject: None }
    }

    #[test]
    fn a_full_hub_says_that_it_is_overloaded_and_takes_more_once_there_is_room() {
        let hub = hub();
        let kept: Vec<_> = (0..MAX_WAITING_CALLS).map(|_| hub.submit(vec![submission(1)])).collect();
        assert_eq!(hub.submit(vec![submission(1)]).try_recv(), Ok(Some(Err(SubmitError::Overloaded))));
        assert!(hub.take().is_some());
        assert_eq!(hub.submit(vec![submission(1)]).try_recv(), Ok(None), "it waits for its turn");
        assert_eq!(kept.len(), MAX_WAITING_CALLS);
    }

    #[test]
    fn waiting_events_are_bounded_in_bytes() {
        let hub = hub();
        assert_eq!(hub.submit(vec![submission(MAX_WAITING_BYTES)]).try_recv(), Ok(None));
        assert_eq!(hub.submit(vec![submission(1)]).try_recv(), Ok(Some(Err(SubmitError::Overloaded))));
        assert!(hub.take().is_some());
        assert_eq!(hub.submit(vec![submission(1)]).try_recv(), Ok(None));
    }

    #[test]
    fn a_stopped_hub_takes_nothing() {
        let hub = hub();
        hub.stop.request();
        assert_eq!(hub.submit(vec![submission(1)]).try_recv(), Ok(Some(Err(SubmitError::ShuttingDown))));
    }
}
