//! The settings of snapshots.

use super::MAX_BYTES;
use super::hub::source_topics;
use super::values::Reader;

/// Of which topics the newest event per key is kept, and within what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// The topics, all of them source topics. On a local hub any of them stands for the hub.
    pub topics: Vec<String>,
    /// Bytes that each may take.
    pub max_bytes: usize,
}

/// Reads them.
pub(super) fn snapshots(reader: &mut Reader<'_>) -> SnapshotSettings {
    let sources = source_topics(reader);
    let mut topics = reader.list("SNAPSHOT_TOPICS");
    if topics == ["*"] {
        topics.clone_from(&sources);
    }
    for topic in topics.iter().filter(|topic| !sources.contains(topic)) {
        reader.problem(
            "SNAPSHOT_TOPICS",
            format!("{topic:?} is not among KAFKA_SOURCE_TOPICS"),
            "Name topics that events are read from, or * for all of them",
        );
    }
    SnapshotSettings { topics, max_bytes: reader.size("SNAPSHOT_BYTES", 0..=MAX_BYTES) }
}
