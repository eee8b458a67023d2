//! TLS: handshakes, and the certificates.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_shards::metrics::{Cell, ShardMetrics};
use tidegate_shards::tls::HandshakeFailure;

use super::MetricSources;
use crate::control::exposition::{Kind, Page};

impl MetricSources {
    pub(super) fn write_tls(&self, page: &mut Page) {
        let Some(tls) = &self.tls else { return };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "tidegate_tls_handshakes_total";
        page.family(name, Kind::Counter, "TLS handshakes completed.");
        for (index, shard) in self.numbered_shards() {
            for (version, cell) in [("1.2", &shard.tls12_handshakes), ("1.3", &shard.tls13_handshakes)] {
                page.sample(name, &[("port", "inbound"), ("shard", &index), ("version", version)], cell.get());
            }
        }
        page.sample(name, &[("port", "internal")], load(&tls.internal_handshakes));
        let name = "tidegate_tls_handshake_failures_total";
        page.family(name, Kind::Counter, "TLS handshakes that failed, by reason.");
        for failure in HandshakeFailure::ALL {
            for (index, shard) in self.numbered_shards() {
                let labels = [("port", "inbound"), ("shard", index.as_str()), ("reason", failure.name())];
                page.sample(name, &labels, shard.tls_failures[failure as usize].get());
            }
            page.sample(name, &[("port", "internal"), ("reason", failure.name())], tls.failures(failure));
        }
        type Entry = (&'static str, Kind, &'static str, fn(&ShardMetrics) -> &Cell);
        const CELLS: [Entry; 2] = [
            ("tidegate_tls_handshakes_in_progress", Kind::Gauge, "TLS handshakes of clients in progress.", |shard| {
                &shard.tls_handshaking
            }),
            (
                "tidegate_tls_resumed_total",
                Kind::Counter,
                "Handshakes of clients that went on where an earlier connection had left.",
                |shard| &shard.tls_resumed,
            ),
        ];
        for (name, kind, help, cell) in CELLS {
            page.family(name, kind, help);
            for (index, shard) in self.numbered_shards() {
                page.sample(name, &[("shard", &index)], cell(shard).get());
            }
        }
        let name = "tidegate_tls_reloads_total";
        page.family(name, Kind::Counter, "Changes of certificate files, and what became of them.");
        page.sample(name, &[("outcome", "in_force")], load(&tls.reloads));
        page.sample(name, &[("outcome", "refused")], load(&tls.reload_failures));
        page.single(
            "tidegate_tls_certificate_expiry_timestamp_seconds",
            Kind::Gauge,
            "When the first of the certificates expires.",
            tls.expires_unix_s.load(Ordering::Relaxed),
        );
    }
}
