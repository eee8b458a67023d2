//! One client's side of its transport, without sockets: bytes in, messages and bytes to send out.

use std::ops::Range;

use crate::endpoint::Opening;
use crate::scenario::Transport;
use crate::wire::http::ResponseHead;
use crate::wire::ws::Incoming;
use crate::wire::{WireError, chunked, http, sse, ws};

/// What the connection needs after some bytes were taken in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// Nothing; it goes on.
    Open,
    /// A new connection for the same client: the server ended this one between two polls.
    Reconnect,
}

/// Why a client's connection is over.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the server answered {status}: {text}")]
    Status { status: u16, text: String },
    #[error("the server closed the WebSocket with {code} {reason:?}")]
    Closed { code: u16, reason: String },
    #[error("the server ended the connection")]
    Eof,
    #[error("{0}")]
    Wire(#[from] WireError),
}

#[derive(Debug)]
enum Stage {
    Head,
    Ws(ws::Decoder),
    Sse(Option<chunked::Decoder>),
}

/// The protocol state of one client.
#[derive(Debug)]
pub(crate) struct Protocol {
    stage: Stage,
    cookies: Vec<(String, String)>,
}

/// The bytes of one read: those left over from the last one first, then the new ones.
pub(crate) struct Arrived<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// How many of them are left over.
    pub(crate) left_over: usize,
    /// Nothing will come after them.
    pub(crate) closed: bool,
}

impl Protocol {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Head, cookies: Vec::new() }
    }

    /// Appends the request that opens the connection, or the next poll.
    pub(crate) fn request(&self, opening: &Opening, index: u32, out: &mut Vec<u8>) {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        opening.append_request(index, &cookies.join("; "), out);
    }

    /// Takes bytes in, hands every whole message to `message`, and appends what has to be sent to `out`. The range
    /// says which of the bytes must come again, in front of the next ones.
    #[inline]
    pub(crate) fn absorb(
        &mut self,
        arrived: Arrived<'_>,
        opening: &Opening,
        index: u32,
        out: &mut Vec<u8>,
        mut message: impl FnMut(&[u8]),
    ) -> Result<(Range<usize>, Next), Ended> {
        let Arrived { bytes, left_over, closed } = arrived;
        let rest = match &mut self.stage {
            Stage::Ws(decoder) => absorb_ws(decoder, bytes, 0, out, &mut message)?,
            Stage::Sse(chunks) => absorb_sse(chunks, bytes, 0, left_over, &mut message)?,
            Stage::Head if opening.transport() == Transport::Longpolling => {
                return self.absorb_poll(bytes, closed, opening, index, out, &mut message);
            }
            Stage::Head => match http::parse_head(bytes)? {
                Some(head) => self.open(&head, bytes, opening, index, out, &mut message)?,
                None => 0..bytes.len(),
            },
        };
        if closed { Err(Ended::Eof) } else { Ok((rest, Next::Open)) }
    }

    fn open(
        &mut self,
        head: &ResponseHead,
        bytes: &mut [u8],
        opening: &Opening,
        index: u32,
        out: &mut Vec<u8>,
        message: &mut impl FnMut(&[u8]),
    ) -> Result<Range<usize>, Ended> {
        let start = head.head_bytes;
        match opening.transport() {
            Transport::Ws if head.status == 101 => {
                if let Some(frame) = opening.first_frame(index) {
                    ws::append_text(frame.as_bytes(), out);
                }
                let mut decoder = ws::Decoder::default();
                let rest = absorb_ws(&mut decoder, bytes, start, out, message)?;
                self.stage = Stage::Ws(decoder);
                Ok(rest)
            }
            Transport::Sse if head.status == 200 => {
                let mut chunks = (head.framing == http::Framing::Chunked).then(chunked::Decoder::default);
                let rest = absorb_sse(&mut chunks, bytes, start, start, message)?;
                self.stage = Stage::Sse(chunks);
                Ok(rest)
            }
            _ => Err(refused(head.status, &bytes[start..])),
        }
    }

    fn absorb_poll(
        &mut self,
        bytes: &[u8],
        closed: bool,
        opening: &Opening,
        index: u32,
        out: &mut Vec<u8>,
        message: &mut impl FnMut(&[u8]),
    ) -> Result<(Range<usize>, Next), Ended> {
        if bytes.is_empty() && closed {
            return Ok((0..0, Next::Reconnect));
        }
        let wait = if closed { Err(Ended::Eof) } else { Ok((0..bytes.len(), Next::Open)) };
        let Some(head) = http::parse_head(bytes)? else { return wait };
        let mut scratch = Vec::new();
        let Some((body, used)) = http::whole_body(head.framing, &bytes[head.head_bytes..], closed, &mut scratch)?
        else {
            return wait;
        };
        if head.status != 200 {
            return Err(refused(head.status, body));
        }
        for (name, value) in head.cookies {
            match self.cookies.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => self.cookies.push((name, value)),
            }
        }
        message(body);
        if head.close || closed {
            return Ok((0..0, Next::Reconnect));
        }
        self.request(opening, index, out);
        Ok((head.head_bytes + used..bytes.len(), Next::Open))
    }
}

