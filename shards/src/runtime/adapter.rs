//! Sockets as hyper wants them. Bytes go through one buffer of the shard: hyper's own is not initialised, and zeroing it
//! costs more than the copy.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::io::AsyncRead;
use hyper::rt::ReadBufCursor;

/// The buffer that all connections of a shard read into; each is done with it before it waits again.
pub(super) type ReadBuffer = Rc<RefCell<Box<[u8]>>>;

/// Reads into `to`; 0 at the end of the stream.
pub(super) fn poll_read(
    buffer: &ReadBuffer,
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    mut to: ReadBufCursor<'_>,
) -> Poll<io::Result<usize>> {
    let mut buffer = buffer.borrow_mut();
    let len = buffer.len().min(to.remaining());
    let received = match Pin::new(stream).poll_read(cx, &mut buffer[..len]) {
        Poll::Pending => return Poll::Pending,
        Poll::Ready(received) => received?,
    };
    to.put_slice(&buffer[..received]);
    Poll::Ready(Ok(received))
}
