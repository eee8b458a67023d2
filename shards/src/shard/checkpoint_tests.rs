//! Clients whose cursors refer to checkpoints: known here, looked up, gone, or another one in their place.

use std::cell::RefCell;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use proptest::prelude::*;

use super::replay_tests::{Client, Node, run, step};
use crate::checkpoints::{CheckpointSource, Found, Lookup};
use crate::cursor::{Checkpoint, Cursor, CursorError, CursorWriter, Reference, ResumeFrom};

thread_local! {
    /// The log of checkpoints, which outlives nodes.
    static LOG: RefCell<Vec<Arc<[u8]>>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn append_checkpoint(record: Arc<[u8]>) -> u64 {
    LOG.with_borrow_mut(|log| {
        log.push(record);
        log.len() as u64 - 1
    })
}

fn look_up(reference: Reference) -> Option<Checkpoint> {
    let record = LOG.with_borrow(|log| log.get(usize::try_from(reference.offset).unwrap()).cloned())?;
    let checkpoint = Checkpoint::read(reference.offset, &record).unwrap();
    (checkpoint.reference() == reference).then_some(checkpoint)
}

/// What a cursor of either kind stands for.
pub(super) fn plain_cursor(text: &str) -> Result<Cursor, CursorError> {
    let ResumeFrom::Checkpointed(cursor) = ResumeFrom::parse(text) else { return Cursor::parse(text) };
    let known: Vec<Checkpoint> = cursor.references().filter_map(look_up).collect();
    let find = |reference| known.iter().find(|checkpoint| checkpoint.reference() == reference);
    cursor.resolve(find).ok_or(CursorError::Malformed)
}

/// Checkpoints that a shard waits for.
#[derive(Debug, Default)]
pub(super) struct Lookups(SegQueue<Lookup>);

impl CheckpointSource for Lookups {
    fn find(&self, lookup: Lookup) {
        self.0.push(lookup);
    }
}

impl Node {
    /// A node whose cursors refer to checkpoints as soon as there is one.
    fn with_checkpoints(history_bytes: usize, has_log: bool) -> Self {
        let mut node = Self::new(history_bytes, has_log);
        node.publisher.keep_checkpoints(1);
        node
    }

    /// Another node, or this one after a restart, which reads on where this one is.
    fn successor(&mut self) -> Self {
        let mut node = Self::with_checkpoints(1 << 20, true);
        node.log = std::mem::take(&mut self.log);
        for slot in 0..2 {
            let end = node.log[slot as usize].len() as u64;
            node.publisher.positions().advance(slot, end);
        }
        node
    }

    /// Answers what the shard has asked for; returns how much that was.
    fn look_up(&mut self) -> usize {
        let asked: Vec<Lookup> = std::iter::from_fn(|| self.lookups.0.pop()).collect();
        for Lookup { reference, .. } in &asked {
            let checkpoint = look_up(*reference).map(Arc::new);
            self.shard.checkpoint_found(&Found { reference: *reference, checkpoint });
        }
        asked.len()
    }
}

/// A client that has seen three events and then been cut off from a node of which two events more were read.
fn away() -> (Node, Client) {
    let mut node = Node::with_checkpoints(1 << 20, true);
    let mut client = Client::new();
    client.connect(&mut node);
    node.settle();
    for at in 0..3 {
        node.publish(at % 2, "a");
        node.settle();
    }
    client.disconnect(&mut node);
    assert!(matches!(ResumeFrom::parse(client.last_id.as_ref().unwrap()), ResumeFrom::Checkpointed(_)));
    node.publish(0, "a");
    node.publish(1, "a");
    (node, client)
}

#[test]
fn a_client_goes_on_at_once_where_the_checkpoint_of_its_cursor_is_known() {
    let (mut node, mut client) = away();
    client.connect(&mut node);
    node.settle();
    client.read(&node.log);
    assert_eq!((client.seen, client.losses, node.look_up()), (5, 0, 0));
}

#[test]
fn a_client_waits_at_another_node_until_the_checkpoint_of_its_cursor_is_found() {
    let (mut node, mut client) = away();
    let mut other = node.successor();
    client.connect(&mut other);
    other.publish(0, "a");
    other.settle();
    other.shard.tick(10_000);
    other.settle();
    client.read(&other.log);
    assert_eq!(client.seen, 3, "nothing comes before its place is known");
    assert_eq!(other.look_up(), 1);
    other.settle();
    client.read(&other.log);
    assert_eq!((client.seen, client.losses), (6, 0));
}

#[test]
fn many_clients_with_one_checkpoint_have_it_looked_up_once() {
    let (mut node, first) = away();
    let mut other = node.successor();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::new()).collect();
    for client in &mut clients {
        client.last_id.clone_from(&first.last_id);
        client.connect(&mut other);
    }
    other.settle();
    assert_eq!(other.look_up(), 1);
    other.settle();
    for client in &mut clients {
        client.read(&other.log);
        assert_eq!((client.seen, client.losses), (2, 0));
    }
    let (address, mut late) = (other.shard.metrics().replaying.get(), Client::new());
    late.last_id.clone_from(&first.last_id);
    late.connect(&mut other);
    other.settle();
    late.read(&other.log);
    assert_eq!((address, late.seen, other.look_up()), (0, 2, 0), "it is remembered");
}

