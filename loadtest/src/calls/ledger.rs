//! What became of every call: one entry when it leaves, one when its answer comes or is given up.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::number::{CallNumber, Payload};
use super::report::{CallCounts, CallSecond};
use crate::latency;

const SECOND_NS: u64 = 1_000_000_000;

/// A call under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnderWay {
    pub(crate) number: u64,
    /// When the schedule wanted it sent; latency counts from here.
    pub(crate) intended_ns: u64,
    pub(crate) sent_ns: u64,
}

/// Counts, latency, and which numbers have been answered.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u32,
    measured_from_ns: u64,
    measured_until_ns: u64,
    pub(crate) counts: CallCounts,
    pub(crate) in_flight: u64,
    pub(crate) first_failure: Option<String>,
    pub(crate) series: Vec<CallSecond>,
    statuses: BTreeMap<u16, u64>,
    /// One bit per number.
    answered: Vec<u64>,
    total: Histogram<u64>,
    interval: Histogram<u64>,
    second_from_ns: u64,
    second_answers: u64,
}

impl Ledger {
    /// Latency and rate are measured between the two times; everything is audited.
    pub(crate) fn new(run: u32, measured_from_ns: u64, measured_until_ns: u64, now_ns: u64) -> Self {
        Self {
            run,
            measured_from_ns,
            measured_until_ns,
            counts: CallCounts::default(),
            in_flight: 0,
            first_failure: None,
            series: Vec::new(),
            statuses: BTreeMap::new(),
            answered: Vec::new(),
            total: latency::histogram(),
            interval: latency::histogram(),
            second_from_ns: now_ns,
            second_answers: 0,
        }
    }

    /// The number as it stands in the request.
    pub(crate) fn named(&self, number: u64) -> CallNumber {
        CallNumber { run: self.run, number }
    }

    /// A call leaves.
    pub(crate) fn issue(&mut self, intended_ns: u64, now_ns: u64) -> UnderWay {
        let number = self.counts.issued;
        self.counts.issued += 1;
        self.in_flight += 1;
        self.counts.most_in_flight = self.counts.most_in_flight.max(self.in_flight);
        UnderWay { number, intended_ns, sent_ns: now_ns }
    }

    /// An answer to `call` has come. What a call has been told with another status than 2xx is no payload to audit.
    pub(crate) fn answered(&mut self, call: UnderWay, status: u16, payload: Payload, now_ns: u64) {
        self.in_flight -= 1;
        *self.statuses.entry(status).or_default() += 1;
        if (self.measured_from_ns..self.measured_until_ns).contains(&now_ns) {
            self.counts.measured += 1;
        }
        if !(200..300).contains(&status) {
            self.counts.refused += 1;
            self.note(|| format!("call {} got status {status}", call.number));
            return;
        }
        match payload {
            Payload::Own => {
                self.counts.answered += 1;
                self.mark(call.number);
                if (self.measured_from_ns..self.measured_until_ns).contains(&call.intended_ns) {
                    self.interval.saturating_record((now_ns.saturating_sub(call.intended_ns) / 1_000).max(1));
                }
            }
            Payload::Foreign(other) => {
                self.counts.wrong += 1;
                if other.run == self.run && self.is_marked(other.number) {
                    self.counts.duplicates += 1;
                }
                self.note(|| format!("call {} got the answer to {other}", call.number));
            }
            Payload::Broken => {
                self.counts.wrong += 1;
                self.note(|| format!("call {} got a body that is nobody's", call.number));
            }
        }
    }

    /// No answer to `call` will come.
    pub(crate) fn missing(&mut self, call: UnderWay, reason: impl FnOnce() -> String) {
        self.in_flight -= 1;
        self.counts.missing += 1;
        self.note(|| format!("call {}: {}", call.number, reason()));
    }

    /// An answer came that nobody waited for.
    pub(crate) fn unasked(&mut self) {
        self.counts.duplicates += 1;
        self.note(|| "an answer came that nobody waited for".to_owned());
    }

    pub(crate) fn note(&mut self, reason: impl FnOnce() -> String) {
        self.first_failure.get_or_insert_with(reason);
    }

    /// Ends the measured part early.
    pub(crate) fn end_measuring(&mut self, now_ns: u64) {
        self.measured_until_ns = self.measured_until_ns.min(now_ns).max(self.measured_from_ns);
    }

    /// Length of the measured part, in seconds.
    pub(crate) fn measured_s(&self) -> f64 {
        (self.measured_until_ns - self.measured_from_ns) as f64 / SECOND_NS as f64
    }

