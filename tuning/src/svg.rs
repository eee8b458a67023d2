//! An outcome as a picture: one panel per traffic and figure, one bar per shard count. Readable in light and in dark.

use std::fmt::Write;

use crate::Outcome;
use crate::measurement::{Measurement, Traffic};
use crate::table::{delay, thousands};

const PANEL_WIDTH: f64 = 290.0;
const PANEL_HEIGHT: f64 = 210.0;
const GAP: f64 = 26.0;
const TITLE_HEIGHT: f64 = 64.0;
const MARGIN: f64 = 24.0;
/// Space in a panel above the highest bar, for heading and value.
const PANEL_TOP: f64 = 52.0;
/// Space in a panel below the axis, for the shard count.
const PANEL_BOTTOM: f64 = 24.0;
const MAX_BAR_WIDTH: f64 = 64.0;

const STYLE: &str = "
svg{--ground:#ffffff;--ink:#1f2933;--faint:#7b8794;--bar:#9fb3c8;--best:#0b6e99}
@media(prefers-color-scheme:dark){svg{--ground:#14181d;--ink:#e4e7eb;--faint:#9aa5b1;--bar:#486581;--best:#38bdf8}}
text{font:12px system-ui,sans-serif;fill:var(--ink)}
.ground{fill:var(--ground)}.title{font-size:16px;font-weight:600}.head{font-weight:600}.faint{fill:var(--faint)}
.value{font-size:11px;text-anchor:middle}.count{text-anchor:middle;fill:var(--faint)}
.axis{stroke:var(--faint)}.bar{fill:var(--bar)}.best{fill:var(--best)}
";

/// A figure of a measurement: what it is called, its size, and how it is written.
struct Figure {
    heading: &'static str,
    size: fn(&Measurement) -> f64,
    text: fn(&Measurement) -> String,
}

const FIGURES: [Figure; 3] = [
    Figure {
        heading: "deliveries a second",
        size: |found| found.deliveries_per_s,
        text: |found| short(found.deliveries_per_s),
    },
    Figure {
        heading: "p99 at half the rate",
        size: |found| found.p99_us.map_or(0.0, |us| us as f64),
        text: |found| delay(found.p99_us),
    },
    Figure {
        heading: "CPU ms per 1,000 deliveries",
        size: |found| found.cpu_ms_per_thousand,
        text: |found| format!("{:.2}", found.cpu_ms_per_thousand),
    },
];

/// Draws `outcome`; the recommended shard count stands out.
#[must_use]
pub fn svg(outcome: &Outcome) -> String {
    let width = MARGIN * 2.0 + PANEL_WIDTH * FIGURES.len() as f64 + GAP * (FIGURES.len() - 1) as f64;
    let rows = Traffic::ALL.len() as f64;
    let height = MARGIN + TITLE_HEIGHT + PANEL_HEIGHT * rows + GAP * (rows - 1.0) + MARGIN;
    let best = outcome.recommendation.shards;
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" \
         aria-label=\"Figures by shard count; recommended: {best}\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    let (cores, lower_bound) = (outcome.cores, outcome.recommendation.is_lower_bound);
    text(&mut page, "title", MARGIN, MARGIN + 16.0, &format!("Recommended: {best} of {cores} cores for shards"));
    let note = if lower_bound { "; load generator at its limit: lower bounds" } else { "" };
    text(&mut page, "faint", MARGIN, MARGIN + 38.0, &format!("one bar per shard count, on loopback{note}"));
    for (row, traffic) in Traffic::ALL.into_iter().enumerate() {
        let series: Vec<&Measurement> = outcome.measurements.iter().filter(|found| found.traffic == traffic).collect();
        for (column, figure) in FIGURES.iter().enumerate() {
            let left = MARGIN + (PANEL_WIDTH + GAP) * column as f64;
            let top = MARGIN + TITLE_HEIGHT + (PANEL_HEIGHT + GAP) * row as f64;
            text(&mut page, "head", left, top + 14.0, &format!("{}: {}", traffic.name(), figure.heading));
            panel(&mut page, (left, top), figure, &series, best);
        }
    }
    page + "</svg>\n"
}

fn panel(page: &mut String, (left, top): (f64, f64), figure: &Figure, series: &[&Measurement], best: usize) {
    let floor = top + PANEL_HEIGHT - PANEL_BOTTOM;
    let room = PANEL_HEIGHT - PANEL_TOP - PANEL_BOTTOM;
    let highest = series.iter().map(|found| (figure.size)(found)).fold(0.0, f64::max);
    let step = PANEL_WIDTH / series.len().max(1) as f64;
    let bar_width = (step * 0.7).min(MAX_BAR_WIDTH);
    for (position, found) in series.iter().enumerate() {
        let middle = left + step * (position as f64 + 0.5);
        let bar_height = if highest > 0.0 { room * (figure.size)(found) / highest } else { 0.0 };
        let (x, y) = (middle - bar_width / 2.0, floor - bar_height);
        let class = if found.shards == best { "best" } else { "bar" };
        let _ = writeln!(
            page,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{bar_width:.1}\" height=\"{bar_height:.1}\" rx=\"2\"/>"
        );
        text(page, "value", middle, y - 6.0, &(figure.text)(found));
        text(page, "count", middle, floor + 16.0, &found.shards.to_string());
    }
    let right = left + PANEL_WIDTH;
    let _ = writeln!(page, "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{floor}\" y2=\"{floor}\"/>");
}

fn text(page: &mut String, class: &str, x: f64, y: f64, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(page, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>");
}

/// A rate that fits above a bar.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e5 => format!("{:.0} k", rate / 1e3),
        rate => thousands(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Busy;
    use crate::recommend::recommend;

    fn outcome(counts: &[usize]) -> Outcome {
        let measured = |shards: usize, traffic| Measurement {
            shards,
            traffic,
            connections: 100,
            deliveries_per_s: 1e6 * shards as f64,
            p99_us: Some(900),
            cpu_ms_per_thousand: 0.5,
            payload_bytes_per_s: 2e8,
            busy: Busy::default(),
            shared_cores: false,
            complete: true,
        };
        let both = |shards: &usize| Traffic::ALL.map(|traffic| measured(*shards, traffic));
        let measurements: Vec<Measurement> = counts.iter().flat_map(both).collect();
        let recommendation = recommend(&measurements, None).unwrap();
        Outcome { cores: 8, link: None, measurements, recommendation }
    }

    #[test]
    fn every_figure_of_every_count_has_a_bar_and_the_recommended_ones_stand_out() {
        let picture = svg(&outcome(&[1, 2, 4]));
        assert_eq!(picture.matches("class=\"bar\"").count(), 2 * 2 * 3);
        assert_eq!(picture.matches("class=\"best\"").count(), 2 * 3);
        assert!(picture.contains("Recommended: 4 of 8 cores") && picture.contains(">4.00 M</text>"));
    }

    #[test]
    fn the_picture_is_well_formed_and_has_colours_for_dark_screens() {
        let picture = svg(&outcome(&[1]));
        assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
        assert!(picture.contains("prefers-color-scheme:dark"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn a_gateway_that_delivered_nothing_is_drawn_without_bars_of_no_number() {
        let mut outcome = outcome(&[1, 2]);
        for found in &mut outcome.measurements {
            (found.deliveries_per_s, found.p99_us, found.cpu_ms_per_thousand) = (0.0, None, 0.0);
        }
        let picture = svg(&outcome);
        assert!(!picture.contains("NaN") && picture.contains(">none</text>"));
    }

    #[test]
    fn signs_of_markup_in_texts_are_escaped() {
        let mut page = String::new();
        text(&mut page, "head", 0.0, 0.0, "a<b & c");
        assert!(page.contains("a&lt;b &amp; c"));
    }
}
