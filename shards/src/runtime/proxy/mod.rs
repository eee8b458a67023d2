//! The API proxy of one shard: requests that are for none of Tidegate's own calls.

pub(super) mod http;
mod kafka;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ::http::StatusCode;
use ::http::request::Parts;
use futures_channel::oneshot;
use hyper::body::Incoming;
use tidegate_reactive::correlation::CorrelationId;
use tidegate_reactive::pending::Pending;

use self::http::pool::Backends;
use self::http::resolver::Resolver;
use super::SharedWorld;
use super::service::{Answer, Caller, text, uncached};
use crate::proxy::deadline::Deadlines;
use crate::proxy::endpoint::{Endpoint, Target};
use crate::proxy::outbound::CorrelatedAnswer;
use crate::proxy::table::ApiTable;
use crate::settings::ShardSettings;

/// What the proxy of a shard keeps.
pub(super) struct Proxy {
    /// The endpoints in force. A request clones the `Arc` and finishes under what it began with.
    pub(super) apis: RefCell<Arc<ApiTable>>,
    /// Requests that wait for a correlated answer.
    pub(super) pending: Rc<RefCell<Pending<oneshot::Sender<CorrelatedAnswer>>>>,
    /// Connections to HTTP backends.
    pub(super) backends: Backends,
    /// Deadlines of exchanges with them.
    pub(super) deadlines: Deadlines,
    /// Resolves their names.
    pub(super) resolver: Resolver,
}

impl Proxy {
    pub(super) fn new(number: usize, settings: &ShardSettings, resolver: Resolver, now_ms: u64) -> Self {
        let instance = settings.proxy.instance + number as u64;
        let pending = Pending::new(instance, settings.proxy.max_pending, now_ms);
        Self {
            apis: RefCell::default(),
            pending: Rc::new(RefCell::new(pending)),
            backends: Backends::default(),
            deadlines: Deadlines::new(now_ms),
            resolver,
        }
    }

    /// Brings an answer to the request that waits for it; false if none does.
    pub(super) fn settle(&self, id: CorrelationId, answer: CorrelatedAnswer) -> bool {
        let waiting = self.pending.borrow_mut().remove(id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// Ends what took too long: waits for correlated answers (dropping the sender tells the request), exchanges with
    /// backends, and unused connections to them.
    pub(super) fn tick(&self, now_ms: u64) {
        self.deadlines.tick(now_ms);
        self.backends.tick(now_ms);
        self.pending.borrow_mut().expire(now_ms, |_, waiting| drop(waiting));
    }
}

/// A request that matched an endpoint and was let in.
pub(super) struct Call<'a> {
    /// The endpoint.
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// Method, URI and headers as the client sent them.
    pub(super) parts: &'a Parts,
    /// Path to send: normalised and rewritten, percent-encoded, with a slash at its start.
    pub(super) path: &'a str,
    /// Query as sent, without the question mark.
    pub(super) query: Option<&'a str>,
    /// Groups of the endpoint's `path_regex`, the first at index 0, percent-encoded as matched.
    pub(super) captures: &'a [&'a str],
    /// The client's address.
    pub(super) peer: Option<IpAddr>,
}

/// Answers a request by the endpoint it means.
pub(super) async fn answer(world: &SharedWorld, caller: &Caller, parts: &Parts, body: Incoming) -> Answer {
    let apis = Arc::clone(&world.proxy.apis.borrow());
    let Some(found) = apis.find(&parts.method, parts.uri.path()) else {
        return uncached(text(StatusCode::NOT_FOUND, r#"{"message":"Not Found"}"#));
    };
    let call = Call {
        endpoint: &found.endpoint,
        parts,
        path: &found.path,
        query: parts.uri.query(),
        captures: &found.captures.iter().map(String::as_str).collect::<Vec<_>>(),
        peer: caller.peer,
    };
    match &found.endpoint.target {
        Target::Http(_) => http::forward(world, caller, &call, body).await,
        Target::Kafka(_) => kafka::request(world, caller, &call, body).await,
    }
}
