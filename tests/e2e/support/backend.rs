//! Backends for the API proxy: sockets on which a test says every byte, each connection on a thread of its own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::gateway::Gateway;
use super::{DEADLINE, wait_for};

/// Methods of the endpoints that [`api`] defines.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// A backend that accepts until the test ends.
pub(crate) struct Backend {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Backend {
    /// Serves each connection with `script`.
    pub(crate) fn scripted(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, live, script) = (Arc::clone(&accepted), Arc::clone(&open), Arc::new(script));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                live.fetch_add(1, Ordering::SeqCst);
                let (live, script) = (Arc::clone(&live), Arc::clone(&script));
                std::thread::spawn(move || {
                    script(&mut Peer::new(stream, number));
                    live.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, accepted, open }
    }

    /// Answers every request, on connections that are kept alive.
    pub(crate) fn answering(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |peer| {
            while let Some(request) = peer.request() {
                if !peer.try_send(answer(&request)) {
                    break;
                }
            }
        })
    }

    /// Sends these bytes after the first request's head, and ends.
    pub(crate) fn saying(answer: impl AsRef<[u8]>) -> Self {
        let answer = answer.as_ref().to_owned();
        Self::scripted(move |peer| {
            if peer.head().is_some() {
                peer.try_send(&answer);
                peer.finish();
            }
        })
    }

    /// Notes every request and answers it with 200 `ok`.
    pub(crate) fn noting() -> (Self, Notes) {
        let (note, notes) = mpsc::channel();
        let note = Mutex::new(note);
        let backend = Self::answering(move |request| {
            let _ = note.lock().unwrap_or_else(PoisonError::into_inner).send(request.clone());
            ok("ok")
        });
        (backend, Notes(notes))
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose script still runs.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// A gateway whose every path under `/to/` leads here.
    pub(crate) fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        gateway(&json!([api("shop", "http://127.0.0.1", self.port())]), settings)
    }
}

/// Requests that a backend has received.
pub(crate) struct Notes(Receiver<Received>);

impl Notes {
    /// The next one.
    pub(crate) fn next(&self) -> Received {
        self.0.recv_timeout(DEADLINE).expect("a request reaches the backend")
    }

    /// One that has come already.
    pub(crate) fn try_next(&self) -> Option<Received> {
        self.0.try_recv().ok()
    }
}

/// A gateway with these definitions.
pub(crate) fn gateway(definitions: &Value, settings: &[(&str, &str)]) -> Gateway {
    let definitions = definitions.to_string();
    let mut all = vec![("PROXY_CONFIG_FILE", definitions.as_str()), ("MAX_CONNECTIONS_PER_MINUTE", "1000000")];
    all.extend_from_slice(settings);
    Gateway::with(&all)
}

/// A definition whose every path under `/to/`, with every method, leads to a backend.
pub(crate) fn api(id: &str, target_url: &str, port: u16) -> Value {
    let endpoints: Vec<_> = METHODS
        .iter()
        .map(|method| json!({"id": format!("to-{method}"), "method": method, "path_regex": "/to/.*"}))
        .collect();
    json!({
        "id": id,
        "name": id,
        "auth_type": "none",
        "versioned": false,
        "version_data": {"default": {"endpoints": endpoints}},
        "proxy": {"use_env": false, "target_url": target_url, "port": port}
    })
}

/// An answer with a length.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// A request as the backend got it; names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Received {
    /// The value of a header that may occur once at most.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers_named(name);
        assert!(values.len() <= 1, "{name} occurs once at most: {values:?}");
        values.first().copied()
    }

    pub(crate) fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// The gateway's side of one connection to a backend.
pub(crate) struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Which connection this is, from 0.
    pub(crate) number: usize,
}

impl Peer {
    fn new(stream: TcpStream, number: usize) -> Self {
        stream.set_nodelay(true).expect("a TCP option can be set");
        Self { stream, buffer: Vec::new(), number }
    }

    /// The next request, body and all; `None` at the end.
    pub(crate) fn request(&mut self) -> Option<Received> {
        let mut request = self.head()?;
        if request.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line()?;
                let length = usize::from_str_radix(&line, 16).expect("a chunk has a size");
                if length == 0 {
                    break;
                }
                let chunk = self.exactly(length)?;
                request.body.extend_from_slice(&chunk);
                assert_eq!(self.line()?, "", "a chunk ends with CR LF");
            }
            loop {
                let line = self.line()?;
                let Some((name, value)) = line.split_once(':') else { break };
                request.trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().expect("content-length is a number");
            request.body = self.exactly(length)?;
        }
        Some(request)
    }

    /// The next request's head; its body stays unread.
    pub(crate) fn head(&mut self) -> Option<Received> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut head = httparse::Request::new(&mut fields);
            if let httparse::Status::Complete(length) = head.parse(&self.buffer).expect("the gateway speaks HTTP") {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let request = Received {
                    method: head.method.unwrap_or_default().to_owned(),
                    target: head.path.unwrap_or_default().to_owned(),
                    headers: head.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect(),
                    body: Vec::new(),
                    trailers: Vec::new(),
                };
                self.buffer.drain(..length);
                return Some(request);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Some(line);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// This many bytes; `None` if the gateway ends before.
    pub(crate) fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                true
            }
        }
    }

    /// Reads and drops bytes; how many came, 0 at the end.
    pub(crate) fn swallow(&mut self) -> usize {
        let mut chunk = [0; 64 * 1024];
        let buffered = std::mem::take(&mut self.buffer).len();
        if buffered > 0 { buffered } else { self.stream.read(&mut chunk).unwrap_or(0) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the gateway takes the bytes");
    }

    /// Sends to a gateway that may have gone; says whether all was taken.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Ends the sending side.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the gateway has ended the connection.
    pub(crate) fn until_end(&mut self) {
        while self.fill() {}
    }

    /// The socket itself.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// A gate that the test opens for its backends.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<AtomicUsize>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    pub(crate) fn wait(&self) {
        wait_for("the test to open the gate", || (self.0.load(Ordering::SeqCst) == 1).then_some(()));
    }
}

/// A channel whose sender many threads share.
pub(crate) fn notes<T: Send + 'static>() -> (impl Fn(T) + Send + Sync + 'static, Receiver<T>) {
    let (sender, receiver): (Sender<T>, _) = mpsc::channel();
    let sender = Mutex::new(sender);
    let note = move |value| {
        let _ = sender.lock().unwrap_or_else(PoisonError::into_inner).send(value);
    };
    (note, receiver)
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
}

/// Copies what one side says to a writer until it ends.
pub(crate) fn copy_to_end(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    io::copy(from, to)
}
