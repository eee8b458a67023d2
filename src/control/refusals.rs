//! Metrics of limits: what was refused or ended, and by which of them.

use std::sync::Arc;

use tidegate_shards::metrics::{Cell, ShardMetrics};

use super::exposition::{Kind, Page};

type Counter = fn(&ShardMetrics) -> &Cell;
type Limit = (&'static str, Counter);

/// Counters that have one sample for each limit: name, help, limits.
const BY_LIMIT: &[(&str, &str, &[Limit])] = &[
    (
        "tidegate_connections_refused_total",
        "Connections refused, by the limit that was reached.",
        &[
            ("per_minute", |shard| &shard.connections_refused),
            ("total", |shard| &shard.connections_refused_full),
            ("per_address", |shard| &shard.connections_refused_address),
        ],
    ),
    (
        "tidegate_requests_limited_total",
        "Requests refused because too many came, by the limit that was reached.",
        &[
            ("per_address", |shard| &shard.requests_limited_address),
            ("per_token", |shard| &shard.requests_limited_token),
        ],
    ),
    (
        "tidegate_timed_out_total",
        "Request heads and bodies that did not come in time.",
        &[("head", |shard| &shard.connections_timed_out), ("body", |shard| &shard.bodies_timed_out)],
    ),
];

/// Those that stand alone.
const ALONE: &[(&str, &str, Counter)] = &[
    ("tidegate_connections_shed_total", "Connections ended because their shard had too much waiting.", |shard| {
        &shard.connections_shed
    }),
    (
        "tidegate_connections_resetting_total",
        "HTTP/2 connections ended because they took too many requests back.",
        |shard| &shard.connections_resetting,
    ),
    ("tidegate_origins_refused_total", "WebSockets refused by ALLOWED_ORIGINS.", |shard| &shard.origins_refused),
];

/// Writes them.
pub(super) fn write(page: &mut Page, shards: &[Arc<ShardMetrics>]) {
    for (name, help, limits) in BY_LIMIT {
        page.family(name, Kind::Counter, help);
        for (index, shard) in shards.iter().enumerate() {
            for (limit, cell) in *limits {
                page.sample(name, &[("shard", &index.to_string()), ("limit", limit)], cell(shard).get());
            }
        }
    }
    for (name, help, cell) in ALONE {
        page.family(name, Kind::Counter, help);
        for (index, shard) in shards.iter().enumerate() {
            page.sample(name, &[("shard", &index.to_string())], cell(shard).get());
        }
    }
}
