//! The caches that snapshots are of, and the checkpoints that cursors refer to.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_shards::metrics::Cell;

use super::MetricSources;
use crate::control::exposition::{Kind, Page};
use crate::ingress::snapshot::metrics::CacheMetrics;
use crate::positions::PositionCounts;

impl MetricSources {
    pub(super) fn write_snapshots(&self, page: &mut Page) {
        let Some(snapshots) = &self.snapshots else { return };
        type Entry = (&'static str, Kind, &'static str, fn(&CacheMetrics) -> &Cell);
        const CELLS: [Entry; 3] = [
            ("tidegate_snapshot_keys", Kind::Gauge, "Keys whose newest events are kept.", |topic| &topic.keys),
            ("tidegate_snapshot_bytes", Kind::Gauge, "Memory that they take, SNAPSHOT_BYTES at most.", |topic| {
                &topic.bytes
            }),
            ("tidegate_snapshot_evictions_total", Kind::Counter, "Keys that had to go for want of room.", |topic| {
                &topic.evictions
            }),
        ];
        for (name, kind, help, cell) in CELLS {
            page.family(name, kind, help);
            for topic in &snapshots.topics {
                page.sample(name, &[("topic", topic.topic.as_str())], cell(topic).get());
            }
        }
    }
    pub(super) fn write_checkpoints(&self, page: &mut Page) {
        let Some(counts) = &self.positions else { return };
        type Family = (&'static str, &'static str, [(&'static str, fn(&PositionCounts) -> &AtomicU64); 2]);
        const FAMILIES: [Family; 2] = [
            (
                "tidegate_checkpoints_total",
                "Checkpoints for cursors that would be too long, by whether Kafka took them.",
                [("written", |counts| &counts.written), ("refused", |counts| &counts.refused)],
            ),
            (
                "tidegate_checkpoint_lookups_total",
                "Checkpoints that were looked up for clients that came back.",
                [("found", |counts| &counts.found), ("gone", |counts| &counts.gone)],
            ),
        ];
        for (name, help, outcomes) in FAMILIES {
            page.family(name, Kind::Counter, help);
            for (outcome, count) in outcomes {
                page.sample(name, &[("outcome", outcome)], count(counts).load(Ordering::Relaxed));
            }
        }
    }
}
