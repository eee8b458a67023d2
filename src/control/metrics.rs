//! `/metrics`: RIG's names (contract, section 6) and Tidegate's own, which start with `tidegate_`.

mod schemas;
mod snapshots;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate_shards::clock;
use tidegate_shards::metrics::{Cell, ShardMetrics};
use tidegate_shards::proxy::counts::Outcome;

use super::exposition::{Kind, Page};
use super::refusals;
use crate::auth::KeySetMetrics;
use crate::avro::registry::RegistryMetrics;
use crate::egress::producer::ProducerMetrics;
use crate::egress::requests::TopicCounts;
use crate::ingress::metrics::{IngressMetrics, SourceMetrics};
use crate::ingress::snapshot::metrics::SnapshotMetrics;
use crate::kafka::Reachability;
use crate::nodes::Nodes;
use crate::positions::PositionCounts;
use crate::proxy::Apis;
use crate::replies::{ReplyMetrics, ReplyState, ReplyTopicMetrics};
use crate::sessions::Blacklist;
use crate::tls::metrics::TlsMetrics;

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct MetricSources {
    /// Ingress.
    pub ingress: Arc<IngressMetrics>,
    /// The caches that snapshots are of, where there are any.
    pub snapshots: Option<Arc<SnapshotMetrics>>,
    /// Checkpoints, where there is Kafka.
    pub positions: Option<Arc<PositionCounts>>,
    /// Each shard.
    pub shards: Vec<Arc<ShardMetrics>>,
    /// The producer and its topic, where there is Kafka.
    pub producer: Option<(Arc<ProducerMetrics>, String)>,
    /// Counters of the API proxy's producer, where there is Kafka.
    pub requests: Option<Arc<TopicCounts>>,
    /// Correlated answers.
    pub replies: Arc<ReplyMetrics>,
    /// Whether answers over Kafka can be received; `None` without Kafka.
    pub reply_state: Option<Arc<ReplyState>>,
    /// Kafka, where there is one.
    pub kafka: Option<Arc<Reachability>>,
    /// The schema registry, where there is one.
    pub schemas: Option<Arc<RegistryMetrics>>,
    /// TLS outside the shards, where there is TLS.
    pub tls: Option<Arc<TlsMetrics>>,
    /// The API proxy.
    pub apis: Option<Arc<Apis>>,
    /// Other nodes, where there may be some.
    pub nodes: Option<Arc<Nodes>>,
    /// Whether the node moves its clients away.
    pub draining: Arc<AtomicBool>,
    /// Blacklisted sessions.
    pub blacklist: Option<Arc<Blacklist>>,
    /// Keys of tokens that come from URLs.
    pub key_sets: Vec<Arc<KeySetMetrics>>,
}

impl MetricSources {
    /// The page.
    #[must_use]
    pub(super) fn page(&self) -> String {
        let mut page = Page::default();
        self.write_ingress(&mut page);
        self.write_snapshots(&mut page);
        self.write_checkpoints(&mut page);
        self.write_producer(&mut page);
        self.write_proxy(&mut page);
        self.write_blacklist(&mut page);
        self.write_shards(&mut page);
        self.write_tls(&mut page);
        refusals::write(&mut page, &self.shards);
        self.write_kafka(&mut page);
        schemas::write(&mut page, self.schemas.as_deref());
        if let Some(nodes) = &self.nodes {
            let counts = nodes.counts();
            page.single("tidegate_nodes", Kind::Gauge, "Other nodes that live.", nodes.others());
            let name = "tidegate_node_calls_total";
            page.family(name, Kind::Counter, "Calls passed on to other nodes.");
            page.sample(name, &[("outcome", "answered")], counts.answered.load(Ordering::Relaxed));
            page.sample(name, &[("outcome", "unreachable")], counts.unreachable.load(Ordering::Relaxed));
        }
        let draining = u8::from(self.draining.load(Ordering::Relaxed));
        page.single("tidegate_draining", Kind::Gauge, "1 while clients are moved away.", draining);
        tokens::write(&mut page, &self.shards, &self.key_sets);
        page.single("tidegate_uptime_seconds", Kind::Gauge, "Time since the start.", clock::now_ms() / 1_000);
        page.into_text()
    }

