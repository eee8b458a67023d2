//! What the receiving thread counts, message by message.

use hdrhistogram::Histogram;
use memchr::memmem;

use crate::audit::{SequenceAudit, Verdict};
use crate::latency;
use crate::marker::{MarkFinder, PROBE_STREAM};

/// What is known of one client.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The stream whose events it must get.
    pub(crate) stream: u32,
    /// Its subscription is in force.
    pub(crate) ready: bool,
    /// It reads to the end, so everything is expected of it.
    pub(crate) audited: bool,
    pub(crate) audit: SequenceAudit,
}

impl Progress {
    pub(crate) fn new(stream: u32) -> Self {
        Self { stream, ready: false, audited: true, audit: SequenceAudit::default() }
    }
}

/// Sums over all clients.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Messages: frames, events of a stream, poll bodies.
    pub(crate) messages: u64,
    /// Marked events of this run.
    pub(crate) deliveries: u64,
    /// Bytes of the messages' payloads.
    pub(crate) payload_bytes: u64,
    /// Deliveries to audited clients that were not duplicates.
    pub(crate) accepted: u64,
    /// Numbers that audited clients skipped and that have not come yet.
    pub(crate) missing: u64,
    pub(crate) duplicates: u64,
    /// Deliveries of probe events.
    pub(crate) probes: u64,
    /// Time of the last delivery.
    pub(crate) last_delivery_ns: u64,
}

/// Counters and the latency of the current interval.
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    pub(crate) interval: Histogram<u64>,
    /// Events that were to be sent before this moment belong to the warm-up.
    pub(crate) measured_from_ns: u64,
    run: u32,
    marks: MarkFinder,
    ready_marker: memmem::Finder<'static>,
}

impl Tally {
    pub(crate) fn new(run: u32, ready_marker: &str) -> Self {
        Self {
            counts: Counts::default(),
            interval: latency::histogram(),
            measured_from_ns: 0,
            run,
            marks: MarkFinder::new(),
            ready_marker: memmem::Finder::new(ready_marker).into_owned(),
        }
    }

    /// Takes in one message of one client.
    #[inline]
    pub(crate) fn message(&mut self, client: &mut Progress, payload: &[u8], now_ns: u64) {
        self.counts.messages += 1;
        self.counts.payload_bytes += payload.len() as u64;
        if !client.ready && self.ready_marker.find(payload).is_some() {
            client.ready = true;
        }
        let Self { counts, interval, measured_from_ns, run, marks, .. } = self;
        marks.each(payload, |mark| {
            if mark.run != *run {
                return;
            }
            if mark.stream != client.stream {
                match mark.stream {
                    PROBE_STREAM => counts.probes += 1,
                    _ => client.audit.misdelivered(),
                }
                return;
            }
            counts.deliveries += 1;
            counts.last_delivery_ns = now_ns;
            let audited = u64::from(client.audited);
            match client.audit.observe(mark.sequence) {
                Verdict::InOrder => counts.accepted += audited,
                Verdict::Gap(skipped) => {
                    counts.accepted += audited;
                    counts.missing += skipped * audited;
                }
                Verdict::Late => {
                    counts.accepted += audited;
                    counts.missing -= audited;
                }
                Verdict::Duplicate => counts.duplicates += 1,
            }
            if mark.intended_ns >= *measured_from_ns {
                interval.saturating_record((now_ns.saturating_sub(mark.intended_ns) / 1_000).max(1));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::EventTemplate;

    const RUN: u32 = 5;

    fn event(run: u32, stream: u32, sequence: u64, intended_ns: u64) -> Vec<u8> {
        let mut text = Vec::new();
        EventTemplate::new(run, "t", 200).append(stream, sequence, intended_ns, "k", &mut text);
        text
    }

    #[test]
    fn a_client_is_ready_from_the_message_that_holds_the_marker() {
        let (mut tally, mut client) = (Tally::new(RUN, "rig.subscriptions_set"), Progress::new(0));
        tally.message(&mut client, br#"{"type":"rig.connection.create"}"#, 1);
        assert!(!client.ready);
        tally.message(&mut client, br#"{"type":"rig.subscriptions_set"}"#, 2);
        assert!(client.ready);
        assert_eq!((tally.counts.messages, tally.counts.deliveries), (2, 0));
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_leaves_the_warm_up_out() {
        let (mut tally, mut client) = (Tally::new(RUN, "x"), Progress::new(0));
        tally.measured_from_ns = 2_000_000;
        tally.message(&mut client, &event(RUN, 0, 0, 1_000_000), 50_000_000);
        assert_eq!(tally.interval.len(), 0);
        tally.message(&mut client, &event(RUN, 0, 1, 2_000_000), 5_000_000);
        assert_eq!((tally.interval.len(), tally.interval.max()), (1, 3_001));
        assert_eq!((tally.counts.accepted, tally.counts.last_delivery_ns), (2, 5_000_000));
    }

    #[test]
    fn probes_and_events_of_other_runs_are_not_audited_and_those_of_other_streams_are_misdelivered() {
        let (mut tally, mut client) = (Tally::new(RUN, "x"), Progress::new(3));
        tally.message(&mut client, &event(RUN, PROBE_STREAM, 0, 0), 1);
        tally.message(&mut client, &event(RUN + 1, 3, 0, 0), 1);
        tally.message(&mut client, &event(RUN, 4, 0, 0), 1);
        assert_eq!((tally.counts.probes, tally.counts.deliveries), (1, 0));
        let mut report = crate::audit::AuditReport::default();
        client.audit.conclude(0, &mut report);
        assert_eq!(report.misdelivered, 1);
    }

    #[test]
    fn missing_falls_again_when_the_late_event_comes() {
        let (mut tally, mut client) = (Tally::new(RUN, "x"), Progress::new(0));
        for (sequence, missing) in [(0, 0), (3, 2), (1, 1), (2, 0)] {
            tally.message(&mut client, &event(RUN, 0, sequence, 0), 1);
            assert_eq!(tally.counts.missing, missing);
        }
    }
}
