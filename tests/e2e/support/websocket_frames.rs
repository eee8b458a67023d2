//! WebSocket frames by hand (RFC 6455, section 5.2), for everything that a library refuses to send.

use super::gateway::Gateway;
use super::http::{Connection, Request, Response};

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Key and answer of RFC 6455, section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame to send. The default is what a client should send: final, masked, no reserved bits.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) first_byte: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: Vec<u8>,
    /// Length in the header, if it is to differ from the payload's.
    pub(crate) announced: Option<u64>,
}

impl Frame {
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            first_byte: FIN | opcode,
            mask: Some([0x37, 0xfa, 0x21, 0x3d]),
            payload: payload.as_ref().to_owned(),
            announced: None,
        }
    }

    /// The same frame, with more fragments to follow.
    pub(crate) fn unfinished(mut self) -> Self {
        self.first_byte &= !FIN;
        self
    }

    /// The same frame with reserved bits set: 1 to 7, RSV1 is 4.
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.first_byte |= bits << 4;
        self
    }

    pub(crate) fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// The same frame with a length in its header that the payload doesn't have.
    pub(crate) fn announcing(mut self, length: u64) -> Self {
        self.announced = Some(length);
        self
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        let length = self.announced.unwrap_or(self.payload.len() as u64);
        let mut bytes = vec![self.first_byte];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..=125), _) => bytes.push(masked | short),
            (_, Ok(medium)) => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        match self.mask {
            Some(mask) => {
                bytes.extend_from_slice(&mask);
                bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
            }
            None => bytes.extend_from_slice(&self.payload),
        }
        bytes
    }
}

/// Payload of a close frame.
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A frame that came from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceivedFrame {
    pub(crate) first_byte: u8,
    pub(crate) payload: Vec<u8>,
}

impl ReceivedFrame {
    pub(crate) fn opcode(&self) -> u8 {
        self.first_byte & 0x0f
    }

    /// The code of a close frame.
    pub(crate) fn close_code(&self) -> u16 {
        assert_eq!(self.opcode(), CLOSE, "a close frame was expected: {self:?}");
        let code = self.payload.first_chunk().unwrap_or_else(|| panic!("a close frame without code: {self:?}"));
        u16::from_be_bytes(*code)
    }

    /// The reason of a close frame.
    pub(crate) fn close_reason(&self) -> &str {
        std::str::from_utf8(&self.payload[2..]).expect("a close reason is UTF-8")
    }
}

/// The upgrade request for this target.
pub(crate) fn upgrade(target: &str) -> Request {
    Request::get(target)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", KEY)
}

/// A WebSocket on which the test writes every byte itself.
pub(crate) struct RawWebSocket {
    /// Head of the handshake's answer.
    pub(crate) head: Response,
    connection: Connection,
    buffer: Vec<u8>,
}

impl RawWebSocket {
    /// Opens a WebSocket with this query string (without `?`).
    pub(crate) fn open(gateway: &Gateway, query: &str) -> Self {
        Self::with_request(gateway, &upgrade(&format!("/_rig/v1/connection/ws?{query}")))
    }

    /// Opens a WebSocket with a request of the test's own; anything but 101 fails the test.
    pub(crate) fn with_request(gateway: &Gateway, request: &Request) -> Self {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(request.to_bytes());
        let head = connection.head();
        assert_eq!(head.status, 101, "the handshake succeeds: {head:?}");
        Self { head, connection, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.connection.send(frame.to_bytes());
    }

    /// Sends several frames at once, or whatever else this is.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.connection.send(bytes);
    }

    /// The next frame.
    pub(crate) fn next_frame(&mut self) -> ReceivedFrame {
        loop {
            if let Some(frame) = self.parse() {
                return frame;
            }
            let more = self.connection.fill().expect("a frame comes in time");
            self.buffer.append(&mut self.connection.take_buffer());
            assert!(more || !self.buffer.is_empty(), "the connection ended, a frame was expected");
        }
    }

    /// The next frame of this kind; others are skipped, an early close frame fails the test.
    pub(crate) fn next_of(&mut self, opcode: u8) -> ReceivedFrame {
        loop {
            let frame = self.next_frame();
            if frame.opcode() == opcode {
                return frame;
            }
            assert_ne!(frame.opcode(), CLOSE, "the gateway closed: {frame:?}");
        }
    }

    /// Waits for the close frame and for the end of the connection after it.
    pub(crate) fn wait_for_close(mut self) -> ReceivedFrame {
        let frame = self.next_of(CLOSE);
        self.connection.assert_closed();
        assert!(self.buffer.is_empty(), "nothing follows a close frame: {:?}", self.buffer);
        frame
    }

    fn parse(&mut self) -> Option<ReceivedFrame> {
        self.buffer.append(&mut self.connection.take_buffer());
        let (&[first_byte, second_byte], rest) = self.buffer.split_first_chunk()?;
        assert_eq!(second_byte & MASKED, 0, "frames of a server are not masked");
        let (length, rest) = match second_byte {
            126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            short => (u64::from(short), rest),
        };
        let length = usize::try_from(length).expect("a frame fits into memory");
        let payload = rest.get(..length)?.to_owned();
        let consumed = self.buffer.len() - (rest.len() - length);
        self.buffer.drain(..consumed);
        Some(ReceivedFrame { first_byte, payload })
    }
}
