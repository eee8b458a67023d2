//! Request heads of HTTP/1.x, read from the first bytes of every accepted socket.
//!
//! [`parse`] takes whatever has arrived so far and says whether a head is complete. It is strict: everything that two
//! HTTP implementations could read differently (RFC 9112 §2.2, §5, §6.3 and §11.2, request smuggling) is refused, with a
//! ready answer in [`HeadError::to_response`]. [`Follower`] checks the
//! later heads of a connection. [`route`] says which of Tidegate's own calls a path means.

mod error;
mod follow;
mod framing;
mod route;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

pub use error::HeadError;
pub use follow::{Followed, Follower};
pub use framing::BodyLength;
pub use route::{BadPath, Route, Transport, route};

/// Header fields that one head may carry.
pub const MAX_HEADERS: usize = 100;

/// What a client sends first when it speaks HTTP/2 with prior knowledge (RFC 9113 §3.4).
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bounds of a request head, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head, from the first byte to the empty line, both included.
    pub max_head_bytes: usize,
    /// The request line without its line end.
    pub max_request_line_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_head_bytes: 16 * 1024, max_request_line_bytes: 8 * 1024 }
    }
}

/// What the bytes read so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadStatus<'a> {
    /// The beginning of a head; more bytes are needed.
    Partial,
    /// The preface of HTTP/2, complete.
    Http2,
    /// A complete and valid head of HTTP/1.0 or HTTP/1.1.
    Complete(RequestHead<'a>),
}

/// Version of HTTP/1.x that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0: no chunked coding, connections end with the answer.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A complete request head, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method as sent; methods are case-sensitive.
    pub method: &'a str,
    /// The request target as sent.
    pub target: &'a str,
    /// Path of the target, still percent-encoded; `*` for the asterisk form.
    pub path: &'a str,
    /// What follows the `?`, still percent-encoded.
    pub query: Option<&'a str>,
    /// Version of the protocol.
    pub version: HttpVersion,
    /// How long the body is that follows the head.
    pub body: BodyLength,
    /// Bytes that the head takes up; the body or the next protocol starts there.
    pub head_len: usize,
    fields: &'a [u8],
}

impl<'a> RequestHead<'a> {
    /// All header fields in the order sent: name as sent, value without surrounding white space.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let end = memchr::memchr(b'\r', rest)?;
            let (line, tail) = rest.split_at(end);
            rest = tail.get(2..).unwrap_or_default();
            let colon = memchr::memchr(b':', line)?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
        })
    }

    /// Every value of the field `name`; names are case-insensitive.
    pub fn header_values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first value of the field `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_values(name).next()
    }

    /// The first value of the field `name`, if it is UTF-8.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&'a str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Whether one of the comma-separated values of the field `name` is `token`, whatever its case.
    #[must_use]
    pub fn header_has_token(&self, name: &str, token: &str) -> bool {
        self.header_values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the client asks to go on with the WebSocket protocol on this connection (RFC 6455 §4.2.1).
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.version == HttpVersion::Http11
            && self.header_has_token("upgrade", "websocket")
            && self.header_has_token("connection", "upgrade")
    }
}

/// Reads a request head from `bytes`, which start where a head may start.
///
/// Call it again with all bytes when more have arrived, not without new ones: each call starts from the beginning. One
/// empty line before the head is skipped (RFC 9112 §2.2).
///
/// # Errors
///
/// A [`HeadError`] as soon as the bytes can't become an acceptable head; the connection must be closed after its answer.
pub fn parse<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<HeadStatus<'a>, HeadError> {
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let arrived = &bytes[skipped..];
    let begins_preface = arrived.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(arrived);
    if begins_preface || bytes == b"\r" {
        return Ok(HeadStatus::Partial);
    }
    if arrived.starts_with(HTTP2_PREFACE) && skipped == 0 {
        return Ok(HeadStatus::Http2);
    }
    if matches!(arrived[0], b'\r' | b'\n') {
        return Err(HeadError::Syntax);
    }

    let line_window = &arrived[..arrived.len().min(limits.max_request_line_bytes + 2)];
    let line_end = memchr::memchr(b'\n', line_window);
    if line_end.is_none() && arrived.len() > limits.max_request_line_bytes + 1 {
        return Err(HeadError::RequestLineTooLong);
    }

    let window = &arrived[..arrived.len().min(limits.max_head_bytes.saturating_sub(skipped))];
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(window, &mut storage)?;
    let httparse::Status::Complete(length) = parsed else {
        refuse_bare_line_feeds(window)?;
        return if window.len() < arrived.len() || bytes.len() >= limits.max_head_bytes {
            Err(HeadError::HeadTooLarge)
        } else {
            Ok(HeadStatus::Partial)
        };
    };
    refuse_bare_line_feeds(&window[..length])?;

    let (Some(method), Some(target), Some(line_end)) = (request.method, request.path, line_end) else {
        return Err(HeadError::Syntax);
    };
    let version = if request.version == Some(0) { HttpVersion::Http10 } else { HttpVersion::Http11 };
    if matches!(method, "TRACE" | "CONNECT") {
        return Err(HeadError::MethodNotImplemented);
    }
    let body = framing::check(request.headers, version)?;
    let (path, query) = split_target(target)?;
    Ok(HeadStatus::Complete(RequestHead {
        method,
        target,
        path,
        query,
        version,
        body,
        head_len: skipped + length,
        fields: &window[line_end + 1..length - 2],
    }))
}

/// A line ends with CR LF here and nothing else, although RFC 9112 §2.2 would let a recipient take a lone LF.
fn refuse_bare_line_feeds(head: &[u8]) -> Result<(), HeadError> {
    let bare = memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r');
    if bare { Err(HeadError::BareLineFeed) } else { Ok(()) }
}

/// Path and query of a target in origin, absolute or asterisk form (RFC 9112 §3.2); a fragment is cut off.
fn split_target(target: &str) -> Result<(&str, Option<&str>), HeadError> {
    let target = target.split_once('#').map_or(target, |(before, _)| before);
    let local = if target.starts_with('/') || target == "*" {
        target
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(HeadError::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(HeadError::Target);
        }
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        if authority_len == 0 {
            return Err(HeadError::Target);
        }
        &rest[authority_len..]
    };
    let (path, query) = local.split_once('?').map_or((local, None), |(path, query)| (path, Some(query)));
    Ok((if path.is_empty() { "/" } else { path }, query))
}
