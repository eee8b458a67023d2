//! Clients that catch up beside others that read slowly or not at all; and the cursors that clients are told beside
//! their events.

use std::cell::Cell;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use futures_channel::oneshot;

use super::checkpoint_tests::plain_cursor;
use super::connection::{Address, Closing, Output};
use super::own_events;
use super::replay_output::{MAX_GATHERED_BYTES, MAX_WAITING_BYTES};
use super::replay_tests::{Client, Node, away};
use super::session::LongPolling;
use crate::clock;
use crate::cursor::ResumeFrom;
use crate::longpoll::MAX_BUFFERED_EVENTS;
use crate::mailbox::PollAnswer;
use crate::subscription::parse_list;

const SUBSCRIPTIONS: &str = r#"[{"eventType":"a"}]"#;

/// A clock by which a turn is over after one look at it.
fn hurried() -> impl Fn() -> u64 {
    let now_us = Cell::new(0);
    move || {
        now_us.set(now_us.get() + 600);
        now_us.get()
    }
}

/// An event stream whose frames are pulled; it comes back where there is a cursor.
fn open(node: &mut Node, cursor: Option<&str>) -> Address {
    let address = node.shard.open_detached(Output::Pulled, |_| "token".to_owned(), 0);
    let list = parse_list(SUBSCRIPTIONS).unwrap();
    match cursor {
        Some(cursor) => node.shard.resume(address, &list, ResumeFrom::parse(cursor), None),
        None => node.shard.set_subscriptions(address, &list, None),
    }
    node.shard.opened(address);
    node.turn(10_000);
    address
}

fn closing(node: &mut Node, address: Address) -> Closing {
    node.shard.connections().get(address).unwrap().closing
}

#[test]
fn a_client_that_takes_what_it_gets_catches_up_without_a_pause_however_much_waits_for_others() {
    let (mut node, mut client) = away(1_000);
    node.shard.metrics().queue_bytes.add(MAX_WAITING_BYTES + 1);
    client.connect(&mut node);
    node.turn(10_000);
    while node.shard.has_replay_work() {
        node.shard.walk_on(hurried());
        client.read(&node.log);
    }
    assert_eq!((client.seen, client.losses), (1_000, 0));
    assert_eq!((node.shard.replays.parked, node.shard.metrics().replaying.get()), (0, 0));
}

#[test]
fn where_much_waits_for_others_a_client_goes_on_once_it_has_taken_all_that_it_got() {
    let (mut node, client) = away(1_000);
    node.shard.metrics().queue_bytes.add(MAX_WAITING_BYTES + 1);
    let address = open(&mut node, client.last_id.as_deref());
    while node.shard.has_replay_work() {
        node.shard.walk_on(hurried());
    }
    assert_eq!(node.shard.replays.parked, 1);
    while node.shard.pull(address).is_some() {
        assert_eq!(node.shard.replays.parked, 1);
        let queued = node.shard.connections().get(address).unwrap().queued_bytes();
        node.shard.resume_parked(u64::MAX);
        assert_eq!(node.shard.replays.parked, usize::from(queued > 0));
    }
}

#[test]
fn what_is_gathered_for_a_client_is_sent_in_pieces_within_a_turn() {
    let (mut node, client) = away(10_000);
    let address = open(&mut node, client.last_id.as_deref());
    node.shard.walk_on(|| 0);
    let pieces: Vec<_> = std::iter::from_fn(|| node.shard.pull(address)).map(|piece| piece.len()).collect();
    assert!(pieces.iter().sum::<usize>() > 3 * MAX_GATHERED_BYTES, "{pieces:?}");
    assert!(pieces.iter().all(|piece| *piece < MAX_GATHERED_BYTES + 1_024), "{pieces:?}");
}

#[test]
fn a_client_that_catches_up_and_takes_nothing_is_disconnected_after_four_heartbeats() {
    let (mut node, client) = away(10_000);
    let [idle, slow] = [(); 2].map(|()| open(&mut node, client.last_id.as_deref()));
    let live = open(&mut node, None);
    node.shard.walk_on(|| 0);
    let mut ended_s = None;
    for now_s in 0_u64..120 {
        node.shard.tick(now_s * 1_000);
        if now_s % 30 == 20 {
            node.shard.pull(slow);
        }
        if ended_s.is_none() && closing(&mut node, idle) == Closing::Now {
            ended_s = Some(now_s);
            node.shard.remove(idle);
        }
    }
    assert!(ended_s.is_some_and(|ended_s| (60..70).contains(&ended_s)), "{ended_s:?}");
    for (address, why) in [(slow, "it takes something at times"), (live, "the bound ends a live client")] {
        assert!(node.shard.connections().get(address).unwrap().queued_bytes() > 0);
        assert_eq!(closing(&mut node, address), Closing::No, "{why}");
    }
    assert_eq!(node.shard.metrics().connections_slow.get(), 1);
}

