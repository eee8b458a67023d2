//! A client of event streams, as the HTML standard describes one (section 9.2, "Server-sent events").

use std::collections::VecDeque;
use std::time::Duration;

use super::gateway::Gateway;
use super::http::{Connection, Request, Response};

/// An event as a browser would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The last `event:` line; empty if there was none.
    pub(crate) name: String,
    /// The `data:` lines, joined by line feeds.
    pub(crate) data: String,
    /// The last `id:` line of this event.
    pub(crate) id: Option<String>,
    /// The last `retry:` line, in milliseconds.
    pub(crate) retry_ms: Option<u64>,
    /// Field names in the order of their lines.
    pub(crate) fields: Vec<String>,
}

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Event(Event),
    Comment(String),
}

/// Takes bytes as they come and gives items once they are complete.
#[derive(Default)]
pub(crate) struct Parser {
    pending: Vec<u8>,
    /// The last line ended with a CR: a line feed that follows belongs to it.
    after_carriage_return: bool,
    event: Option<Event>,
    /// The last event id of what was taken, as a browser would send it back.
    last_id: Option<String>,
    /// Items, and the ids that count from them on.
    items: VecDeque<(Option<Item>, Option<String>)>,
}

impl Parser {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let continues = std::mem::take(&mut self.after_carriage_return) && byte == b'\n';
            match byte {
                b'\n' if continues => {}
                b'\n' | b'\r' => {
                    self.after_carriage_return = byte == b'\r';
                    let line = std::mem::take(&mut self.pending);
                    self.line(std::str::from_utf8(&line).expect("an event stream is UTF-8"));
                }
                _ => self.pending.push(byte),
            }
        }
    }

    pub(crate) fn next(&mut self) -> Option<Item> {
        while let Some((item, id)) = self.items.pop_front() {
            self.last_id = id.or(self.last_id.take());
            if item.is_some() {
                return item;
            }
        }
        None
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            // One without data is not dispatched, but its id counts, and how long it asks to wait is kept for the tests.
            if let Some(event) = self.event.take() {
                let id = event.id.clone();
                let shown = event.fields.iter().any(|known| known == "data" || known == "retry");
                self.items.push_back((shown.then_some(Item::Event(event)), id));
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if field.is_empty() {
            self.items.push_back((Some(Item::Comment(value.to_owned())), None));
            return;
        }
        let event = self.event.get_or_insert_with(|| Event {
            name: String::new(),
            data: String::new(),
            id: None,
            retry_ms: None,
            fields: Vec::new(),
        });
        match field {
            "event" => event.name = value.to_owned(),
            "id" => event.id = Some(value.to_owned()),
            "data" => {
                if event.fields.iter().any(|known| known == "data") {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            "retry" => event.retry_ms = value.parse().ok(),
            other => panic!("no such field in an event stream: {other:?}"),
        }
        event.fields.push(field.to_owned());
    }
}

/// An open event stream.
pub(crate) struct EventStream {
    /// Head of the answer.
    pub(crate) head: Response,
    connection: Connection,
    parser: Parser,
    ended: bool,
}

impl EventStream {
    /// Opens the stream with this query string (without `?`).
    pub(crate) fn open(gateway: &Gateway, query: &str) -> Self {
        Self::with_request(gateway, &Request::get(&format!("/_rig/v1/connection/sse?{query}")))
    }

    /// Opens a stream with a request of the test's own; anything but 200 fails the test.
    pub(crate) fn with_request(gateway: &Gateway, request: &Request) -> Self {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(request.to_bytes());
        Self::on_connection(connection)
    }

    /// Reads the head of a stream that was asked for on this connection.
    pub(crate) fn on_connection(mut connection: Connection) -> Self {
        let head = connection.head();
        if head.status != 200 {
            let body = connection.until_end();
            panic!("no stream: {head:?} {:?}", String::from_utf8_lossy(&body));
        }
        Self { head, connection, parser: Parser::default(), ended: false }
    }

    /// What a browser would send as `Last-Event-ID` after the events that were taken.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        self.parser.last_id.as_deref()
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        self.connection.set_read_timeout(timeout);
    }

    /// The next item; `None` when the stream has ended.
    pub(crate) fn next_item(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.parser.next() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            self.read_more();
        }
    }

    /// The next event, comments skipped; the end of the stream fails the test.
    pub(crate) fn next_event(&mut self) -> Event {
        loop {
            match self.next_item() {
                Some(Item::Event(event)) => return event,
                Some(Item::Comment(_)) => {}
                None => panic!("the stream ended, an event was expected"),
            }
        }
    }

    /// The next comment, events skipped.
    pub(crate) fn next_comment(&mut self) -> String {
        loop {
            match self.next_item() {
                Some(Item::Comment(comment)) => return comment,
                Some(Item::Event(_)) => {}
                None => panic!("the stream ended, a comment was expected"),
            }
        }
    }

    fn read_more(&mut self) {
        let bytes = if self.head.header("transfer-encoding").is_some() {
            self.connection.chunk()
        } else if self.connection.fill().expect("the stream goes on in time") {
            Some(self.connection.take_buffer())
        } else {
            let rest = self.connection.take_buffer();
            (!rest.is_empty()).then_some(rest)
        };
        match bytes {
            Some(bytes) => self.parser.feed(&bytes),
            None => self.ended = true,
        }
    }
}
