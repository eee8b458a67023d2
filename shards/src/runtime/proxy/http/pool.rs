//! The connections of a shard to one backend: how many, who waits for one, which are unused.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ahash::RandomState;
use futures_channel::oneshot;
use futures_util::FutureExt;
use hashbrown::HashMap;
use http::HeaderValue;
use hyper::client::conn::http2;

use super::addresses::AddressBook;
use super::line::Line;
use super::resolver::{Addresses, Resolver};
use super::upload::RequestBody;
use crate::clock;
use crate::proxy::deadline::Deadlines;
use crate::proxy::endpoint::Backend;
use crate::settings::ProxySettings;

/// Requests that may wait for a connection to one backend, per shard.
const MAX_WAITING: usize = 16_384;
/// How long a call waits for new addresses where old ones are known; half the time to connect, if that is less.
const NAME_PATIENCE_MS: u64 = 500;
/// Time between two looks at unused connections.
const LOOK_MS: u64 = 1_000;
/// Time between two warnings about one backend.
const WARNING_MS: u64 = 1_000;

/// All backends of a shard.
#[derive(Default)]
pub(in crate::runtime) struct Backends {
    pools: RefCell<HashMap<Backend, Rc<Pool>, RandomState>>,
    looked_ms: Cell<u64>,
}

impl Backends {
    pub(in crate::runtime) fn pool(&self, backend: &Backend, settings: &ProxySettings) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(backend) {
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool::new(backend, settings));
        self.pools.borrow_mut().insert(backend.clone(), Rc::clone(&pool));
        pool
    }

    /// Ends connections that have been unused for long or that the backend has closed, and forgets backends without any.
    pub(in crate::runtime) fn tick(&self, now_ms: u64) {
        if now_ms < self.looked_ms.get() + LOOK_MS {
            return;
        }
        self.looked_ms.set(now_ms);
        self.pools.borrow_mut().retain(|_, pool| {
            pool.look(now_ms);
            Rc::strong_count(pool) > 1 || !pool.is_empty()
        });
    }

    /// Ends all unused connections.
    pub(in crate::runtime) fn close(&self) {
        let pools = std::mem::take(&mut *self.pools.borrow_mut());
        for pool in pools.values() {
            pool.idle.borrow_mut().clear();
            pool.multiplexed.borrow_mut().take();
        }
    }
}

/// Too many requests wait for a connection already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

/// The connections to one backend.
pub(in crate::runtime) struct Pool {
    pub(super) backend: Backend,
    /// `host` of requests to it.
    pub(super) host: HeaderValue,
    max_connections: usize,
    keep_alive_ms: u64,
    /// How long a connection that many requests share may be silent while they are under way.
    max_silence_ms: u64,
    name_patience_ms: u64,
    in_use: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Lease>>>,
    /// Unused connections; the one used last is at the end.
    idle: RefCell<VecDeque<Box<Line>>>,
    /// The HTTP/2 connection, which takes many requests at a time.
    multiplexed: RefCell<Option<Multiplexed>>,
    addresses: AddressBook,
    /// Which of the addresses answered last.
    pub(super) preferred: Cell<usize>,
    warned_ms: Cell<Option<u64>>,
}

/// A connection of HTTP/2.
struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    used_ms: u64,
    silence: Silence,
}

/// How long requests have gone out without anything coming back. A backend that the network has cut off ends no
/// connection, and TCP goes on sending to it for a quarter of an hour.
struct Silence {
    /// The backend has sent something since the last request.
    received: Rc<Cell<bool>>,
    /// The first request that nothing came after.
    since_ms: u64,
}

impl Silence {
    /// A request goes out at `now_ms`; since how many milliseconds nothing has come, with others under way.
    fn before_request(&mut self, now_ms: u64) -> u64 {
        if self.received.replace(false) {
            self.since_ms = now_ms;
        }
        now_ms.saturating_sub(self.since_ms)
    }
}

impl Pool {
    fn new(backend: &Backend, settings: &ProxySettings) -> Self {
        let Backend { host, port, .. } = backend;
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self {
            backend: backend.clone(),
            host: HeaderValue::try_from(authority).unwrap_or_else(|_| HeaderValue::from_static("")),
            max_connections: settings.max_connections.max(1),
            keep_alive_ms: settings.keep_alive_ms,
            max_silence_ms: settings.first_byte_timeout_ms,
            name_patience_ms: NAME_PATIENCE_MS.min(settings.connect_timeout_ms / 2),
            in_use: Cell::new(0),
            waiting: RefCell::default(),
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            addresses: AddressBook::default(),
            preferred: Cell::new(0),
            warned_ms: Cell::new(None),
        }
    }