#[test]
fn events_of_a_partition_that_appears_while_a_client_waits_for_its_walk_reach_it() {
    let mut node = Node::without_partitions(1 << 20, true);
    node.publisher.positions().start(0, 0, 0, 0);
    let mut live = Client::new();
    live.connect(&mut node);
    node.settle();
    live.read(&node.log);
    let before = live.last_id.clone();
    for _ in 0..100 {
        node.publish(0, "a");
    }
    node.turn(10_000);
    live.read(&node.log);
    let _walks = open(&mut node, before.as_deref());
    node.shard.walk_on(hurried());
    assert!(node.shard.has_replay_work(), "a walk is under way");
    let waits = open(&mut node, live.last_id.as_deref());
    node.publisher.positions().start(1, 0, 1, 0);
    for _ in 0..20 {
        node.publish(1, "a");
    }
    node.turn(10_000);
    while node.shard.has_replay_work() {
        node.shard.walk_on(clock::now_us);
    }
    assert_eq!(node.shard.metrics().replaying.get(), 0);
    let frames = std::iter::from_fn(|| node.shard.pull(waits));
    let text: String = frames.map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect();
    let ids: Vec<_> = (0..20).filter(|id| text.matches(&format!("\"id\":\"{id}\"")).count() == 1).collect();
    assert_eq!(ids, (0..20).collect::<Vec<_>>(), "each once");
}

#[test]
fn a_websocket_that_changes_its_subscriptions_is_told_a_cursor_after_all_that_it_has() {
    let mut node = Node::new(1 << 20, true);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let address = node.shard.accepted(u64::MAX - 1, 0);
    node.shard.connections().get_mut(address).unwrap().cursor = true;
    node.shard.open(address, Output::WebSocket(ours.as_raw_fd()), Vec::new(), "token", 0);
    let list = parse_list(SUBSCRIPTIONS).unwrap();
    node.shard.set_subscriptions(address, &list, None);
    node.shard.opened(address);
    node.settle();
    for _ in 0..5 {
        node.publish(0, "a");
    }
    node.turn(10_000);
    node.shard.set_subscriptions(address, &list, None);
    let mut bytes = [0; 16_384];
    let len = theirs.read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..len]);
    let cursors = text.split("\"tidegatecursor\":\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let next: Vec<_> = cursors.map(|text| plain_cursor(text).unwrap().topics[0].next[0].unwrap()).collect();
    assert_eq!(next, [0, 1, 2, 3, 4, 5, 5], "of the notice, of each event, of the notice");
}

/// A session whose client wants cursors.
fn open_session(node: &mut Node) -> Address {
    let address = node.shard.open_detached(Output::Session(Box::new(LongPolling::new(0))), |_| "token".to_owned(), 0);
    node.shard.connections().get_mut(address).unwrap().cursor = true;
    address
}

fn poll(node: &mut Node, address: Address, last_event_id: &str) -> Option<PollAnswer> {
    let (reply, mut answer) = oneshot::channel();
    node.shard.poll(address, last_event_id.to_owned(), reply, 0);
    answer.try_recv().ok().flatten()
}

#[test]
fn the_first_answer_of_a_session_has_its_first_cursor_whatever_has_come_since_and_before() {
    let mut node = Node::new(1 << 20, true);
    let address = open_session(&mut node);
    node.shard.send_own_event(address, own_events::TOKEN_EXPIRING, "{}");
    node.shard.set_subscriptions(address, &parse_list(SUBSCRIPTIONS).unwrap(), None);
    node.shard.opened(address);
    node.settle();
    for _ in 0..=MAX_BUFFERED_EVENTS {
        node.publish(0, "a");
    }
    node.turn(10_000);
    let cursor = node.shard.session_cursor(address).expect("it began somewhere");
    assert_eq!(plain_cursor(&cursor).unwrap().topics[0].next, [Some(0), Some(0)]);
    assert_eq!(poll(&mut node, address, "first_event"), None);
    assert!(node.shard.connections().get(address).is_none(), "the cursor leads to what it has forgotten");
}

#[test]
fn a_session_sees_a_gap_also_where_another_event_has_the_id_of_the_last_answer() {
    let mut node = Node::new(1 << 20, true);
    let address = open_session(&mut node);
    node.shard.set_subscriptions(address, &parse_list(SUBSCRIPTIONS).unwrap(), None);
    node.shard.opened(address);
    node.settle();
    node.publish(0, "a");
    node.turn(10_000);
    let answer = poll(&mut node, address, "first_event").unwrap();
    assert_eq!(answer.last_event_id, "0");
    for _ in 0..MAX_BUFFERED_EVENTS {
        node.publish(0, "a");
    }
    node.publish(1, "a");
    node.publish(1, "a");
    node.turn(10_000);
    assert_eq!(poll(&mut node, address, "0"), None);
    assert!(node.shard.connections().get(address).is_none(), "its client goes on in another one from its cursor");
}
