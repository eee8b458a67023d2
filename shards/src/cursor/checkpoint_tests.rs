use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::difference::VERSION;
use super::policy::{Checkpointing, MAX_PLAIN_CHARS};
use super::*;

/// Topics with these offsets, under numbers that go on from one to the next.
fn positions(topics: &[(&str, u128, &[u64])]) -> Positions {
    let mut positions = Positions::default();
    let mut slot = 0;
    for (source, (name, incarnation, offsets)) in topics.iter().enumerate() {
        positions.name_source(source, name, *incarnation);
        for (partition, offset) in offsets.iter().enumerate() {
            positions.start(slot, source, u32::try_from(partition).unwrap(), *offset);
            slot += 1;
        }
    }
    positions
}

fn checkpoint(offset: u64, positions: &Positions) -> Checkpoint {
    let record = CursorWriter::default().write_bytes(positions.layout(), positions.next()).to_vec();
    Checkpoint::read(offset, &record).unwrap()
}

fn written(positions: &Positions, first: &Checkpoint, second: Option<&Checkpoint>) -> String {
    CursorWriter::default().write_from(positions.layout(), positions.next(), first, second).to_owned()
}

/// What a text means to a node that can find these checkpoints.
fn plain(text: &str, checkpoints: &[&Checkpoint]) -> Option<Cursor> {
    match ResumeFrom::parse(text) {
        ResumeFrom::Cursor(cursor) => Some(cursor),
        ResumeFrom::Checkpointed(cursor) => cursor
            .resolve(|reference| checkpoints.iter().copied().find(|checkpoint| checkpoint.reference() == reference)),
        other => panic!("{other:?}"),
    }
}

fn resolved(text: &str, checkpoints: &[&Checkpoint], on: &Positions) -> Resolved {
    resolve(&plain(text, checkpoints).unwrap(), on.layout(), on.next(), false)
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn spread(partitions: usize, over: u64) -> Vec<u64> {
    let mut dice = Dice(7);
    (0..partitions).map(|_| (dice.below(over) << 20 | dice.below(1 << 20)) % over).collect()
}

#[test]
fn what_has_changed_since_a_checkpoint_is_short_and_url_safe() {
    let mut now = positions(&[("events", 7, &spread(1_000, 1_000_000_000_000))]);
    let known = checkpoint(u64::from(u32::MAX), &now);
    for slot in 0..1_000 {
        now.advance(slot, now.next()[slot as usize] + u64::from(slot % 3));
    }
    let text = written(&now, &known, None);
    assert!(text.len() < 400, "{}", text.len());
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{text}");
    assert_eq!(resolved(&text, &[&known], &now).next, now.next());
}

#[test]
fn another_node_with_other_numbers_and_more_partitions_understands_a_cursor_with_a_checkpoint() {
    let known = checkpoint(3, &positions(&[("a", 1, &[5, 6]), ("b", 2, &[7])]));
    let text = written(&positions(&[("a", 1, &[6, 6, 1]), ("b", 2, &[9]), ("d", 4, &[3])]), &known, None);
    let other = positions(&[("d", 4, &[8]), ("b", 2, &[100]), ("c", 3, &[50]), ("a", 1, &[100, 100, 100, 100])]);
    let resolved = resolved(&text, &[&known], &other);
    assert_eq!(resolved.next, [3, 9, 50, 6, 6, 1, 0]);
    assert!(resolved.losses.is_empty());
}

#[test]
fn a_topic_made_anew_or_left_since_the_checkpoint_is_not_counted_from_it() {
    let known = checkpoint(3, &positions(&[("a", 1, &[5, 6]), ("b", 2, &[7])]));
    let now = positions(&[("a", 9, &[1, 0])]);
    let cursor = plain(&written(&now, &known, None), &[&known]).unwrap();
    assert_eq!(cursor, Cursor::parse(CursorWriter::default().write(now.layout(), now.next())).unwrap());
}

#[test]
fn a_checkpoint_that_is_not_the_one_that_was_meant_is_told_from_it() {
    let (now, other) = (positions(&[("a", 1, &[5])]), positions(&[("a", 1, &[6])]));
    let text = written(&now, &checkpoint(3, &now), None);
    assert_eq!(plain(&text, &[&checkpoint(3, &other), &checkpoint(4, &now)]), None);
}

#[test]
fn a_changed_character_of_a_cursor_with_a_checkpoint_is_noticed() {
    let now = positions(&[("events", 7, &[1, 2, 3])]);
    let text = written(&now, &checkpoint(3, &now), None);
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(CheckpointedCursor::parse(&String::from_utf8(changed).unwrap()).is_err(), "{at}");
        assert!(CheckpointedCursor::parse(&text[..at]).is_err(), "{at}");
    }
}

