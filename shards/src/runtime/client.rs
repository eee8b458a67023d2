//! A client's socket, with or without TLS.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use crate::shard::socket;
use crate::tls::{Session, SharedSession};

/// Plaintext that one write encrypts; bounds what may wait as ciphertext.
const PIECE_BYTES: usize = 32 * 1024;
/// Reads that bring nothing for whoever reads, as empty records do, before others get a turn.
const READS_IN_A_ROW: usize = 4;

/// An accepted socket.
pub(super) struct Client<S = TcpStream> {
    tcp: S,
    tls: Option<SharedSession>,
}

impl Client {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    pub(super) fn secured(tcp: TcpStream, session: Session) -> Self {
        Self { tcp, tls: Some(Rc::new(RefCell::new(session))) }
    }
}

impl<S> Client<S> {
    /// The same client on another kind of socket.
    pub(super) fn map<T>(self, change: impl FnOnce(S) -> T) -> Client<T> {
        Client { tcp: change(self.tcp), tls: self.tls }
    }

    pub(super) fn tls(&self) -> Option<&SharedSession> {
        self.tls.as_ref()
    }

    /// The socket itself, past TLS.
    pub(super) fn socket(&mut self) -> &mut S {
        &mut self.tcp
    }
}

impl<S: AsRawFd> Client<S> {
    pub(super) fn fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }

    /// Sends what the socket takes at once, of an answer that is the connection's last.
    pub(super) fn send_last(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.tls {
            None => socket::send(self.fd(), bytes).map(|_sent| ()),
            Some(tls) => self.send_sealed(&mut tls.borrow_mut(), bytes),
        }
    }

    fn send_sealed(&self, session: &mut Session, bytes: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::new();
        session.seal(bytes, &mut sealed).map_err(io::Error::other)?;
        let sent = socket::send(self.fd(), &sealed)?;
        session.keep(&sealed[sent..]);
        Ok(())
    }

    /// Tells the peer that nothing more comes; what it sends can still be received.
    pub(super) fn finish(&self) {
        if let Some(tls) = &self.tls {
            let mut session = tls.borrow_mut();
            // A session that can't say it is one that never got to speak, or has said why it ends.
            let _broken = session.end();
            let _gone = socket::send(self.fd(), session.waiting());
        }
        socket::shutdown_write(self.fd());
    }
}

impl<S: AsRawFd + AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends what TLS has to say; pending while the socket is full.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &self.tls else { return Poll::Ready(Ok(())) };
        let mut session = tls.borrow_mut();
        while !session.waiting().is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, session.waiting()))?;
            session.sent(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsRawFd + AsyncRead + AsyncWrite + Unpin> AsyncRead for Client<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(tls) = this.tls.clone() else { return Pin::new(&mut this.tcp).poll_read(cx, to) };
        for _ in 0..READS_IN_A_ROW {
            {
                let mut session = tls.borrow_mut();
                let read = session.read(to);
                if read > 0 || session.is_ended() || to.is_empty() {
                    return Poll::Ready(Ok(read));
                }
            }
            let received = match Pin::new(&mut this.tcp).poll_read(cx, to) {
                Poll::Ready(received) => received?,
                Poll::Pending => {
                    if let Poll::Ready(drained) = this.poll_drain(cx) {
                        drained?;
                    }
                    return Poll::Pending;
                }
            };
            if received == 0 {
                return Poll::Ready(Ok(0));
            }
            let taken = tls.borrow_mut().receive(&mut to[..received]);
            if let Poll::Ready(drained) = this.poll_drain(cx) {
                drained?;
            }
            taken.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsRawFd + AsyncRead + AsyncWrite + Unpin> AsyncWrite for Client<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.tls.is_none() {
            return Pin::new(&mut this.tcp).poll_write(cx, bytes);
        }
        ready!(this.poll_drain(cx))?;
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        if let Some(tls) = &this.tls
            && !piece.is_empty()
        {
            this.send_sealed(&mut tls.borrow_mut(), piece)?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        this.finish();
        Poll::Ready(Ok(()))
    }
}
