//! Frames from a client, decoded from whatever pieces the socket delivers.
//!
//! A [`Decoder`] keeps no buffer while nothing is split: a frame that arrives whole is unmasked where it lies and handed
//! out from there. Only a frame or message whose end has not arrived is kept, on the heap, and freed as soon as it is done.

use std::io::Cursor;

use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::close_code;
use super::encode::MAX_CONTROL_BYTES;

#[cfg(test)]
mod tests;

/// Bytes of the longest header of a client's frame: 2, a length of 8, a mask of 4.
const MAX_HEADER_BYTES: usize = 14;

/// One message or control frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A complete text message.
    Text(&'a str),
    /// A complete binary message.
    Binary(&'a [u8]),
    /// A ping; its payload belongs into the pong.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong,
    /// The client closes; nothing after it is read. The answer is a close frame with the same code.
    Close {
        /// The client's code, if it gave one.
        code: Option<u16>,
        /// The client's reason, empty if it gave none.
        reason: &'a str,
    },
}

/// The client broke the protocol: send a close frame with `close_code`, then end the connection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{reason} (close code {close_code})")]
pub struct ProtocolError {
    /// 1002 protocol error, 1007 text that is not UTF-8, 1009 message over the limit.
    pub close_code: u16,
    /// What was wrong, for the client's developers.
    pub reason: &'static str,
}

const fn violation(reason: &'static str) -> ProtocolError {
    ProtocolError { close_code: close_code::PROTOCOL_ERROR, reason }
}

const NOT_UTF8: ProtocolError =
    ProtocolError { close_code: close_code::INVALID_PAYLOAD, reason: "text is not valid UTF-8" };

const TOO_BIG: ProtocolError =
    ProtocolError { close_code: close_code::MESSAGE_TOO_BIG, reason: "message is over the limit" };

/// The receiving half of one WebSocket on the server; 16 bytes while nothing is split.
#[derive(Debug)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    max_message_bytes: u32,
    finished: bool,
}

impl Decoder {
    /// A decoder for a connection that has just been upgraded. Messages of more than `max_message_bytes` are refused
    /// with 1009 as soon as a header announces them.
    #[must_use]
    pub fn new(max_message_bytes: usize) -> Self {
        let max_message_bytes = u32::try_from(max_message_bytes).unwrap_or(u32::MAX);
        Self { partial: None, max_message_bytes, finished: false }
    }

    /// Takes the next bytes from the socket, unmasks them in place, and hands each message that ends in them to `out`.
    ///
    /// After a close frame or an error every further byte is ignored.
    ///
    /// # Errors
    ///
    /// A [`ProtocolError`] at the first byte that proves a violation; messages before it have been handed out.
    pub fn feed(&mut self, bytes: &mut [u8], out: &mut impl FnMut(Message<'_>)) -> Result<(), ProtocolError> {
        let result = self.feed_frames(bytes, out);
        if result.is_err() {
            self.finished = true;
        }
        if self.finished || self.partial.as_ref().is_some_and(|partial| partial.is_idle()) {
            self.partial = None;
        }
        result
    }

    /// Bytes on the heap that wait for the rest of a frame or message.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(0, |partial| size_of::<Partial>() + partial.control.capacity() + partial.message.bytes.capacity())
    }

