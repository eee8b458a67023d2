//! A shard driven by hand: real sockets, no event loop, time passed in.

mod identity;
mod polling;
mod pulled;

use std::borrow::Cow;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use futures_channel::oneshot;

use super::admission::Refused;
use super::connection::{Address, Closing, Output};
use super::session::LongPolling;
use super::{LAST_CHUNK, Shard};
use crate::bell::Bell;
use crate::event::Event;
use crate::limits::LimitSettings;
use crate::limits::places::Places;
use crate::mailbox::{Inbox, PollAnswer, SetOutcome, lanes};
use crate::metrics::ShardMetrics;
use crate::publisher::{InterestLane, Position, Publisher};
use crate::settings::ShardSettings;
use crate::subscription::parse_list;

fn settings() -> ShardSettings {
    ShardSettings { max_connections_per_minute: 1_000, max_queue_bytes: 4 << 20, ..ShardSettings::default() }
}

/// A shard and the ingress that feeds it.
pub(super) struct Rig {
    pub(super) shard: Shard,
    publisher: Publisher,
    inbox: Inbox,
    offset: u64,
    /// The shard's ends of its connections. They stay open as long as it knows their numbers, which another test's socket would get otherwise.
    sockets: Vec<UnixStream>,
}

impl Rig {
    pub(super) fn new(settings: ShardSettings) -> Self {
        let (events, _control, inbox) = lanes(4_096);
        let interest = InterestLane::default();
        let publisher = Publisher::new(vec![events], Arc::clone(&interest), 64 << 10, 1 << 20);
        let metrics = Arc::<ShardMetrics>::default();
        let shard = Shard::new(0, Arc::new(settings), metrics, interest, Bell::new().unwrap(), 0);
        Self { shard, publisher, inbox, offset: 0, sockets: Vec::new() }
    }

    pub(super) fn publish(&mut self, event_type: &str, id: &str, filler: usize) {
        let body = format!(
            r#"{{"specversion":"1.0","type":"{event_type}","id":"{id}","source":"/","data":"{}"}}"#,
            "x".repeat(filler)
        );
        let event = Event {
            event_type: Cow::Borrowed(event_type),
            id: Cow::Borrowed(id),
            subject: None,
            body: Cow::Owned(body.into_bytes()),
            fields: Vec::new(),
        };
        self.publisher.publish(&event, Position { partition: 0, offset: self.offset }, 0).unwrap();
        self.offset += 1;
    }

    /// Lets ingress hear of interest and the shard drain its mailbox once.
    pub(super) fn turn(&mut self) {
        self.publisher.apply_interest();
        while let Ok(mail) = self.inbox.events.pop() {
            self.shard.take_mail(mail);
        }
        self.shard.flush_batch();
    }

    fn stream(&mut self, subscriptions: &str, output: impl FnOnce(i32) -> Output) -> (Address, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let address = self.shard.accepted(u64::MAX - 1, 0);
        self.shard.open(address, output(ours.as_raw_fd()), b"HEAD|".to_vec(), "token", 0);
        self.shard.set_subscriptions(address, &parse_list(subscriptions).unwrap(), None);
        self.shard.opened(address);
        let same = ours.try_clone().unwrap();
        self.sockets.push(ours);
        (address, same, theirs)
    }

    fn event_stream(&mut self, subscriptions: &str) -> (Address, UnixStream, UnixStream) {
        self.stream(subscriptions, |fd| Output::EventStream { fd, chunked: false })
    }

    pub(super) fn closing(&mut self, address: Address) -> Closing {
        self.shard.connections().get(address).unwrap().closing
    }
}

