//! The TLS handshake of an accepted socket.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::io::AsyncRead;

use super::SharedWorld;
use super::accept::{Announced, Arriving};
use super::client::Client;
use crate::clock;
use crate::shard::connection::{Address, Closing};
use crate::shard::socket;
use crate::tls::{HandshakeFailure, Session, answer_to_plain};

/// A handshake in progress; counted while it lives.
pub(super) struct Handshake {
    world: SharedWorld,
    /// Where the connection comes from.
    arriving: Arriving,
    /// The first bytes, as long as they are not TLS' own: a header of the PROXY protocol may come before.
    first: Option<Vec<u8>>,
    /// No byte of TLS has come yet.
    fresh: bool,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.world.shard.borrow().metrics().tls_handshaking.subtract(1);
    }
}

/// What became of a handshake.
pub(super) enum Shaken {
    /// It is complete; the request head comes next.
    Done(Arriving),
    /// It failed, and the client is gone.
    Gone,
    /// It failed, and the client has been told why.
    Refused,
}

impl Handshake {
    /// A session for a new connection; `None` where too many handshakes are in progress, or nothing serves TLS.
    pub(super) fn begin(world: &SharedWorld) -> Option<Session> {
        let config = world.tls.borrow().clone()?;
        let shard = world.shard.borrow();
        let max_handshakes = world.settings.tls.as_ref().map_or(0, |tls| tls.max_handshakes);
        if shard.metrics().tls_handshaking.get() >= max_handshakes as u64 {
            shard.metrics().tls_failed(HandshakeFailure::TooMany);
            return None;
        }
        Session::new(config)
            .inspect_err(|error| {
                tracing::error!(shard = world.number, %error, "the TLS configuration serves nobody");
            })
            .ok()
    }

    /// A handshake that is in progress from now on.
    pub(super) fn new(world: &SharedWorld, arriving: Arriving) -> Self {
        world.shard.borrow().metrics().tls_handshaking.add(1);
        Self { world: Rc::clone(world), arriving, first: Some(Vec::new()), fresh: true }
    }

    /// Goes on as far as the socket lets it.
    pub(super) fn poll(&mut self, client: &mut Client, address: Address, cx: &mut Context<'_>) -> Poll<Shaken> {
        let Some(tls) = client.tls().cloned() else { return Poll::Ready(Shaken::Gone) };
        let world = Rc::clone(&self.world);
        loop {
            if let Some(failure) = self.ended(address, cx) {
                return Poll::Ready(self.fail(failure));
            }
            match client.poll_drain(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(self.fail(Some(HandshakeFailure::Closed))),
                Poll::Ready(Ok(())) => {}
            }
            if !tls.borrow().is_handshaking() {
                self.complete(address, &tls.borrow());
                return Poll::Ready(Shaken::Done(std::mem::take(&mut self.arriving)));
            }
            let mut buffer = world.read_buffer.borrow_mut();
            let received = match self.receive(client, &mut buffer, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(self.fail(Some(HandshakeFailure::Closed))),
                Poll::Ready(Ok(received)) => &mut buffer[..received],
            };
            let mut whole;
            let received = match self.first.take() {
                None => received,
                Some(mut first) => {
                    first.extend_from_slice(received);
                    whole = first;
                    match self.arriving.announced(&world, address, &whole) {
                        Announced::Until(begins) if begins < whole.len() => &mut whole[begins..],
                        Announced::Until(begins) => {
                            self.first = Some(whole.split_off(begins));
                            continue;
                        }
                        Announced::Partial => {
                            self.first = Some(whole);
                            continue;
                        }
                        Announced::Refused(_) | Announced::Broken => return Poll::Ready(Shaken::Gone),
                    }
                }
            };
            if std::mem::take(&mut self.fresh)
                && let Some(answer) = received.first().and_then(|first| answer_to_plain(*first))
            {
                self.fail(Some(HandshakeFailure::NotTls));
                let _gone = socket::send(client.fd(), answer);
                return Poll::Ready(Shaken::Refused);
            }
            if let Err(error) = tls.borrow_mut().receive(received) {
                tracing::debug!(shard = world.number, %error, "a TLS handshake failed");
                self.fail(Some(HandshakeFailure::from(&error)));
                // The alert says why.
                let _gone = socket::send(client.fd(), tls.borrow().waiting());
                return Poll::Ready(Shaken::Refused);
            }
        }
    }

    /// The socket is tried first: a client says hello at once, and glommio would wait for a poll.
    fn receive(&self, client: &mut Client, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.fresh
            && let Some(received) = socket::receive(client.fd(), buffer).transpose()
        {
            return Poll::Ready(received);
        }
        Pin::new(client.socket()).poll_read(cx, buffer)
    }

    /// Whether the connection is to end, and with which failure.
    fn ended(&self, address: Address, cx: &mut Context<'_>) -> Option<Option<HandshakeFailure>> {
        let mut shard = self.world.shard.borrow_mut();
        let Some(connection) = shard.connections().get_mut(address) else { return Some(None) };
        if connection.closing == Closing::No {
            connection.remember(cx.waker());
            return None;
        }
        Some((connection.deadline_ms <= clock::now_ms()).then_some(HandshakeFailure::Timeout))
    }

    fn fail(&self, failure: Option<HandshakeFailure>) -> Shaken {
        if let Some(failure) = failure {
            self.world.shard.borrow().metrics().tls_failed(failure);
        }
        Shaken::Gone
    }

    /// The request head may take its time now.
    fn complete(&self, address: Address, session: &Session) {
        let mut shard = self.world.shard.borrow_mut();
        let metrics = shard.metrics();
        let version = if session.is_tls13() { &metrics.tls13_handshakes } else { &metrics.tls12_handshakes };
        version.add(1);
        metrics.tls_resumed.add(u64::from(session.is_resumed()));
        shard.set_deadline(address, clock::now_ms() + self.world.settings.header_timeout_ms);
    }
}
