//! Clients that come and go, driven by hand: whatever happens in whatever order, each sees every event of its type exactly once
//! and in the order of its partition, or is told what it lost.

use std::borrow::Cow;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use proptest::prelude::*;

use super::Shard;
use super::checkpoint_tests::{Lookups, append_checkpoint, plain_cursor};
use super::connection::{Address, Output};
use crate::bell::Bell;
use crate::clock;
use crate::cursor::{Loss, Reason, ResumeFrom, Vector};
use crate::event::Event;
use crate::interest::Transports;
use crate::mailbox::{Inbox, lanes};
use crate::metrics::ShardMetrics;
use crate::publisher::{InterestLane, Position, Publisher};
use crate::record::{self, Scratch};
use crate::replay::{self, Joined, PassTicket, ReplayLane, ReplayRequest, ReplaySource, Replayed};
use crate::segment::SegmentWriter;
use crate::settings::ShardSettings;
use crate::subscription::parse_list;

const PARTITIONS: usize = 2;
const SUBSCRIPTIONS: &str = r#"[{"eventType":"a"}]"#;

#[derive(Debug, Default)]
struct Asked(SegQueue<ReplayRequest>);

impl ReplaySource for Asked {
    fn request(&self, request: ReplayRequest) {
        self.0.push(request);
    }
}

/// A shard, its ingress, and the log that the events come from.
pub(super) struct Node {
    pub(super) shard: Shard,
    pub(super) publisher: Publisher,
    inbox: Inbox,
    lane: ReplayLane,
    replayed: rtrb::Consumer<Replayed>,
    /// Of all passes.
    ticket: PassTicket,
    asked: Arc<Asked>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) log: [Vec<&'static str>; PARTITIONS],
}

fn event(event_type: &'static str, partition: usize, id: usize) -> Event<'static> {
    let body =
        format!(r#"{{"specversion":"1.0","type":"{event_type}","id":"{id}","source":"/","partition":{partition}}}"#);
    Event {
        event_type: Cow::Borrowed(event_type),
        id: Cow::Owned(id.to_string()),
        subject: None,
        body: Cow::Owned(body.into_bytes()),
        fields: Vec::new(),
    }
}

impl Node {
    /// With a log to read again from, or with the ring alone.
    pub(super) fn new(history_bytes: usize, has_log: bool) -> Self {
        let mut node = Self::without_partitions(history_bytes, has_log);
        for partition in 0..2 {
            node.publisher.positions().start(partition, 0, partition, 0);
        }
        node
    }

    /// It has just been started.
    pub(super) fn unopened() -> Self {
        let mut node = Self::without_partitions(1 << 20, true);
        node.publisher.positions().opening();
        node
    }

    pub(super) fn without_partitions(history_bytes: usize, has_log: bool) -> Self {
        let (events, _control, inbox) = lanes(4_096);
        let interest = InterestLane::default();
        let mut publisher = Publisher::new(vec![events], Arc::clone(&interest), 2_048, history_bytes);
        publisher.positions().name_source(0, "events", 7);
        let settings = ShardSettings { replay_earliest: true, ..ShardSettings::default() };
        let metrics = Arc::<ShardMetrics>::default();
        let mut shard = Shard::new(0, Arc::new(settings), metrics, interest, Bell::new().unwrap(), 0);
        let (lane, replayed) = replay::lane(&inbox.waker);
        let asked = Arc::<Asked>::default();
        if has_log {
            shard.set_replay_source(Some(Arc::clone(&asked) as Arc<dyn ReplaySource>));
        } else {
            publisher.keep_all();
        }
        let lookups = Arc::<Lookups>::default();
        shard.set_checkpoint_source(Some(Arc::clone(&lookups) as _));
        let ticket = PassTicket::default();
        Self { shard, publisher, inbox, lane, replayed, ticket, asked, lookups, log: Default::default() }
    }

    pub(super) fn publish(&mut self, partition: usize, event_type: &'static str) {
        self.log[partition].push(event_type);
        self.publish_again(partition, self.log[partition].len() - 1);
    }

    /// The node reads an event of the log.
    pub(super) fn publish_again(&mut self, partition: usize, offset: usize) {
        let event_type = self.log[partition][offset];
        let slot = u32::try_from(partition).unwrap();
        if self.publisher.wants(event_type) {
            let position = Position { partition: slot, offset: offset as u64 };
            self.publisher.publish(&event(event_type, partition, offset), position, 0).unwrap();
        } else {
            self.publisher.positions().advance(slot, offset as u64 + 1);
        }
    }

    /// Lets ingress hear of interest, and the shard take some of its mail.
    pub(super) fn turn(&mut self, mails: usize) {
        self.publisher.apply_interest();
        if let Some(record) = self.publisher.checkpoint_due(0) {
            self.publisher.checkpoint_written(Some(append_checkpoint(record)), 0);
        }
        for _ in 0..mails {
            let Ok(mail) = self.inbox.events.pop() else { break };
            self.shard.take_mail(mail);
        }
        self.shard.flush_batch();
    }

    /// One pass over the log for all who have asked.
    fn pass(&mut self) {
        let requests: Vec<ReplayRequest> = std::iter::from_fn(|| self.asked.0.pop()).collect();
        if requests.is_empty() {
            return;
        }
        let lowest = |at: usize| requests.iter().map(|request| request.from[at]).min().unwrap();
        let highest = |at: usize| requests.iter().map(|request| request.to[at]).max().unwrap();
        let from: Vec<u64> = (0..PARTITIONS).map(lowest).collect();
        let to: Vec<u64> = (0..PARTITIONS).map(highest).collect();
        let joined = |request: &ReplayRequest| {
            let (address, ticket) = (request.address, self.ticket.clone());
            Joined { ticket, address, from: None, losses: Vec::new() }
        };
        self.lane.push(Replayed::Begin(requests.iter().map(joined).collect())).unwrap();
        let mut writer = SegmentWriter::new(0, 1 << 20);
        self.lane.push(Replayed::Segment(Arc::clone(writer.segment()))).unwrap();
        for partition in 0..PARTITIONS {
            for offset in from[partition]..to[partition] {
                let offset = usize::try_from(offset).unwrap();
                let event_type = self.log[partition][offset];
                if event_type == "a" {
                    let position = Position { partition: u32::try_from(partition).unwrap(), offset: offset as u64 };
                    let event = event(event_type, partition, offset);
                    let (mut scratch, none) = (Scratch::default(), Transports::NONE);
                    let range = record::write(&mut writer, &event, position, "", 0, none, &mut scratch).unwrap();
                    self.lane.push(Replayed::Event(range)).unwrap();
                }
            }
        }
        self.lane.push(Replayed::Done(Vector::new(to))).unwrap();
    }

    fn take_replayed(&mut self) {
        self.shard.take_replayed(&mut self.replayed, clock::now_us);
    }

    /// Until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            self.turn(10_000);
            self.pass();
            self.take_replayed();
            self.shard.walk_on(clock::now_us);
        }
    }
}

