//! The report as one self-contained HTML page, its plots drawn as inline SVG.

use std::fmt::Write;

use crate::latency::LatencySummary;
use crate::report::Report;
use crate::table::{duration, rows, thousands, title};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 2] = ["#0b6e99", "#c2410c"];

const STYLE: &str = "
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td{padding:.25rem .75rem .25rem 0;vertical-align:top;border-bottom:1px solid #8884}
td:first-child{white-space:nowrap;opacity:.75}
.passed{color:#15803d}.failed{color:#dc2626}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:currentColor}
.grid{stroke:currentColor;opacity:.15}.curve{fill:none;stroke-width:2}
";

/// The report as an HTML page that needs nothing else: table, percentile plot, and the course of the run.
pub fn html(report: &Report) -> String {
    let slow = report.slow_clients.as_ref();
    let mut curves: Vec<(&str, &LatencySummary)> = Vec::new();
    match slow.map(|figures| (&figures.before, &figures.during)) {
        Some((before, during)) => {
            curves.extend(before.iter().map(|latency| ("everybody reads", latency)));
            curves.extend(during.iter().map(|latency| ("some have stopped reading", latency)));
        }
        None => curves.extend(report.latency.iter().map(|latency| ("latency", latency))),
    }
    let over_time = |value: fn(&crate::Second) -> f64| -> Vec<(f64, f64)> {
        report.series.iter().map(|second| (second.at_s, value(second))).collect()
    };
    let plots = [
        ("Rate per second", over_time(|second| second.rate_per_s), thousands as fn(f64) -> String),
        ("99th percentile of each second", over_time(|second| second.p99_us as f64), duration),
    ];
    page(&title(report), report.passed(), &rows(report), &curves, &plots)
}

/// Title, points in time, and how their values are written.
pub(crate) type Plot = (&'static str, Vec<(f64, f64)>, fn(f64) -> String);

/// A page with a table, the latency curves in one plot, and a plot for each course in time of two points or more.
pub(crate) fn page(
    title: &str,
    passed: bool,
    rows: &[(String, String)],
    curves: &[(&str, &LatencySummary)],
    plots: &[Plot],
) -> String {
    let title = escape(title);
    let (class, outcome) = if passed { ("passed", "passed") } else { ("failed", "FAILED") };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}: <span class=\"{class}\">{outcome}</span></h1>\n<table>\n"
    );
    for (what, value) in rows {
        let _ = writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", escape(what), escape(value));
    }
    page.push_str("</table>\n");
    if !curves.is_empty() {
        page.push_str("<h2>Latency by percentile</h2>\n");
        percentile_plot(curves, &mut page);
    }
    for (title, points, label) in plots.iter().filter(|(_, points, _)| points.len() > 1) {
        let _ = writeln!(page, "<h2>{title}</h2>");
        time_plot(points, *label, &mut page);
    }
    page.push_str("</body></html>\n");
    page
}

/// Percentiles to the right, each nine as wide as the one before; latency upwards, each power of ten as high.
fn percentile_plot(curves: &[(&str, &LatencySummary)], page: &mut String) {
    let points: Vec<Vec<(f64, f64)>> = curves.iter().map(|(_, latency)| curve(latency)).collect();
    let nines = points.iter().flatten().map(|point| point.0).fold(2.0, f64::max);
    let highest = points.iter().flatten().map(|point| point.1).fold(1.0, f64::max).ceil();
    let lowest = points.iter().flatten().map(|point| point.1).fold(highest - 1.0, f64::min).floor();
    let x = |nine: f64| LEFT + (WIDTH - LEFT - RIGHT) * nine / nines;
    let y = |level: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (level - lowest) / (highest - lowest);
    open_svg("Latency by percentile", page);
    let mut level = lowest;
    while level <= highest {
        horizontal(y(level), &duration(10f64.powf(level)), page);
        level += 1.0;
    }
    for (nine, label) in [
        (0.0, "0 %"),
        (std::f64::consts::LOG10_2, "50 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ] {
        if nine <= nines {
            vertical(x(nine), label, page);
        }
    }
    for (at, (points, (name, _))) in points.iter().zip(curves).enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        polyline(points.iter().map(|&(nine, level)| (x(nine), y(level))), colour, page);
        let (label_x, label_y) = (LEFT + 12.0, TOP + 16.0 + 18.0 * at as f64);
        let _ = writeln!(
            page,
            "<text x=\"{label_x:.1}\" y=\"{label_y:.1}\" style=\"fill:{colour}\">{}</text>",
            escape(name)
        );
    }
    page.push_str("</svg>\n");
}

/// Each percentile as the number of nines, and the power of ten of its latency; the last one, 100 %, stands where one
/// in all deliveries would.
fn curve(latency: &LatencySummary) -> Vec<(f64, f64)> {
    let last = (latency.count.max(2) as f64).log10();
    let nines = |percent: f64| (-(1.0 - percent / 100.0).max(1e-12).log10()).clamp(0.0, last);
    latency.percentiles.iter().map(|step| (nines(step.percent), (step.latency_us.max(1) as f64).log10())).collect()
}

fn time_plot(points: &[(f64, f64)], label: fn(f64) -> String, page: &mut String) {
    let last = points.iter().map(|point| point.0).fold(1.0, f64::max);
    let top = nice_above(points.iter().map(|point| point.1).fold(1.0, f64::max));
    let x = |at_s: f64| LEFT + (WIDTH - LEFT - RIGHT) * at_s / last;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
    open_svg("Course of the run", page);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        horizontal(y(value), &label(value), page);
    }
    let step_s = nice_above(last / 8.0).max(1.0);
    let mut at_s = 0.0;
    while at_s <= last {
        vertical(x(at_s), &format!("{at_s:.0} s"), page);
        at_s += step_s;
    }
    polyline(points.iter().map(|&(at, value)| (x(at), y(value))), COLOURS[0], page);
    page.push_str("</svg>\n");
}

