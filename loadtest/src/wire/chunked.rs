//! Chunked transfer coding (RFC 9112 section 7.1), decoded in place.

use super::WireError;

/// Longest run of hexadecimal digits, chunk extensions or trailers that is read through.
const MAX_LINE_BYTES: u32 = 8 << 10;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    Trailer,
    TrailerLine,
    Finished,
}

/// The decoder of one body. Keeps no bytes, only where it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    remaining: u64,
    digits: u32,
    line: u32,
}

impl Decoder {
    /// Moves the body's bytes to the front of `bytes`; returns how many those are and how many bytes of the input
    /// were read (fewer than all only when the body has ended).
    pub(crate) fn decode_in_place(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), WireError> {
        let (mut read, mut written) = (0, 0);
        while read < bytes.len() && self.state != State::Finished {
            if self.state == State::Data {
                let take = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - read);
                bytes.copy_within(read..read + take, written);
                (read, written) = (read + take, written + take);
                self.remaining -= take as u64;
                if self.remaining == 0 {
                    self.state = State::DataEnd;
                }
            } else {
                self.step(bytes[read])?;
                read += 1;
            }
        }
        Ok((written, read))
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    fn step(&mut self, byte: u8) -> Result<(), WireError> {
        self.line += 1;
        if self.line > MAX_LINE_BYTES {
            return Err(WireError::Chunk);
        }
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 15 => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.remaining = self.remaining << 4 | u64::from(digit);
                self.digits += 1;
                State::Size
            }
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, b';' | b' ' | b'\t') if self.digits > 0 => State::Extension,
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, _) => State::Extension,
            (State::SizeEnd, b'\n') => {
                (self.digits, self.line) = (0, 0);
                if self.remaining == 0 { State::Trailer } else { State::Data }
            }
            (State::DataEnd, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => {
                self.line = 0;
                State::Size
            }
            (State::Trailer, b'\r') => State::Trailer,
            (State::Trailer, b'\n') => State::Finished,
            (State::Trailer, _) => State::TrailerLine,
            (State::TrailerLine, b'\n') => State::Trailer,
            (State::TrailerLine, _) => State::TrailerLine,
            _ => return Err(WireError::Chunk),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(parts: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), WireError> {
        let (mut decoder, mut body, mut total) = (Decoder::default(), Vec::new(), 0);
        for part in parts {
            let mut bytes = part.to_vec();
            let (written, read) = decoder.decode_in_place(&mut bytes)?;
            body.extend_from_slice(&bytes[..written]);
            total += read;
        }
        Ok((body, decoder.is_finished(), total))
    }

    const BODY: &[u8] = b"5\r\nhello\r\n1;ext=\"x\"\r\n,\r\n0B\r\n wide world\r\n0\r\nX-Sum: 1\r\n\r\nNEXT";

    #[test]
    fn a_body_split_at_every_byte_decodes_the_same_and_stops_at_its_end() {
        for at in 0..=BODY.len() {
            let (body, finished, read) = read(&[&BODY[..at], &BODY[at..]]).unwrap_or_default();
            assert_eq!(
                (String::from_utf8_lossy(&body).as_ref(), finished),
                ("hello, wide world", true),
                "split at {at}"
            );
            assert_eq!(read, BODY.len() - 4, "split at {at}");
        }
    }

    #[test]
    fn a_size_that_is_not_hexadecimal_or_has_no_digits_or_never_ends_is_an_error() {
        for broken in [&b"x\r\n"[..], b"\r\n", b"5\n", b"1234567890abcdef0\r\n", b"2\r\nabX\r\n"] {
            assert_eq!(read(&[broken]), Err(WireError::Chunk), "{}", String::from_utf8_lossy(broken));
        }
        let endless = [b"1;".to_vec(), vec![b'x'; 9_000]].concat();
        assert_eq!(read(&[&endless]), Err(WireError::Chunk));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((body, _, consumed)) = read(&[&bytes]) {
                prop_assert!(body.len() <= consumed && consumed <= bytes.len());
            }
        }
    }
}
