use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_reactive::correlation::CorrelationKey;

use super::*;
use crate::proxy::apis::ApiSources;
use crate::sessions::BlacklistSources;

/// The guide that names every metric.
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Sources of every kind, so that no metric is missing on the page.
fn sources() -> MetricSources {
    let apis = ApiSources { definitions: &[], kafka: None, state_dir: None, avro: false, node_name: "node", shards: 2 };
    MetricSources {
        ingress: Arc::new(IngressMetrics::new("kafka", &["rig".to_owned()])),
        snapshots: Some(Arc::new(SnapshotMetrics { topics: Vec::new() })),
        positions: Some(Arc::default()),
        shards: vec![Arc::default(), Arc::default()],
        producer: Some((Arc::default(), "rig".to_owned())),
        requests: Some(Arc::default()),
        replies: Arc::new(ReplyMetrics::new(&["answers".to_owned()])),
        reply_state: Some(Arc::default()),
        kafka: Some(Arc::new(Reachability::new(0))),
        schemas: Some(Arc::default()),
        tls: Some(Arc::default()),
        apis: Some(Apis::open(&apis).expect("nothing to read")),
        nodes: Some(Nodes::new(1, "cookie", CorrelationKey::derive_from(b"cookie"), Duration::ZERO)),
        draining: Arc::default(),
        blacklist: Some(Blacklist::open(&BlacklistSources { kafka: None, state_dir: None }).expect("nothing to read")),
        key_sets: vec![Arc::default()],
    }
}

#[test]
fn the_page_has_rigs_names_with_their_labels_and_every_shard() {
    let sources = sources();
    sources.shards[0].subscriptions.set(2);
    sources.shards[1].subscriptions.set(3);
    sources.ingress.sources[0].processing_us.record(1_500, 1);
    let page = sources.page();
    for line in [
        "rig_consumed_events_total{source=\"kafka\",topic=\"rig\"} 0",
        "rig_consumed_events_failed_total{source=\"kafka\",topic=\"rig\"} 0",
        "# TYPE rig_consumed_events_forwarded_total counter",
        "rig_consumed_event_processing_duration_milliseconds_bucket{source=\"kafka\",topic=\"rig\",le=\"2\"} 1",
        "rig_consumed_event_processing_duration_milliseconds_sum{source=\"kafka\",topic=\"rig\"} 1.5",
        "rig_consumed_events_total{source=\"kafka\",topic=\"answers\"} 0",
        "tidegate_answers_forged_total 0",
        "tidegate_pending_requests{shard=\"1\"} 0",
        "rig_produced_events_total{target=\"kafka\",topic=\"rig\"} 0",
        "# TYPE rig_subscriptions_total gauge",
        "rig_subscriptions_total 5",
        "tidegate_connections{shard=\"1\",transport=\"sse\"} 0",
        "tidegate_fan_out_milliseconds_count{shard=\"1\"} 0",
        "tidegate_kafka_connected 0",
        "tidegate_schema_registry_reachable 1",
        "tidegate_schema_requests_total{outcome=\"failed\"} 0",
        "tidegate_tls_handshakes_total{port=\"inbound\",shard=\"1\",version=\"1.3\"} 0",
        "tidegate_tls_handshake_failures_total{port=\"internal\",reason=\"timeout\"} 0",
        "tidegate_tls_reloads_total{outcome=\"refused\"} 0",
        "tidegate_draining 0",
        "tidegate_connections_moved_total{shard=\"1\"} 0",
        "tidegate_connections_refused_total{shard=\"1\",limit=\"total\"} 0",
        "tidegate_connections_shed_total{shard=\"0\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line:?} is missing in\n{page}");
    }
}

/// Metrics and their labels in the table of the guide.
fn documented() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let (_, section) = OPERATIONS.split_once("\n## Metrics\n").expect("a section on metrics");
    let (table, _) = section.split_once("\nAlarms:\n").expect("alarms behind the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(name, rest)| {
        let labels = rest.split('|').next().expect("invariant: a text has a first part").split(',').map(str::trim);
        (name, labels.filter(|label| !label.is_empty()).collect())
    })
    .collect()
}

/// Metrics on the page, and the labels of their samples; `None` where a metric has no sample yet.
fn written(page: &str) -> BTreeMap<&str, Option<BTreeSet<&str>>> {
    let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut metrics: BTreeMap<_, Option<BTreeSet<_>>> = declared.map(|(name, _)| (name, None)).collect();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (sample, labels) = line.split_once('{').or_else(|| line.split_once(' ')).expect("a sample");
        let names = ["", "_bucket", "_sum", "_count"].map(|suffix| sample.strip_suffix(suffix));
        let name = names.into_iter().flatten().find(|name| metrics.contains_key(*name)).expect("a declared metric");
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label);
        metrics.entry(name).or_default().get_or_insert_default().extend(labels.filter(|label| *label != "le"));
    }
    metrics
}

#[test]
fn every_metric_is_in_the_operators_guide_with_its_labels() {
    let page = sources().page();
    let (written, documented) = (written(&page), documented());
    let missing: Vec<_> = written.keys().filter(|name| !documented.contains_key(**name)).collect();
    let gone: Vec<_> = documented.keys().filter(|name| !written.contains_key(**name)).collect();
    assert!(missing.is_empty(), "add them to the table of metrics in docs/operations.md: {missing:?}");
    assert!(gone.is_empty(), "docs/operations.md names metrics that are not written: {gone:?}");
    for (name, labels) in written {
        assert!(labels.is_none_or(|labels| labels == documented[name]), "labels of {name} in docs/operations.md");
    }
}