    fn write_ingress(&self, page: &mut Page) {
        let ingress = &self.ingress;
        type Cells = (fn(&SourceMetrics) -> &Cell, fn(&ReplyTopicMetrics) -> &AtomicU64);
        let mut per_topic = |name: &str, help: &str, (of_events, of_answers): Cells| {
            page.family(name, Kind::Counter, help);
            for source in &ingress.sources {
                page.sample(name, &[("source", source.source), ("topic", &source.topic)], of_events(source).get());
            }
            let is_source = |topic: &str| ingress.sources.iter().any(|source| source.topic == topic);
            for answers in self.replies.topics.iter().filter(|answers| !is_source(&answers.topic)) {
                let labels = [("source", "kafka"), ("topic", answers.topic.as_str())];
                page.sample(name, &labels, of_answers(answers).load(Ordering::Relaxed));
            }
        };
        per_topic(
            "rig_consumed_events_total",
            "Messages consumed; of response topics, the answers for this node.",
            (|source| &source.consumed, |answers| &answers.consumed),
        );
        per_topic(
            "rig_consumed_events_failed_total",
            "Messages consumed that were no events, and answers that can't be brought to anybody.",
            (|source| &source.failed, |answers| &answers.failed),
        );

        let name = "rig_consumed_event_processing_duration_milliseconds";
        page.family(name, Kind::Histogram, "Time from taking a message to its hand-over to the shards.");
        for source in &ingress.sources {
            let labels = [("source", source.source), ("topic", source.topic.as_str())];
            page.histogram(name, &labels, &source.processing_us, 1_000);
        }
        let name = "rig_consumed_events_forwarded_total";
        page.family(
            name,
            Kind::Counter,
            "Events handed to at least one shard, per type; rare types beyond 200 are \"other\".",
        );
        for (event_type, count) in ingress.forwarded.iter() {
            page.sample(name, &[("type", event_type)], count);
        }
        for (name, help, cell) in [
            ("tidegate_events_oversized_total", "Messages larger than MAX_EVENT_BYTES, skipped.", &ingress.oversized),
            ("tidegate_events_tombstones_total", "Messages without value, skipped.", &ingress.tombstones),
            (
                "tidegate_events_duplicates_total",
                "Messages offered again and not handed on again.",
                &ingress.duplicates,
            ),
            ("tidegate_events_lost_total", "Messages that Kafka deleted before they were read.", &ingress.lost),
            ("tidegate_back_pressure_total", "Times that a full shard made ingress wait.", &ingress.back_pressure),
            ("tidegate_replay_passes_total", "Passes over Kafka for clients that came back.", &ingress.replay_passes),
            (
                "tidegate_replay_messages_total",
                "Messages that passes for clients that came back took from Kafka.",
                &ingress.replay_messages,
            ),
        ] {
            page.single(name, Kind::Counter, help, cell.get());
        }
    }

    fn write_producer(&self, page: &mut Page) {
        let mut topics = BTreeMap::<Box<str>, [u64; 2]>::new();
        let mut count = |topic: &str, metrics: &ProducerMetrics| {
            let [produced, failed] = topics.entry(topic.into()).or_default();
            *produced += metrics.produced.load(Ordering::Relaxed);
            *failed += metrics.failed.load(Ordering::Relaxed);
        };
        if let Some((metrics, topic)) = &self.producer {
            count(topic, metrics);
        }
        for (topic, metrics) in self.requests.iter().flat_map(|counts| counts.all()) {
            count(&topic, &metrics);
        }
        if topics.is_empty() {
            return;
        }
        for (index, (name, help)) in [
            ("rig_produced_events_total", "Events and requests acknowledged by Kafka."),
            ("rig_produced_events_failed_total", "Events and requests that Kafka refused or did not acknowledge."),
        ]
        .into_iter()
        .enumerate()
        {
            page.family(name, Kind::Counter, help);
            for (topic, counts) in &topics {
                page.sample(name, &[("target", "kafka"), ("topic", topic)], counts[index]);
            }
        }
    }

