//! The event loop of a shard: the only place that knows glommio.
//!
//! `start` makes the executor, `accept` takes connections, `handshake` lets those of the TLS port speak through their `client` socket, `stream` holds an event stream or a
//! WebSocket for its life, `http` serves everything else through hyper with the answers of
//! `service`, and `mail` drains the mailbox.

mod accept;
mod adapter;
mod bearer;
mod body;
mod checks;
mod client;
mod collect;
mod handshake;
mod http;
mod mail;
mod multiplexed;
mod open;
mod polling;
mod proxy;
mod publish;
mod readiness;
mod service;
mod start;
mod stream;
mod tokens;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;

pub(crate) use self::proxy::http::resolver::Resolver;
pub use self::proxy::http::tls::config as backend_tls;
pub(crate) use self::start::{Listening, ShardThread, start};
use crate::auth::Verifier;
use crate::auth::check::Answers;
use crate::limits::requests::RequestRates;
use crate::mailbox::ControlLane;
use crate::settings::ShardSettings;
use crate::shard::Shard;
use crate::shard::connection::Address;
use crate::submit::Sinks;

/// Bytes of the buffer that all connections of a shard read into.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What the tasks of one shard share.
struct World {
    number: usize,
    settings: Arc<ShardSettings>,
    shard: RefCell<Shard>,
    /// Every connection reads into this buffer and is done with it before it waits again.
    read_buffer: adapter::ReadBuffer,
    /// The control lanes of all shards, this one included.
    lanes: Arc<[ControlLane]>,
    sinks: Sinks,
    proxy: proxy::Proxy,
    /// What new TLS connections are served with.
    tls: RefCell<Option<Arc<rustls::ServerConfig>>>,
    verifier: Verifier,
    /// Answers to checks by URL that still count.
    checked: RefCell<Answers>,
    rates: RefCell<RequestRates>,
    readiness: Rc<readiness::Readiness>,
    stopping: Cell<bool>,
    /// The node is about to end: no answer keeps its connection.
    draining: Cell<bool>,
    /// Descriptors of the listeners, which the accept tasks own; empty once they are closed.
    listeners: RefCell<Vec<RawFd>>,
    /// When the listeners close, in milliseconds; `u64::MAX` without a drain.
    listen_until_ms: Cell<u64>,
    /// Tasks that hold a connection.
    tasks: Cell<usize>,
}

type SharedWorld = Rc<World>;

/// A connection's entry in the shard, which goes when the connection's task does.
struct Registered {
    world: SharedWorld,
    address: Address,
}

impl Registered {
    fn new(world: &SharedWorld, address: Address) -> Self {
        world.tasks.set(world.tasks.get() + 1);
        Self { world: Rc::clone(world), address }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.world.tasks.set(self.world.tasks.get() - 1);
        self.world.shard.borrow_mut().remove(self.address);
    }
}

/// Starts the task of a connection that speaks HTTP, detached. A panic in it ends that connection alone, and is counted.
fn spawn_http(world: &SharedWorld, connection: impl Future<Output = ()> + 'static) {
    let world = Rc::clone(world);
    let guarded = AssertUnwindSafe(connection).catch_unwind().map(move |ended| {
        if ended.is_err() {
            world.count_panic();
        }
    });
    glommio::spawn_local(guarded).detach();
}

impl World {
    fn count_panic(&self) {
        self.shard.borrow().metrics().panics.add(1);
        tracing::error!(shard = self.number, "a connection's code panicked; only that connection has ended");
    }
}
