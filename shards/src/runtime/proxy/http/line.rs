//! One HTTP/1.1 connection to a backend. No task of its own drives it: whoever uses it polls it, so that a request costs no
//! switch between tasks, and dropping the exchange ends the connection.

use std::cell::Cell;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::client::conn::http1;

use super::transport::{Transport, Wire};
use super::upload::RequestBody;
use crate::proxy::deadline::Deadline;
use crate::runtime::adapter::ReadBuffer;
use crate::shard::socket;

/// Bytes of one piece of an answer.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of an answer's head.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// See the module.
pub(super) struct Line {
    pub(super) sender: http1::SendRequest<RequestBody>,
    driver: Option<http1::Connection<Transport, RequestBody>>,
    over: bool,
    /// The backend has sent something since this was cleared.
    pub(super) received: Rc<Cell<bool>>,
    /// For what the line is waited for at the moment.
    pub(super) deadline: Deadline,
    /// Since when it is unused.
    pub(super) idle_since_ms: u64,
    fd: RawFd,
    encrypted: bool,
}

impl Line {
    pub(super) async fn new(wire: Wire, buffer: ReadBuffer, deadline: Deadline) -> hyper::Result<Box<Self>> {
        let (fd, encrypted) = (wire.fd(), matches!(wire, Wire::Tls(_)));
        let received = Rc::new(Cell::new(false));
        let transport = Transport { wire, buffer, received: Rc::clone(&received) };
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_header_size(MAX_HEAD_BYTES)
            .handshake::<_, RequestBody>(transport)
            .await?;
        let driver = Some(driver);
        Ok(Box::new(Self { sender, driver, over: false, received, deadline, idle_since_ms: 0, fd, encrypted }))
    }

    /// Lets bytes flow; ready when the connection is over.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over {
            return Poll::Ready(());
        }
        let Some(driver) = &mut self.driver else { return Poll::Ready(()) };
        // The error goes to whoever waits for the answer or its body.
        Pin::new(driver).poll(cx).map(|_ended| self.over = true)
    }

    /// Ends the connection; tells whoever waits for an answer.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.driver = None;
    }

    /// Whether the connection has ended, but its end has not been told yet.
    pub(super) fn is_over_unannounced(&self) -> bool {
        self.over && self.driver.is_some()
    }

    /// Whether it can take another request.
    pub(super) fn is_reusable(&self) -> bool {
        !self.over && self.sender.is_ready()
    }

    /// The socket after a change of protocols, and what was read ahead from it.
    pub(super) fn into_wire(mut self: Box<Self>) -> Option<(Wire, Bytes)> {
        let parts = self.driver.take()?.into_parts();
        Some((parts.io.wire, parts.read_buf))
    }

    /// Whether the backend has closed it, or sent what nobody asked for, while it was unused.
    pub(super) fn is_stale(&self) -> bool {
        match socket::peek(self.fd) {
            Ok(None) => false,
            // TLS may send tickets at any time.
            Ok(Some(1..)) => !self.encrypted,
            Ok(Some(0)) | Err(_) => true,
        }
    }
}