    fn write_proxy(&self, page: &mut Page) {
        let ReplyMetrics { foreign, forged, malformed, .. } = &*self.replies;
        for (name, help, counter) in [
            ("tidegate_answers_foreign_total", "Answers that are for other nodes, or for nobody.", foreign),
            ("tidegate_answers_forged_total", "Answers whose correlation id this node has not signed.", forged),
            ("tidegate_answers_malformed_total", "Answers without id, or that HTTP has no place for.", malformed),
        ] {
            page.single(name, Kind::Counter, help, counter.load(Ordering::Relaxed));
        }
        if let Some(state) = &self.reply_state {
            let (name, help) =
                ("tidegate_answers_receivable", "1 while correlated answers can be received from Kafka.");
            page.single(name, Kind::Gauge, help, u64::from(state.is_ready()));
        }
        let Some(apis) = &self.apis else { return };
        let name = "rig_proxy_requests_total";
        page.family(name, Kind::Counter, "Requests to the API proxy, by endpoint and what became of them.");
        apis.visit_counts(|labels, counts| {
            for outcome in Outcome::ALL {
                let count = counts.total(outcome);
                if count == 0 {
                    continue;
                }
                let labels = [
                    ("method", &*labels.method),
                    ("path", &labels.path),
                    ("target", labels.target),
                    ("response_from", labels.response_from),
                    ("status", outcome.name()),
                ];
                page.sample(name, &labels, count);
            }
        });
    }

    fn write_blacklist(&self, page: &mut Page) {
        let Some(blacklist) = &self.blacklist else { return };
        let counts = blacklist.counts();
        let labels = [("name", "Elixir.SessionBlacklist")];
        for (name, help, items) in [
            ("rig_distributed_set_items_total", "Blacklisted sessions, expired ones too.", counts.total),
            ("rig_distributed_set_items_current", "Blacklisted sessions that have not expired.", counts.current),
        ] {
            page.family(name, Kind::Gauge, help);
            page.sample(name, &labels, items);
        }
        for (name, help, count) in [
            (
                "tidegate_sessions_malformed_total",
                "Records in the topic of blacklisted sessions that are no entries.",
                counts.malformed,
            ),
            (
                "tidegate_sessions_refused_total",
                "Sessions blacklisted by other nodes for which this one had no place.",
                counts.refused,
            ),
        ] {
            page.single(name, Kind::Counter, help, count);
        }
    }

