//! The report as a table for people, and the progress line.

use std::fmt::Write;

use crate::latency::LatencySummary;
use crate::report::{Report, Second};

/// One line about one second.
pub fn progress_line(second: &Second) -> String {
    let faults = if second.missing + second.duplicates > 0 { "  AUDIT" } else { "" };
    format!(
        "{:6.1} s  {:>6} connections  {:>12}/s  p99 {:>9}  missing {}  double {}{faults}",
        second.at_s,
        second.open,
        thousands(second.rate_per_s),
        duration(second.p99_us as f64),
        second.missing,
        second.duplicates,
    )
}

/// The rows of the report: what, and how much.
pub(crate) fn rows(report: &Report) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));
    let connections = &report.connections;
    row("connections", format!("{} ready of {}", connections.ready, connections.wanted));
    row("opening", format!("{:.2} s", connections.opening_s));
    if report.publish.is_none() && connections.opening_s > 0.0 {
        row("connections a second", thousands(connections.ready as f64 / connections.opening_s));
    }
    if connections.failed + connections.closed_by_server > 0 {
        row("failed; closed by the server", format!("{}; {}", connections.failed, connections.closed_by_server));
    }
    if let Some(reason) = &connections.first_failure {
        row("first failure", reason.clone());
    }
    row("measured", format!("{:.2} s", report.measured_s));
    if let Some(load) = report.scenario.workload.load() {
        let loop_kind = load.max_outstanding.map_or(String::new(), |count| format!(", {count} outstanding at most"));
        let rate = if load.rate_per_s < 10.0 { load.rate_per_s.to_string() } else { thousands(load.rate_per_s) };
        row("schedule", format!("{rate} events a second of {} bytes{loop_kind}", load.event_bytes));
    }
    if let Some(publish) = &report.publish {
        row("events published", format!("{} accepted of {}", publish.accepted, publish.attempted));
        row("publisher behind schedule", format!("{} at most", duration(publish.max_lag_us as f64)));
        if publish.failed + publish.unsent > 0 {
            row("events refused; never sent", format!("{}; {}", publish.failed, publish.unsent));
        }
        if let Some(reason) = &publish.first_failure {
            row("first refusal", reason.clone());
        }
        row("deliveries", thousands(report.deliveries as f64));
        row("deliveries a second", thousands(report.deliveries_per_s));
    }
    if let Some(latency) = &report.latency {
        row("latency", latency_row(latency));
    }
    if let Some(figures) = &report.drop {
        row("produced in", format!("{:.2} s", figures.produce_s));
        row("last wanted event after", format!("{:.3} s", figures.last_arrival_s));
        row("messages a second", thousands(figures.messages_per_s));
        if let Some(cpu_us) = figures.server_cpu_us_per_message {
            row("server CPU per message", format!("{cpu_us:.3} µs"));
        }
    }
    if let Some(figures) = &report.slow_clients {
        row("slow clients", format!("{}, {} disconnected", figures.slow, figures.disconnected));
        for (name, latency) in [("latency before", &figures.before), ("latency of the others", &figures.during)] {
            if let Some(latency) = latency {
                row(name, latency_row(latency));
            }
        }
    }
    if let Some(server) = &report.server {
        row("server CPU", format!("{:.2} s, {:.1} % of a core", server.cpu_s(), server.cpu_percent()));
        if let Some(per_cpu_s) = report.per_server_cpu_s() {
            row("per server CPU second", thousands(per_cpu_s));
        }
        let [before, ready, after, closed] =
            [server.before, server.ready, server.after, server.closed].map(|sample| mebibytes(sample.rss_bytes));
        row("server RSS", format!("{before} before, {ready} ready, {after} after, {closed} closed"));
        if report.connections.ready <= u64::from(report.scenario.workload.connections()) {
            row("server RSS per connection", format!("{:.0} B", server.rss_per_connection_bytes(connections.ready)));
        }
    }
    row("generator CPU", format!("{:.2} s", report.generator.cpu_s()));
    if report.publish.is_some() {
        let audit = &report.audit;
        let faults = format!(
            "{} missing, {} double, {} out of order, {} misdelivered; {} of {} clients affected",
            audit.missing,
            audit.duplicates,
            audit.out_of_order,
            audit.misdelivered,
            audit.clients_affected,
            audit.clients
        );
        row("audit", faults);
        if audit.misdelivered > 0 {
            let hint = "the server's EXTRACTORS may lack the field \"key\" of this event type (see unicast --help)";
            row("hint", hint.to_owned());
        }
    }
    row("outcome", if report.passed() { "passed".to_owned() } else { "FAILED".to_owned() });
    rows
}

/// The percentiles that people look at first.
pub(crate) fn latency_row(latency: &LatencySummary) -> String {
    let [p50, p90, p99, p99_9, max] =
        [latency.p50_us, latency.p90_us, latency.p99_us, latency.p99_9_us, latency.max_us]
            .map(|us| duration(us as f64));
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}")
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    lay_out(&title(report), &rows(report))
}

/// A title, and rows below it in two columns.
pub(crate) fn lay_out(title: &str, rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    let mut text = title.to_owned();
    for (what, value) in rows {
        let _ = write!(text, "\n  {what:<width$}  {value}");
    }
    text
}

/// What was run, in one line.
pub(crate) fn title(report: &Report) -> String {
    let target = &report.scenario.target;
    format!("{} over {} at {}", report.scenario.workload.name(), target.transport.name(), target.url)
}

/// A time with a unit that suits it.
pub(crate) fn duration(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A whole number with separators.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!([0.0, 999.4, 1_000.0, 1_234_567.0].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7.0, 1_500.0, 25_000.0, 2_500_000.0].map(duration), ["7 µs", "1.50 ms", "25 ms", "2.50 s"]);
    }

    #[test]
    fn the_progress_line_says_rate_p99_and_missing_and_points_at_faults() {
        let second = Second { at_s: 3.0, open: 10, rate_per_s: 1234.0, p99_us: 900, missing: 0, duplicates: 0 };
        let line = progress_line(&second);
        assert!(line.contains("1,234/s") && line.contains("p99    900 µs") && line.contains("missing 0"), "{line}");
        assert!(!line.contains("AUDIT"));
        assert!(progress_line(&Second { missing: 4, ..second }).contains("missing 4  double 0  AUDIT"));
    }
}
