//! Clients that ask for their initial state, driven by hand: whatever happens in whatever order, each gets the newest event of
//! every key before a position, and from there on every event exactly once.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use proptest::prelude::*;

use super::Shard;
use super::connection::{Address, Output};
use crate::bell::Bell;
use crate::clock;
use crate::cursor::Cursor;
use crate::event::{Event, EventLimits, decode_structured};
use crate::interest::Transports;
use crate::mailbox::{Inbox, lanes};
use crate::metrics::ShardMetrics;
use crate::publisher::{InterestLane, Position, Publisher};
use crate::record::{self, Scratch};
use crate::replay;
use crate::segment::SegmentWriter;
use crate::settings::ShardSettings;
use crate::snapshot::reading::{Caches, Readiness, Reading};
use crate::snapshot::{SnapshotLane, SnapshotRequest, SnapshotSource, Snapshotted};
use crate::subscription::parse_list;

const PARTITIONS: usize = 2;
const TYPES: [&str; 3] = ["a", "b", "c"];
/// Of `a` and `b` a snapshot is asked for, `c` is wanted live.
const SUBSCRIPTIONS: &str =
    r#"[{"eventType":"a","snapshot":true},{"eventType":"b","snapshot":true},{"eventType":"c"}]"#;

#[derive(Debug, Default)]
struct Asked(SegQueue<SnapshotRequest>);

impl SnapshotSource for Asked {
    fn request(&self, request: SnapshotRequest) {
        self.0.push(request);
    }
}

/// What was published at an offset: a key, and a type, or nothing where the key was deleted.
type Entry = (u8, Option<&'static str>);
type Log = [Vec<Entry>; PARTITIONS];

struct Node {
    shard: Shard,
    publisher: Publisher,
    inbox: Inbox,
    lane: SnapshotLane,
    snapshots: rtrb::Consumer<Snapshotted>,
    asked: Arc<Asked>,
    waiting: VecDeque<SnapshotRequest>,
    caches: Caches,
    /// How far the cache has read each partition.
    cached: [usize; PARTITIONS],
    log: Log,
}

impl Node {
    fn new(limit_bytes: usize, has_source: bool) -> Self {
        let (events, _control, inbox) = lanes(4_096);
        let interest = InterestLane::default();
        let mut publisher = Publisher::new(vec![events], Arc::clone(&interest), 2_048, 1 << 22);
        publisher.positions().name_source(0, "seats", 7);
        (0..2).for_each(|partition| publisher.positions().start(partition, 0, partition, 0));
        publisher.keep_all();
        let metrics = Arc::<ShardMetrics>::default();
        let settings = ShardSettings { max_queue_bytes: 65_536, ..ShardSettings::default() };
        let mut shard = Shard::new(0, Arc::new(settings), metrics, interest, Bell::new().unwrap(), 0);
        let (lane, snapshots) = replay::lane(&inbox.waker);
        let asked = Arc::<Asked>::default();
        if has_source {
            shard.set_snapshot_source(Some(Arc::clone(&asked) as Arc<dyn SnapshotSource>));
        }
        let caches = Caches::new([Some(limit_bytes)].into_iter());
        let (waiting, cached, log) = (VecDeque::new(), [0; PARTITIONS], Log::default());
        Self { shard, publisher, inbox, lane, snapshots, asked, waiting, caches, cached, log }
    }

    fn publish(&mut self, partition: usize, key: u8, event_type: Option<&'static str>) {
        let offset = self.log[partition].len() as u64;
        self.log[partition].push((key, event_type));
        let slot = u32::try_from(partition).unwrap();
        match event_type {
            Some(event_type) => {
                let body = body(partition, offset, event_type);
                let event = event(&body);
                self.publisher.publish(&event, Position { partition: slot, offset }, 0).unwrap();
            }
            None => self.publisher.positions().advance(slot, offset + 1),
        }
    }

    /// The cache reads some more of the log.
    fn cache(&mut self, partition: usize, events: usize) {
        let cache = self.caches.get_mut(0).unwrap();
        let slot = u32::try_from(partition).unwrap();
        let from = self.cached[partition];
        for (at, (key, event_type)) in self.log[partition].iter().enumerate().skip(from).take(events) {
            let offset = at as u64;
            match event_type {
                Some(event_type) => {
                    cache.put(slot, offset, &[*key], event_type, body(partition, offset, event_type).as_bytes());
                }
                None => cache.delete(slot, offset, &[*key]),
            }
            self.cached[partition] = at + 1;
        }
    }

    fn turn(&mut self, mails: usize) {
        self.publisher.apply_interest();
        for _ in 0..mails {
            let Ok(mail) = self.inbox.events.pop() else { break };
            self.shard.take_mail(mail);
        }
        self.shard.flush_batch();
    }

    /// Serves all that can be served.
    fn serve(&mut self) {
        self.waiting.extend(std::iter::from_fn(|| self.asked.0.pop()));
        let is_ready = |request: &SnapshotRequest| self.caches.readiness(request) == Readiness::Ready;
        let (mut ready, later): (VecDeque<_>, VecDeque<_>) = self.waiting.drain(..).partition(is_ready);
        self.waiting = later;
        while let Some(mut reading) = Reading::of(&mut ready) {
            let members = reading.members.iter().map(|(_, member)| *member).collect();
            self.lane.push(Snapshotted::Begin(members)).unwrap();
            let keys = self.caches.get(0).unwrap().counts().0;
            let mut writer = SegmentWriter::new(0, 65_536 + keys * 2_048);
            self.lane.push(Snapshotted::Segment(Arc::clone(writer.segment()))).unwrap();
            let mut found = Vec::new();
            while let Some(slot) = reading.step(&self.caches, &mut found) {
                for found in found.drain(..) {
                    let body = String::from_utf8(found.body.to_vec()).unwrap();
                    let position = Position { partition: u32::try_from(slot).unwrap(), offset: found.offset };
                    let (mut scratch, none) = (Scratch::default(), Transports::NONE);
                    let range = record::write(&mut writer, &event(&body), position, "", 0, none, &mut scratch).unwrap();
                    self.lane.push(Snapshotted::Event(range)).unwrap();
                }
            }
            self.lane.push(Snapshotted::Done { complete: reading.is_complete(&self.caches) }).unwrap();
        }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.turn(10_000);
            (0..PARTITIONS).for_each(|partition| self.cache(partition, usize::MAX));
            self.serve();
            self.shard.take_snapshots(&mut self.snapshots, clock::now_us);
            self.shard.walk_on(clock::now_us);
            self.shard.resume_parked(u64::MAX);
        }
    }
}

