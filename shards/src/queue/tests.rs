//! Order and bounds of what waits, held against a model.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::segment::SegmentWriter;

fn owned(text: &'static str) -> Frame {
    Frame::Owned(Bytes::from_static(text.as_bytes()))
}

fn event(key: Option<u64>, bytes: &[u8]) -> (Frame, Content) {
    (Frame::Owned(Bytes::copy_from_slice(bytes)), Content::Event(key))
}

fn drain(queue: &mut Queue, step: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    while !queue.is_empty() {
        let mut out = Vec::new();
        queue.gather(&mut out, 8);
        let sent = step.min(out.len());
        seen.extend_from_slice(&out[..sent]);
        queue.consume(sent);
    }
    assert_eq!(queue.bytes(), 0);
    seen
}

#[test]
fn bytes_leave_in_order_whatever_the_socket_takes_at_a_time() {
    for step in 1..=16 {
        let mut writer = SegmentWriter::new(0, 64);
        let (offset, len) = writer.append(&[b"shared"]).unwrap();
        let mut queue = Queue::default();
        queue.push(owned("first"), 2, Content::Own);
        let shared = Frame::Shared(Rc::new(Arc::clone(writer.segment())), Range { offset, len });
        queue.push(shared, 0, Content::Event(None));
        queue.push(owned("last"), 0, Content::Own);
        assert_eq!(queue.bytes(), 3 + 6 + 4);
        assert_eq!(drain(&mut queue, step), b"rstsharedlast");
    }
}

#[test]
fn a_control_frame_overtakes_data_but_never_splits_a_frame() {
    let mut queue = Queue::default();
    queue.push(owned("abc"), 1, Content::Own);
    queue.push(owned("def"), 0, Content::Own);
    queue.push_control(Bytes::from_static(b"P"));
    assert_eq!(drain(&mut queue, 100), b"bcPdef");
    queue.push(owned("abc"), 0, Content::Own);
    queue.push_control(Bytes::from_static(b"P"));
    assert_eq!(drain(&mut queue, 100), b"Pabc");
}

#[test]
fn evacuated_frames_keep_their_bytes_and_let_the_segment_go() {
    let mut writer = SegmentWriter::new(3, 64);
    let (offset, len) = writer.append(&[b"old"]).unwrap();
    let segment = Arc::clone(writer.segment());
    drop(writer);
    let mut queue = Queue::default();
    queue.push(Frame::Shared(Rc::new(Arc::clone(&segment)), Range { offset, len }), 1, Content::Event(None));
    queue.evacuate(3);
    assert_eq!(Arc::strong_count(&segment), 2);
    queue.evacuate(4);
    assert_eq!(Arc::strong_count(&segment), 1);
    assert_eq!(drain(&mut queue, 100), b"ld");
}

#[test]
fn the_oldest_events_make_room_and_a_frame_half_sent_is_never_among_them() {
    let mut queue = Queue::default();
    queue.push(owned("0123456789"), 4, Content::Event(None));
    queue.push(owned("own"), 0, Content::Own);
    for frame in ["one", "two", "six"] {
        queue.push(owned(frame), 0, Content::Event(None));
    }
    assert_eq!(queue.enforce(SlowClient::Disconnect, 18), Ok(LeftOut::default()), "exactly at the bound");
    assert_eq!(queue.enforce(SlowClient::Disconnect, 17), Err(Overfull));
    let left_out = queue.enforce(SlowClient::Drop, MAX_NOTICE_BYTES + 12);
    assert_eq!(left_out, Ok(LeftOut::default()), "there is room enough");
    let max_bytes = 17;
    assert_eq!(queue.enforce(SlowClient::Drop, max_bytes), Err(Overfull), "not even the notice has room");
}

#[test]
fn a_notice_stands_where_events_were_left_out_and_counts_all_of_them() {
    let max_bytes = MAX_NOTICE_BYTES + 10;
    let mut queue = Queue::default();
    let filler = Bytes::from(vec![b'f'; max_bytes - 4]);
    queue.push(Frame::Owned(Bytes::from_static(b"abc")), 1, Content::Own);
    queue.push(Frame::Owned(filler), 0, Content::Event(None));
    queue.push(owned("one"), 0, Content::Event(None));
    assert_eq!(queue.enforce(SlowClient::Drop, max_bytes), Ok(LeftOut { dropped: 1, conflated: 0 }));
    assert_eq!(queue.unnoticed(), Some(1));
    queue.set_notice(1, Bytes::from_static(b"<1>"));
    assert_eq!((queue.unnoticed(), queue.bytes()), (None, 2 + 3 + 3));
    queue.push(Frame::Owned(vec![b'g'; max_bytes].into()), 0, Content::Event(None));
    assert_eq!(queue.enforce(SlowClient::Drop, max_bytes), Ok(LeftOut { dropped: 2, conflated: 0 }));
    assert_eq!(queue.unnoticed(), Some(3), "the notice that isn't out is made anew");
    queue.set_notice(3, Bytes::from_static(b"<3>"));
    queue.push_control(Bytes::from_static(b"P"));
    queue.push(owned("two"), 0, Content::Event(None));
    assert_eq!(drain(&mut queue, 1), b"bcP<3>two");
}

#[test]
fn of_events_with_one_key_the_newest_waits_in_its_own_place() {
    let mut queue = Queue::default();
    for (key, bytes) in [(Some(1), "a1"), (None, "x1"), (Some(2), "b1"), (Some(1), "a2"), (None, "x2")] {
        queue.push(owned(bytes), 0, Content::Event(key));
    }
    assert_eq!(queue.enforce(SlowClient::Conflate, 9), Ok(LeftOut { dropped: 0, conflated: 1 }));
    assert_eq!(queue.push(owned("b2"), 0, Content::Event(Some(2))), 1, "from now on at once");
    assert_eq!(queue.bytes(), 8);
    assert_eq!(drain(&mut queue, 3), b"x1a2x2b2");
}