/// The next of 1, 2, 4, 8, 10 times a power of ten.
fn nice_above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|&nice| nice >= value).unwrap_or(value)
}

fn open_svg(label: &str, page: &mut String) {
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">");
}

fn horizontal(y: f64, label: &str, page: &mut String) {
    let _ = writeln!(
        page,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        WIDTH - RIGHT,
        LEFT - 8.0,
        y + 4.0
    );
}

fn vertical(x: f64, label: &str, page: &mut String) {
    let _ = writeln!(
        page,
        "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
        HEIGHT - BOTTOM,
        HEIGHT - BOTTOM + 20.0
    );
}

fn polyline(points: impl Iterator<Item = (f64, f64)>, colour: &str, page: &mut String) {
    let _ = write!(page, "<polyline class=\"curve\" stroke=\"{colour}\" points=\"");
    for (x, y) in points {
        let _ = write!(page, "{x:.1},{y:.1} ");
    }
    page.push_str("\"/>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency;

    fn summary(latencies: impl Iterator<Item = u64>) -> LatencySummary {
        let mut histogram = latency::histogram();
        latencies.for_each(|us| histogram.saturating_record(us));
        LatencySummary::of(&histogram).unwrap()
    }

    #[test]
    fn the_curve_stays_inside_the_plot_and_ends_at_its_right_edge() {
        let latency = summary(1..=10_000);
        let points = curve(&latency);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert!((points[points.len() - 1].0 - 4.0).abs() < 1e-9);
        let mut page = String::new();
        percentile_plot(&[("latency", &latency)], &mut page);
        assert!(page.contains("99.99 %") && !page.contains("99.999 %") && !page.contains("NaN"));
        let points = page.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        for point in points.split_ascii_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y), "{point}");
        }
    }

    #[test]
    fn a_plot_of_a_single_latency_has_no_division_by_zero() {
        let mut page = String::new();
        percentile_plot(&[("latency", &summary([1].into_iter()))], &mut page);
        time_plot(&[(0.0, 0.0), (0.0, 0.0)], thousands, &mut page);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([1.0, 3.0, 79.0, 81.0, 100.0].map(nice_above), [1.0, 4.0, 80.0, 100.0, 100.0]);
    }

    #[test]
    fn text_from_outside_can_not_become_markup() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }
}