fn body(partition: usize, offset: u64, event_type: &str) -> String {
    format!(r#"{{"specversion":"1.0","type":"{event_type}","id":"{offset}","source":"/","partition":{partition}}}"#)
}

fn event(body: &str) -> Event<'static> {
    let event = decode_structured(body.as_bytes(), &crate::extractor::Extractors::default(), &EventLimits::default());
    Event { body: Cow::Owned(body.as_bytes().to_vec()), ..event.unwrap().into_owned() }
}

#[derive(Default)]
struct Client {
    connection: Option<(Address, UnixStream, UnixStream)>,
    text: String,
    /// The events of the snapshot at hand, by partition and offset; `None` when there is none.
    snapshot: Option<Vec<(usize, u64)>>,
    next: Option<Vec<u64>>,
    snapshots: usize,
    incomplete: usize,
}

impl Client {
    fn connect(&mut self, node: &mut Node) {
        if self.connection.is_some() {
            return;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let address = node.shard.accepted(u64::MAX - 1, 0);
        node.shard.open(address, Output::EventStream { fd: ours.as_raw_fd(), chunked: false }, Vec::new(), "token", 0);
        node.shard.set_subscriptions(address, &parse_list(SUBSCRIPTIONS).unwrap(), None);
        node.shard.opened(address);
        *self = Self { connection: Some((address, ours, theirs)), snapshots: self.snapshots, ..Self::default() };
    }

    fn disconnect(&mut self, node: &mut Node) {
        self.read(&node.log);
        if let Some((address, ..)) = self.connection.take() {
            node.shard.remove(address);
        }
    }

    fn put(&mut self, node: &mut Node) {
        if let Some((address, ..)) = &self.connection {
            node.shard.set_subscriptions(*address, &parse_list(SUBSCRIPTIONS).unwrap(), None);
        }
    }

    fn read(&mut self, log: &Log) {
        let Some((_, _, socket)) = &mut self.connection else { return };
        let mut buffer = [0; 65_536];
        while let Ok(len @ 1..) = socket.read(&mut buffer) {
            self.text.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        }
        while let Some(end) = self.text.find("\n\n") {
            let block: String = self.text.drain(..end + 2).collect();
            self.take(&block, log);
        }
    }

    fn take(&mut self, block: &str, log: &Log) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let at = field("id: ").map(|id| {
            let cursor = Cursor::parse(&id).unwrap();
            cursor.topics[0].next.iter().map(|next| next.unwrap()).collect::<Vec<_>>()
        });
        let data = field("data: ").map_or(serde_json::Value::Null, |data| serde_json::from_str(&data).unwrap());
        match (field("event: ").as_deref(), at) {
            (Some("rig.connection.create"), None) | (None, None) => {}
            (Some("rig.subscriptions_set"), at) => {
                assert!(self.next.is_some() || at.is_none(), "no cursor before the first snapshot");
                self.snapshot = Some(Vec::new());
                if let Some(at) = at {
                    self.move_to(at, None, log);
                }
            }
            (Some("tidegate.snapshot"), Some(at)) => {
                let events = self.snapshot.take().expect("a snapshot was asked for");
                assert_eq!(data["data"]["events"], events.len());
                self.snapshots += 1;
                if data["data"]["complete"] == true {
                    assert_newest(&events, &at, log);
                } else {
                    self.incomplete += 1;
                }
                self.move_to(at, None, log);
            }
            (Some("a" | "b" | "c"), at) => {
                let offset: u64 = data["id"].as_str().unwrap().parse().unwrap();
                let partition = usize::try_from(data["partition"].as_u64().unwrap()).unwrap();
                match (at, &mut self.snapshot) {
                    (Some(at), None) => self.move_to(at, Some((partition, offset)), log),
                    // A request is under way, and its client is live still or catches up.
                    (Some(at), Some(_)) => panic!("an event with cursor {at:?} within a snapshot"),
                    (None, Some(events)) => events.push((partition, offset)),
                    (None, None) => panic!("an event without cursor outside of a snapshot: {block}"),
                }
            }
            other => panic!("unexpected {other:?}: {block}"),
        }
    }

