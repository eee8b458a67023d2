//! What a run of calls has found, for machines (serde) and people.

use serde::{Deserialize, Serialize};

use super::scenario::CallScenario;
use crate::html;
use crate::latency::LatencySummary;
use crate::process::{ProcessSample, ServerUsage};
use crate::table::{duration, latency_row, lay_out, mebibytes, thousands};

/// One second of a run of calls.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CallSecond {
    /// Its end, in seconds since the start of the run.
    pub at_s: f64,
    /// Calls under way at its end.
    pub in_flight: u64,
    /// Answers a second.
    pub answers_per_s: f64,
    /// 99th percentile of the latency in this second, in microseconds; 0 without measured answers.
    pub p99_us: u64,
    /// Calls so far that were refused, got no answer or a wrong one, and answers that were too many.
    pub faults: u64,
}

/// What became of the calls. Each that was issued is answered, refused, wrong or missing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CallCounts {
    /// Sent, or tried to.
    pub issued: u64,
    /// With the right answer.
    pub answered: u64,
    /// With another status than 2xx.
    pub refused: u64,
    /// With the answer to another call, or a body that belongs to none.
    pub wrong: u64,
    /// Without an answer: the connection ended, or the time was over.
    pub missing: u64,
    /// Answers to calls that had theirs already, or that nobody waited for.
    pub duplicates: u64,
    /// Wanted by the schedule and never sent, because no connection became free in time.
    pub unsent: u64,
    /// Answers of any kind in the measured part.
    pub measured: u64,
    /// Most calls under way at the same time.
    pub most_in_flight: u64,
    /// Connections that were opened again.
    pub reconnected: u64,
}

/// Bytes that clients read from the reply topic.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ReplyBytes {
    /// All of them.
    pub read: u64,
    /// Those of answers to the clients' own calls.
    pub own: u64,
}

/// The outcome of a run of calls.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CallReport {
    /// What was run.
    pub scenario: CallScenario,
    /// Length of the whole run, in seconds.
    pub elapsed_s: f64,
    /// Length of the measured part, in seconds.
    pub measured_s: f64,
    /// What became of the calls.
    pub counts: CallCounts,
    /// Answers a second in the measured part.
    pub calls_per_s: f64,
    /// Statuses that came, and how often.
    pub statuses: Vec<(u16, u64)>,
    /// Latency of right answers from the intended send time.
    pub latency: Option<LatencySummary>,
    /// What went wrong first.
    pub first_failure: Option<String>,
    /// The server's process over the measured part, if it is known.
    pub server: Option<ServerUsage>,
    /// CPU and memory of this process at the end.
    pub generator: ProcessSample,
    /// CPU of this process in the measured part, in seconds.
    pub generator_cpu_s: f64,
    /// What was read from the reply topic, where calls go over Kafka.
    pub reply_bytes: Option<ReplyBytes>,
    /// Second by second.
    pub series: Vec<CallSecond>,
}

impl CallReport {
    /// True when every call got its own answer, once.
    pub fn passed(&self) -> bool {
        let counts = &self.counts;
        counts.issued > 0 && counts.answered == counts.issued && counts.duplicates == 0 && counts.unsent == 0
    }

    /// Answers in the measured part per CPU second of the server.
    pub fn per_server_cpu_s(&self) -> Option<f64> {
        let cpu_s = self.server.as_ref()?.cpu_s();
        (cpu_s > 0.0).then(|| self.counts.measured as f64 / cpu_s)
    }

    /// The report as a table.
    pub fn table(&self) -> String {
        lay_out(&self.title(), &self.rows())
    }

    /// The report as an HTML page that needs nothing else.
    pub fn html(&self) -> String {
        let over_time = |value: fn(&CallSecond) -> f64| -> Vec<(f64, f64)> {
            self.series.iter().map(|second| (second.at_s, value(second))).collect()
        };
        let plots = [
            ("Answers per second", over_time(|second| second.answers_per_s), thousands as fn(f64) -> String),
            ("99th percentile of each second", over_time(|second| second.p99_us as f64), duration),
            ("Calls in flight", over_time(|second| second.in_flight as f64), thousands),
        ];
        let curves: Vec<_> = self.latency.iter().map(|latency| ("latency", latency)).collect();
        html::page(&self.title(), self.passed(), &self.rows(), &curves, &plots)
    }

