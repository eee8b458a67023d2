//! The heads of a connection after its first one, checked as strictly as that one.
//!
//! hyper reads them too, but forgives what [`parse`](super::parse) doesn't: it takes a second length, drops one that stands
//! beside `transfer-encoding`, and ends lines at a bare LF. A proxy in front may read those otherwise (RFC 9112 section 11.2).

use super::{BodyLength, HeadError, HeadLimits, HeadStatus, parse};

/// Bytes of a chunk's size and extensions, and of each line of trailers.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// Digits of a chunk's size.
const MAX_SIZE_DIGITS: u8 = 15;

/// How far the bytes may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// All of them.
    All,
    /// Up to here: a head ends that asks for another protocol, and what follows may not be HTTP.
    UpTo(usize),
}

/// Knows where in the messages of a connection the next byte stands.
#[derive(Clone, Debug)]
pub struct Follower {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// In a head, of which this has arrived.
    Head(Vec<u8>),
    /// In a body with this much left.
    Body(u64),
    /// In the line that says how long a chunk is.
    ChunkSize { size: u64, digits: u8, extension: bool, len: usize, carriage_return: bool },
    /// In a chunk with this much left.
    Chunk(u64),
    /// In the line end of a chunk; whether CR has come.
    ChunkEnd(bool),
    /// In a line of trailers.
    Trailer { len: usize, carriage_return: bool },
}

const CHUNK_SIZE: Place = Place::ChunkSize { size: 0, digits: 0, extension: false, len: 0, carriage_return: false };
const TRAILER: Place = Place::Trailer { len: 0, carriage_return: false };

impl Default for Follower {
    fn default() -> Self {
        Self { place: Place::Head(Vec::new()) }
    }
}