    /// It has everything before `at` with this event, if any.
    fn move_to(&mut self, at: Vec<u64>, event: Option<(usize, u64)>, log: &Log) {
        if let Some(next) = &self.next {
            for partition in 0..PARTITIONS {
                assert!(at[partition] >= next[partition], "back from {next:?} to {at:?}");
                let own = event.filter(|(of, _)| *of == partition).map(|(_, offset)| offset);
                assert!(own.is_none_or(|own| own >= next[partition]), "{event:?} came again: {next:?}");
                for offset in next[partition]..at[partition] {
                    let missed = log[partition][usize::try_from(offset).unwrap()].1.is_some() && Some(offset) != own;
                    assert!(!missed, "{partition}/{offset} is missing between {next:?} and {at:?}");
                }
            }
        }
        self.next = Some(at);
    }
}

/// These are the newest events of the keys before a position, but for keys that were deleted or have newer ones since.
fn assert_newest(events: &[(usize, u64)], to: &[u64], log: &Log) {
    let mut sorted = events.to_vec();
    sorted.dedup();
    assert!(events.is_sorted() && sorted.len() == events.len(), "in order, each once: {events:?}");
    for (partition, log) in log.iter().enumerate() {
        let mut newest = BTreeMap::new();
        let mut later = Vec::new();
        for (offset, (key, event_type)) in log.iter().enumerate() {
            let offset = offset as u64;
            let asked = event_type.is_none_or(|event_type| event_type != "c");
            if offset >= to[partition] && asked {
                later.push(*key);
            } else if offset < to[partition] && event_type.is_none() {
                newest.remove(key);
            } else if offset < to[partition] && asked {
                newest.insert(*key, offset);
            }
        }
        for (_, offset) in events.iter().filter(|(of, _)| *of == partition) {
            let key = log[usize::try_from(*offset).unwrap()].0;
            // Deleted between two readings of one that was interrupted, it was true when it was read.
            assert_eq!(newest.get(&key), Some(offset), "{partition}/{offset} of {key} is not the newest before {to:?}");
        }
        for (key, offset) in &newest {
            let there = events.contains(&(partition, *offset));
            assert!(there || later.contains(key), "{partition}/{offset} of {key} is missing before {to:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(usize, u8, Option<&'static str>),
    Connect(usize),
    Disconnect(usize),
    Put(usize),
    Turn(usize),
    Cache(usize, usize),
    Serve,
    Take,
    Walk,
}

const CLIENTS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let event_type = prop_oneof![5 => prop::sample::select(&TYPES[..]).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        6 => (0..PARTITIONS, 0..4_u8, event_type).prop_map(|(at, key, name)| Step::Publish(at, key, name)),
        2 => (0..CLIENTS).prop_map(Step::Connect),
        1 => (0..CLIENTS).prop_map(Step::Disconnect),
        1 => (0..CLIENTS).prop_map(Step::Put),
        3 => (1_usize..20).prop_map(Step::Turn),
        2 => (0..PARTITIONS, 1_usize..20).prop_map(|(at, events)| Step::Cache(at, events)),
        2 => Just(Step::Serve),
        2 => Just(Step::Take),
        2 => Just(Step::Walk),
    ]
}

fn run(mut node: Node, steps: &[Step]) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::default()).collect();
    for step in steps {
        match *step {
            Step::Publish(partition, key, event_type) => node.publish(partition, key, event_type),
            Step::Connect(at) => clients[at].connect(&mut node),
            Step::Disconnect(at) => clients[at].disconnect(&mut node),
            Step::Put(at) => clients[at].put(&mut node),
            Step::Turn(mails) => node.turn(mails),
            Step::Cache(partition, events) => node.cache(partition, events),
            Step::Serve => node.serve(),
            Step::Take => {
                node.shard.take_snapshots(&mut node.snapshots, clock::now_us);
            }
            Step::Walk => node.shard.walk_on(clock::now_us),
        }
        clients.iter_mut().for_each(|client| client.read(&node.log));
    }
    clients.iter_mut().for_each(|client| client.connect(&mut node));
    node.settle();
    for client in &mut clients {
        client.read(&node.log);
        assert!(client.snapshots > 0 && client.snapshot.is_none(), "everybody has a whole snapshot");
        let end: Vec<u64> = node.log.iter().map(|log| log.len() as u64).collect();
        client.move_to(end, None, &node.log);
    }
    let metrics = node.shard.metrics();
    assert_eq!((metrics.replaying.get(), metrics.snapshotting.get()), (0, 0), "nobody waits for ever");
    clients
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_client_gets_the_newest_of_each_key_and_from_there_on_everything_once(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let clients = run(Node::new(1 << 20, true), &steps);
        prop_assert!(clients.iter().all(|client| client.incomplete == 0));
    }

    #[test]
    fn with_a_cache_that_is_too_small_snapshots_say_so_and_nothing_else_is_lost(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        run(Node::new(2_048, true), &steps);
    }
}

