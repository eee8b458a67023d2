//! The caches that snapshots are of.

use tidegate_shards::metrics::Cell;

use super::MetricSources;
use crate::control::exposition::{Kind, Page};
use crate::ingress::snapshot::metrics::CacheMetrics;

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
}
