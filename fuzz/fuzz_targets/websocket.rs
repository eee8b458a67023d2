//! Frames from a client, in one piece and in many: both readings must agree.
//!
//! The first byte says how long the pieces are, so that the fuzzer chooses the splits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_shards::ws::codec::{Decoder, Message, ProtocolError};

const MAX_MESSAGE_BYTES: usize = 4_096;

fuzz_target!(|input: &[u8]| {
    let Some((&piece_bytes, bytes)) = input.split_first() else { return };
    let whole = decode(bytes.chunks(bytes.len().max(1)));
    assert_eq!(whole, decode(bytes.chunks(usize::from(piece_bytes % 32) + 1)));
});

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
    let mut messages = Vec::new();
    let mut fed_bytes = 0;
    for piece in pieces {
        fed_bytes += piece.len();
        let result = decoder.feed(&mut piece.to_vec(), &mut |message| {
            match message {
                Message::Text(text) => assert!(text.len() <= MAX_MESSAGE_BYTES),
                Message::Binary(bytes) => assert!(bytes.len() <= MAX_MESSAGE_BYTES),
                Message::Ping(payload) => assert!(payload.len() <= 125),
                Message::Pong | Message::Close { .. } => {}
            }
            messages.push(format!("{message:?}"));
        });
        assert!(decoder.buffered_bytes() <= 2 * fed_bytes + 256, "the decoder buffers more than it was fed");
        if result.is_err() {
            return (messages, result);
        }
    }
    (messages, Ok(()))
}
