//! A well-behaved WebSocket client.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

use super::gateway::Gateway;
use super::http::Connection;

/// An open WebSocket.
pub(crate) struct WebSocketClient {
    socket: WebSocket<TcpStream>,
}

impl WebSocketClient {
    /// Opens a WebSocket with this query string (without `?`).
    pub(crate) fn open(gateway: &Gateway, query: &str) -> Self {
        Self::open_path(gateway, &format!("/_rig/v1/connection/ws?{query}"))
    }

    /// Opens a WebSocket at this path.
    pub(crate) fn open_path(gateway: &Gateway, target: &str) -> Self {
        let (stream, _) = Connection::open(gateway.inbound()).into_parts();
        let url = format!("ws://{}{target}", gateway.inbound());
        let (socket, _) = tungstenite::client(url, stream).expect("the WebSocket handshake succeeds");
        Self { socket }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        self.socket.get_ref().set_read_timeout(Some(timeout)).expect("a timeout can be set");
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.socket.send(message).expect("the gateway takes the message");
    }

    /// The next message of any kind. Pings are answered by the next read.
    pub(crate) fn next_message(&mut self) -> Message {
        self.socket.read().expect("a message comes in time")
    }

    /// The next text message; pings and pongs are skipped.
    pub(crate) fn next_text(&mut self) -> String {
        loop {
            match self.next_message() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a text message was expected, not {other:?}"),
            }
        }
    }

    /// Waits for the gateway's close frame and the end of the connection; texts before it are skipped.
    pub(crate) fn wait_for_close(mut self) -> CloseFrame {
        let frame = loop {
            if let Message::Close(frame) = self.next_message() {
                break frame.expect("the close frame has a code");
            }
        };
        match self.socket.read() {
            Err(Error::ConnectionClosed) => frame,
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => frame,
            outcome => panic!("the connection did not end in order: {outcome:?}"),
        }
    }

    /// Starts the close handshake and waits for the gateway's half of it.
    pub(crate) fn close(mut self, frame: CloseFrame) -> CloseFrame {
        self.socket.close(Some(frame)).expect("a close frame can be sent");
        self.wait_for_close()
    }
}
