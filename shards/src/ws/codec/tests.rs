use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Ping(payload) => Self::Ping(payload.to_vec()),
            Message::Pong => Self::Pong,
            Message::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// A client's frame: `first` is the first byte (FIN, RSV, opcode).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

fn decode_pieces<'p>(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Owned>, Result<(), ProtocolError>) {
    let mut messages = Vec::new();
    for piece in pieces {
        let result = decoder.feed(&mut piece.to_vec(), &mut |message| messages.push(message.into()));
        if result.is_err() {
            return (messages, result);
        }
    }
    (messages, Ok(()))
}

fn decode(bytes: &[u8]) -> (Vec<Owned>, Result<(), ProtocolError>) {
    decode_pieces(&mut Decoder::new(LIMIT), [bytes])
}

fn close_code_of(bytes: &[u8]) -> u16 {
    decode(bytes).1.unwrap_err().close_code
}

fn conversation() -> (Vec<u8>, Vec<Owned>) {
    let bytes = [
        frame(0x81, "Grüße, 世界".as_bytes()),
        frame(0x01, "frag".as_bytes()),
        frame(0x89, b"ping between"),
        frame(0x00, "mented ".as_bytes()),
        frame(0x8a, b""),
        frame(0x80, "€".as_bytes()),
        frame(0x82, &[0; 300]),
        frame(0x89, b""),
        frame(0x81, b""),
        frame(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let messages = vec![
        Owned::Text("Grüße, 世界".into()),
        Owned::Ping(b"ping between".to_vec()),
        Owned::Pong,
        Owned::Text("fragmented €".into()),
        Owned::Binary(vec![0; 300]),
        Owned::Ping(Vec::new()),
        Owned::Text(String::new()),
        Owned::Close(Some(1000), "bye".into()),
    ];
    (bytes, messages)
}

#[test]
fn an_idle_decoder_is_small_and_holds_no_heap() {
    assert!(size_of::<Decoder>() <= 16);
    let mut decoder = Decoder::new(LIMIT);
    assert_eq!(decoder.buffered_bytes(), 0);
    let bytes = frame(0x81, &[b'x'; 1000]);
    assert_eq!(decode_pieces(&mut decoder, [&bytes[..500]]), (vec![], Ok(())));
    assert!(decoder.buffered_bytes() >= 490);
    assert_eq!(decode_pieces(&mut decoder, [&bytes[500..]]).0.len(), 1);
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn a_conversation_in_one_piece_gives_every_message_in_order() {
    let (bytes, messages) = conversation();
    assert_eq!(decode(&bytes), (messages, Ok(())));
}

#[test]
fn a_conversation_split_at_every_byte_gives_the_same_messages() {
    let (bytes, messages) = conversation();
    for at in 0..=bytes.len() {
        let (before, after) = bytes.split_at(at);
        let result = decode_pieces(&mut Decoder::new(LIMIT), [before, after]);
        assert_eq!(result, (messages.clone(), Ok(())), "split at {at}");
    }
    let single = decode_pieces(&mut Decoder::new(LIMIT), bytes.chunks(1));
    assert_eq!(single, (messages, Ok(())));
}

#[test]
fn a_long_message_uses_the_eight_byte_length() {
    let payload = vec![7; 70_000];
    assert_eq!(decode(&frame(0x82, &payload)), (vec![Owned::Binary(payload)], Ok(())));
}

#[test]
fn an_unmasked_frame_is_a_protocol_error() {
    assert_eq!(close_code_of(&[0x81, 0x02, b'h', b'i']), 1002);
}

#[test]
fn reserved_bits_and_opcodes_are_protocol_errors() {
    for first in [0xc1, 0xa1, 0x91, 0xf1, 0x83, 0x84, 0x87, 0x8b, 0x8f, 0xc9] {
        assert_eq!(close_code_of(&frame(first, b"x")), 1002, "first byte {first:#x}");
    }
}

#[test]
fn a_control_frame_is_whole_and_at_most_125_bytes_long() {
    assert_eq!(close_code_of(&frame(0x09, b"x")), 1002);
    assert_eq!(close_code_of(&frame(0x89, &[0; 126])), 1002);
    assert_eq!(decode(&frame(0x89, &[0; 125])).0, [Owned::Ping(vec![0; 125])]);
}

#[test]
fn a_length_that_is_not_in_its_shortest_form_is_a_protocol_error() {
    assert_eq!(close_code_of(&[0x82, 0xfe, 0, 5, 0, 0, 0, 0]), 1002);
    assert_eq!(close_code_of(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]), 1002);
}

#[test]
fn fragments_out_of_order_are_protocol_errors() {
    assert_eq!(close_code_of(&frame(0x80, b"x")), 1002);
    assert_eq!(close_code_of(&frame(0x00, b"x")), 1002);
    assert_eq!(close_code_of(&[frame(0x01, b"x"), frame(0x81, b"y")].concat()), 1002);
    assert_eq!(close_code_of(&[frame(0x01, b""), frame(0x82, b"y")].concat()), 1002);
    assert_eq!(close_code_of(&[frame(0x81, b"x"), frame(0x80, b"y")].concat()), 1002);
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header_alone() {
    let mut decoder = Decoder::new(10);
    let header = &frame(0x82, &[0; 11])[..6];
    assert_eq!(decode_pieces(&mut decoder, [header]).1, Err(TOO_BIG));
    assert_eq!(decoder.buffered_bytes(), 0);
    let whole = decode_pieces(&mut Decoder::new(10), [&frame(0x82, &[0; 10])[..]]);
    assert_eq!(whole.0, [Owned::Binary(vec![0; 10])]);
}

#[test]
fn the_limit_counts_all_fragments_of_a_message() {
    let bytes = [frame(0x02, &[0; 6]), frame(0x80, &[0; 5])].concat();
    assert_eq!(decode_pieces(&mut Decoder::new(10), [&bytes[..]]).1, Err(TOO_BIG));
}

#[test]
fn the_longest_possible_length_is_refused_without_an_overflow() {
    let bytes = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    assert_eq!(close_code_of(&bytes), 1009);
    let bytes = [frame(0x02, b"x"), vec![0x80, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]].concat();
    assert_eq!(close_code_of(&bytes), 1009);
}

#[test]
fn text_that_is_not_utf8_is_refused_with_1007() {
    for text in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xe2\x82"] {
        assert_eq!(close_code_of(&frame(0x81, text)), 1007, "{text:?}");
    }
}

#[test]
fn a_character_may_be_split_between_fragments() {
    let bytes = [frame(0x01, b"\xf0\x9f"), frame(0x00, b"\x98"), frame(0x80, b"\x80")].concat();
    assert_eq!(decode(&bytes), (vec![Owned::Text("😀".into())], Ok(())));
}

#[test]
fn invalid_text_fails_in_the_fragment_that_makes_it_invalid() {
    let mut decoder = Decoder::new(LIMIT);
    let result = decode_pieces(&mut decoder, [&frame(0x01, b"ok \xce\xba")[..], &frame(0x00, b"\xf4\x90")]);
    assert_eq!(result.1, Err(NOT_UTF8));
}

#[test]
fn invalid_text_fails_before_its_frame_has_arrived_in_full() {
    let bytes = frame(0x81, b"\xf4\x90\x80\x80 and much more that has not arrived");
    assert_eq!(decode_pieces(&mut Decoder::new(LIMIT), [&bytes[..7]]), (vec![], Ok(())));
    assert_eq!(decode_pieces(&mut Decoder::new(LIMIT), [&bytes[..8]]).1, Err(NOT_UTF8));
}

#[test]
fn a_text_that_ends_within_a_character_is_refused() {
    assert_eq!(close_code_of(&[frame(0x01, b"a"), frame(0x80, b"\xe2\x82")].concat()), 1007);
}

#[test]
fn binary_messages_are_not_held_to_utf8() {
    assert_eq!(decode(&frame(0x82, b"\xff\xfe")).0, [Owned::Binary(b"\xff\xfe".to_vec())]);
}

#[test]
fn close_codes_are_held_against_the_registry() {
    let close = |code: u16| decode(&frame(0x88, &code.to_be_bytes()));
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        assert_eq!(close(code), (vec![Owned::Close(Some(code), String::new())], Ok(())), "{code}");
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(close(code).1.unwrap_err().close_code, 1002, "{code}");
    }
}

#[test]
fn a_close_frame_may_be_empty_but_not_hold_half_a_code() {
    assert_eq!(decode(&frame(0x88, b"")).0, [Owned::Close(None, String::new())]);
    assert_eq!(close_code_of(&frame(0x88, b"\x03")), 1002);
}

#[test]
fn a_close_reason_that_is_not_utf8_is_refused_with_1007() {
    assert_eq!(close_code_of(&frame(0x88, b"\x03\xe8\xce\xba\xff")), 1007);
}

#[test]
fn nothing_is_read_after_a_close_frame() {
    let mut decoder = Decoder::new(LIMIT);
    let bytes = [frame(0x88, b""), frame(0x81, b"late"), frame(0xff, b"nonsense")].concat();
    let (messages, result) = decode_pieces(&mut decoder, [&bytes[..], b"\xff\xff"]);
    assert_eq!((messages, result), (vec![Owned::Close(None, String::new())], Ok(())));
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut decoder = Decoder::new(LIMIT);
    assert!(decode_pieces(&mut decoder, [&frame(0x83, b"")[..]]).1.is_err());
    assert_eq!(decode_pieces(&mut decoder, [&frame(0x81, b"late")[..]]), (vec![], Ok(())));
}

#[test]
fn messages_before_an_error_are_handed_out() {
    let (messages, result) = decode(&[frame(0x81, b"first"), frame(0x83, b"")].concat());
    assert_eq!(messages, [Owned::Text("first".into())]);
    assert!(result.is_err());
}

proptest! {
    #[test]
    fn any_split_of_any_bytes_gives_the_same_messages_and_errors(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        cuts in prop::collection::vec(0_usize..2_000, 0..8),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        let whole = decode(&bytes);
        let split = decode_pieces(&mut Decoder::new(LIMIT), pieces);
        prop_assert_eq!(whole.1, split.1);
        prop_assert_eq!(whole.0, split.0);
    }

    #[test]
    fn a_fragmented_text_is_put_together(text in ".{0,200}", cuts in prop::collection::vec(0_usize..800, 0..6)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let last = cuts.len() - 2;
        let bytes: Vec<u8> = cuts
            .windows(2)
            .enumerate()
            .flat_map(|(at, cut)| {
                let first = if at == 0 { 0x01 } else { 0x00 } | if at == last { 0x80 } else { 0x00 };
                frame(first, &text.as_bytes()[cut[0]..cut[1]])
            })
            .collect();
        prop_assert_eq!(decode(&bytes), (vec![Owned::Text(text)], Ok(())));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (messages, _) = decode(&bytes);
        prop_assert!(messages.len() <= bytes.len());
    }
}