#[inline]
fn absorb_ws(
    decoder: &mut ws::Decoder,
    bytes: &[u8],
    start: usize,
    out: &mut Vec<u8>,
    message: &mut impl FnMut(&[u8]),
) -> Result<Range<usize>, Ended> {
    let mut ended = None;
    let consumed = decoder.feed(&bytes[start..], |incoming| match incoming {
        Incoming::Message(payload) => message(payload),
        Incoming::Ping(payload) => ws::append_pong(payload, out),
        Incoming::Close(code, reason) => {
            ended = Some(Ended::Closed { code, reason: String::from_utf8_lossy(reason).into_owned() });
        }
    })?;
    ended.map_or(Ok(start + consumed..bytes.len()), Err)
}

/// `start..raw` are decoded bytes left over; from `raw` on they are as they came.
#[inline]
fn absorb_sse(
    chunks: &mut Option<chunked::Decoder>,
    bytes: &mut [u8],
    start: usize,
    raw: usize,
    message: &mut impl FnMut(&[u8]),
) -> Result<Range<usize>, Ended> {
    let end = match chunks {
        Some(decoder) => raw + decoder.decode_in_place(&mut bytes[raw..])?.0,
        None => bytes.len(),
    };
    let consumed = sse::feed(&bytes[start..end], message);
    if chunks.as_ref().is_some_and(chunked::Decoder::is_finished) {
        return Err(Ended::Eof);
    }
    Ok(start + consumed..end)
}

