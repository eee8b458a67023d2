//! The Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>). Client libraries for Rust write
//! OpenMetrics, whose counters are declared under another name than RIG's scrapers know.

use std::fmt::{Display, Write};

use tidegate_shards::metrics::Histogram;

/// Content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Labels of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics that is being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Declares a metric; its samples follow.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {}", kind.name()));
    }

    /// One sample.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        let labels = Self::labels(labels, None);
        self.line(format_args!("{name}{labels} {value}"));
    }

    /// A family of a single sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram whose values count `per_unit` to the unit that is shown.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        name: &str,
        labels: Labels<'_>,
        histogram: &Histogram<N>,
        per_unit: u64,
    ) {
        let mut count = 0;
        for (bound, observations) in histogram.buckets() {
            count += observations;
            let bound = if bound == u64::MAX { "+Inf".to_owned() } else { ratio(bound, per_unit).to_string() };
            let labels = Self::labels(labels, Some(&bound));
            self.line(format_args!("{name}_bucket{labels} {count}"));
        }
        let labels = Self::labels(labels, None);
        self.line(format_args!("{name}_sum{labels} {}", ratio(histogram.sum(), per_unit)));
        self.line(format_args!("{name}_count{labels} {count}"));
    }

    fn labels(labels: Labels<'_>, le: Option<&str>) -> String {
        let pairs = labels.iter().copied().chain(le.map(|bound| ("le", bound)));
        let texts: Vec<_> = pairs.map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        if texts.is_empty() { String::new() } else { format!("{{{}}}", texts.join(",")) }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("invariant: writing to a String doesn't fail");
    }
}

/// Exact enough for counters of microseconds: 2⁵³ of them are 285 years.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn ratio(value: u64, per_unit: u64) -> f64 {
    value as f64 / per_unit as f64
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_declared_under_its_full_name() {
        let mut page = Page::default();
        page.family("events_total", Kind::Counter, "Events.");
        page.sample("events_total", &[("topic", "rig")], 3);
        assert_eq!(
            page.into_text(),
            "# HELP events_total Events.\n# TYPE events_total counter\nevents_total{topic=\"rig\"} 3\n"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::default();
        page.sample("x", &[("type", "a\"b\\c\nd")], 1);
        assert_eq!(page.into_text(), "x{type=\"a\\\"b\\\\c\\nd\"} 1\n");
    }

    #[test]
    fn buckets_are_cumulative_and_in_the_unit_that_is_shown() {
        let histogram = Histogram::new([1_000, 2_000]);
        for value in [500, 1_500, 1_500, 9_000] {
            histogram.record(value, 1);
        }
        let mut page = Page::default();
        page.histogram("ms", &[("a", "b")], &histogram, 1_000);
        let expected = "ms_bucket{a=\"b\",le=\"1\"} 1\nms_bucket{a=\"b\",le=\"2\"} 3\nms_bucket{a=\"b\",le=\"+Inf\"} 4\n\
                        ms_sum{a=\"b\"} 12.5\nms_count{a=\"b\"} 4\n";
        assert_eq!(page.into_text(), expected);
    }
}
