//! HTTP/2 in the clear with prior knowledge (RFC 9113, section 3.3): event streams and short calls.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::DEADLINE;
use super::gateway::Gateway;
use super::sse::{Event, Item, Parser};

/// One HTTP/2 connection.
pub(crate) struct Http2Connection {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

/// An event stream on an HTTP/2 connection.
pub(crate) struct Http2EventStream<'a> {
    connection: &'a Http2Connection,
    body: RecvStream,
    parser: Parser,
}

impl Http2Connection {
    pub(crate) fn open(gateway: &Gateway) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let address = gateway.inbound();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("the gateway accepts connections");
            let (sender, connection) =
                timeout(DEADLINE, h2::client::handshake(stream)).await.expect("in time").expect("HTTP/2 is spoken");
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// One call, body and all.
    pub(crate) fn call(&self, method: &str, target: &str, content_type: Option<&str>, body: &[u8]) -> Response<Bytes> {
        let headers: Vec<_> = content_type.iter().map(|content_type| ("content-type", *content_type)).collect();
        self.call_with(method, target, &headers, body)
    }

    /// One call with these header fields.
    pub(crate) fn call_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("http://localhost{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await.expect("the connection is open");
            let (response, mut stream) =
                sender.send_request(request, body.is_empty()).expect("the request can be sent");
            if !body.is_empty() {
                stream.send_data(Bytes::copy_from_slice(body), true).expect("the body can be sent");
            }
            let response = timeout(DEADLINE, response).await.expect("in time").expect("an answer comes");
            let (head, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            while let Some(chunk) = timeout(DEADLINE, body.data()).await.expect("in time") {
                let chunk = chunk.expect("the body is whole");
                body.flow_control().release_capacity(chunk.len()).expect("capacity can be released");
                bytes.extend_from_slice(&chunk);
            }
            Response::from_parts(head, bytes.into())
        })
    }

    /// A call whose answer has begun, and is not read.
    pub(crate) fn begin(&self, target: &str) -> RecvStream {
        self.begin_with(target, &[]).into_body()
    }

    /// The same with these header fields; gives the head, too.
    pub(crate) fn begin_with(&self, target: &str, headers: &[(&str, &str)]) -> Response<RecvStream> {
        let mut request = Request::builder().uri(format!("http://localhost{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await.expect("the connection is open");
            let (response, _) = sender.send_request(request, true).expect("the request can be sent");
            timeout(DEADLINE, response).await.expect("in time").expect("an answer comes")
        })
    }

    /// The next piece of an answer that has begun.
    pub(crate) fn piece(&self, body: &mut RecvStream) -> Bytes {
        self.runtime.block_on(async {
            let piece =
                timeout(DEADLINE, body.data()).await.expect("in time").expect("it goes on").expect("it is whole");
            body.flow_control().release_capacity(piece.len()).expect("capacity can be released");
            piece
        })
    }

    /// One call without body that may break.
    pub(crate) fn try_call(&self, method: &str, target: &str) -> Result<Bytes, h2::Error> {
        let request = Request::builder().method(method).uri(format!("http://localhost{target}")).body(());
        let request = request.expect("a valid request");
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, _) = sender.send_request(request, true)?;
            let mut body = timeout(DEADLINE, response).await.expect("in time")?.into_body();
            let mut bytes = Vec::new();
            while let Some(chunk) = timeout(DEADLINE, body.data()).await.expect("in time") {
                let chunk = chunk?;
                body.flow_control().release_capacity(chunk.len())?;
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.into())
        })
    }

    /// Opens an event stream with this query string (without `?`); gives the head, too.
    pub(crate) fn event_stream(&self, query: &str) -> (Response<()>, Http2EventStream<'_>) {
        let uri = format!("http://localhost/_rig/v1/connection/sse?{query}");
        let request = Request::builder().uri(uri).body(()).expect("a valid request");
        let response = self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await.expect("the connection is open");
            let (response, _) = sender.send_request(request, true).expect("the request can be sent");
            timeout(DEADLINE, response).await.expect("in time").expect("an answer comes")
        });
        let (head, body) = response.into_parts();
        let stream = Http2EventStream { connection: self, body, parser: Parser::default() };
        (Response::from_parts(head, ()), stream)
    }
}

impl Http2EventStream<'_> {
    pub(crate) fn next_event(&mut self) -> Event {
        loop {
            match self.next_item(DEADLINE) {
                Item::Event(event) => return event,
                Item::Comment(_) => {}
            }
        }
    }

    pub(crate) fn next_comment(&mut self) -> String {
        loop {
            match self.next_item(DEADLINE) {
                Item::Comment(comment) => return comment,
                Item::Event(_) => {}
            }
        }
    }

    /// Fails the test unless the stream ends here, in order.
    pub(crate) fn expect_end(&mut self) {
        while let Some(chunk) = self
            .connection
            .runtime
            .block_on(async { timeout(DEADLINE, self.body.data()).await.expect("the stream ends in time") })
        {
            assert!(chunk.expect("the stream is whole").is_empty(), "nothing more comes");
        }
    }

    fn next_item(&mut self, limit: Duration) -> Item {
        loop {
            if let Some(item) = self.parser.next() {
                return item;
            }
            let chunk = self.connection.runtime.block_on(async {
                let chunk = timeout(limit, self.body.data()).await.expect("the stream goes on in time");
                let chunk = chunk.expect("the stream does not end").expect("the stream is whole");
                self.body.flow_control().release_capacity(chunk.len()).expect("capacity can be released");
                chunk
            });
            self.parser.feed(&chunk);
        }
    }
}