fn refused(status: u16, body: &[u8]) -> Ended {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
    Ended::Status { status, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Target;

    struct Outcome {
        messages: Vec<String>,
        sent: Vec<u8>,
        end: Result<Next, Ended>,
    }

    fn opening(transport: Transport) -> Opening {
        let mut target = Target::new("http://127.0.0.1:9", transport);
        target.first_frame = (transport == Transport::Ws).then(|| "hello".to_owned());
        Opening::new(&target, "t", false).unwrap()
    }

    fn drive(transport: Transport, parts: &[&[u8]], closed: bool) -> Outcome {
        let (opening, mut protocol, mut rest) = (opening(transport), Protocol::new(), Vec::new());
        let (mut messages, mut sent, mut end) = (Vec::new(), Vec::new(), Ok(Next::Open));
        for (at, part) in parts.iter().enumerate() {
            let left_over = rest.len();
            rest.extend_from_slice(part);
            let arrived = Arrived { bytes: &mut rest, left_over, closed: closed && at + 1 == parts.len() };
            let message = |bytes: &[u8]| messages.push(String::from_utf8_lossy(bytes).into_owned());
            match protocol.absorb(arrived, &opening, 0, &mut sent, message) {
                Ok((range, next)) => {
                    rest = rest[range].to_vec();
                    end = Ok(next);
                }
                Err(ended) => {
                    end = Err(ended);
                    break;
                }
            }
        }
        Outcome { messages, sent, end }
    }

    fn split_everywhere(transport: Transport, bytes: &[u8], expected: &[&str]) {
        for at in 0..=bytes.len() {
            let outcome = drive(transport, &[&bytes[..at], &bytes[at..]], false);
            assert_eq!(outcome.messages, expected, "split at {at}");
            assert_eq!(outcome.end, Ok(Next::Open), "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(drive(transport, &single, false).messages, expected);
    }

    #[test]
    fn a_websocket_split_at_every_byte_gives_the_same_messages_and_answers() {
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\x81\x03one\x89\x01p\x81\x03two";
        split_everywhere(Transport::Ws, bytes, &["one", "two"]);
        let sent = drive(Transport::Ws, &[bytes], false).sent;
        assert_eq!(sent, b"\x81\x85\0\0\0\0hello\x8a\x81\0\0\0\0p");
    }

    #[test]
    fn a_chunked_event_stream_split_at_every_byte_gives_the_same_events() {
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: on\n\r\n4\r\n\ndat\r\n12\r\na: two\ndata: 2\n\n:\r\n1\r\nx\r\n";
        split_everywhere(Transport::Sse, bytes, &["data: on\n\n", "data: two\ndata: 2\n\n"]);
        split_everywhere(
            Transport::Sse,
            b"HTTP/1.1 200 OK\r\n\r\ndata: a\n\ndata: b\n\nda",
            &["data: a\n\n", "data: b\n\n"],
        );
    }

    #[test]
    fn each_poll_is_followed_by_the_next_with_the_newest_cookies() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nset-cookie: connection_token=t; path=/\r\nset-cookie: last_event_id=\"first_event\"\r\n\r\n\"ok\"\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nset-cookie: last_event_id=\"7\"\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        for at in 0..=bytes.len() {
            let outcome = drive(Transport::Longpolling, &[&bytes[..at], &bytes[at..], b""], false);
            assert_eq!(outcome.messages, ["\"ok\"", "{}"], "split at {at}");
            let sent = String::from_utf8(outcome.sent).unwrap();
            assert_eq!(sent.matches("GET ").count(), 2);
            assert!(sent.contains("cookie: connection_token=t; last_event_id=\"first_event\"\r\n"));
            assert!(sent.contains("cookie: connection_token=t; last_event_id=\"7\"\r\n"));
        }
    }

    #[test]
    fn a_poll_whose_server_closes_afterwards_asks_for_a_new_connection() {
        let outcome = drive(Transport::Longpolling, &[b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbody"], true);
        assert_eq!((outcome.messages, outcome.end), (vec!["body".to_owned()], Ok(Next::Reconnect)));
        assert_eq!(drive(Transport::Longpolling, &[b""], true).end, Ok(Next::Reconnect));
    }

    #[test]
    fn every_way_a_connection_ends_is_named() {
        let refused = drive(Transport::Sse, &[b"HTTP/1.1 429 x\r\n\r\nReached maximum number of connections"], false);
        assert!(refused.end.unwrap_err().to_string().contains("429: Reached maximum"));
        let closed = drive(Transport::Ws, &[b"HTTP/1.1 101 x\r\n\r\n\x88\x0e\x03\xe8Bad request."], false);
        assert!(closed.end.unwrap_err().to_string().contains("1000 \"Bad request.\""));
        assert_eq!(drive(Transport::Sse, &[b"HTTP/1.1 200 OK\r\n\r\n"], true).end, Err(Ended::Eof));
        let last_chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(drive(Transport::Sse, &[last_chunk], false).end, Err(Ended::Eof));
    }
}
