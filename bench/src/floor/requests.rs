//! Just enough of HTTP to take events from the load generator.

use serde_json::value::RawValue;
use tidegate_shards::ws::encode::{self, OpCode};

const HEAD_END: &[u8] = b"\r\n\r\n";
const LENGTH: &str = "content-length: ";

/// Takes the whole requests from `unread`, adds a WebSocket frame for each event in them to `frames`, and returns the
/// number of requests. What isn't a request as the load generator writes it, is left where it is.
pub(super) fn take_requests(unread: &mut Vec<u8>, frames: &mut Vec<Vec<u8>>) -> usize {
    let (mut used, mut requests) = (0, 0);
    while let Some((body_at, body_bytes)) = head(&unread[used..]) {
        let Some(body) = unread.get(used + body_at..used + body_at + body_bytes) else { break };
        append_events(body, frames);
        used += body_at + body_bytes;
        requests += 1;
    }
    unread.drain(..used);
    requests
}

/// Where the body of the first request starts, and its bytes.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix(LENGTH))?.parse().ok()?;
    Some((end + HEAD_END.len(), length))
}

fn append_events(body: &[u8], frames: &mut Vec<Vec<u8>>) {
    let mut append = |event: &[u8]| {
        let mut frame = Vec::with_capacity(event.len() + 8);
        encode::append_frame(OpCode::Text, event, &mut frame);
        frames.push(frame);
    };
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(batch) => batch.iter().for_each(|event| append(event.get().as_bytes())),
        Err(_) => append(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> String {
        format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn pipelined_requests_of_single_events_and_batches_become_frames_in_order() {
        let mut unread = (request(r#"{"a":1}"#) + &request(r#"[{"b":2},{"c":3}]"#)).into_bytes();
        let rest = request(r#"{"d":4}"#);
        unread.extend_from_slice(&rest.as_bytes()[..rest.len() - 1]);
        let mut frames = Vec::new();
        assert_eq!(take_requests(&mut unread, &mut frames), 2);
        assert_eq!(frames, [b"\x81\x07{\"a\":1}", b"\x81\x07{\"b\":2}", b"\x81\x07{\"c\":3}"]);
        unread.push(b'}');
        assert_eq!(take_requests(&mut unread, &mut frames), 1);
        assert!(unread.is_empty());
    }
}