#[test]
fn a_client_half_of_whose_partitions_have_caught_up_has_a_short_cursor_from_two_checkpoints() {
    let old = spread(1_000, 1_000_000_000_000);
    let mut dice = Dice(3);
    let now: Vec<u64> = old.iter().map(|old| old + dice.below(1_000_000)).collect();
    let (came_with, node) =
        (checkpoint(1, &positions(&[("events", 7, &old)])), checkpoint(2, &positions(&[("events", 7, &now)])));
    for caught_up in (0..=1_000).step_by(100) {
        let own: Vec<u64> = [&now[..caught_up], &old[caught_up..]].concat();
        let own = positions(&[("events", 7, &own)]);
        let text = written(&own, &came_with, Some(&node));
        assert!(text.len() < 512, "{caught_up}: {}", text.len());
        assert_eq!(resolved(&text, &[&came_with, &node], &own).next, own.next());
    }
}

#[test]
fn a_client_that_catches_up_refers_to_what_is_nearest_and_stays_below_a_kibibyte() {
    let mut now = positions(&[("events", 7, &spread(1_000, 1_000_000))]);
    let mut policy = Checkpointing::beyond(MAX_PLAIN_CHARS);
    let came_with = Arc::new(checkpoint(77, &now));
    let came = now.next().to_vec();
    let mut dice = Dice(9);
    for at in 0..40 {
        policy.write(now.layout(), now.next());
        policy.due(now.layout(), now.next(), 0).expect("a cursor was long");
        policy.written(Some(at), 0);
        // The next one would be due soon after the last.
        for _ in 0..if at < 39 { 20_000 } else { 4_000 } {
            let slot = dice.below(1_000) as u32;
            now.advance(slot, now.next()[slot as usize] + 1);
        }
    }
    let mut footing = Footing::default();
    footing.own = Some(came_with);
    let (mut writer, mut own) = (CursorWriter::default(), came);
    for slot in 0..1_000 {
        own[slot] = now.next()[slot];
        let text = writer.write_near(now.layout(), &own, &mut footing, policy.recent());
        assert!(text.len() < 1_024, "{slot}: {}", text.len());
    }
}

/// Drives the policy at 100,000 events a second, 10 ms apart; returns its longest cursor and the records a second.
fn run(offsets: &[u64], acknowledged_after_ms: u64, mut partition: impl FnMut(&mut Dice) -> u32) -> (usize, u64) {
    let mut now = positions(&[("events", 7, offsets)]);
    let mut policy = Checkpointing::beyond(MAX_PLAIN_CHARS);
    let (mut in_flight, mut longest, mut records, mut dice) = (VecDeque::new(), 0, 0, Dice(1));
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for now_ms in (0..2_000).step_by(10) {
        for _ in 0..1_000 {
            let slot = partition(&mut dice);
            now.advance(slot, now.next()[slot as usize] + 1);
        }
        while in_flight.front().is_some_and(|(at_ms, _): &(u64, Arc<[u8]>)| *at_ms <= now_ms) {
            let (_, record) = in_flight.pop_front().unwrap();
            checkpoints.push(Checkpoint::read(records, &record).unwrap());
            policy.written(Some(records), now_ms);
            records += 1;
        }
        let text = policy.write(now.layout(), now.next()).to_owned();
        if !checkpoints.is_empty() {
            longest = longest.max(text.len());
            let newest: Vec<&Checkpoint> = checkpoints.last().into_iter().collect();
            assert_eq!(resolved(&text, &newest, &now).next, now.next());
        }
        if let Some(record) = policy.due(now.layout(), now.next(), now_ms) {
            in_flight.push_back((now_ms + acknowledged_after_ms, record));
        }
    }
    (longest, records / 2)
}

