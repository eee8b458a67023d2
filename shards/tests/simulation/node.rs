//! One node: ingress's publisher, the lanes, and shards; driven step by step.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_shards::bell::Bell;
use tidegate_shards::event::{EventLimits, decode_structured};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::mailbox::{Inbox, lanes};
use tidegate_shards::metrics::ShardMetrics;
use tidegate_shards::publisher::{InterestLane, Position, Publisher};
use tidegate_shards::settings::ShardSettings;
use tidegate_shards::shard::Shard;
use tidegate_shards::shard::connection::{Address, Closing, Output};
use tidegate_shards::subscription::parse_list;

/// Bytes that may wait for one client: a few dozen events.
pub(crate) const MAX_QUEUE_BYTES: usize = 6_000;
/// One event, framed, is never larger.
pub(crate) const MAX_FRAME_BYTES: usize = 1_000;
const SEGMENT_BYTES: usize = 4_096;
const HISTORY_BYTES: usize = 32_768;

/// The log that all nodes read: the texts of the events by partition and offset.
pub(crate) type Log = Vec<Vec<String>>;

/// A node that runs.
pub(crate) struct Node {
    publisher: Publisher,
    shards: Vec<(Shard, Inbox)>,
    /// The next offset of each partition.
    pub(crate) next: Vec<u64>,
    extractors: Arc<Extractors>,
}

impl Node {
    /// A node that begins to read at the end of the log.
    pub(crate) fn start(
        shards: usize,
        mailbox_events: usize,
        log: &Log,
        extractors: &Arc<Extractors>,
        now_ms: u64,
    ) -> Self {
        let settings = Arc::new(ShardSettings {
            extractors: Arc::clone(extractors),
            max_queue_bytes: MAX_QUEUE_BYTES,
            max_connections_per_minute: u32::MAX,
            ..ShardSettings::default()
        });
        let interest = InterestLane::default();
        let bell = Bell::new().unwrap();
        let (mut event_lanes, mut all) = (Vec::new(), Vec::new());
        for number in 0..shards {
            let (events, _control, inbox) = lanes(mailbox_events);
            event_lanes.push(events);
            let metrics = Arc::<ShardMetrics>::default();
            let interest = Arc::clone(&interest);
            all.push((Shard::new(number, Arc::clone(&settings), metrics, interest, bell.clone(), now_ms), inbox));
        }
        Self {
            publisher: Publisher::new(event_lanes, interest, SEGMENT_BYTES, HISTORY_BYTES),
            shards: all,
            next: log.iter().map(|partition| partition.len() as u64).collect(),
            extractors: Arc::clone(extractors),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Ingress hears of interest, then takes up to so many events of a partition; fewer where a mailbox is full.
    pub(crate) fn ingest(&mut self, log: &Log, partition: usize, most: usize) {
        self.publisher.apply_interest();
        for _ in 0..most {
            let offset = self.next[partition];
            let Some(text) = log[partition].get(offset as usize) else { break };
            let event = decode_structured(text.as_bytes(), &self.extractors, &EventLimits::default()).unwrap();
            if self.publisher.wants(&event.event_type) {
                let position = Position { partition: partition as u32, offset };
                if self.publisher.publish(&event, position, 0).is_err() {
                    break;
                }
            }
            self.next[partition] += 1;
        }
        self.publisher.flush();
    }

    /// A shard takes up to so much of its mail, and sends what it has gathered.
    pub(crate) fn take_mail(&mut self, shard: usize, most: usize) {
        let (shard, inbox) = &mut self.shards[shard];
        for _ in 0..most {
            let Ok(mail) = inbox.events.pop() else { break };
            shard.take_mail(mail);
        }
        shard.flush_batch();
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        for (shard, _) in &mut self.shards {
            shard.tick(now_ms);
        }
    }

    /// Opens an event stream whose frames are pulled.
    pub(crate) fn open(&mut self, shard: usize, subscriptions: &str, _cursor: Option<&str>, now_ms: u64) -> Address {
        let shard = &mut self.shards[shard].0;
        let address = shard.open_detached(Output::Pulled, |_| "token".to_owned(), now_ms);
        shard.set_subscriptions(address, &parse_list(subscriptions).unwrap(), None);
        shard.opened(address);
        address
    }

    /// The next frame for this client, if there is one.
    pub(crate) fn pull(&mut self, shard: usize, address: Address) -> Option<Bytes> {
        self.shards[shard].0.pull(address)
    }

    /// Whether the shard has ended, or wants to end, this connection.
    pub(crate) fn has_ended(&mut self, shard: usize, address: Address) -> bool {
        match self.shards[shard].0.connections().get(address) {
            None => true,
            Some(connection) => match connection.closing {
                Closing::No => false,
                Closing::AfterFlush => connection.queued_bytes() == 0,
                Closing::Now => true,
            },
        }
    }

    pub(crate) fn remove(&mut self, shard: usize, address: Address) {
        self.shards[shard].0.remove(address);
    }

    /// Nobody may hold more than its bound; what the metric says waits is what waits.
    pub(crate) fn check_bounds(&mut self) {
        for (shard, _) in &mut self.shards {
            let mut waiting = 0;
            for (_, connection) in shard.connections().iter_mut() {
                let bytes = connection.queued_bytes();
                assert!(bytes <= MAX_QUEUE_BYTES + MAX_FRAME_BYTES, "{bytes} bytes wait for one client");
                waiting += bytes as u64;
            }
            assert_eq!(shard.metrics().queue_bytes.get(), waiting, "the metric of waiting bytes");
        }
    }

    /// When everybody has gone, nothing is left of them.
    pub(crate) fn check_empty(&mut self) {
        for (shard, inbox) in &mut self.shards {
            assert!(inbox.events.pop().is_err(), "mail was left");
            assert_eq!(shard.connections().len(), 0, "connections");
            let metrics = shard.metrics();
            for gauge in
                [&metrics.connections_sse, &metrics.connections_http, &metrics.subscriptions, &metrics.queue_bytes]
            {
                assert_eq!(gauge.get(), 0, "a gauge is not back at zero");
            }
        }
    }
}