/// A client with what it knows.
pub(super) struct Client {
    connection: Option<(Address, UnixStream, UnixStream)>,
    text: String,
    pub(super) last_id: Option<String>,
    /// Next offsets that it has not seen, once it has subscribed.
    pub(super) next: Option<Vec<u64>>,
    pub(super) losses: usize,
    /// The reason of the last one.
    pub(super) reason: String,
    pub(super) seen: usize,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            connection: None,
            text: String::new(),
            last_id: None,
            next: None,
            losses: 0,
            reason: String::new(),
            seen: 0,
        }
    }

    pub(super) fn connect(&mut self, node: &mut Node) {
        if self.connection.is_some() {
            return;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let address = node.shard.accepted(u64::MAX - 1, 0);
        node.shard.open(address, Output::EventStream { fd: ours.as_raw_fd(), chunked: false }, Vec::new(), "token", 0);
        let list = parse_list(SUBSCRIPTIONS).unwrap();
        match &self.last_id {
            Some(id) => node.shard.resume(address, &list, ResumeFrom::parse(id), None),
            None => node.shard.set_subscriptions(address, &list, None),
        }
        node.shard.opened(address);
        self.text.clear();
        self.connection = Some((address, ours, theirs));
    }

    pub(super) fn is_in_force(&mut self, node: &mut Node) -> bool {
        self.read(&node.log);
        self.next.is_some()
    }

    pub(super) fn disconnect(&mut self, node: &mut Node) {
        self.read(&node.log);
        if let Some((address, ..)) = self.connection.take() {
            node.shard.remove(address);
        }
    }

    /// Takes what has come and holds it against the log.
    pub(super) fn read(&mut self, log: &[Vec<&'static str>; PARTITIONS]) {
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

    fn take(&mut self, block: &str, log: &[Vec<&'static str>; PARTITIONS]) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let id = field("id: ");
        let at = id.as_ref().map(|id| {
            let cursor = plain_cursor(id).unwrap();
            cursor.topics[0].next.iter().map(|next| next.unwrap()).collect::<Vec<_>>()
        });
        let data = field("data: ").map(|data| serde_json::from_str::<serde_json::Value>(&data).unwrap());
        match (field("event: ").as_deref(), data) {
            (Some("rig.connection.create"), _) => {}
            (Some("rig.subscriptions_set"), _) => {
                let at = at.expect("subscriptions come into force at a position");
                let next = self.next.get_or_insert_with(|| at.clone());
                let goes_on = at.iter().zip(&*next).all(|(at, next)| at == next) || self.last_id.is_none();
                assert!(goes_on, "it goes on where it was: {next:?} {at:?}");
                *next = at;
            }
            (Some("tidegate.history_lost"), Some(data)) => {
                self.losses += 1;
                data["data"]["reason"].as_str().unwrap().clone_into(&mut self.reason);
                let next = self.next.as_mut().unwrap();
                for lost in data["data"]["lost"].as_array().unwrap() {
                    let Some(partition) = lost["partition"].as_u64() else { continue };
                    let partition = usize::try_from(partition).unwrap();
                    assert_eq!(lost["from"], next[partition]);
                    next[partition] = lost["to"].as_u64().unwrap();
                }
                assert_eq!(at.as_ref(), Some(&*next));
            }
            (Some("a"), Some(data)) => {
                let (next, at) = (self.next.as_mut().expect("no event before the subscription"), at.unwrap());
                let offset: u64 = data["id"].as_str().unwrap().parse().unwrap();
                let partition = usize::try_from(data["partition"].as_u64().unwrap()).unwrap();
                assert!(offset >= next[partition], "event {offset} of {partition} came again: {next:?}");
                assert_eq!(at[partition], offset + 1, "the cursor stands after the event");
                for (partition, log) in log.iter().take(at.len()).enumerate() {
                    let own = at[partition] == offset + 1 && data["partition"] == partition;
                    let missed = skipped(log, next[partition], if own { offset } else { at[partition] });
                    assert_eq!(missed, Vec::<usize>::new(), "of {partition}: {next:?} to {at:?}");
                }
                *next = at;
                self.seen += 1;
            }
            (None, None) if at.is_some() => {}
            other => panic!("unexpected {other:?}"),
        }
        self.last_id = id.or(self.last_id.take());
    }
}

/// A client that has been away for this many events, all of which are in the ring.
pub(super) fn away(events: usize) -> (Node, Client) {
    let mut node = Node::new(64 << 20, false);
    let mut client = Client::new();
    client.connect(&mut node);
    node.settle();
    client.disconnect(&mut node);
    node.turn(1);
    for at in 0..events {
        node.publish(at % PARTITIONS, "a");
    }
    (node, client)
}

/// The events of type `a` in this range.
fn skipped(log: &[&'static str], from: u64, to: u64) -> Vec<usize> {
    (usize::try_from(from).unwrap()..usize::try_from(to).unwrap()).filter(|at| log[*at] == "a").collect()
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Publish(usize, &'static str),
    Connect(usize),
    Disconnect(usize),
    Read(usize),
    Turn(usize),
    Pass,
    TakeReplayed,
    Walk,
}

const CLIENTS: usize = 4;

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PARTITIONS, prop_oneof![Just("a"), Just("b")]).prop_map(|(at, name)| Step::Publish(at, name)),
        2 => (0..CLIENTS).prop_map(Step::Connect),
        1 => (0..CLIENTS).prop_map(Step::Disconnect),
        1 => (0..CLIENTS).prop_map(Step::Read),
        3 => (1_usize..20).prop_map(Step::Turn),
        1 => Just(Step::Pass),
        1 => Just(Step::TakeReplayed),
        2 => Just(Step::Walk),
    ]
}

/// Runs the steps, reconnects everybody, and checks that all have everything in the end. Returns the losses.
pub(super) fn run(mut node: Node, steps: &[Step]) -> usize {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new()).collect();
    for step in steps {
        match *step {
            Step::Publish(partition, event_type) => node.publish(partition, event_type),
            Step::Connect(at) => clients[at].connect(&mut node),
            Step::Disconnect(at) => clients[at].disconnect(&mut node),
            Step::Read(at) => clients[at].read(&node.log),
            Step::Turn(mails) => node.turn(mails),
            Step::Pass => node.pass(),
            Step::TakeReplayed => node.take_replayed(),
            Step::Walk => node.shard.walk_on(clock::now_us),
        }
    }
    for client in &mut clients {
        client.connect(&mut node);
    }
    node.settle();
    for client in &mut clients {
        client.read(&node.log);
        let next = client.next.as_ref().expect("everybody has subscribed");
        for (next, log) in next.iter().zip(&node.log) {
            assert_eq!(skipped(log, *next, log.len() as u64), Vec::<usize>::new(), "missing at the end");
        }
    }
    assert_eq!(node.shard.metrics().replaying.get(), 0, "nobody catches up for ever");
    assert!(node.ticket.is_last(), "nobody is in a pass for ever");
    clients.iter().map(|client| client.losses).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn with_a_ring_that_holds_everything_nothing_is_lost(steps in prop::collection::vec(step(), 1..300)) {
        prop_assert_eq!(run(Node::new(1 << 20, false), &steps), 0);
    }

    #[test]
    fn with_a_small_ring_every_loss_is_told(steps in prop::collection::vec(step(), 1..300)) {
        run(Node::new(4_096, false), &steps);
    }

    #[test]
    fn with_a_log_to_read_again_nothing_is_lost_however_small_the_ring(
        steps in prop::collection::vec(step(), 1..300),
        history_bytes in prop_oneof![Just(0_usize), Just(4_096), Just(1 << 20)],
    ) {
        prop_assert_eq!(run(Node::new(history_bytes, true), &steps), 0);
    }
}

#[test]
fn a_client_that_asks_for_the_beginning_gets_all_there_is() {
    let mut node = Node::new(1 << 20, false);
    for _ in 0..10 {
        node.publish(0, "a");
    }
    let mut client = Client::new();
    client.last_id = Some("earliest".to_owned());
    client.connect(&mut node);
    node.settle();
    client.read(&node.log);
    assert_eq!((client.seen, client.losses), (10, 0));
}

#[test]
fn what_the_source_has_lost_is_told_to_live_clients_and_to_those_who_come_back_from_before_it() {
    let mut node = Node::new(1 << 20, true);
    let (mut live, mut away) = (Client::new(), Client::new());
    live.connect(&mut node);
    away.connect(&mut node);
    node.settle();
    node.publish(0, "a");
    node.settle();
    away.disconnect(&mut node);
    node.log[0].extend(["a"; 4]);
    node.publisher.positions().advance(0, 5);
    node.publisher.lose(&Loss { reason: Reason::Expired, slot: Some(0), from: 1, to: 5 });
    node.settle();
    live.read(&node.log);
    assert_eq!((live.seen, live.losses), (1, 1));
    away.connect(&mut node);
    node.turn(10_000);
    assert_eq!(node.asked.0.len(), 1, "the ring proves nothing about the gap: the log is asked");
}

#[test]
fn nobody_is_in_a_pass_any_more_once_its_only_client_has_gone() {
    let mut node = Node::new(0, true);
    let mut client = Client::new();
    client.connect(&mut node);
    node.settle();
    node.publish(0, "a");
    node.settle();
    client.disconnect(&mut node);
    node.log[0].extend(["a"; 4]);
    node.publisher.positions().advance(0, 5);
    client.connect(&mut node);
    node.turn(10_000);
    let request = node.asked.0.pop().expect("what is not in the ring is asked for");
    let (address, ticket) = (request.address, node.ticket.clone());
    node.lane.push(Replayed::Begin(vec![Joined { ticket, address, from: None, losses: Vec::new() }])).unwrap();
    node.take_replayed();
    assert!(!node.ticket.is_last());
    client.disconnect(&mut node);
    assert!(node.ticket.is_last());
}

#[test]
fn a_client_with_an_unknown_cursor_is_told_and_goes_on_live() {
    let mut node = Node::new(1 << 20, false);
    node.publish(0, "a");
    let mut client = Client::new();
    client.last_id = Some("something else".to_owned());
    client.connect(&mut node);
    node.settle();
    node.publish(0, "a");
    node.settle();
    client.read(&node.log);
    assert_eq!((client.seen, client.losses), (1, 1));
}

#[test]
fn ten_thousand_events_reach_a_client_that_reads_slowly_within_its_bound() {
    let (mut node, mut client) = away(10_000);
    client.connect(&mut node);
    for round in 0_u64..100_000 {
        node.turn(100);
        node.shard.walk_on(clock::now_us);
        node.shard.resume_parked(u64::MAX);
        let (address, ..) = client.connection.as_ref().unwrap();
        let address = *address;
        assert!(node.shard.connections().get(address).unwrap().queued_bytes() <= node.shard.settings.max_queue_bytes);
        if round % 10 == 0 {
            client.read(&node.log);
            node.shard.flush_queue(address);
        }
        if client.seen == 10_000 {
            break;
        }
    }
    assert_eq!((client.seen, client.losses), (10_000, 0));
}