/// Clients that have seen everything, with cursors that refer to a checkpoint each.
fn with_a_checkpoint_each(node: &mut Node, count: usize) -> Vec<Client> {
    let mut cursors = CursorWriter::default();
    let (layout, next) = (node.publisher.positions().layout().clone(), node.publisher.positions().next().to_vec());
    let record: Arc<[u8]> = cursors.write_bytes(&layout, &next).into();
    let client = |_| {
        let checkpoint = Checkpoint::read(append_checkpoint(Arc::clone(&record)), &record).unwrap();
        let mut client = Client::new();
        client.last_id = Some(cursors.write_from(&layout, &next, &checkpoint, None).to_owned());
        client
    };
    (0..count).map(client).collect()
}

#[test]
fn clients_with_more_checkpoints_than_are_looked_up_at_a_time_wait_for_their_turn_and_lose_nothing() {
    const AT_A_TIME: usize = 40;
    let (mut node, _) = away();
    let mut clients = with_a_checkpoint_each(&mut node, 100);
    let mut other = node.successor();
    other.shard.replays.checkpoints.max_asked = AT_A_TIME;
    for client in &mut clients {
        client.connect(&mut other);
    }
    other.settle();
    // One that leaves gives nothing up for the others.
    clients.pop().unwrap().disconnect(&mut other);
    other.shard.tick(10_000);
    other.settle();
    let mut asked = Vec::new();
    while other.shard.metrics().replaying.get() > 0 {
        asked.push(other.look_up());
        other.settle();
        assert!(asked.last() > Some(&0), "somebody waits for ever: {asked:?}");
    }
    assert!(asked.iter().all(|count| *count <= AT_A_TIME), "{asked:?}");
    assert_eq!(asked.iter().sum::<usize>(), 99, "each once, however few of them are remembered: {asked:?}");
    other.publish(0, "a");
    other.settle();
    for client in &mut clients {
        client.read(&other.log);
        assert_eq!((client.seen, client.losses), (1, 0));
    }
}

#[test]
fn a_client_whose_checkpoint_is_gone_or_another_one_is_told_and_goes_on_live() {
    for replace in [false, true] {
        let (mut node, mut client) = away();
        let mut other = node.successor();
        LOG.with_borrow_mut(|log| {
            let another = log.first().cloned();
            log.clear();
            log.extend(another.into_iter().cycle().take(if replace { 100 } else { 0 }));
        });
        client.connect(&mut other);
        other.settle();
        assert_eq!(other.look_up(), 1);
        other.settle();
        other.publish(0, "a");
        other.settle();
        client.last_id = None;
        client.next = None;
        client.read(&other.log);
        assert_eq!((client.losses, &*client.reason, client.seen), (1, "cursor_expired", 4));
    }
}

#[test]
fn a_client_that_leaves_while_its_checkpoint_is_looked_up_leaves_nothing_behind() {
    let (mut node, mut client) = away();
    let mut other = node.successor();
    client.connect(&mut other);
    other.settle();
    client.disconnect(&mut other);
    assert_eq!(other.look_up(), 1);
    other.settle();
    assert_eq!((other.shard.metrics().replaying.get(), other.shard.replays.parked), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn with_checkpoints_nothing_is_lost_however_small_the_ring(
        steps in prop::collection::vec(step(), 1..300),
        history_bytes in prop_oneof![Just(0_usize), Just(4_096), Just(1 << 20)],
    ) {
        prop_assert_eq!(run(Node::with_checkpoints(history_bytes, true), &steps), 0);
    }
}
