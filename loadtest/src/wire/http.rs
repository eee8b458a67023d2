//! Heads of HTTP/1.1 responses (RFC 9112), as far as a load generator reads them.

use super::WireError;
use super::chunked;

/// Longest response head that is waited for.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A response's head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    /// Bytes up to and with the empty line.
    pub(crate) head_bytes: usize,
    pub(crate) framing: Framing,
    /// The server will close the connection after this response.
    pub(crate) close: bool,
    /// Names and values of `set-cookie`, attributes left out.
    pub(crate) cookies: Vec<(String, String)>,
}

/// Reads the head at the front of `bytes`; `None` while it is not whole.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<ResponseHead>, WireError> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        let impossible = bytes.len() > MAX_HEAD_BYTES || !b"HTTP/1.".starts_with(&bytes[..bytes.len().min(7)]);
        return if impossible { Err(WireError::Head) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| WireError::Head)?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or(WireError::Head)?;
    let (minor, rest) = status_line.split_once(' ').ok_or(WireError::Head)?;
    let status: u16 = rest.get(..3).and_then(|code| code.parse().ok()).ok_or(WireError::Head)?;
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    let mut head = ResponseHead {
        status,
        head_bytes: end + 4,
        framing: if bodiless { Framing::Length(0) } else { Framing::UntilClose },
        close: minor == "0",
        cookies: Vec::new(),
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(WireError::Head)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" if !bodiless && head.framing != Framing::Chunked => {
                head.framing = Framing::Length(value.parse().map_err(|_| WireError::Head)?);
            }
            "transfer-encoding" if !bodiless && value.eq_ignore_ascii_case("chunked") => {
                head.framing = Framing::Chunked;
            }
            "connection" if value.eq_ignore_ascii_case("close") => head.close = true,
            "set-cookie" => {
                let pair = value.split_once(';').map_or(value, |(pair, _)| pair);
                let (name, value) = pair.split_once('=').ok_or(WireError::Head)?;
                head.cookies.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

/// Value of the first field `name` in a head, without the blanks around it.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.strip_prefix(b":"))?.map(<[u8]>::trim_ascii)
    })
}

/// Where a whole body ends in `bytes`, which starts behind the head, and the body itself (in `scratch` if it was
/// chunked); `None` while it is not whole. A body that ends with the connection is whole only when `closed`.
pub(crate) fn whole_body<'a>(
    framing: Framing,
    bytes: &'a [u8],
    closed: bool,
    scratch: &'a mut Vec<u8>,
) -> Result<Option<(&'a [u8], usize)>, WireError> {
    match framing {
        Framing::Length(length) => Ok(bytes.get(..length).map(|body| (body, length))),
        Framing::UntilClose => Ok(closed.then_some((bytes, bytes.len()))),
        Framing::Chunked => {
            scratch.clear();
            scratch.extend_from_slice(bytes);
            let mut decoder = chunked::Decoder::default();
            let (written, read) = decoder.decode_in_place(scratch)?;
            Ok(decoder.is_finished().then(|| (&scratch[..written], read)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nset-cookie: connection_token=abc==; path=/; HttpOnly\r\n\
        Set-Cookie: last_event_id=\"first_event\"; path=/; HttpOnly\r\n\r\n\"ok\"";

    #[test]
    fn a_head_cut_at_every_byte_is_waited_for_and_then_read() {
        for at in 0..HEAD.len() - 4 {
            assert_eq!(parse_head(&HEAD[..at]), Ok(None), "cut at {at}");
        }
        let head = parse_head(HEAD).unwrap().unwrap();
        assert_eq!((head.status, head.framing, head.close), (200, Framing::Length(4), false));
        let cookies: Vec<(&str, &str)> = head.cookies.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(cookies, [("connection_token", "abc=="), ("last_event_id", "\"first_event\"")]);
        let mut scratch = Vec::new();
        let body = whole_body(head.framing, &HEAD[head.head_bytes..], false, &mut scratch).unwrap();
        assert_eq!(body, Some((&b"\"ok\""[..], 4)));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name_in_any_case() {
        let head = b"HTTP/1.1 200 OK\r\nX-Load-Number-2: b\r\nX-LOAD-number:  a \r\n\r\n";
        assert_eq!(field(head, "x-load-number"), Some(&b"a"[..]));
        assert_eq!(field(head, "x-load"), None);
    }

    #[test]
    fn responses_without_body_have_length_zero_whatever_their_headers_say() {
        let head = parse_head(b"HTTP/1.1 101 Switching Protocols\r\ncontent-length: 9\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.framing), (101, Framing::Length(0)));
    }

    #[test]
    fn a_chunked_body_is_whole_only_with_its_last_chunk() {
        let body = b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1";
        let mut scratch = Vec::new();
        for at in 0..13 {
            assert_eq!(whole_body(Framing::Chunked, &body[..at], false, &mut scratch), Ok(None), "cut at {at}");
        }
        assert_eq!(whole_body(Framing::Chunked, body, false, &mut scratch), Ok(Some((&b"abc"[..], 13))));
    }

    #[test]
    fn a_body_until_close_is_whole_when_the_connection_has_closed() {
        let mut scratch = Vec::new();
        assert_eq!(whole_body(Framing::UntilClose, b"abc", false, &mut scratch), Ok(None));
        assert_eq!(whole_body(Framing::UntilClose, b"abc", true, &mut scratch), Ok(Some((&b"abc"[..], 3))));
        assert!(parse_head(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap().close);
    }

    #[test]
    fn what_is_not_http_is_refused_at_its_first_wrong_byte() {
        assert_eq!(parse_head(b"SSH-"), Err(WireError::Head));
        assert_eq!(parse_head(b"HTTP/1.1 abc\r\n\r\n"), Err(WireError::Head));
        assert_eq!(parse_head(&[b"HTTP/1.1 200 OK\r\nx: ", &[b'a'; 70_000][..]].concat()), Err(WireError::Head));
    }
}