    fn feed_frames(&mut self, mut bytes: &mut [u8], out: &mut impl FnMut(Message<'_>)) -> Result<(), ProtocolError> {
        while !self.finished && !bytes.is_empty() {
            if self.partial.as_ref().is_some_and(|partial| partial.frame.is_some()) {
                bytes = self.continue_frame(bytes, out)?;
                continue;
            }
            let Some((header, length, used)) = self.read_header(bytes)? else { return Ok(()) };
            let frame = self.check(&header, length)?;
            let (_, rest) = bytes.split_at_mut(used);
            let whole = usize::try_from(length).is_ok_and(|length| length <= rest.len());
            if whole && (frame.kind.is_control() || frame.is_final && !self.in_message()) {
                let (payload, rest) = rest.split_at_mut(usize::try_from(length).unwrap_or(0));
                unmask(payload, frame.mask);
                self.hand_out(frame.kind, payload, out)?;
                bytes = rest;
            } else {
                let partial = self.partial.get_or_insert_default();
                if let Kind::Data(kind) = frame.kind {
                    partial.message.kind.get_or_insert(kind);
                }
                partial.frame = Some(frame);
                bytes = self.continue_frame(rest, out)?;
            }
        }
        Ok(())
    }

    fn in_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.message.kind.is_some())
    }

    /// The header at the start of `bytes`, its payload length, and how many of `bytes` belong to it. An incomplete one
    /// is put aside.
    fn read_header(&mut self, bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, ProtocolError> {
        let kept = self.partial.as_ref().map_or(0, |partial| usize::from(partial.header_bytes));
        let mut start = [0; MAX_HEADER_BYTES];
        let (window, window_start) = if kept == 0 {
            (bytes, 0)
        } else {
            let more = bytes.len().min(MAX_HEADER_BYTES - kept);
            start[..kept].copy_from_slice(self.partial.as_ref().map_or(&[][..], |partial| &partial.header[..kept]));
            start[kept..kept + more].copy_from_slice(&bytes[..more]);
            (&start[..kept + more], kept)
        };
        let mut cursor = Cursor::new(window);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| violation("reserved opcode"))?;
        let header_end = usize::try_from(cursor.position()).unwrap_or(window.len());
        if let Some((header, length)) = parsed {
            if header_end != header.len(length) {
                return Err(violation("length is not written in its shortest form"));
            }
            if let Some(partial) = &mut self.partial {
                partial.header_bytes = 0;
            }
            return Ok(Some((header, length, header_end - window_start)));
        }
        let partial = self.partial.get_or_insert_default();
        let length = window.len().min(MAX_HEADER_BYTES);
        partial.header[..length].copy_from_slice(&window[..length]);
        partial.header_bytes = u8::try_from(length).unwrap_or(0);
        Ok(None)
    }

    /// Holds a header against RFC 6455 §5 and the limit of this connection.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<Frame, ProtocolError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(violation("reserved bit without extension"));
        }
        let Some(mask) = header.mask else { return Err(violation("frame is not masked")) };
        let kind = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final {
                    return Err(violation("fragmented control frame"));
                }
                if length > MAX_CONTROL_BYTES as u64 {
                    return Err(violation("control frame is longer than 125 bytes"));
                }
                match control {
                    Control::Ping => Kind::Ping,
                    Control::Pong => Kind::Pong,
                    Control::Close => Kind::Close,
                    Control::Reserved(_) => return Err(violation("reserved opcode")),
                }
            }
            OpCode::Data(data) => {
                let message = self.partial.as_ref().map(|partial| &partial.message);
                let kind = match (data, message.and_then(|message| message.kind)) {
                    (Data::Continue, Some(kind)) => kind,
                    (Data::Continue, None) => return Err(violation("continuation without a message")),
                    (Data::Text, None) => DataKind::Text,
                    (Data::Binary, None) => DataKind::Binary,
                    (Data::Text | Data::Binary, Some(_)) => {
                        return Err(violation("new message inside a fragmented one"));
                    }
                    (Data::Reserved(_), _) => return Err(violation("reserved opcode")),
                };
                let buffered = message.map_or(0, |message| message.bytes.len()) as u64;
                if length.saturating_add(buffered) > u64::from(self.max_message_bytes) {
                    return Err(TOO_BIG);
                }
                Kind::Data(kind)
            }
        };
        Ok(Frame { kind, is_final: header.is_final, mask, remaining: length })
    }

    /// Takes what `bytes` hold of the frame in progress and returns what follows it.
    fn continue_frame<'b>(
        &mut self,
        bytes: &'b mut [u8],
        out: &mut impl FnMut(Message<'_>),
    ) -> Result<&'b mut [u8], ProtocolError> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(bytes) };
        let Some(frame) = &mut partial.frame else { return Ok(bytes) };
        let length = usize::try_from(frame.remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
        let (payload, rest) = bytes.split_at_mut(length);
        frame.mask = unmask(payload, frame.mask);
        frame.remaining -= length as u64;
        let (kind, is_final, is_complete) = (frame.kind, frame.is_final, frame.remaining == 0);
        match kind {
            Kind::Data(_) => partial.message.append(payload)?,
            Kind::Ping | Kind::Pong | Kind::Close => partial.control.extend_from_slice(payload),
        }
        if is_complete {
            partial.frame = None;
            if kind.is_control() {
                let control = std::mem::take(&mut partial.control);
                self.hand_out(kind, &control, out)?;
            } else if is_final {
                let message = std::mem::take(&mut partial.message);
                self.hand_out(kind, &message.bytes, out)?;
            }
        }
        Ok(rest)
    }

    fn hand_out(&mut self, kind: Kind, payload: &[u8], out: &mut impl FnMut(Message<'_>)) -> Result<(), ProtocolError> {
        out(match kind {
            Kind::Data(DataKind::Text) => Message::Text(std::str::from_utf8(payload).map_err(|_| NOT_UTF8)?),
            Kind::Data(DataKind::Binary) => Message::Binary(payload),
            Kind::Ping => Message::Ping(payload),
            Kind::Pong => Message::Pong,
            Kind::Close => {
                let message = close(payload)?;
                self.finished = true;
                message
            }
        });
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataKind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data(DataKind),
    Ping,
    Pong,
    Close,
}

impl Kind {
    fn is_control(self) -> bool {
        !matches!(self, Self::Data(_))
    }
}

/// A frame whose payload has not arrived in full.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    is_final: bool,
    /// Turned so that its first byte belongs to the next byte of payload.
    mask: [u8; 4],
    remaining: u64,
}

