//! WebSocket frames from a server (RFC 6455 section 5), and the masked ones a client sends.

use super::{MAX_MESSAGE_BYTES, WireError};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a server's frames say.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Incoming<'a> {
    /// A whole message, text or binary.
    Message(&'a [u8]),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// A close frame: the code (1005 where there is none) and the reason.
    Close(u16, &'a [u8]),
}

/// The frame decoder of one connection; holds bytes only in the middle of a fragmented message.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    fragments: Option<Vec<u8>>,
}

impl Decoder {
    /// Reads every whole frame in `bytes` and returns how many bytes those were; the rest must come again with more
    /// behind it.
    #[inline]
    pub(crate) fn feed(&mut self, bytes: &[u8], mut incoming: impl FnMut(Incoming<'_>)) -> Result<usize, WireError> {
        let mut at = 0;
        while let Some((first, length, header)) = frame_header(&bytes[at..])? {
            let payload_at = at + header;
            let Some(payload) = bytes.get(payload_at..payload_at + length) else { break };
            let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
            match opcode {
                TEXT | BINARY if fin && self.fragments.is_none() => incoming(Incoming::Message(payload)),
                CONTINUATION | TEXT | BINARY => self.fragment(fin, opcode, payload, &mut incoming)?,
                PING => incoming(Incoming::Ping(payload)),
                CLOSE => match payload {
                    [high, low, reason @ ..] => {
                        incoming(Incoming::Close(u16::from_be_bytes([*high, *low]), reason));
                    }
                    _ => incoming(Incoming::Close(1005, b"")),
                },
                _ => {}
            }
            at = payload_at + length;
        }
        Ok(at)
    }

    #[cold]
    fn fragment(
        &mut self,
        fin: bool,
        opcode: u8,
        payload: &[u8],
        incoming: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), WireError> {
        if (opcode == CONTINUATION) != self.fragments.is_some() {
            return Err(WireError::Fragment);
        }
        let fragments = self.fragments.get_or_insert_default();
        if fragments.len() + payload.len() > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLarge);
        }
        fragments.extend_from_slice(payload);
        if fin && let Some(message) = self.fragments.take() {
            incoming(Incoming::Message(&message));
        }
        Ok(())
    }
}

/// First byte, payload length and header length, or `None` while the header is not whole.
#[inline]
fn frame_header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, WireError> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err(WireError::Masked);
    }
    if first & 0x70 != 0 || !matches!(first & 0x0f, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(WireError::Reserved);
    }
    if first & 0x08 != 0 && (first & 0x80 == 0 || second > 125) {
        return Err(WireError::Control);
    }
    let (length, header) = match second {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|eight| <[u8; 8]>::try_from(eight).ok()) {
            Some(eight) => (u64::from_be_bytes(eight), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if length > MAX_MESSAGE_BYTES as u64 {
        return Err(WireError::TooLarge);
    }
    Ok(Some((first, length as usize, header)))
}

/// Appends a client's text frame.
pub(crate) fn append_text(payload: &[u8], out: &mut Vec<u8>) {
    append_masked(TEXT, payload, out);
}

/// Appends the pong that answers a ping.
pub(crate) fn append_pong(payload: &[u8], out: &mut Vec<u8>) {
    append_masked(PONG, payload, out);
}

/// The mask is zero: it is there for proxies between browsers and servers (RFC 6455 section 10.3), not for a load
/// generator beside its server, and leaves the payload as it is.
fn append_masked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(length as u8),
            length @ 126..=0xffff => {
                bytes.push(126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn read(parts: &[&[u8]]) -> Result<Vec<String>, WireError> {
        let (mut decoder, mut rest, mut seen) = (Decoder::default(), Vec::new(), Vec::new());
        for part in parts {
            rest.extend_from_slice(part);
            let consumed = decoder.feed(&rest, |incoming| {
                seen.push(match incoming {
                    Incoming::Message(payload) => format!("message {}", String::from_utf8_lossy(payload)),
                    Incoming::Ping(payload) => format!("ping {}", String::from_utf8_lossy(payload)),
                    Incoming::Close(code, reason) => format!("close {code} {}", String::from_utf8_lossy(reason)),
                });
            })?;
            rest.drain(..consumed);
        }
        Ok(seen)
    }

    fn conversation() -> Vec<u8> {
        let mut bytes = frame(0x81, b"first");
        bytes.extend(frame(0x01, b"in "));
        bytes.extend(frame(0x89, b"beat"));
        bytes.extend(frame(0x00, b"three "));
        bytes.extend(frame(0x80, b"parts"));
        bytes.extend(frame(0x82, &[b'x'; 300]));
        bytes.extend(frame(0x8a, b""));
        bytes.extend(frame(0x88, b"\x03\xe8bye"));
        bytes
    }

    #[test]
    fn frames_split_at_every_byte_give_the_same_messages() {
        let bytes = conversation();
        let whole = read(&[&bytes]).unwrap();
        let long = format!("message {}", "x".repeat(300));
        assert_eq!(whole, ["message first", "ping beat", "message in three parts", &long, "close 1000 bye"]);
        for at in 0..=bytes.len() {
            assert_eq!(read(&[&bytes[..at], &bytes[at..]]).unwrap(), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single).unwrap(), whole);
    }

    #[test]
    fn a_message_with_a_64_bit_length_arrives_whole() {
        let payload = vec![b'y'; 70_000];
        assert_eq!(read(&[&frame(0x81, &payload)]).unwrap()[0].len(), 70_008);
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error_that_names_it() {
        assert_eq!(read(&[&[0x81, 0x80]]), Err(WireError::Masked));
        assert_eq!(read(&[&[0xc1, 0]]), Err(WireError::Reserved));
        assert_eq!(read(&[&[0x83, 0]]), Err(WireError::Reserved));
        assert_eq!(read(&[&[0x09, 0]]), Err(WireError::Control));
        assert_eq!(read(&[&[0x89, 126]]), Err(WireError::Control));
        assert_eq!(read(&[&frame(0x80, b"x")]), Err(WireError::Fragment));
        assert_eq!(read(&[&frame(0x01, b"x"), &frame(0x81, b"y")]), Err(WireError::Fragment));
        assert_eq!(read(&[&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]]), Err(WireError::TooLarge));
    }

    #[test]
    fn a_close_without_code_is_1005() {
        assert_eq!(read(&[&frame(0x88, b"")]).unwrap(), ["close 1005 "]);
    }

    #[test]
    fn a_clients_frames_are_masked_with_each_length_form() {
        for (length, header) in [(5, 2), (200, 4), (70_000, 10)] {
            let mut out = Vec::new();
            append_text(&vec![b'a'; length], &mut out);
            assert_eq!(out[0], 0x81);
            assert_eq!(out[1] & 0x80, 0x80);
            assert_eq!(out.len(), header + 4 + length);
        }
        let mut pong = Vec::new();
        append_pong(b"beat", &mut pong);
        assert_eq!(pong, b"\x8a\x84\0\0\0\0beat");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_or_consume_more_than_there_is(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let consumed = Decoder::default().feed(&bytes, |_| {}).unwrap_or(0);
            prop_assert!(consumed <= bytes.len());
        }
    }
}
