//! Frames from the server to a client: never masked, never fragmented (RFC 6455 §5.1), so that one encoding serves everybody.

/// Bytes of the longest header of a server frame.
pub const MAX_HEADER_BYTES: usize = 10;

/// Bytes of payload that a control frame may carry (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// A ping without payload, whole.
pub const PING: &[u8; 2] = &[0x89, 0];

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    /// A text message.
    Text = 0x1,
    /// A binary message.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// A question that a pong answers.
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xA,
}

/// Appends the header of a final, unmasked frame whose payload has `payload_bytes`; 2, 4 or 10 bytes.
pub fn append_header(opcode: OpCode, payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(short), _) if short <= 125 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame.
pub fn append_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(MAX_HEADER_BYTES + payload.len());
    append_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the pong that answers a ping with this payload, which the decoder has held to [`MAX_CONTROL_BYTES`].
pub fn append_pong(payload: &[u8], out: &mut Vec<u8>) {
    append_frame(OpCode::Pong, &payload[..payload.len().min(MAX_CONTROL_BYTES)], out);
}

/// Appends a close frame. A reason that doesn't fit is cut at a character; without `code` the frame is empty.
pub fn append_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else { return append_header(OpCode::Close, 0, out) };
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL_BYTES - 2)];
    append_header(OpCode::Close, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(payload_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        append_header(OpCode::Text, payload_bytes, &mut out);
        out
    }

    #[test]
    fn the_length_takes_as_few_bytes_as_possible() {
        assert_eq!(header(0), [0x81, 0]);
        assert_eq!(header(125), [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(255), [0x81, 126, 0, 255]);
        assert_eq!(header(65_535), [0x81, 126, 0xff, 0xff]);
        assert_eq!(header(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert!(header(usize::MAX).len() <= MAX_HEADER_BYTES);
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let mut out = Vec::new();
        append_close(Some(1000), "bye", &mut out);
        assert_eq!(out, b"\x88\x05\x03\xe8bye");
    }

    #[test]
    fn a_close_frame_without_code_is_empty() {
        let mut out = Vec::new();
        append_close(None, "unused", &mut out);
        assert_eq!(out, [0x88, 0]);
    }

    #[test]
    fn a_reason_that_does_not_fit_is_cut_at_a_character() {
        let mut out = Vec::new();
        append_close(Some(1000), &"ü".repeat(100), &mut out);
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    #[test]
    fn a_ping_is_what_the_encoder_writes() {
        let mut out = Vec::new();
        append_frame(OpCode::Ping, b"", &mut out);
        assert_eq!(out, PING);
    }

    #[test]
    fn a_pong_repeats_the_payload() {
        let mut out = Vec::new();
        append_pong(b"abc", &mut out);
        assert_eq!(out, b"\x8a\x03abc");
    }
}
