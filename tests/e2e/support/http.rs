//! HTTP/1.1 as bytes on a socket: nothing is tidied up on the way out, and the answer is kept as it came.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::DEADLINE;

/// Largest head the client reads before it calls the answer broken.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A request; `host` is added, and `content-length` where there is a body, unless given.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_owned();
        self
    }

    /// A body of JSON with its content type.
    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// The request as it goes over the wire.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let given = |name: &str| self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !given("host") {
            bytes.extend_from_slice(b"host: localhost\r\n");
        }
        let has_body = !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        if has_body && !given("content-length") && !given("transfer-encoding") {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends the request on a connection of its own and reads the whole answer.
    pub(crate) fn send_to(&self, address: SocketAddr) -> Response {
        let mut connection = Connection::open(address);
        connection.request(self)
    }
}

/// An answer: headers in the order and spelling they came in.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header that may occur once at most.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers_named(name);
        assert!(values.len() <= 1, "{name} occurs once at most: {values:?}");
        values.first().copied()
    }

    /// All values of a header, in order.
    pub(crate) fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {:?}", self.text()))
    }
}

/// A connection that is kept open; requests and raw bytes may be mixed.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the gateway accepts connections")
    }

    /// [`Self::open`], where the gateway may reset the connection while it is being made.
    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, DEADLINE).map(Self::over)
    }

    /// From another address of this machine: all of 127.0.0.0/8 are.
    pub(crate) fn open_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
        socket.connect_timeout(&address.into(), DEADLINE).expect("the gateway accepts connections");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP option can be set");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
        Self { stream, buffer: Vec::new() }
    }

    /// The socket and what was read ahead from it.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// How long a single read may take before the test fails.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("a timeout can be set");
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the gateway takes the bytes");
    }

    /// Sends bytes to a peer that may have closed already; says whether all of them were taken.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Ends the sending direction; answers can still be read.
    pub(crate) fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a socket can be shut down");
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP option can be set");
    }

    /// Sends one request and reads its answer.
    pub(crate) fn request(&mut self, request: &Request) -> Response {
        self.send(request.to_bytes());
        self.response_to(&request.method)
    }

    /// Reads the answer to a request whose method allows a body.
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    fn response_to(&mut self, method: &str) -> Response {
        loop {
            let mut response = self.head();
            if response.status == 100 {
                continue;
            }
            let bodiless = method == "HEAD" || response.status < 200 || matches!(response.status, 204 | 304);
            if !bodiless {
                response.body = self.response_body(&response);
            }
            return response;
        }
    }

    /// Reads a head alone; what follows stays in the buffer.
    pub(crate) fn head(&mut self) -> Response {
        loop {
            if let Some(response) = self.parse_head() {
                return response;
            }
            assert!(self.buffer.len() < MAX_HEAD_BYTES, "the answer's head ends");
            let more = self.fill().expect("the answer comes in time");
            assert!(more, "the connection ended within a head: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    fn parse_head(&mut self) -> Option<Response> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(&self.buffer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return None,
            Err(error) => panic!("not an HTTP answer ({error}): {:?}", String::from_utf8_lossy(&self.buffer)),
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let response = Response {
            status: head.code.expect("a complete head has a status"),
            headers: head.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
            body: Vec::new(),
        };
        self.buffer.drain(..length);
        Some(response)
    }

    fn response_body(&mut self, head: &Response) -> Vec<u8> {
        if head.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk() {
                body.extend_from_slice(&chunk);
            }
            return body;
        }
        match head.header("content-length") {
            Some(length) => self.exactly(length.parse().expect("content-length is a number")),
            None => self.until_end(),
        }
    }

    /// One chunk of a chunked body; `None` for the last one.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line();
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
        let chunk = self.exactly(length);
        assert_eq!(self.line(), "", "a chunk ends with CR LF");
        (length > 0).then_some(chunk)
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.fill().expect("the line comes in time"), "the connection ended within a line");
        }
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            let more = self.fill().expect("the body comes in time");
            assert!(more, "the connection ended {} bytes before the body's end", length - self.buffer.len());
        }
        self.buffer.drain(..length).collect()
    }

    /// Everything up to the end of the connection; a reset counts as an end.
    pub(crate) fn until_end(&mut self) -> Vec<u8> {
        while self.fill().expect("the connection ends in time") {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads what there is; `false` at the end of the connection, in order or by reset.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.buffer.extend_from_slice(&chunk[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// What was read and not yet consumed.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Fails the test unless the gateway closes the connection without another byte.
    pub(crate) fn assert_closed(&mut self) {
        let rest = self.until_end();
        assert!(rest.is_empty(), "bytes after the answer: {:?}", String::from_utf8_lossy(&rest));
    }
}

/// Percent-encodes every byte that isn't unreserved (RFC 3986, section 2.3).
pub(crate) fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