/// Everything that has arrived.
fn received(socket: &mut UnixStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        all.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn subscriptions_of_a_known_type_go_out_with_the_greeting_in_one_send() {
    let mut rig = Rig::new(settings());
    let (_first, _a, mut early) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    assert!(!received(&mut early).contains("rig.subscriptions_set"), "ingress doesn't know the type yet");
    rig.turn();
    assert!(received(&mut early).contains("rig.subscriptions_set"));
    let sends = rig.shard.metrics().sends.get();
    let (_second, _b, mut late) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    let text = received(&mut late);
    assert!(text.starts_with("HEAD|event: rig.connection.create\ndata: {"), "{text}");
    assert!(text.contains("event: rig.subscriptions_set\n"), "{text}");
    assert_eq!(rig.shard.metrics().sends.get(), sends + 1);
}

#[test]
fn a_batch_is_one_send_per_connection_and_keeps_the_order() {
    let mut rig = Rig::new(settings());
    let mut clients: Vec<_> = (0..3).map(|_| rig.event_stream(r#"[{"eventType":"a"},{"eventType":"b"}]"#)).collect();
    rig.turn();
    for (_, _, client) in &mut clients {
        received(client);
    }
    let sends = rig.shard.metrics().sends.get();
    for id in 0..10 {
        rig.publish(if id % 2 == 0 { "a" } else { "b" }, &id.to_string(), 100);
    }
    rig.turn();
    assert_eq!(rig.shard.metrics().sends.get(), sends + 3);
    for (_, _, client) in &mut clients {
        let text = received(client);
        let places: Vec<_> = (0..10).map(|id| text.find(&format!("\"id\":\"{id}\"")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
}

#[test]
fn a_full_socket_gets_the_rest_later_without_a_byte_lost_or_doubled() {
    let mut rig = Rig::new(settings());
    let (address, _ours, mut client) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    rig.turn();
    received(&mut client);
    for id in 0..300 {
        rig.publish("a", &format!("id{id}"), 2_000);
        rig.turn();
    }
    assert!(rig.shard.connections().get(address).unwrap().blocked);
    assert!(rig.shard.metrics().queue_bytes.get() > 0);
    let mut text = String::new();
    while !text.contains("\"id299\"") {
        text.push_str(&received(&mut client));
        rig.shard.flush_queue(address);
    }
    assert_eq!(text.matches("event: a\n").count(), 300);
    let places: Vec<_> = (0..300).map(|id| text.find(&format!("\"id{id}\"")).unwrap()).collect();
    assert!(places.is_sorted());
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
    assert!(!rig.shard.connections().get(address).unwrap().blocked);
}

#[test]
fn a_client_that_never_reads_is_ended_at_its_bound_and_others_are_not_touched() {
    let mut rig = Rig::new(ShardSettings { max_queue_bytes: 10_000, ..settings() });
    let (slow, _a, _unread) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    let (quick, _b, mut reader) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    rig.turn();
    let mut seen = 0;
    for id in 0..500 {
        rig.publish("a", &id.to_string(), 2_000);
        rig.turn();
        seen += received(&mut reader).matches("event: a\n").count();
    }
    assert_eq!(rig.closing(slow), Closing::Now);
    assert_eq!(rig.shard.connections().get(slow).unwrap().queued_bytes(), 0, "what waited goes at once");
    assert_eq!((rig.closing(quick), seen), (Closing::No, 500));
    assert_eq!(rig.shard.metrics().connections_slow.get(), 1);
    rig.shard.remove(slow);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}

#[test]
fn a_shard_with_too_much_waiting_ends_the_slowest_and_frees_their_memory_at_once() {
    let limits = LimitSettings { max_queued_bytes: 100_000, ..LimitSettings::default() };
    let mut rig = Rig::new(ShardSettings { max_queue_bytes: 90_000, limits, ..settings() });
    let clients: Vec<_> = (0..10)
        .map(|number| rig.event_stream(&format!(r#"[{{"eventType":"all"}},{{"eventType":"for{number}"}}]"#)))
        .collect();
    rig.turn();
    // The sockets' own buffers come first.
    while clients.iter().any(|(address, ..)| !rig.shard.connections().get(*address).unwrap().blocked) {
        rig.publish("all", "filler", 1_000);
        rig.turn();
        for (address, ..) in &clients {
            assert_eq!(rig.closing(*address), Closing::No, "nobody is over a bound yet");
        }
    }
    for (number, bytes) in [(3, 60_000), (7, 20_000)] {
        rig.publish(&format!("for{number}"), "large", bytes);
        rig.turn();
    }
    let mut published = 0;
    while rig.shard.metrics().connections_shed.get() == 0 {
        rig.publish("all", "more", 500);
        rig.turn();
        published += 1;
        assert!(published < 1_000 && rig.shard.metrics().queue_bytes.get() <= 100_000);
    }
    let ended: Vec<_> = (0..10).filter(|number| rig.closing(clients[*number].0) == Closing::Now).collect();
    assert_eq!(ended, [3], "the one with most waiting goes, and that is enough");
    assert_eq!(rig.shard.connections().get(clients[3].0).unwrap().queued_bytes(), 0);
    assert_eq!(rig.shard.metrics().connections_slow.get(), 0);
    assert!(rig.shard.metrics().queue_bytes.get() <= 100_000 - 100_000 / 8);
    for (address, ..) in &clients {
        rig.shard.remove(*address);
    }
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}

#[test]
fn sessions_that_keep_too_much_end_those_first_that_were_not_called_for_longest() {
    let limits = LimitSettings { max_queued_bytes: 100_000, ..LimitSettings::default() };
    let mut rig = Rig::new(ShardSettings { limits, ..settings() });
    let sessions: Vec<_> = ["a", "b", "shared", "shared"]
        .iter()
        .zip([30, 10, 20, 40])
        .map(|(event_type, called_ms)| {
            let output = Output::Session(Box::new(LongPolling::new(called_ms)));
            let address = rig.shard.open_detached(output, |_| "token".to_owned(), 0);
            let list = parse_list(&format!(r#"[{{"eventType":"{event_type}"}}]"#)).unwrap();
            rig.shard.set_subscriptions(address, &list, None);
            rig.shard.opened(address);
            address
        })
        .collect();
    rig.turn();
    let own_bytes = rig.shard.metrics().session_bytes.get();
    rig.publish("shared", "1", 20_000);
    rig.turn();
    let shared_bytes = rig.shard.metrics().session_bytes.get() - own_bytes;
    assert!((20_000..20_200).contains(&shared_bytes), "two sessions keep one text: {shared_bytes}");
    rig.publish("a", "2", 20_000);
    rig.publish("b", "3", 40_000);
    rig.turn();
    assert_eq!(rig.shard.connections().len(), 4);
    rig.publish("a", "4", 20_000);
    rig.turn();
    let live: Vec<_> = sessions.iter().map(|address| rig.shard.connections().get(*address).is_some()).collect();
    assert_eq!(live, [true, false, true, true], "the one called at 10 goes, and that is enough");
    assert_eq!(rig.shard.metrics().connections_shed.get(), 1);
    for address in sessions {
        rig.shard.remove(address);
    }
    assert_eq!(rig.shard.metrics().session_bytes.get(), 0);
}

#[test]
fn every_connection_takes_a_place_of_the_node_until_it_goes() {
    let limits = LimitSettings { places: Arc::new(Places::new(2, 1)), ..LimitSettings::default() };
    let places = Arc::clone(&limits.places);
    let mut rig = Rig::new(ShardSettings { limits, ..settings() });
    let client = Some([192, 0, 2, 1].into());
    let (first, ..) = rig.event_stream("[]");
    assert_eq!(rig.shard.admit_detached(0, client), Ok(()));
    let session = rig.shard.open_detached(Output::Session(Box::new(LongPolling::new(0))), |_| String::new(), 0);
    rig.shard.hold(session, [192, 0, 2, 1].into());
    assert_eq!((places.taken(), rig.shard.is_held(session)), (2, true));
    assert_eq!(rig.shard.admit_detached(0, None), Err(Refused::Full));
    rig.shard.remove(first);
    assert_eq!(rig.shard.admit_detached(0, client), Err(Refused::Address));
    rig.shard.remove(session);
    assert_eq!(rig.shard.admit_detached(0, client), Ok(()));
    assert_eq!((places.taken(), rig.shard.is_held(session)), (0, false));
    let refused = [&rig.shard.metrics().connections_refused_full, &rig.shard.metrics().connections_refused_address];
    assert_eq!(refused.map(|cell| cell.get()), [1, 1]);
}

#[test]
fn heartbeats_come_every_period_and_overtake_waiting_data() {
    let mut rig = Rig::new(settings());
    let (_address, _ours, mut client) = rig.stream("[]", Output::WebSocket);
    received(&mut client);
    for now_ms in (0..45_100).step_by(50) {
        rig.shard.tick(now_ms);
    }
    assert_eq!(received(&mut client).into_bytes().iter().filter(|byte| **byte == 0).count(), 3, "three empty pings");
}

#[test]
fn a_type_is_given_up_when_its_last_subscriber_goes() {
    let mut rig = Rig::new(settings());
    let (first, ..) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    let (second, ..) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    rig.turn();
    rig.shard.remove(first);
    rig.turn();
    assert!(rig.publisher.has_subscribers("a"));
    rig.shard.remove(second);
    rig.turn();
    assert!(!rig.publisher.has_subscribers("a"));
    assert_eq!(rig.shard.metrics().subscriptions.get(), 0);
}

#[test]
fn a_connection_that_goes_before_its_subscriptions_are_in_force_leaves_no_interest() {
    let mut rig = Rig::new(settings());
    let (address, ..) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    rig.shard.remove(address);
    rig.turn();
    rig.turn();
    assert!(!rig.publisher.has_subscribers("a"));
}

#[test]
fn the_later_of_two_requests_for_subscriptions_counts() {
    let mut rig = Rig::new(settings());
    let (address, _ours, mut client) = rig.event_stream(r#"[{"eventType":"known"}]"#);
    rig.turn();
    received(&mut client);
    let (reply, mut outcome) = oneshot::channel();
    rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"unknown"}]"#).unwrap(), Some(reply));
    rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"known"}]"#).unwrap(), None);
    rig.turn();
    rig.turn();
    assert_eq!(outcome.try_recv(), Ok(Some(SetOutcome::InForce)));
    assert_eq!(received(&mut client).matches("subscriptions_set").count(), 2, "one event: its type in line and data");
    assert!(rig.publisher.has_subscribers("known") && !rig.publisher.has_subscribers("unknown"));
}

#[test]
fn a_long_polling_call_waits_for_the_next_event_and_repeats_for_an_old_id() {
    let mut rig = Rig::new(settings());
    let output = Output::Session(Box::new(LongPolling::new(0)));
    let address = rig.shard.open_detached(output, |_| "token".to_owned(), 0);
    rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"a"}]"#).unwrap(), None);
    rig.shard.opened(address);
    rig.turn();
    let poll = |rig: &mut Rig, id: &str, now_ms| {
        let (reply, answer) = oneshot::channel();
        rig.shard.poll(address, id.to_owned(), reply, now_ms);
        answer
    };
    let first: PollAnswer = poll(&mut rig, "first_event", 0).try_recv().unwrap().unwrap();
    assert!(std::str::from_utf8(&first.body).unwrap().contains("rig.subscriptions_set"));
    let mut waiting = poll(&mut rig, &first.last_event_id, 0);
    assert_eq!(waiting.try_recv(), Ok(None));
    rig.publish("a", "e1", 10);
    rig.turn();
    let second = waiting.try_recv().unwrap().unwrap();
    assert_eq!(second.last_event_id, "e1");
    let again = poll(&mut rig, &first.last_event_id, 0).try_recv().unwrap().unwrap();
    assert_eq!(again, second);
    let mut empty = poll(&mut rig, "e1", 10_000);
    rig.shard.tick(14_900);
    assert_eq!(empty.try_recv(), Ok(None));
    rig.shard.tick(15_200);
    assert_eq!(&empty.try_recv().unwrap().unwrap().body[..], br#"{"last_event_id":"e1","events":[]}"#);
    rig.shard.tick(10_000 + 3_600_000 - 100);
    assert_eq!(rig.shard.connections().len(), 1);
    rig.shard.tick(10_000 + 3_600_000 + 100);
    assert_eq!(rig.shard.connections().len(), 0, "nobody called for an hour");
}

#[test]
fn a_finished_chunked_stream_ends_with_the_last_chunk() {
    let mut rig = Rig::new(settings());
    let (address, _ours, mut client) = rig.stream("[]", |fd| Output::EventStream { fd, chunked: true });
    rig.shard.finish(address, None, "");
    assert_eq!(rig.closing(address), Closing::AfterFlush);
    assert!(received(&mut client).into_bytes().ends_with(LAST_CHUNK));
}

#[test]
fn frames_that_wait_for_a_slow_client_do_not_keep_old_segments_alive() {
    let mut rig = Rig::new(settings());
    let (address, _ours, _client) = rig.event_stream(r#"[{"eventType":"slow"}]"#);
    let (_quick, _b, mut reader) = rig.event_stream(r#"[{"eventType":"busy"}]"#);
    rig.turn();
    for id in 0..2_000 {
        rig.publish("slow", &id.to_string(), 500);
        rig.publish("busy", &id.to_string(), 500);
        rig.turn();
        received(&mut reader);
    }
    assert!(rig.shard.connections().get(address).unwrap().queued_bytes() > 500_000);
    assert!(rig.shard.older_segments.len() <= super::delivery::OLDER_SEGMENTS + 1);
}

#[test]
fn a_connection_at_its_bound_takes_no_more_of_the_batch() {
    let mut rig = Rig::new(ShardSettings { max_queue_bytes: 2_000, ..settings() });
    let address = rig.shard.open_detached(Output::Pulled, |_| "token".to_owned(), 0);
    rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"a"}]"#).unwrap(), None);
    rig.shard.opened(address);
    rig.turn();
    for id in 0..20 {
        rig.publish("a", &id.to_string(), 500);
    }
    rig.turn();
    assert_eq!(rig.closing(address), Closing::Now);
    assert_eq!(
        rig.shard.connections().get(address).unwrap().queued_bytes(),
        0,
        "what waited goes, and nothing follows"
    );
    assert_eq!((rig.shard.metrics().queue_bytes.get(), rig.shard.pull(address)), (0, None));
}

#[test]
fn a_stopping_shard_says_goodbye_on_every_stream() {
    let mut rig = Rig::new(settings());
    let (events, _a, mut event_client) = rig.stream("[]", |fd| Output::EventStream { fd, chunked: true });
    let (socket, _b, mut socket_client) = rig.stream("[]", Output::WebSocket);
    received(&mut socket_client);
    rig.shard.finish_all(0);
    assert!(received(&mut event_client).into_bytes().ends_with(LAST_CHUNK));
    assert!(received(&mut socket_client).contains("restarted"));
    assert_eq!((rig.closing(events), rig.closing(socket)), (Closing::AfterFlush, Closing::AfterFlush));
}

#[test]
fn a_draining_shard_moves_its_connections_one_after_the_other() {
    let mut rig = Rig::new(settings());
    let streams: Vec<_> = (0..4).map(|_| rig.event_stream("[]")).collect();
    let moved = |rig: &mut Rig| streams.iter().filter(|(at, ..)| rig.closing(*at) == Closing::AfterFlush).count();
    rig.shard.start_drain(30_000, 1_000);
    assert_eq!(moved(&mut rig), 1);
    for (now_ms, expected) in [(1_049, 1), (1_050, 2), (1_100, 3), (1_150, 4)] {
        rig.shard.tick(now_ms);
        assert_eq!(moved(&mut rig), expected, "at {now_ms} ms");
    }
    for (_, _, mut client) in streams {
        let text = received(&mut client);
        let (_, retry) = text.rsplit_once("\n\nretry: ").expect("a time to come back");
        assert!(retry.trim_end().parse::<u64>().is_ok() && retry.ends_with("\n\n"), "{retry:?}");
    }
    let (late, _ours, _client) = rig.event_stream("[]");
    rig.shard.tick(1_200);
    assert_eq!(rig.closing(late), Closing::AfterFlush, "what begins during the drain is moved too");
}

#[test]
fn a_draining_shard_answers_the_calls_that_wait_and_keeps_what_was_not_fetched() {
    let mut rig = Rig::new(settings());
    let open = |rig: &mut Rig| {
        let output = Output::Session(Box::new(LongPolling::new(0)));
        let address = rig.shard.open_detached(output, |_| "token".to_owned(), 0);
        rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"greeting"}]"#).unwrap(), None);
        rig.shard.opened(address);
        rig.turn();
        rig.turn();
        address
    };
    let poll = |rig: &mut Rig, address, last: &str, now_ms| -> Option<PollAnswer> {
        let (reply, mut answer) = oneshot::channel();
        rig.shard.poll(address, last.to_owned(), reply, now_ms);
        answer.try_recv().ok().flatten()
    };
    let (waits, away) = (open(&mut rig), open(&mut rig));
    let last = poll(&mut rig, waits, "first_event", 10).expect("its own events").last_event_id;
    let (reply, mut waiting) = oneshot::channel();
    rig.shard.poll(waits, last.clone(), reply, 20);
    rig.shard.start_drain(0, 30);
    let answer = waiting.try_recv().unwrap().expect("answered at once");
    assert_eq!(answer.last_event_id, last);
    assert!(rig.shard.connections().get(waits).is_none(), "its client has everything");
    rig.publish("greeting", "7", 0);
    rig.turn();
    let answer = poll(&mut rig, away, "first_event", 40).expect("the last call is answered at once");
    assert_eq!(answer.last_event_id, "7");
    assert!(rig.shard.connections().get(away).is_none(), "its client goes elsewhere");
}

#[test]
fn a_session_whose_client_does_not_come_back_does_not_hold_up_the_drain() {
    let mut rig = Rig::new(settings());
    let output = Output::Session(Box::new(LongPolling::new(0)));
    let address = rig.shard.open_detached(output, |_| "token".to_owned(), 0);
    rig.shard.opened(address);
    rig.shard.start_drain(0, 100);
    rig.shard.tick(10_000);
    assert!(rig.shard.connections().get(address).is_some());
    rig.shard.tick(10_200);
    assert!(rig.shard.connections().get(address).is_none());
}