    fn write_shards(&self, page: &mut Page) {
        let subscriptions: u64 = self.shards.iter().map(|shard| shard.subscriptions.get()).sum();
        page.single("rig_subscriptions_total", Kind::Gauge, "Subscriptions in force.", subscriptions);

        page.family("tidegate_connections", Kind::Gauge, "Open connections.");
        for (index, shard) in self.numbered_shards() {
            for (transport, cell) in [
                ("ws", &shard.connections_ws),
                ("sse", &shard.connections_sse),
                ("longpolling", &shard.connections_longpolling),
                ("http", &shard.connections_http),
            ] {
                page.sample("tidegate_connections", &[("shard", &index), ("transport", transport)], cell.get());
            }
        }
        type Entry = (&'static str, Kind, &'static str, fn(&ShardMetrics) -> &Cell);
        const CELLS: &[Entry] = &[
            ("tidegate_connections_accepted_total", Kind::Counter, "Connections accepted.", |shard| {
                &shard.connections_accepted
            }),
            (
                "tidegate_connections_slow_total",
                Kind::Counter,
                "Connections ended because their queue was full.",
                |shard| &shard.connections_slow,
            ),
            (
                "tidegate_events_dropped_total",
                Kind::Counter,
                "Events left out for slow clients, with a notice.",
                |shard| &shard.events_dropped,
            ),
            (
                "tidegate_events_conflated_total",
                Kind::Counter,
                "Events left out for slow clients that newer ones stand for.",
                |shard| &shard.events_conflated,
            ),
            (
                "tidegate_connections_moved_total",
                Kind::Counter,
                "Streams and sessions told to go elsewhere.",
                |shard| &shard.connections_moved,
            ),
            (
                "tidegate_connections_killed_total",
                Kind::Counter,
                "Connections ended because their session was blacklisted.",
                |shard| &shard.connections_killed,
            ),
            (
                "tidegate_connections_expired_total",
                Kind::Counter,
                "Connections ended because their token had expired.",
                |shard| &shard.connections_expired,
            ),
            ("tidegate_subscriptions", Kind::Gauge, "Subscriptions in force.", |shard| &shard.subscriptions),
            (
                "tidegate_constraints_ignored_total",
                Kind::Counter,
                "Constraints on fields without extractor.",
                |shard| &shard.constraints_ignored,
            ),
            (
                "tidegate_requests_malformed_total",
                Kind::Counter,
                "Requests and frames that break a protocol or a limit.",
                |shard| &shard.requests_malformed,
            ),
            ("tidegate_events_refused_total", Kind::Counter, "Published events that were no CloudEvents.", |shard| {
                &shard.events_refused
            }),
            ("tidegate_events_received_total", Kind::Counter, "Events taken from the mailbox.", |shard| {
                &shard.events_received
            }),
            ("tidegate_deliveries_total", Kind::Counter, "Copies of events handed to connections.", |shard| {
                &shard.deliveries
            }),
            ("tidegate_sends_total", Kind::Counter, "System calls that sent data.", |shard| &shard.sends),
            ("tidegate_sent_bytes_total", Kind::Counter, "Bytes sent on long-lived connections.", |shard| {
                &shard.sent_bytes
            }),
            ("tidegate_queue_bytes", Kind::Gauge, "Bytes that wait in connections' queues.", |shard| {
                &shard.queue_bytes
            }),
            ("tidegate_session_bytes", Kind::Gauge, "Bytes of events that long-polling sessions keep.", |shard| {
                &shard.session_bytes
            }),
            ("tidegate_mailbox_depth", Kind::Gauge, "Events in the mailbox when it was last drained.", |shard| {
                &shard.mailbox_depth
            }),
            ("tidegate_pending_requests", Kind::Gauge, "Requests that wait for a correlated answer.", |shard| {
                &shard.pending_requests
            }),
            (
                "tidegate_answers_delivered_total",
                Kind::Counter,
                "Correlated answers brought to their requests.",
                |shard| &shard.answers_delivered,
            ),
            ("tidegate_answers_late_total", Kind::Counter, "Correlated answers that nobody waited for.", |shard| {
                &shard.answers_late
            }),
            ("tidegate_stored_answer_bytes", Kind::Gauge, "Bytes of answers kept for later calls.", |shard| {
                &shard.stored_bytes
            }),
            ("tidegate_replaying", Kind::Gauge, "Clients that catch up with what they have missed.", |shard| {
                &shard.replaying
            }),
            (
                "tidegate_replays_total",
                Kind::Counter,
                "Clients that came back and asked for what they have missed.",
                |shard| &shard.replays,
            ),
            (
                "tidegate_replayed_events_total",
                Kind::Counter,
                "Copies of events handed to clients that catch up.",
                |shard| &shard.replayed,
            ),
            ("tidegate_snapshots_waiting", Kind::Gauge, "Clients that wait for a snapshot.", |shard| {
                &shard.snapshotting
            }),
            ("tidegate_snapshots_total", Kind::Counter, "Snapshots that clients got.", |shard| &shard.snapshots),
            (
                "tidegate_history_lost_total",
                Kind::Counter,
                "Times a client was told that events may be missing.",
                |shard| &shard.history_lost,
            ),
            ("tidegate_panics_total", Kind::Counter, "Panics caught in a connection's code.", |shard| &shard.panics),
        ];
        for (name, kind, help, cell) in CELLS {
            page.family(name, *kind, help);
            for (index, shard) in self.numbered_shards() {
                page.sample(name, &[("shard", &index)], cell(shard).get());
            }
        }
        page.family("tidegate_batch_events", Kind::Histogram, "Events per drain of the mailbox.");
        for (index, shard) in self.numbered_shards() {
            page.histogram("tidegate_batch_events", &[("shard", &index)], &shard.batch_events, 1);
        }
        page.family(
            "tidegate_fan_out_milliseconds",
            Kind::Histogram,
            "Time from the source to the end of the batch's sends.",
        );
        for (index, shard) in self.numbered_shards() {
            page.histogram("tidegate_fan_out_milliseconds", &[("shard", &index)], &shard.fan_out_us, 1_000);
        }
    }

    fn write_kafka(&self, page: &mut Page) {
        let Some(kafka) = &self.kafka else { return };
        let out_of_reach_ms = kafka.out_of_reach_ms(clock::now_ms());
        let connected = u8::from(out_of_reach_ms.is_none());
        page.single("tidegate_kafka_connected", Kind::Gauge, "1 while Kafka answers.", connected);
        let seconds = out_of_reach_ms.unwrap_or(0) / 1_000;
        page.single("tidegate_kafka_out_of_reach_seconds", Kind::Gauge, "Time since Kafka last answered.", seconds);
        page.single("tidegate_kafka_partitions", Kind::Gauge, "Partitions of the source topics.", kafka.partitions());
        page.single(
            "tidegate_kafka_partitions_without_leader",
            Kind::Gauge,
            "Those of them that no broker leads.",
            kafka.partitions_without_leader(),
        );
    }

    fn numbered_shards(&self) -> impl Iterator<Item = (String, &ShardMetrics)> {
        self.shards.iter().enumerate().map(|(index, shard)| (index.to_string(), &**shard))
    }
}