#[test]
fn a_key_that_has_been_sent_takes_nothing_away_later() {
    let mut queue = Queue::default();
    queue.push(owned("a1"), 0, Content::Event(Some(1)));
    queue.push(owned("a2"), 0, Content::Event(Some(1)));
    queue.enforce(SlowClient::Conflate, 3).unwrap();
    queue.consume(1);
    assert_eq!(queue.push(owned("a3"), 0, Content::Event(Some(1))), 0, "its older one is partly sent");
    assert_eq!(drain(&mut queue, 1), b"2a3");
}

#[test]
fn a_queue_that_is_conflated_for_long_stays_small() {
    let mut queue = Queue::default();
    queue.push(owned("stays"), 0, Content::Own);
    queue.push(owned("a"), 0, Content::Event(Some(7)));
    queue.push(owned("abc"), 0, Content::Event(Some(7)));
    queue.enforce(SlowClient::Conflate, 8).unwrap();
    for _ in 0..100_000 {
        queue.push(owned("abc"), 0, Content::Event(Some(7)));
        queue.enforce(SlowClient::Conflate, 9 + MAX_NOTICE_BYTES).unwrap();
        queue.push(owned("defg"), 0, Content::Event(Some(8)));
        queue.close_gaps();
    }
    assert!(queue.entries.len() < 4 * MAX_GAPS, "{} entries", queue.entries.len());
    assert!(drain(&mut queue, 100).ends_with(b"staysabcdefg"));
}

/// What is done to a queue.
#[derive(Clone, Debug)]
enum Step {
    Event(Option<u64>, usize),
    Own(usize),
    Control(usize),
    Send(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (proptest::option::of(0..6_u64), 1..60_usize).prop_map(|(key, len)| Step::Event(key, len)),
        1 => (1..20_usize).prop_map(Step::Own),
        1 => (1..4_usize).prop_map(Step::Control),
        2 => (0..400_usize).prop_map(Step::Send),
    ]
}

/// One frame as text: `E`, its number, its key, and padding; frames end with `;`.
fn frame_text(kind: char, number: usize, key: Option<u64>, len: usize) -> String {
    let key = key.map_or_else(|| "-".to_owned(), |key| key.to_string());
    format!("{kind}{number},{key},{};", "x".repeat(len))
}

proptest! {
    #[test]
    fn whatever_happens_the_bound_holds_and_every_event_is_sent_noticed_or_outdated(
        conflate: bool,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let policy = if conflate { SlowClient::Conflate } else { SlowClient::Drop };
        let max_bytes = MAX_NOTICE_BYTES + 300;
        let (mut queue, mut sent) = (Queue::default(), Vec::new());
        let (mut events, mut own, mut totals) = (Vec::new(), 0, LeftOut::default());
        let mut send = |queue: &mut Queue, limit: usize| {
            if let Some(count) = queue.unnoticed() {
                queue.set_notice(count, format!("N{count},-,;").into());
            }
            let mut out = Vec::new();
            queue.gather(&mut out, limit);
            queue.consume(out.len());
            sent.extend_from_slice(&out);
        };
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Event(key, len) => {
                    events.push((number, key));
                    let text = frame_text('E', number, key, len);
                    let (frame, content) = event(key, text.as_bytes());
                    totals.conflated += queue.push(frame, 0, content);
                }
                // Few enough to have room always.
                Step::Own(len) if own < 5 => {
                    own += 1;
                    queue.push(Frame::Owned(frame_text('O', number, None, len).into()), 0, Content::Own);
                }
                Step::Control(len) if own < 5 => {
                    own += 1;
                    queue.push_control(frame_text('C', number, None, len).into());
                }
                Step::Own(_) | Step::Control(_) => {}
                Step::Send(limit) => send(&mut queue, limit),
            }
            let left_out = queue.enforce(policy, max_bytes).expect("own frames leave room");
            totals.dropped += left_out.dropped;
            totals.conflated += left_out.conflated;
            prop_assert!(queue.bytes() <= max_bytes);
            let mut waiting = Vec::new();
            queue.gather(&mut waiting, usize::MAX);
            prop_assert_eq!(waiting.len(), queue.bytes(), "counted to the byte");
        }
        while !queue.is_empty() {
            send(&mut queue, usize::MAX);
        }
        let text = String::from_utf8(sent).unwrap();
        let (mut delivered, mut noticed) = (Vec::new(), 0);
        for frame in text.split_terminator(';') {
            let (head, _) = frame.split_once(',').expect("frames are whole");
            match head.split_at(1) {
                ("E", number) => delivered.push(number.parse::<usize>().unwrap()),
                ("N", count) => noticed += count.parse::<u64>().unwrap(),
                ("O" | "C", _) => own -= 1,
                _ => prop_assert!(false, "no frame: {frame:?}"),
            }
        }
        prop_assert_eq!(own, 0, "own frames and control frames all arrive");
        prop_assert!(delivered.is_sorted(), "in order: {:?}", delivered);
        prop_assert_eq!(noticed, totals.dropped, "every event left out is noticed");
        prop_assert_eq!(delivered.len() as u64 + totals.dropped + totals.conflated, events.len() as u64);
        prop_assert!(conflate || totals.conflated == 0);
        if totals.dropped == 0 {
            for (number, key) in &events {
                let newest = key.is_none() || !events.iter().any(|(later, same)| later > number && same == key);
                prop_assert!(!newest || delivered.contains(number), "the newest of a key arrives: {number}");
            }
        }
    }
}
