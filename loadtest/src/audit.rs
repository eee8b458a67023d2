//! The audit: has every client seen every sequence number of its stream, once and in order?

use serde::{Deserialize, Serialize};

/// Ranges of missing numbers that one client remembers, to tell a late event from a doubled one. Beyond it the oldest
/// range counts as missing for good.
const MAX_HOLES: usize = 1_024;

/// What one more sequence number meant for its client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The next number.
    InOrder,
    /// A number beyond the next; so many before it have not come.
    Gap(u64),
    /// A number that was missing until now.
    Late,
    /// A number that had come before.
    Duplicate,
}

/// The audit of one client's stream. Costs two words while nothing is wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct SequenceAudit {
    next: u64,
    faults: Option<Box<Faults>>,
}

#[derive(Clone, Debug, Default)]
struct Faults {
    missing: u64,
    duplicates: u64,
    out_of_order: u64,
    misdelivered: u64,
    holes: Vec<(u64, u64)>,
}

impl SequenceAudit {
    /// Takes note of a received number.
    #[inline]
    pub(crate) fn observe(&mut self, sequence: u64) -> Verdict {
        if sequence == self.next {
            self.next += 1;
            return Verdict::InOrder;
        }
        self.observe_fault(sequence)
    }

    /// Takes note of an event of another client's stream.
    pub(crate) fn misdelivered(&mut self) {
        self.faults().misdelivered += 1;
    }

    fn faults(&mut self) -> &mut Faults {
        self.faults.get_or_insert_with(Box::default)
    }

    #[cold]
    fn observe_fault(&mut self, sequence: u64) -> Verdict {
        let next = self.next;
        if sequence > next {
            self.next = sequence + 1;
            let faults = self.faults();
            faults.missing += sequence - next;
            if faults.holes.len() == MAX_HOLES {
                faults.holes.remove(0);
            }
            faults.holes.push((next, sequence));
            return Verdict::Gap(sequence - next);
        }
        let faults = self.faults();
        let Some(at) = faults.holes.iter().position(|&(from, to)| (from..to).contains(&sequence)) else {
            faults.duplicates += 1;
            return Verdict::Duplicate;
        };
        let (from, to) = faults.holes.remove(at);
        for rest in [(sequence + 1, to), (from, sequence)] {
            if rest.0 < rest.1 {
                faults.holes.insert(at, rest);
            }
        }
        faults.missing -= 1;
        faults.out_of_order += 1;
        Verdict::Late
    }

    /// Adds this client to `report`, given that `published` events went to its stream.
    pub(crate) fn conclude(&self, published: u64, report: &mut AuditReport) {
        let none = Faults::default();
        let faults = self.faults.as_deref().unwrap_or(&none);
        let missing = faults.missing + published.saturating_sub(self.next);
        report.clients += 1;
        report.expected += published;
        report.received += self.next - faults.missing.min(self.next);
        report.missing += missing;
        report.duplicates += faults.duplicates;
        report.out_of_order += faults.out_of_order;
        report.misdelivered += faults.misdelivered;
        if missing + faults.duplicates + faults.out_of_order + faults.misdelivered > 0 {
            report.clients_affected += 1;
        }
    }
}

/// The outcome of the audit over all clients that were meant to receive everything.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AuditReport {
    /// Clients audited.
    pub clients: u64,
    /// Clients with at least one fault.
    pub clients_affected: u64,
    /// Deliveries that should have happened.
    pub expected: u64,
    /// Different events that arrived.
    pub received: u64,
    /// Events that never arrived.
    pub missing: u64,
    /// Events that arrived more than once, counted per extra arrival.
    pub duplicates: u64,
    /// Events that arrived after a later one.
    pub out_of_order: u64,
    /// Events that arrived at a client whose subscription they do not match.
    pub misdelivered: u64,
}

impl AuditReport {
    /// True when every client got every event of its stream once, in order, and nothing else.
    pub fn passed(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.out_of_order == 0 && self.misdelivered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn audit(received: &[u64], published: u64) -> AuditReport {
        let mut client = SequenceAudit::default();
        for &sequence in received {
            client.observe(sequence);
        }
        let mut report = AuditReport::default();
        client.conclude(published, &mut report);
        report
    }

    #[test]
    fn a_complete_ordered_stream_passes() {
        let report = audit(&[0, 1, 2, 3], 4);
        assert!(report.passed());
        assert_eq!((report.expected, report.received, report.clients_affected), (4, 4, 0));
    }

    #[test]
    fn numbers_that_never_come_are_missing_also_at_the_end() {
        let report = audit(&[0, 1, 4], 7);
        assert_eq!((report.missing, report.received, report.clients_affected), (4, 3, 1));
        assert!(!report.passed());
        assert_eq!(audit(&[], 5).missing, 5);
    }

    #[test]
    fn a_number_that_comes_twice_is_a_duplicate() {
        let report = audit(&[0, 1, 1, 0, 2], 3);
        assert_eq!((report.duplicates, report.missing, report.out_of_order), (2, 0, 0));
    }

    #[test]
    fn a_late_number_is_out_of_order_and_not_missing_and_its_second_arrival_is_a_duplicate() {
        let report = audit(&[0, 3, 1, 1, 2, 4], 5);
        assert_eq!((report.out_of_order, report.missing, report.duplicates), (2, 0, 1));
    }

    #[test]
    fn an_event_of_another_stream_fails_the_audit() {
        let mut client = SequenceAudit::default();
        client.misdelivered();
        let mut report = AuditReport::default();
        client.conclude(0, &mut report);
        assert_eq!(report.misdelivered, 1);
        assert!(!report.passed());
    }

    proptest! {
        #[test]
        fn the_counts_agree_with_a_set_for_any_arrivals(received in proptest::collection::vec(0u64..40, 0..80)) {
            let report = audit(&received, 40);
            let different: std::collections::BTreeSet<u64> = received.iter().copied().collect();
            prop_assert_eq!(report.missing, 40 - different.len() as u64);
            prop_assert_eq!(report.received, different.len() as u64);
            prop_assert_eq!(report.duplicates, (received.len() - different.len()) as u64);
        }
    }
}
