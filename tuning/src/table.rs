//! An outcome as a table for people, and the progress line.

use std::fmt::Write;

use crate::measurement::Measurement;
use crate::recommend::{Limit, Reason, Recommendation};
use crate::{Outcome, Progress};

const HEADINGS: [&str; 10] =
    ["shards", "traffic", "deliveries/s", "p99", "CPU ms/1,000", "shard", "ingress", "generator", "machine", "others"];

/// One line about what is happening.
#[must_use]
pub fn progress_line(progress: &Progress) -> String {
    match progress {
        Progress::Running { shards, traffic, deliveries_per_s } => {
            let rate = thousands(*deliveries_per_s);
            format!("{:<11} {:<9}  {rate:>12} deliveries/s", shard_word(*shards), traffic.name())
        }
        Progress::Measured(found) => format!(
            "{:<11} {:<9}  {:>12} deliveries/s, p99 at half of it {}",
            shard_word(found.shards),
            found.traffic.name(),
            thousands(found.deliveries_per_s),
            delay(found.p99_us),
        ),
    }
}

/// The figures, what they mean, and the recommendation.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let rows: Vec<[String; 10]> = outcome.measurements.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: [&str; 10]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            if column == 1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(HEADINGS);
    for row in &rows {
        text += &line(row.each_ref().map(String::as_str));
    }
    text += "\np99 at half the rate; CPU of the whole gateway; shard, ingress: the busiest thread, in % of a core;\n";
    let _ = writeln!(
        text,
        "generator: in % of its cores; machine: gateway and generator together; others: all other processes; both in % of {}\n",
        core_word(outcome.cores)
    );
    text + &advice(&outcome.recommendation)
}

fn row(found: &Measurement) -> [String; 10] {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let busy = &found.busy;
    [
        found.shards.to_string(),
        found.traffic.name().to_owned(),
        thousands(found.deliveries_per_s),
        delay(found.p99_us),
        format!("{:.2}", found.cpu_ms_per_thousand),
        percent(busy.shard),
        percent(busy.ingress),
        percent(busy.generator),
        percent(busy.machine),
        percent(busy.others),
    ]
}

/// The recommendation in sentences, one per line.
fn advice(recommendation: &Recommendation) -> String {
    let mut text = format!("Recommended: --shards {}\n", recommendation.shards);
    for reason in &recommendation.reasons {
        let _ = writeln!(text, "  {}: {}", reason.traffic.name(), because(reason));
    }
    for traffic in &recommendation.loses {
        let _ = writeln!(
            text,
            "  {}: a smaller count delivered over 10 % more; take it if that is your traffic",
            traffic.name()
        );
    }
    if recommendation.is_lower_bound {
        text += "  At this count the load generator was the limit and not the gateway: the figures are lower bounds. Put tidegate-load on another \
                 machine to find the limit.\n";
    }
    let list = |counts: &[usize]| counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !recommendation.disturbed_at.is_empty() {
        let counts = list(&recommendation.disturbed_at);
        let _ = writeln!(
            text,
            "  WARNING: other processes were busy while {counts} was measured; measure again on an idle machine"
        );
    }
    if !recommendation.incomplete_at.is_empty() {
        let counts = list(&recommendation.incomplete_at);
        let _ = writeln!(text, "  WARNING: events were missing, double or out of order at {counts} shards");
    }
    text
}

fn because(reason: &Reason) -> String {
    let shards = shard_word(reason.shards);
    match &reason.limit {
        Limit::Cores => format!("{shards}; and every core has one"),
        Limit::Gain { next_shards, gain_percent } => {
            format!("{shards}; {next_shards} deliver {gain_percent:+.0} %, and less than +10 % is not worth the cores")
        }
        Limit::Ingress { shards: at, busy } => {
            format!("{shards}; at {at} the ingress thread is full ({:.0} % of a core)", busy * 100.0)
        }
        Limit::Generator { shards: at, shared_cores: true } => {
            format!("{shards}; at {at} the load generator competes with the shards for the same cores: a lower bound")
        }
        Limit::Generator { shards: at, shared_cores: false } => {
            format!("{shards}; at {at} the load generator is the limit and not the gateway: a lower bound")
        }
        Limit::Network { link } => {
            let gbit = link.bits_per_s as f64 / 1e9;
            format!("{shards}; these deliveries fill {} ({gbit} Gbit/s), loopback has no such limit", link.name)
        }
    }
}

/// `1 shard`, `2 shards`.
pub(crate) fn shard_word(shards: usize) -> String {
    format!("{shards} shard{}", if shards == 1 { "" } else { "s" })
}

fn core_word(cores: usize) -> String {
    format!("{cores} core{}", if cores == 1 { "" } else { "s" })
}

/// A whole number with separators.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A delay with a unit that suits it.
pub(crate) fn delay(us: Option<u64>) -> String {
    match us {
        None => "none".to_owned(),
        Some(us @ 0..1_000) => format!("{us} µs"),
        Some(us @ 1_000..10_000) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us @ 10_000..1_000_000) => format!("{:.0} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