    /// The right to use a connection, now or when a request before this one has ended.
    pub(super) fn lease(self: &Rc<Self>) -> Result<Result<Lease, oneshot::Receiver<Lease>>, Full> {
        if self.in_use.get() < self.max_connections {
            self.in_use.set(self.in_use.get() + 1);
            return Ok(Ok(Lease { pool: Some(Rc::clone(self)) }));
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|waiter| !waiter.is_canceled());
        }
        if waiting.len() >= MAX_WAITING {
            return Err(Full);
        }
        let (grant, granted) = oneshot::channel();
        waiting.push_back(grant);
        Ok(Err(granted))
    }

    /// An unused connection.
    pub(super) fn take_idle(&self) -> Option<Box<Line>> {
        self.idle.borrow_mut().pop_back()
    }

    /// Keeps a connection for the next request.
    pub(super) fn put_back(&self, mut line: Box<Line>) {
        line.deadline.clear();
        line.idle_since_ms = clock::now_ms();
        self.idle.borrow_mut().push_back(line);
    }

    /// The HTTP/2 connection, if it still takes requests and brings answers.
    pub(super) fn multiplexed(&self) -> Option<http2::SendRequest<RequestBody>> {
        let now_ms = clock::now_ms();
        let mut kept = self.multiplexed.borrow_mut();
        // Requests that are under way on it stay there, each with its own deadline.
        kept.take_if(|kept| kept.sender.is_closed() || kept.silence.before_request(now_ms) >= self.max_silence_ms);
        let kept = kept.as_mut()?;
        kept.used_ms = now_ms;
        Some(kept.sender.clone())
    }

    /// Keeps a connection of HTTP/2 over which a first request is about to go; `received` is set when something comes.
    pub(super) fn keep_multiplexed(&self, sender: http2::SendRequest<RequestBody>, received: Rc<Cell<bool>>) {
        let now_ms = clock::now_ms();
        let silence = Silence { received, since_ms: now_ms };
        *self.multiplexed.borrow_mut() = Some(Multiplexed { sender, used_ms: now_ms, silence });
    }

    /// The HTTP/2 connection has failed.
    pub(super) fn forget_multiplexed(&self) {
        self.multiplexed.borrow_mut().take();
    }

    /// The addresses of the backend, asked for anew when they are old or none of them answered.
    pub(super) async fn addresses(&self, resolver: &Resolver, deadlines: &Deadlines) -> Addresses {
        let Backend { host, port, .. } = &self.backend;
        if let Ok(address) = host.parse::<std::net::IpAddr>() {
            return Ok([std::net::SocketAddr::new(address, *port)].into());
        }
        let ask = || {
            let (resolver, host, port) = (resolver.clone(), host.clone(), *port);
            async move { resolver.resolve(host, port).await }.boxed_local().shared()
        };
        self.addresses.get(clock::now_ms(), deadlines, self.name_patience_ms, ask).await
    }

    /// None of the addresses answered: the next request asks for them anew.
    pub(super) fn doubt_addresses(&self) {
        self.addresses.doubt();
    }

    /// Whether a warning about this backend is due.
    pub(in crate::runtime) fn may_warn(&self) -> bool {
        let now_ms = clock::now_ms();
        let due = self.warned_ms.get().is_none_or(|warned_ms| now_ms >= warned_ms + WARNING_MS);
        if due {
            self.warned_ms.set(Some(now_ms));
        }
        due
    }

    fn look(&self, now_ms: u64) {
        let too_old = |since_ms: u64| now_ms >= since_ms + self.keep_alive_ms;
        self.idle.borrow_mut().retain(|line| !too_old(line.idle_since_ms) && !line.is_stale());
        self.multiplexed.borrow_mut().take_if(|kept| kept.sender.is_closed() || too_old(kept.used_ms));
    }

    fn is_empty(&self) -> bool {
        self.in_use.get() == 0 && self.idle.borrow().is_empty() && self.multiplexed.borrow().is_none()
    }

    /// Hands a place on to whoever has waited longest.
    fn release(self: Rc<Self>) {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { break };
            match waiter.send(Lease { pool: Some(Rc::clone(&self)) }) {
                Ok(()) => return,
                // It has gone: the place is still to be given away.
                Err(mut unwanted) => unwanted.pool = None,
            }
        }
        self.in_use.set(self.in_use.get() - 1);
    }
}

/// The right to use one connection of a pool; goes to the next in line when dropped.
pub(super) struct Lease {
    pool: Option<Rc<Pool>>,
}

impl Lease {
    /// Gives the place back together with a connection that can be used again.
    pub(super) fn put_back(self, line: Box<Line>) {
        if let Some(pool) = &self.pool {
            pool.put_back(line);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_with_the_first_request_that_nothing_comes_after() {
        let received = Rc::new(Cell::new(false));
        let mut silence = Silence { received: Rc::clone(&received), since_ms: 1_000 };
        received.set(true);
        assert_eq!(silence.before_request(60_000), 0, "unused is not silent");
        assert_eq!(silence.before_request(61_000), 1_000);
        assert_eq!(silence.before_request(64_000), 4_000);
        received.set(true);
        assert_eq!(silence.before_request(65_000), 0, "whatever comes ends it");
        assert_eq!(silence.before_request(70_000), 5_000);
    }
}
