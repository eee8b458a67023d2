use proptest::prelude::*;

use super::*;

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

fn text(positions: &Positions) -> String {
    CursorWriter::default().write(positions.layout(), positions.next()).to_owned()
}

#[test]
fn a_cursor_of_one_partition_is_short_and_url_safe() {
    let text = text(&positions(&[("events", 7, &[123_456_789])]));
    assert!(text.len() <= 32, "{} {text}", text.len());
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{text}");
}

#[test]
fn a_thousand_partitions_with_offsets_close_to_each_other_stay_under_a_kibibyte() {
    let offsets: Vec<u64> = (0..1_000).map(|at| 5_000_000_000 + (at * 7_919) % 32).collect();
    let text = text(&positions(&[("events", 7, &offsets)]));
    assert!(text.len() < 1_024, "{}", text.len());
}

#[test]
fn a_thousand_partitions_that_differ_by_a_million_take_what_their_bits_need() {
    let offsets: Vec<u64> = (0..1_000_u64).map(|at| 5_000_000_000 + at.wrapping_mul(0x9e37_79b9) % 1_000_000).collect();
    let text = text(&positions(&[("events", 7, &offsets)]));
    assert!(text.len() < 3_584, "{}", text.len());
}

#[test]
fn another_node_with_other_numbers_and_more_partitions_understands_a_cursor() {
    let cursor = Cursor::parse(&text(&positions(&[("a", 1, &[5, 6]), ("b", 2, &[7])]))).unwrap();
    let other = positions(&[("b", 2, &[100]), ("c", 3, &[50]), ("a", 1, &[100, 100, 100])]);
    let resolved = resolve(&cursor, other.layout(), other.next(), false);
    assert_eq!(resolved.next, [7, 50, 5, 6, 0]);
    assert!(resolved.losses.is_empty());
}

#[test]
fn a_topic_made_anew_and_a_topic_that_is_not_read_are_losses() {
    let cursor = Cursor::parse(&text(&positions(&[("a", 1, &[5]), ("b", 2, &[7])]))).unwrap();
    let other = positions(&[("a", 9, &[3])]);
    let resolved = resolve(&cursor, other.layout(), other.next(), false);
    assert_eq!(resolved.next, [0]);
    let reasons: Vec<_> = resolved.losses.iter().map(|loss| (loss.reason, loss.from)).collect();
    assert_eq!(reasons, [(Reason::TopicRecreated, 5), (Reason::TopicNotRead, 0)]);
}

#[test]
fn a_cursor_that_knows_more_than_the_node_is_told_apart_from_one_that_does_not() {
    let beyond =
        |cursor: &Positions, node: &Positions| is_beyond(&Cursor::parse(&text(cursor)).unwrap(), node.layout());
    let node = positions(&[("a", 1, &[5, 6])]);
    assert!(!beyond(&positions(&[("a", 1, &[5, 6])]), &node));
    assert!(!beyond(&positions(&[("a", 1, &[5])]), &node), "the node reads more");
    assert!(beyond(&positions(&[("a", 1, &[5, 6, 1])]), &node), "a partition that the node has not found");
    assert!(!beyond(&positions(&[("a", 1, &[5, 6, 0])]), &node), "nothing was seen of it");
    assert!(beyond(&positions(&[("a", 2, &[5])]), &node), "another incarnation");
    assert!(!beyond(&positions(&[("b", 2, &[5])]), &node), "a topic that the node does not read at all");
}

#[test]
fn a_partition_that_the_node_does_not_read_is_a_loss_in_the_end() {
    let cursor = Cursor::parse(&text(&positions(&[("a", 1, &[5, 7])]))).unwrap();
    let node = positions(&[("a", 1, &[9])]);
    let resolved = resolve(&cursor, node.layout(), node.next(), false);
    assert_eq!(resolved.next, [5]);
    assert_eq!(resolved.losses, [Loss { reason: Reason::PartitionNotRead, slot: None, from: 7, to: 7 }]);
}

#[test]
fn what_is_presented_is_a_cursor_a_time_the_beginning_or_unknown() {
    assert_eq!(ResumeFrom::parse("earliest"), ResumeFrom::Earliest);
    assert_eq!(ResumeFrom::parse("1970-01-01T00:00:01Z"), ResumeFrom::Time(1_000));
    assert_eq!(ResumeFrom::parse("0"), ResumeFrom::Unknown);
    assert!(matches!(ResumeFrom::parse(&text(&positions(&[("a", 1, &[5])]))), ResumeFrom::Cursor(_)));
}

#[test]
fn a_changed_character_is_noticed() {
    let text = text(&positions(&[("events", 7, &[1, 2, 3])]));
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(Cursor::parse(&changed).is_err(), "{at}");
        assert!(Cursor::parse(&text[..at]).is_err(), "{at}");
    }
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..100, 1_000_000_u64..1_001_000, 0..=u64::MAX - 1, Just(0), Just((1 << 63) - 1)]
}

proptest! {
    #[test]
    fn any_offsets_come_back_as_they_were(
        first in prop::collection::vec(offset(), 0..200),
        second in prop::collection::vec(offset(), 0..200),
    ) {
        let positions = positions(&[("a", 1, &first), ("b", 0, &second)]);
        let cursor = Cursor::parse(&text(&positions)).unwrap();
        let resolved = resolve(&cursor, positions.layout(), positions.next(), false);
        prop_assert_eq!(resolved.next, [first, second].concat());
        prop_assert!(resolved.losses.is_empty());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[A-Za-z0-9_-]{0,300}") {
        let _ = Cursor::parse(&text);
        let _ = ResumeFrom::parse(&text);
    }

    #[test]
    fn no_bytes_with_a_good_checksum_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        bytes[0] = VERSION;
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let _ = Cursor::parse(&URL_SAFE_NO_PAD.encode(&bytes));
    }
}
