//! Publishing by HTTP: keep-alive connections, pipelined requests, single events or batches.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::scenario::HttpSource;
use crate::wire::http::{parse_head, whole_body};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in a row without a single success after which the source counts as gone.
const MAX_FAILURES_IN_A_ROW: u64 = 100;

/// Connections to the publishing endpoint. Requests on one connection are answered in their order (RFC 9112 section
/// 9.3.2), and a stream keeps to one connection.
pub(crate) struct HttpPublisher {
    url: String,
    endpoint: Endpoint,
    batch: usize,
    pipeline: usize,
    connections: Vec<Connection>,
    outcome: Outcome,
}

#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    /// Whole requests that are not yet sent.
    requests: Vec<u8>,
    /// Events in each request that is unanswered.
    unanswered: Vec<u64>,
    /// The body of the next request.
    body: Vec<u8>,
    events: u64,
    received: Vec<u8>,
}

#[derive(Default)]
struct Outcome {
    accepted: u64,
    failed: u64,
    failures_in_a_row: u64,
    first_failure: Option<String>,
}

impl Outcome {
    fn refuse(&mut self, events: u64, reason: impl FnOnce() -> String) {
        self.failed += events;
        self.failures_in_a_row += 1;
        self.first_failure.get_or_insert_with(reason);
    }
}

impl HttpPublisher {
    pub(crate) fn open(source: &HttpSource) -> Result<Self, LoadError> {
        let mut endpoint = Endpoint::parse_plain(&source.url)?;
        if matches!(endpoint.path.as_str(), "" | "/") {
            endpoint.path = "/_rig/v1/events".to_owned();
        }
        Ok(Self {
            url: source.url.clone(),
            endpoint,
            batch: source.batch,
            pipeline: source.pipeline,
            connections: (0..source.connections).map(|_| Connection::default()).collect(),
            outcome: Outcome::default(),
        })
    }

    pub(crate) fn push(&mut self, stream: u32, event: &[u8]) -> Result<(), LoadError> {
        let at = stream as usize % self.connections.len();
        let connection = &mut self.connections[at];
        if self.batch > 1 {
            connection.body.push(if connection.events == 0 { b'[' } else { b',' });
        }
        connection.body.extend_from_slice(event);
        connection.events += 1;
        if connection.events < self.batch as u64 {
            return Ok(());
        }
        connection.seal(&self.endpoint, self.batch);
        if connection.unanswered.len() >= self.pipeline {
            connection.send(&self.endpoint, &mut self.outcome);
            connection.receive(&mut self.outcome);
        }
        self.check()
    }

    pub(crate) fn flush(&mut self) -> Result<(), LoadError> {
        for connection in &mut self.connections {
            connection.seal(&self.endpoint, self.batch);
            connection.send(&self.endpoint, &mut self.outcome);
        }
        for connection in &mut self.connections {
            connection.receive(&mut self.outcome);
        }
        self.check()
    }

    pub(crate) fn outcome(&self) -> (u64, u64, Option<String>) {
        (self.outcome.accepted, self.outcome.failed, self.outcome.first_failure.clone())
    }

    fn check(&self) -> Result<(), LoadError> {
        if self.outcome.failures_in_a_row < MAX_FAILURES_IN_A_ROW {
            return Ok(());
        }
        let first = self.outcome.first_failure.as_deref().unwrap_or("unknown");
        let reason = format!("{MAX_FAILURES_IN_A_ROW} requests in a row failed; the first: {first}");
        Err(LoadError::Publish { destination: self.url.clone(), reason })
    }
}

