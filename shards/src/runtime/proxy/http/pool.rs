//! The connections of a shard to one backend: how many, who waits for one, which are unused.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use ahash::RandomState;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use hashbrown::HashMap;
use http::HeaderValue;
use hyper::client::conn::http2;

use super::line::Line;
use super::resolver::{Addresses, Resolver};
use super::upload::RequestBody;
use crate::clock;
use crate::proxy::endpoint::Backend;
use crate::settings::ProxySettings;

/// Requests that may wait for a connection to one backend, per shard.
const MAX_WAITING: usize = 16_384;
/// How long addresses of a name are used.
const ADDRESSES_MS: u64 = 30_000;
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
    in_use: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Lease>>>,
    /// Unused connections; the one used last is at the end.
    idle: RefCell<VecDeque<Box<Line>>>,
    /// The HTTP/2 connection, which takes many requests at a time, and when it was used last.
    multiplexed: RefCell<Option<(http2::SendRequest<RequestBody>, u64)>>,
    addresses: RefCell<Option<(Arc<[std::net::SocketAddr]>, u64)>>,
    lookup: RefCell<Option<Shared<LocalBoxFuture<'static, Addresses>>>>,
    /// Which of the addresses answered last.
    pub(super) preferred: Cell<usize>,
    warned_ms: Cell<Option<u64>>,
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
            in_use: Cell::new(0),
            waiting: RefCell::default(),
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            addresses: RefCell::default(),
            lookup: RefCell::default(),
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

    /// The HTTP/2 connection, if it still takes requests.
    pub(super) fn multiplexed(&self) -> Option<http2::SendRequest<RequestBody>> {
        let mut kept = self.multiplexed.borrow_mut();
        let (sender, used_ms) = kept.as_mut().filter(|(sender, _)| !sender.is_closed())?;
        *used_ms = clock::now_ms();
        Some(sender.clone())
    }

    pub(super) fn keep_multiplexed(&self, sender: http2::SendRequest<RequestBody>) {
        *self.multiplexed.borrow_mut() = Some((sender, clock::now_ms()));
    }

    /// The HTTP/2 connection has failed.
    pub(super) fn forget_multiplexed(&self) {
        self.multiplexed.borrow_mut().take();
    }

    /// The addresses of the backend, asked for anew when they are old or none of them answered.
    pub(super) async fn addresses(&self, resolver: &Resolver) -> Addresses {
        let Backend { host, port, .. } = &self.backend;
        if let Ok(address) = host.parse::<std::net::IpAddr>() {
            return Ok([std::net::SocketAddr::new(address, *port)].into());
        }
        let now_ms = clock::now_ms();
        let known = self.addresses.borrow().clone();
        if let Some((addresses, at_ms)) = &known
            && now_ms < at_ms + ADDRESSES_MS
        {
            return Ok(Arc::clone(addresses));
        }
        let lookup = {
            let mut lookup = self.lookup.borrow_mut();
            let (resolver, host, port) = (resolver.clone(), host.clone(), *port);
            let ask = || async move { resolver.resolve(host, port).await }.boxed_local().shared();
            lookup.get_or_insert_with(ask).clone()
        };
        let found = lookup.await;
        self.lookup.borrow_mut().take();
        match (found, known) {
            (Ok(addresses), _) => {
                *self.addresses.borrow_mut() = Some((Arc::clone(&addresses), now_ms));
                Ok(addresses)
            }
            // Old addresses are better than none.
            (Err(_), Some((addresses, _))) => Ok(addresses),
            (Err(reason), None) => Err(reason),
        }
    }

    /// None of the addresses answered: the next request asks for them anew.
    pub(super) fn doubt_addresses(&self) {
        if let Some((_, at_ms)) = self.addresses.borrow_mut().as_mut() {
            *at_ms = 0;
        }
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
        self.multiplexed.borrow_mut().take_if(|(sender, used_ms)| sender.is_closed() || too_old(*used_ms));
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