#[test]
fn where_nobody_gives_snapshots_a_client_is_told_and_is_live() {
    let steps = [Step::Publish(0, 1, Some("a")), Step::Connect(0), Step::Turn(10), Step::Publish(0, 1, Some("a"))];
    let clients = run(Node::new(0, false), &steps);
    assert!(clients.iter().all(|client| client.incomplete == 1));
}

#[test]
fn a_snapshot_larger_than_the_queue_reaches_a_client_that_reads_slowly_within_its_bound() {
    let mut node = Node::new(64 << 20, true);
    for at in 0..8_000_usize {
        node.log[0].push((0, Some("a")));
        let body = body(0, at as u64, "a");
        node.caches.get_mut(0).unwrap().put(0, at as u64, &at.to_le_bytes(), "a", body.as_bytes());
    }
    node.publisher.positions().advance(0, 8_000);
    node.cached[0] = 8_000;
    let mut client = Client::default();
    client.connect(&mut node);
    let address = client.connection.as_ref().unwrap().0;
    for round in 0_u64..100_000 {
        node.turn(100);
        if node.snapshots.is_empty() {
            node.serve();
        }
        node.shard.take_snapshots(&mut node.snapshots, clock::now_us);
        node.shard.walk_on(clock::now_us);
        node.shard.resume_parked(u64::MAX);
        let Some(connection) = node.shard.connections().get(address) else { panic!("the client was disconnected") };
        assert!(connection.queued_bytes() <= node.shard.settings.max_queue_bytes);
        if round % 3 == 0 {
            let events = read_all(&mut client);
            node.shard.flush_queue(address);
            if events.contains("event: tidegate.snapshot") {
                break;
            }
        }
    }
    let seen = client.text.matches("event: a\n").count();
    assert_eq!(seen, 8_000);
    assert!(client.text.contains(r#"{"complete":true,"events":8000}"#));
}

/// Takes what has come without looking at it.
fn read_all(client: &mut Client) -> &str {
    let Some((_, _, socket)) = &mut client.connection else { return "" };
    let mut buffer = [0; 65_536];
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        client.text.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
    }
    &client.text
}