#[test]
fn a_hundred_thousand_events_a_second_over_a_thousand_partitions_keep_cursors_below_a_kibibyte() {
    for over in [1_000_000, 1_000_000_000_000] {
        let offsets = spread(1_000, over);
        for acknowledged_after_ms in [10, 50] {
            let (chars, records) = run(&offsets, acknowledged_after_ms, |dice| dice.below(1_000) as u32);
            assert!(chars < 1_024 && records <= 30, "{chars} characters, {records} records a second");
            // A few partitions get nearly everything.
            let skewed =
                |dice: &mut Dice| (dice.below(1_000) * dice.below(1_000) * dice.below(1_000) / 1_000_000) as u32;
            let (chars, records) = run(&offsets, acknowledged_after_ms, skewed);
            assert!(chars < 1_024 && records <= 30, "{chars} characters, {records} records a second");
        }
    }
}

#[test]
fn without_acknowledgement_cursors_stay_plain_and_one_record_is_in_flight() {
    let now = positions(&[("events", 7, &spread(1_000, 1_000_000))]);
    let mut policy = Checkpointing::beyond(MAX_PLAIN_CHARS);
    assert!(policy.due(now.layout(), now.next(), 0).is_none(), "nobody has seen a long cursor");
    let text = policy.write(now.layout(), now.next()).to_owned();
    assert!(policy.due(now.layout(), now.next(), 0).is_some());
    assert_eq!(policy.write(now.layout(), now.next()), text);
    assert!(policy.due(now.layout(), now.next(), 5).is_none());
    policy.written(None, 10);
    assert_eq!(policy.write(now.layout(), now.next()), text);
    assert!(policy.due(now.layout(), now.next(), 500).is_none(), "not at once after a refusal");
    assert!(policy.due(now.layout(), now.next(), 2_000).is_some());
    policy.written(Some(4), 2_010);
    assert!(policy.write(now.layout(), now.next()).len() < 256);
}

#[test]
fn a_checkpoint_is_replaced_before_its_record_is_deleted_and_otherwise_not_without_need() {
    let now = positions(&[("events", 7, &spread(1_000, 1_000_000))]);
    let mut policy = Checkpointing::beyond(MAX_PLAIN_CHARS);
    policy.write(now.layout(), now.next());
    policy.due(now.layout(), now.next(), 0).unwrap();
    policy.written(Some(0), 1);
    policy.write(now.layout(), now.next());
    assert!(policy.due(now.layout(), now.next(), 60_000).is_none());
    assert!(policy.due(now.layout(), now.next(), 3_600_001).is_some());
}

#[test]
fn a_node_with_few_partitions_writes_no_checkpoint_and_the_plain_cursor() {
    let mut now = positions(&[("events", 7, &spread(50, 1_000_000_000_000))]);
    let mut policy = Checkpointing::beyond(MAX_PLAIN_CHARS);
    for step in 0..1_000 {
        now.advance(step % 50, now.next()[step as usize % 50] + 1);
        let plain = CursorWriter::default().write(now.layout(), now.next()).to_owned();
        assert_eq!(policy.write(now.layout(), now.next()), plain);
        assert!(policy.due(now.layout(), now.next(), u64::from(step) * 1_000_000).is_none());
    }
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..100, 1_000_000_u64..1_001_000, 0..=u64::MAX - 1, Just(0), Just((1 << 63) - 1)]
}

proptest! {
    #[test]
    fn any_offsets_come_back_as_they_were_from_any_checkpoints(
        now in prop::collection::vec(offset(), 0..200),
        first in prop::collection::vec(offset(), 0..200),
        second in prop::option::of(prop::collection::vec(offset(), 0..200)),
        other in prop::collection::vec(offset(), 0..20),
    ) {
        let now = positions(&[("a", 1, &now), ("b", 0, &other)]);
        let first = checkpoint(5, &positions(&[("c", 0, &[1]), ("a", 1, &first)]));
        let second = second.map(|second| checkpoint(u64::MAX, &positions(&[("a", 1, &second)])));
        let text = written(&now, &first, second.as_ref());
        let known: Vec<&Checkpoint> = [&first].into_iter().chain(&second).collect();
        let resolved = resolved(&text, &known, &now);
        prop_assert_eq!(&resolved.next, now.next());
        prop_assert!(resolved.losses.is_empty());
    }

    #[test]
    fn no_bytes_with_a_good_checksum_make_the_reader_of_checkpointed_cursors_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 1..200),
        known in prop::collection::vec(offset(), 0..20),
    ) {
        bytes[0] = VERSION;
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        if let Ok(cursor) = CheckpointedCursor::parse(&URL_SAFE_NO_PAD.encode(&bytes)) {
            let known = checkpoint(0, &positions(&[("a", 1, &known)]));
            let _ = cursor.resolve(|_| Some(&known));
        }
    }
}