/// What has arrived of something unfinished. A control frame may stand between the frames of a message, so each has a
/// place of its own.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; MAX_HEADER_BYTES],
    header_bytes: u8,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: PartialMessage,
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.header_bytes == 0 && self.frame.is_none() && self.message.kind.is_none()
    }
}

#[derive(Debug, Default)]
struct PartialMessage {
    kind: Option<DataKind>,
    bytes: Vec<u8>,
    /// Bytes of a text that are proven to be UTF-8.
    valid_bytes: usize,
}

impl PartialMessage {
    /// Appends unmasked payload; a text fails as soon as no continuation could make it UTF-8.
    fn append(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.bytes.extend_from_slice(payload);
        if self.kind == Some(DataKind::Text) {
            match std::str::from_utf8(&self.bytes[self.valid_bytes..]) {
                Ok(_) => self.valid_bytes = self.bytes.len(),
                Err(error) if error.error_len().is_some() => return Err(NOT_UTF8),
                Err(error) => self.valid_bytes += error.valid_up_to(),
            }
        }
        Ok(())
    }
}

/// Code and reason of a close frame (RFC 6455 §5.5.1 and §7.4).
fn close(payload: &[u8]) -> Result<Message<'_>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(Message::Close { code: None, reason: "" })
        } else {
            Err(violation("close frame with half a code"))
        };
    };
    let code = u16::from_be_bytes(*code);
    // 1014 (bad gateway) is in the registry of RFC 6455 §11.7, tungstenite does not know it.
    if !CloseCode::from(code).is_allowed() && code != 1014 {
        return Err(violation("close frame with a code that must not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
    Ok(Message::Close { code: Some(code), reason })
}

/// Unmasks `payload` (RFC 6455 §5.3) and returns the mask turned for the byte that follows.
fn unmask(payload: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let word = u64::from(u32::from_ne_bytes(mask));
    let word = word << 32 | word;
    let (words, tail) = payload.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let mut turned = mask;
    turned.rotate_left(tail.len() % 4);
    turned
}