    /// Statuses and how often each came.
    pub(crate) fn statuses(&self) -> Vec<(u16, u64)> {
        self.statuses.iter().map(|(status, count)| (*status, *count)).collect()
    }

    /// The latency of all measured calls, once the last second has ended.
    pub(crate) fn latency(&self) -> &Histogram<u64> {
        &self.total
    }

    /// Ends the current second if it is over, or in any case; gives what it held.
    pub(crate) fn end_second(&mut self, now_ns: u64, in_any_case: bool) -> Option<&CallSecond> {
        let elapsed_ns = now_ns.saturating_sub(self.second_from_ns);
        if elapsed_ns < SECOND_NS && !in_any_case {
            return None;
        }
        let counts = &self.counts;
        let answers = counts.answered + counts.refused + counts.wrong;
        let second = CallSecond {
            at_s: now_ns as f64 / SECOND_NS as f64,
            in_flight: self.in_flight,
            answers_per_s: (answers - self.second_answers) as f64 * SECOND_NS as f64 / elapsed_ns.max(1) as f64,
            p99_us: self.interval.value_at_quantile(0.99),
            faults: counts.refused + counts.wrong + counts.missing + counts.duplicates,
        };
        self.total.add(&self.interval).expect("invariant: both histograms have the same bounds");
        self.interval.reset();
        (self.second_from_ns, self.second_answers) = (now_ns, answers);
        self.series.push(second);
        self.series.last()
    }

    fn mark(&mut self, number: u64) {
        let word = (number / 64) as usize;
        if word >= self.answered.len() {
            self.answered.resize(word + 1, 0);
        }
        self.answered[word] |= 1 << (number % 64);
    }

    fn is_marked(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|at| self.answered.get(at));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn ledger() -> Ledger {
        Ledger::new(9, 100 * MS, 2_000 * MS, 0)
    }

    #[test]
    fn every_call_ends_in_exactly_one_count() {
        let mut ledger = ledger();
        let calls: Vec<UnderWay> = (0..6).map(|_| ledger.issue(200 * MS, 200 * MS)).collect();
        assert_eq!((ledger.in_flight, ledger.counts.most_in_flight), (6, 6));
        let foreign = |number| Payload::Foreign(CallNumber { run: 9, number });
        ledger.answered(calls[0], 200, Payload::Own, 201 * MS);
        ledger.answered(calls[1], 502, Payload::Broken, 201 * MS);
        ledger.answered(calls[2], 200, foreign(0), 201 * MS);
        ledger.answered(calls[3], 200, foreign(5), 201 * MS);
        ledger.answered(calls[4], 200, Payload::Broken, 201 * MS);
        ledger.missing(calls[5], || "no answer".to_owned());
        let counts = &ledger.counts;
        assert_eq!((counts.answered, counts.refused, counts.wrong, counts.missing), (1, 1, 3, 1));
        assert_eq!(counts.duplicates, 1, "only call 0 had its answer already");
        assert_eq!((ledger.in_flight, counts.measured), (0, 5));
        assert_eq!(ledger.statuses(), [(200, 4), (502, 1)]);
        assert_eq!(ledger.first_failure.as_deref(), Some("call 1 got status 502"));
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_leaves_out_the_warm_up() {
        let mut ledger = ledger();
        let early = ledger.issue(50 * MS, 50 * MS);
        let late = ledger.issue(150 * MS, 170 * MS);
        ledger.answered(early, 200, Payload::Own, 180 * MS);
        ledger.answered(late, 200, Payload::Own, 180 * MS);
        assert!(ledger.end_second(999 * MS, false).is_none());
        let second = ledger.end_second(1_000 * MS, false).unwrap();
        assert_eq!((second.in_flight, second.faults), (0, 0));
        assert!((second.answers_per_s - 2.0).abs() < 0.01);
        assert_eq!(ledger.latency().len(), 1);
        assert!(ledger.latency().max().abs_diff(30_000) < 100);
    }

    #[test]
    fn a_measured_part_that_ends_early_is_as_long_as_it_was_and_never_negative() {
        let mut ledger = ledger();
        assert!((ledger.measured_s() - 1.9).abs() < 1e-9);
        ledger.end_measuring(600 * MS);
        assert!((ledger.measured_s() - 0.5).abs() < 1e-9);
        ledger.end_measuring(50 * MS);
        assert_eq!(ledger.measured_s(), 0.0);
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_a_duplicate() {
        let mut ledger = ledger();
        ledger.unasked();
        assert_eq!(ledger.counts.duplicates, 1);
        assert!(!ledger.is_marked(u64::MAX));
    }
}
