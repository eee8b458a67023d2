//! Heads of HTTP/1.1 requests (RFC 9112), as far as the bundled backend reads them.

use super::WireError;
use super::http::Framing;

/// Longest request head that is waited for.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// A request's head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RequestHead {
    /// Bytes up to and with the empty line.
    pub(crate) head_bytes: usize,
    pub(crate) framing: Framing,
    /// The client wants the connection closed after the answer.
    pub(crate) close: bool,
    /// The answer has no body.
    pub(crate) is_head: bool,
    /// The client waits for 100 (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
}

/// Reads the head at the front of `bytes`; `None` while it is not whole.
pub(crate) fn parse_request(bytes: &[u8]) -> Result<Option<RequestHead>, WireError> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD_BYTES { Err(WireError::Head) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| WireError::Head)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().ok_or(WireError::Head)?.split(' ');
    let (Some(method), Some(_), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(WireError::Head);
    };
    let minor = version.strip_prefix("HTTP/1.").ok_or(WireError::Head)?;
    let mut head = RequestHead {
        head_bytes: end + 4,
        framing: Framing::Length(0),
        close: minor == "0",
        is_head: method == "HEAD",
        expects_continue: false,
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(WireError::Head)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && head.framing != Framing::Chunked {
            head.framing = Framing::Length(value.parse().map_err(|_| WireError::Head)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close") || head.close && !value.eq_ignore_ascii_case("keep-alive");
        } else if name.eq_ignore_ascii_case("expect") {
            head.expects_continue = value.eq_ignore_ascii_case("100-continue");
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_cut_at_every_byte_is_waited_for_and_then_read() {
        let request = b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody";
        for at in 0..request.len() - 4 {
            assert_eq!(parse_request(&request[..at]), Ok(None), "cut at {at}");
        }
        let head = parse_request(request).unwrap().unwrap();
        assert_eq!((head.framing, head.close, head.is_head), (Framing::Length(4), false, false));
        assert!(head.expects_continue);
        assert_eq!(&request[head.head_bytes..], b"body");
    }

    #[test]
    fn a_connection_stays_open_as_version_and_header_say() {
        let closes = |head: &str| parse_request(head.as_bytes()).unwrap().unwrap().close;
        assert!(!closes("GET / HTTP/1.1\r\n\r\n"));
        assert!(closes("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(closes("GET / HTTP/1.0\r\n\r\n"));
        assert!(!closes("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn chunked_wins_over_a_length_and_what_is_no_request_is_refused() {
        let head = parse_request(b"HEAD / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n");
        let head = head.unwrap().unwrap();
        assert_eq!((head.framing, head.is_head), (Framing::Chunked, true));
        for broken in ["GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
            assert_eq!(parse_request(broken.as_bytes()), Err(WireError::Head), "{broken}");
        }
        assert_eq!(parse_request(&[b'x'; 70_000]), Err(WireError::Head));
    }
}
