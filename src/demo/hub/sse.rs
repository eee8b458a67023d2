//! Reads an event stream (HTML standard, section 9.2, "Server-sent events") as far as a service needs it: the data of each
//! event.

/// Longest event that is read; a longer one is left out.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    too_long: bool,
}

impl Parser {
    /// Takes the next bytes; gives the data of the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => events.extend(self.end_line()),
                b'\r' => {}
                _ if self.line.len() + self.data.len() >= MAX_EVENT_BYTES => self.too_long = true,
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        if self.line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let is_whole = !std::mem::take(&mut self.too_long);
            return (is_whole && !data.is_empty()).then_some(data);
        }
        if let Some(data) = self.line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        self.line.clear();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": heartbeat\n\nevent: a\ndata: {\"n\":1}\n\nid: 7\r\nevent: b\r\ndata: {\r\ndata:}\r\n\r\ndata: cut";

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = STREAM.as_bytes().chunks(size).flat_map(|chunk| parser.feed(chunk)).collect();
            assert_eq!(events, [b"{\"n\":1}".to_vec(), b"{\n}".to_vec()], "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_the_next_is_read() {
        let mut parser = Parser::default();
        let long = format!("data: {}\n\ndata: next\n\n", "x".repeat(MAX_EVENT_BYTES));
        assert_eq!(parser.feed(long.as_bytes()), [b"next".to_vec()]);
    }
}