    fn title(&self) -> String {
        format!("{} at {}", self.scenario.name(), self.scenario.destination())
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));
        let (counts, load) = (&self.counts, &self.scenario.load);
        let schedule = load.rate_per_s.map_or("closed loop".to_owned(), |rate| format!("{} a second", thousands(rate)));
        row("schedule", format!("{schedule}, {} at the same time at most", load.concurrency));
        row("measured", format!("{:.2} s", self.measured_s));
        row("calls answered", format!("{} of {}", counts.answered, counts.issued));
        row("answers a second", thousands(self.calls_per_s));
        row("most in flight", counts.most_in_flight.to_string());
        if let Some(latency) = &self.latency {
            row("latency", latency_row(latency));
        }
        let statuses: Vec<String> = self.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        row("statuses", statuses.join(", "));
        if counts.reconnected > 0 {
            row("connections opened again", counts.reconnected.to_string());
        }
        if counts.unsent > 0 {
            row("never sent", counts.unsent.to_string());
        }
        row(
            "audit",
            format!(
                "{} missing, {} wrong, {} double, {} refused",
                counts.missing, counts.wrong, counts.duplicates, counts.refused
            ),
        );
        if let Some(reason) = &self.first_failure {
            row("first failure", reason.clone());
        }
        if let Some(server) = &self.server {
            row("server CPU", format!("{:.2} s, {:.1} % of a core", server.cpu_s(), server.cpu_percent()));
            if let Some(per_cpu_s) = self.per_server_cpu_s() {
                row("answers per server CPU second", thousands(per_cpu_s));
            }
            let [before, after, closed] =
                [server.before, server.after, server.closed].map(|sample| mebibytes(sample.rss_bytes));
            row("server RSS", format!("{before} before, {after} after, {closed} closed"));
        }
        if let Some(bytes) = &self.reply_bytes {
            let each = bytes.read as f64 / bytes.own.max(1) as f64;
            row("reply bytes", format!("{} read, {} useful, {each:.2} for each", bytes.read, bytes.own));
        }
        row("generator CPU", format!("{:.2} s", self.generator.cpu_s()));
        row("outcome", if self.passed() { "passed".to_owned() } else { "FAILED".to_owned() });
        rows
    }
}

/// One line about one second.
pub fn call_progress_line(second: &CallSecond) -> String {
    let mark = if second.faults > 0 { "  AUDIT" } else { "" };
    format!(
        "{:6.1} s  {:>6} in flight  {:>12}/s  p99 {:>9}  faults {}{mark}",
        second.at_s,
        second.in_flight,
        thousands(second.answers_per_s),
        duration(second.p99_us as f64),
        second.faults,
    )
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{CallLoad, CallPath, HttpCalls};
    use super::*;

    fn report(counts: CallCounts) -> CallReport {
        let scenario = CallScenario::new(CallPath::Http(HttpCalls::get("http://h/<x>")), CallLoad::default());
        CallReport {
            scenario,
            elapsed_s: 3.0,
            measured_s: 2.0,
            calls_per_s: 0.0,
            counts,
            statuses: vec![(200, 5), (504, 1)],
            latency: None,
            first_failure: None,
            server: None,
            generator: ProcessSample::default(),
            generator_cpu_s: 0.0,
            reply_bytes: Some(ReplyBytes { read: 30, own: 20 }),
            series: Vec::new(),
        }
    }

    #[test]
    fn only_a_run_in_which_each_call_got_its_own_answer_once_passes() {
        let good = CallCounts { issued: 6, answered: 6, ..CallCounts::default() };
        assert!(report(good.clone()).passed());
        assert!(!report(CallCounts::default()).passed(), "nothing was called");
        assert!(!report(CallCounts { answered: 5, refused: 1, ..good.clone() }).passed());
        assert!(!report(CallCounts { duplicates: 1, ..good.clone() }).passed());
        assert!(!report(CallCounts { unsent: 1, ..good }).passed());
    }

    #[test]
    fn the_table_names_statuses_and_faults_and_the_page_escapes_the_address() {
        let report = report(CallCounts { issued: 6, answered: 5, refused: 1, ..CallCounts::default() });
        let table = report.table();
        assert!(
            table.contains("200: 5, 504: 1")
                && table.contains("1 refused")
                && table.contains("1.50 for each")
                && table.contains("FAILED"),
            "{table}"
        );
        assert!(report.html().contains("http://h/&lt;x&gt;"));
    }

    #[test]
    fn the_progress_line_points_at_faults() {
        let second = CallSecond { at_s: 1.0, in_flight: 50, answers_per_s: 1_234.0, p99_us: 90, faults: 0 };
        let line = call_progress_line(&second);
        assert!(line.contains("50 in flight") && line.contains("1,234/s") && !line.contains("AUDIT"), "{line}");
        assert!(call_progress_line(&CallSecond { faults: 2, ..second }).contains("faults 2  AUDIT"));
    }
}
