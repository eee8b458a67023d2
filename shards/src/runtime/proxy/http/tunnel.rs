//! A WebSocket between a client and a backend: once both have agreed, bytes are passed on as they come, unread.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::HeaderMap;
use bytes::{Buf, Bytes};
use futures_util::io::{AsyncRead, AsyncWrite};

use super::pool::Lease;
use super::transport::Wire;
use crate::clock;
use crate::runtime::SharedWorld;
use crate::runtime::adapter::ReadBuffer;
use crate::runtime::http::note_waker;
use crate::runtime::readiness::Socket;
use crate::shard::connection::{Address, Closing};

/// Bytes read from one side that may wait for the other.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces passed on before other connections get a turn.
const PIECES_IN_A_ROW: usize = 16;

/// A backend's side of a WebSocket, and what the client is still to be told.
pub(in crate::runtime) struct Tunnel {
    backend: Wire,
    to_client: Bytes,
    _lease: Lease,
}

impl Tunnel {
    /// `headers` are those of the backend's 101, `read` what it sent after it.
    pub(super) fn new(headers: &HeaderMap, backend: Wire, read: Bytes, lease: Lease) -> Self {
        let mut head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n".to_vec();
        for (name, value) in headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(&read);
        Self { backend, to_client: head.into(), _lease: lease }
    }

    /// Passes bytes on until both sides have ended, one has broken, or the shard ends the connection. `read` is what the
    /// client sent after its request.
    pub(in crate::runtime) async fn carry(
        self,
        world: &SharedWorld,
        address: Address,
        client: &mut Socket,
        read: Bytes,
    ) {
        let Self { mut backend, to_client, _lease } = self;
        let (mut down, mut up) = (Flow::new(to_client), Flow::new(read));
        let mut half_closed = false;
        poll_fn(|cx| {
            if note_waker(world, address, cx) == Closing::Now {
                return Poll::Ready(());
            }
            let mut moved = false;
            for _ in 0..PIECES_IN_A_ROW {
                let downwards = down.pass(&world.read_buffer, &mut backend, client, cx);
                let upwards = up.pass(&world.read_buffer, client, &mut backend, cx);
                moved |= matches!(downwards, Ok(true)) || matches!(upwards, Ok(true));
                match (downwards, upwards) {
                    (Err(_), _) | (_, Err(_)) => return Poll::Ready(()),
                    (Ok(false), Ok(false)) => {
                        if down.ended && up.ended {
                            return Poll::Ready(());
                        }
                        if (down.ended || up.ended) && (moved || !half_closed) {
                            // One side has ended; the other has its time after each piece to do so too.
                            half_closed = true;
                            let until_ms = clock::now_ms() + world.settings.proxy.idle_timeout_ms;
                            world.shard.borrow_mut().set_deadline(address, until_ms);
                        }
                        return Poll::Pending;
                    }
                    _ => {}
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// One direction.
struct Flow {
    waiting: Bytes,
    flushed: bool,
    /// The source has ended.
    finished: bool,
    /// The end has been passed on.
    ended: bool,
}

impl Flow {
    fn new(waiting: Bytes) -> Self {
        Self { waiting, flushed: true, finished: false, ended: false }
    }

    /// Passes one piece on; whether there may be more at once.
    fn pass(
        &mut self,
        buffer: &ReadBuffer,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.waiting.is_empty() && !self.finished {
            let mut buffer = buffer.borrow_mut();
            let len = buffer.len().min(PIECE_BYTES);
            match Pin::new(from).poll_read(cx, &mut buffer[..len]) {
                Poll::Ready(Ok(0)) => self.finished = true,
                Poll::Ready(Ok(received)) => self.waiting = Bytes::copy_from_slice(&buffer[..received]),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        let mut moved = false;
        while !self.waiting.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => {
                    self.waiting.advance(sent);
                    self.flushed = false;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        if !self.flushed {
            match Pin::new(&mut *to).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(false),
            }
            self.flushed = true;
        }
        if self.finished {
            match Pin::new(to).poll_close(cx) {
                Poll::Ready(_closed) => self.ended = true,
                Poll::Pending => return Ok(false),
            }
        }
        Ok(moved)
    }
}