impl Follower {
    /// Takes the bytes that have arrived since the last call.
    ///
    /// # Errors
    /// A [`HeadError`] where a head or the chunks of a body aren't what they must be: the connection is to be ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Followed, HeadError> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if let Place::Head(partial) = &mut self.place {
                let before = partial.len();
                let arrived: &[u8] = if before == 0 {
                    rest
                } else {
                    partial.extend_from_slice(rest);
                    partial
                };
                let (head_len, body, upgrade) = match parse(arrived, &HeadLimits::default())? {
                    HeadStatus::Complete(head) => (head.head_len, head.body, head.wants_upgrade()),
                    HeadStatus::Http2 => return Err(HeadError::Version),
                    HeadStatus::Partial => {
                        if before == 0 {
                            partial.extend_from_slice(rest);
                        }
                        return Ok(Followed::All);
                    }
                };
                at += head_len - before;
                self.place = match body {
                    BodyLength::None | BodyLength::Bytes(0) => Place::Head(Vec::new()),
                    BodyLength::Bytes(length) => Place::Body(length),
                    BodyLength::Chunked => CHUNK_SIZE,
                };
                if upgrade && matches!(self.place, Place::Head(_)) {
                    return Ok(Followed::UpTo(at));
                }
            } else {
                at += self.body(rest)?;
            }
        }
        Ok(Followed::All)
    }

    /// Takes bytes of a body, at least one; how many.
    fn body(&mut self, bytes: &[u8]) -> Result<usize, HeadError> {
        let (left, next) = match &mut self.place {
            Place::Body(left) => (left, Place::Head(Vec::new())),
            Place::Chunk(left) => (left, Place::ChunkEnd(false)),
            _ => {
                self.place = self.framing(bytes[0])?;
                return Ok(1);
            }
        };
        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        *left -= taken as u64;
        if *left == 0 {
            self.place = next;
        }
        Ok(taken)
    }

    /// Where the byte after this one stands, outside of heads and data.
    fn framing(&mut self, byte: u8) -> Result<Place, HeadError> {
        let bad = Err(HeadError::TransferEncoding);
        match std::mem::replace(&mut self.place, TRAILER) {
            Place::ChunkSize { size, digits, carriage_return: true, .. } => match (byte, digits, size) {
                (b'\n', 1.., 0) => Ok(TRAILER),
                (b'\n', 1.., _) => Ok(Place::Chunk(size)),
                _ => bad,
            },
            Place::ChunkSize { size, digits, extension, len, .. } if len < MAX_LINE_BYTES => {
                let next = |size, digits, extension, carriage_return| {
                    Ok(Place::ChunkSize { size, digits, extension, len: len + 1, carriage_return })
                };
                match (byte, char::from(byte).to_digit(16)) {
                    (b'\r', _) => next(size, digits, extension, true),
                    (b'\n' | 0..=8 | 11..=31 | 127, _) => bad,
                    _ if extension => next(size, digits, true, false),
                    (_, Some(digit)) if digits < MAX_SIZE_DIGITS => {
                        next(size * 16 + u64::from(digit), digits + 1, false, false)
                    }
                    (b';' | b' ' | b'\t', None) if digits > 0 => next(size, digits, true, false),
                    _ => bad,
                }
            }
            Place::ChunkEnd(false) if byte == b'\r' => Ok(Place::ChunkEnd(true)),
            Place::ChunkEnd(true) if byte == b'\n' => Ok(CHUNK_SIZE),
            Place::Trailer { len, carriage_return: true } if byte == b'\n' => {
                Ok(if len == 0 { Place::Head(Vec::new()) } else { TRAILER })
            }
            Place::Trailer { len, carriage_return: false } if len < MAX_LINE_BYTES => match byte {
                b'\r' => Ok(Place::Trailer { len, carriage_return: true }),
                b'\n' | 0..=8 | 11..=31 | 127 => bad,
                // A folded line.
                b' ' | b'\t' if len == 0 => bad,
                _ => Ok(Place::Trailer { len: len + 1, carriage_return: false }),
            },
            _ => bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    const POST: &str = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKED: &str = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n1 \r\nx\r\n\
                           0\r\nx-sum: 1\r\nx-other: 2\r\n\r\n";

    fn follow(bytes: &str) -> Result<Followed, HeadError> {
        Follower::default().feed(bytes.as_bytes())
    }

    #[test]
    fn heads_are_found_behind_bodies_of_any_framing() {
        let bad = "GET /a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
        for before in [GET, POST, CHUNKED, ""] {
            assert_eq!(follow(&format!("{before}{GET}")), Ok(Followed::All), "{before:?}");
            assert_eq!(follow(&format!("{before}{bad}")), Err(HeadError::Host), "{before:?}");
        }
    }

    #[test]
    fn what_two_parsers_read_differently_is_refused() {
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "content-length: 5\r\ncontent-length: 5",
            "transfer-encoding: gzip, chunked",
            "x-a: 1\r\n folded",
            "x-a: 1\nx-b: 2",
            "x-a : 1",
        ] {
            let head = format!("POST /a HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
            assert!(follow(&format!("{GET}{head}")).is_err(), "{fields:?}");
        }
        for chunks in [
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloX",
            "+5\r\n",
            "\r\n",
            "5;a\nb\r\n",
            "1000000000000000\r\n",
            "0x5\r\n",
            "-1\r\n",
        ] {
            let whole = format!("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
            assert_eq!(follow(&whole), Err(HeadError::TransferEncoding), "{chunks:?}");
        }
        for trailers in ["a: 1\n\r\n", " folded\r\n", "a\0: 1\r\n"] {
            let whole = format!("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{trailers}");
            assert_eq!(follow(&whole), Err(HeadError::TransferEncoding), "{trailers:?}");
        }
    }

    #[test]
    fn what_follows_a_request_for_another_protocol_is_held_back() {
        let upgrade = "GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        for head in [upgrade.to_owned(), upgrade.replace("\r\n\r\n", "\r\ncontent-length: 0\r\n\r\n")] {
            let bytes = format!("{POST}{head}\u{1}not HTTP");
            assert_eq!(follow(&bytes), Ok(Followed::UpTo(POST.len() + head.len())));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(cuts in prop::collection::vec(1_usize..40, 0..60), twist in 0_usize..600) {
            let mut bytes = format!("{POST}{CHUNKED}{GET}{CHUNKED}{POST}").into_bytes();
            if twist < bytes.len() {
                bytes[twist] ^= 0x0d;
            }
            let whole = Follower::default().feed(&bytes);
            let mut follower = Follower::default();
            let mut rest = &bytes[..];
            let mut cut = Ok(Followed::All);
            for len in cuts.into_iter().chain([usize::MAX]) {
                let (piece, later) = rest.split_at(len.min(rest.len()));
                cut = cut.and_then(|_| follower.feed(piece));
                rest = later;
            }
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
        }
    }
}
