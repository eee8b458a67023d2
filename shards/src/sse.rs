//! Server-Sent Events (WHATWG HTML, section 9.2): events as frames of `text/event-stream`.

use memchr::{memchr2, memchr3_iter};

/// A comment that keeps the connection alive; clients ignore it.
pub const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// Tells the client how long to wait before it connects again (section 9.2.5).
#[must_use]
pub fn retry(ms: u64) -> String {
    format!("retry: {ms}\n\n")
}

/// Appends one event: its `event:` line, an `id:` line if there is an id, its `data:` lines, and the blank line that dispatches it.
///
/// The body's lines, whether they end in LF, CR or CRLF, become one `data:` line each, so the client sees them joined by LF; in JSON
/// such line ends are white space. CR, LF and NUL would break the stream, or void the id (section 9.2.6): in the type each becomes a
/// space, in the id each is left out.
pub fn append_event(event_type: &str, id: Option<&str>, body: &[u8], out: &mut Vec<u8>) {
    let id_bytes = id.map_or(0, |id| id.len() + 5);
    out.reserve("event: \ndata: \n\n".len() + event_type.len() + id_bytes + body.len());
    out.extend_from_slice(b"event: ");
    append_without_line_ends(event_type, Some(b' '), out);
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        append_without_line_ends(id, None, out);
    }
    out.push(b'\n');
    append_data(body, out);
    out.push(b'\n');
}

/// The body of one event as [`append_event`] wrote it, its lines joined by LF.
#[must_use]
pub fn body_of(event: &[u8]) -> Vec<u8> {
    let lines = event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
    lines.collect::<Vec<_>>().join(&b'\n')
}

fn append_without_line_ends(text: &str, replacement: Option<u8>, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for at in memchr3_iter(b'\r', b'\n', 0, bytes) {
        out.extend_from_slice(&bytes[copied..at]);
        out.extend(replacement);
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn append_data(mut body: &[u8], out: &mut Vec<u8>) {
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr2(b'\r', b'\n', body) else {
            out.extend_from_slice(body);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&body[..end]);
        out.push(b'\n');
        let is_crlf = body[end..].starts_with(b"\r\n");
        body = &body[end + if is_crlf { 2 } else { 1 }..];
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
