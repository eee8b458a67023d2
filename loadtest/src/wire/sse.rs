//! Event streams (HTML Living Standard, section 9.2.6), as far as counting events needs.
//!
//! Lines may end in LF or CRLF. A CR alone, which the standard allows too, is not taken as a line end.

/// Calls `event` with the raw lines of every whole event in `bytes` (those with at least one `data` or `retry` line; comments
/// alone are skipped) and returns how many bytes are finished.
#[inline]
pub(crate) fn feed(bytes: &[u8], mut event: impl FnMut(&[u8])) -> usize {
    let (mut start, mut at, mut says_something) = (0, 0, false);
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + length];
        at += length + 1;
        if line.is_empty() || line == b"\r" {
            if says_something {
                event(&bytes[start..at]);
            }
            (start, says_something) = (at, false);
        } else if [&b"data:"[..], b"retry:"].iter().any(|field| line.starts_with(field))
            || line.trim_ascii_end() == b"data"
        {
            says_something = true;
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let (mut rest, mut seen) = (Vec::new(), Vec::new());
        for part in parts {
            rest.extend_from_slice(part);
            let consumed = feed(&rest, |event| seen.push(String::from_utf8_lossy(event).into_owned()));
            rest.drain(..consumed);
        }
        seen
    }

    #[test]
    fn a_stream_split_at_every_byte_gives_the_same_events() {
        let bytes: &[u8] =
            b": heartbeat\n\nevent: a\ndata: {\"x\":1}\n\ndata: two\ndata: lines\r\n\r\n: c\n\nid: 7\ndata\n\nevent: b\n\ndata: cut";
        let whole = read(&[bytes]);
        assert_eq!(whole, ["event: a\ndata: {\"x\":1}\n\n", "data: two\ndata: lines\r\n\r\n", "id: 7\ndata\n\n"]);
        for at in 0..=bytes.len() {
            assert_eq!(read(&[&bytes[..at], &bytes[at..]]), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), whole);
    }

    #[test]
    fn a_time_to_come_back_is_told() {
        assert_eq!(read(&[b"retry: 700\n\n", b": c\n\n"]), ["retry: 700\n\n"]);
    }

    #[test]
    fn comments_and_events_without_data_are_not_events() {
        assert!(read(&[b": heartbeat\n\n: heartbeat\n\nevent: only\n\n\n\n"]).is_empty());
    }
}