impl Connection {
    /// Makes a request of the events in the body.
    fn seal(&mut self, endpoint: &Endpoint, batch: usize) {
        if self.events == 0 {
            return;
        }
        let media_type = if batch > 1 {
            self.body.push(b']');
            "application/cloudevents-batch+json"
        } else {
            "application/cloudevents+json"
        };
        let (path, host, length) = (&endpoint.path, &endpoint.authority, self.body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        self.requests.extend_from_slice(head.as_bytes());
        self.requests.append(&mut self.body);
        self.unanswered.push(std::mem::take(&mut self.events));
    }

    fn send(&mut self, endpoint: &Endpoint, outcome: &mut Outcome) {
        if self.requests.is_empty() {
            return;
        }
        if let Err(error) = self.try_send(endpoint) {
            self.broken(outcome, || format!("sending to {}: {error}", endpoint.address));
        }
        self.requests.clear();
    }

    fn try_send(&mut self, endpoint: &Endpoint) -> std::io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&endpoint.address, TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                stream
            }
        };
        stream.write_all(&self.requests)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Reads the answers to all requests that were sent.
    fn receive(&mut self, outcome: &mut Outcome) {
        let mut scratch = Vec::new();
        let mut answered = 0;
        while answered < self.unanswered.len() {
            match self.response(&mut scratch) {
                Ok((status, text)) => {
                    let events = self.unanswered[answered];
                    if (200..300).contains(&status) {
                        outcome.accepted += events;
                        outcome.failures_in_a_row = 0;
                    } else {
                        outcome.refuse(events, || format!("status {status}: {text}"));
                    }
                    answered += 1;
                }
                Err(reason) => {
                    self.unanswered.drain(..answered);
                    return self.broken(outcome, || reason);
                }
            }
        }
        self.unanswered.clear();
    }

    /// The next response's status and, unless it is a success, the start of its body.
    fn response(&mut self, scratch: &mut Vec<u8>) -> Result<(u16, String), String> {
        let mut chunk = [0; 16 << 10];
        let mut closed = false;
        loop {
            if let Some(head) = parse_head(&self.received).map_err(|error| error.to_string())? {
                let rest = &self.received[head.head_bytes..];
                if let Some((body, used)) =
                    whole_body(head.framing, rest, closed, scratch).map_err(|error| error.to_string())?
                {
                    let text = if head.status < 300 { &b""[..] } else { &body[..body.len().min(200)] };
                    let answer = (head.status, String::from_utf8_lossy(text).into_owned());
                    self.received.drain(..head.head_bytes + used);
                    if head.close || closed {
                        self.stream = None;
                    }
                    return Ok(answer);
                }
            }
            let stream = self.stream.as_mut().filter(|_| !closed).ok_or("the server ended the connection")?;
            let count = stream.read(&mut chunk).map_err(|error| format!("waiting for an answer: {error}"))?;
            self.received.extend_from_slice(&chunk[..count]);
            closed = count == 0;
        }
    }

    /// Whether the events under way have arrived is unknown; they are not sent again, which could double them.
    fn broken(&mut self, outcome: &mut Outcome, reason: impl FnOnce() -> String) {
        outcome.refuse(self.unanswered.drain(..).sum(), reason);
        self.stream = None;
        self.received.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers requests on one connection after the other with `answer`; gives all bytes that came.
    fn server(answer: &'static [u8], requests: usize) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut seen, mut chunk, mut answered) = (Vec::new(), [0; 4096], 0);
            while answered < requests {
                let count = stream.read(&mut chunk).unwrap();
                assert!(count > 0, "the publisher left after {answered} answers");
                seen.extend_from_slice(&chunk[..count]);
                let whole = String::from_utf8_lossy(&seen).matches("}}").count();
                while answered < whole.min(requests) {
                    stream.write_all(answer).unwrap();
                    answered += 1;
                }
            }
            String::from_utf8(seen).unwrap()
        });
        (url, thread)
    }

    #[test]
    fn pipelined_events_are_counted_by_their_answers() {
        let (url, thread) = server(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok", 3);
        let mut publisher = HttpPublisher::open(&HttpSource::new(&url)).unwrap();
        for _ in 0..3 {
            publisher.push(0, b"{\"a\":{}}").unwrap();
        }
        publisher.flush().unwrap();
        assert_eq!(publisher.outcome(), (3, 0, None));
        let seen = thread.join().unwrap();
        assert_eq!(seen.matches("POST /_rig/v1/events HTTP/1.1\r\n").count(), 3);
        assert_eq!(seen.matches("content-type: application/cloudevents+json\r\ncontent-length: 8\r\n").count(), 3);
    }

    #[test]
    fn a_batch_is_one_request_with_a_json_list() {
        let (url, thread) = server(b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 1);
        let mut publisher = HttpPublisher::open(&HttpSource { batch: 10, ..HttpSource::new(&url) }).unwrap();
        publisher.push(0, b"{\"a\":1}").unwrap();
        publisher.push(0, b"{\"b\":{}}").unwrap();
        publisher.flush().unwrap();
        assert_eq!(publisher.outcome(), (2, 0, None));
        let seen = thread.join().unwrap();
        assert!(seen.ends_with("cloudevents-batch+json\r\ncontent-length: 18\r\n\r\n[{\"a\":1},{\"b\":{}}]"), "{seen}");
    }

    #[test]
    fn a_refusal_and_a_broken_connection_are_failures_with_the_first_reason() {
        let (url, thread) = server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nnope", 1);
        let mut publisher = HttpPublisher::open(&HttpSource::new(&url)).unwrap();
        publisher.push(0, b"{\"a\":{}}").unwrap();
        publisher.flush().unwrap();
        thread.join().unwrap();
        publisher.push(0, b"{\"a\":{}}").unwrap();
        publisher.flush().unwrap();
        assert_eq!(publisher.outcome(), (0, 2, Some("status 400: nope".to_owned())));
    }

    #[test]
    fn a_source_that_is_gone_stops_the_run_with_its_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let mut publisher = HttpPublisher::open(&HttpSource::new(&url)).unwrap();
        let mut push = || -> Result<(), LoadError> {
            publisher.push(0, b"{}")?;
            publisher.flush()
        };
        let error = (0..=MAX_FAILURES_IN_A_ROW).find_map(|_| push().err()).unwrap().to_string();
        assert!(error.contains("requests in a row failed") && error.contains(&url), "{error}");
    }
}
