//! A gateway small enough to read at once, for the end-to-end tests: every connection gets a thread, every published
//! event goes to every subscriber whose key it carries.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What the gateway does wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every so many deliveries, one is left out.
    Skip(u64),
    /// Every so many deliveries, one is sent twice.
    Repeat(u64),
    /// Keys are ignored: everybody gets everything.
    IgnoreKeys,
    /// Every subscription is refused.
    Refuse,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Ws,
    Sse,
}

struct Subscriber {
    stream: TcpStream,
    framing: Framing,
    key: Option<String>,
}

#[derive(Default)]
struct Session {
    key: Option<String>,
    events: Vec<String>,
}

/// The running gateway; its threads end with the test's process.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    fault: Fault,
    subscribers: Mutex<Vec<Subscriber>>,
    sessions: Mutex<HashMap<u64, Session>>,
    arrived: Condvar,
    deliveries: AtomicU64,
    accepted: AtomicU64,
}

impl Gateway {
    /// Starts it on a free port.
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            fault,
            subscribers: Mutex::default(),
            sessions: Mutex::default(),
            arrived: Condvar::new(),
            deliveries: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.accepted.fetch_add(1, SeqCst);
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, state }
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.accepted.load(SeqCst)
    }
}

impl State {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((request_line, headers)) = read_head(&mut reader) {
            let target = request_line.split(' ').nth(1).unwrap_or_default().replace("%22", "\"").replace("%3A", ":");
            let key = target.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
            if request_line.starts_with("POST /_rig/v1/events ") {
                let length = headers["content-length"].parse().unwrap();
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                self.publish(&String::from_utf8(body).unwrap());
                (&stream).write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n\"\"").unwrap();
            } else if target.starts_with("/_rig/v1/connection/longpolling") {
                self.poll(&stream, headers.get("cookie").map(String::as_str), key);
            } else {
                return self.subscribe(stream, target.contains("/ws"), key);
            }
        }
    }

    fn subscribe(&self, mut stream: TcpStream, websocket: bool, key: Option<String>) {
        let framing = if websocket { Framing::Ws } else { Framing::Sse };
        let mut first = match framing {
            Framing::Ws => b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n".to_vec(),
            Framing::Sse => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        };
        if self.fault == Fault::Refuse {
            first.extend_from_slice(b"\x88\x0e\x03\xe8Bad request.");
            stream.write_all(&first).unwrap();
            return;
        }
        for event_type in ["rig.connection.create", "rig.subscriptions_set"] {
            frame(framing, &format!("{{\"type\":\"{event_type}\"}}"), &mut first);
        }
        let mut subscribers = self.subscribers.lock().unwrap();
        if stream.write_all(&first).is_ok() {
            stream.set_nonblocking(false).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            subscribers.push(Subscriber { stream, framing, key });
        }
    }

    /// One call of long polling; the newest id a client knows is the number of events it has had.
    fn poll(&self, mut stream: &TcpStream, cookie: Option<&str>, key: Option<String>) {
        let value = |name: &str| -> Option<u64> {
            let rest = cookie?.split(&format!("{name}=")).nth(1)?;
            rest.split(';').next()?.trim_matches('"').parse().ok()
        };
        let mut sessions = self.sessions.lock().unwrap();
        let (token, known, body) = match value("connection_token") {
            None => {
                let token = sessions.len() as u64;
                let events = vec![r#"{"type":"rig.subscriptions_set"}"#.to_owned()];
                sessions.insert(token, Session { key, events });
                (token, 0, "\"ok\"".to_owned())
            }
            Some(token) => {
                let known = value("last_event_id").unwrap() as usize;
                let nothing_new = |sessions: &mut HashMap<u64, Session>| sessions[&token].events.len() <= known;
                let (sessions, _) =
                    self.arrived.wait_timeout_while(sessions, Duration::from_secs(5), nothing_new).unwrap();
                let events = &sessions[&token].events;
                (token, events.len(), format!("{{\"events\":[{}]}}", events[known..].join(",")))
            }
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nset-cookie: connection_token={token}; path=/\r\n\
             set-cookie: last_event_id=\"{known}\"; path=/\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
    }

    fn publish(&self, body: &str) {
        let events: Vec<Box<serde_json::value::RawValue>> = if body.starts_with('[') {
            serde_json::from_str(body).unwrap()
        } else {
            vec![serde_json::from_str(body).unwrap()]
        };
        for event in events {
            let text = event.get();
            let event_key = text.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next());
            let wanted = |key: &Option<String>| {
                !text.contains(".unwanted")
                    && (key.is_none() || key.as_deref() == event_key || self.fault == Fault::IgnoreKeys)
            };
            self.subscribers.lock().unwrap().retain_mut(|subscriber| {
                if !wanted(&subscriber.key) {
                    return true;
                }
                let mut bytes = Vec::new();
                for _ in 0..self.times() {
                    frame(subscriber.framing, text, &mut bytes);
                }
                let sent = subscriber.stream.write_all(&bytes).is_ok();
                if !sent {
                    let _ = subscriber.stream.shutdown(std::net::Shutdown::Both);
                }
                sent
            });
            for session in self.sessions.lock().unwrap().values_mut().filter(|session| wanted(&session.key)) {
                session.events.push(text.to_owned());
            }
            self.arrived.notify_all();
        }
    }

    fn times(&self) -> usize {
        let delivery = self.deliveries.fetch_add(1, SeqCst) + 1;
        match self.fault {
            Fault::Skip(every) if delivery.is_multiple_of(every) => 0,
            Fault::Repeat(every) if delivery.is_multiple_of(every) => 2,
            _ => 1,
        }
    }
}

fn frame(framing: Framing, text: &str, out: &mut Vec<u8>) {
    match framing {
        Framing::Ws if text.len() < 126 => out.extend_from_slice(&[0x81, text.len() as u8]),
        Framing::Ws => {
            out.extend_from_slice(&[0x81, 126]);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
        Framing::Sse => out.extend_from_slice(format!("{:x}\r\ndata: ", text.len() + 8).as_bytes()),
    }
    out.extend_from_slice(text.as_bytes());
    if framing == Framing::Sse {
        out.extend_from_slice(b"\n\n\r\n");
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, HashMap<String, String>)> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let request_line = line()?;
    let mut headers = HashMap::new();
    loop {
        let header = line()?;
        match header.split_once(": ") {
            Some((name, value)) => headers.insert(name.to_owned(), value.to_owned()),
            None => return Some((request_line, headers)),
        };
    }
}
