//! The API proxy of one shard: requests that are for none of Tidegate's own calls.

mod correlated;
pub(super) mod http;
mod kafka;
mod stored;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ::http::request::Parts;
use ::http::{HeaderValue, Method, StatusCode, header};
use futures_channel::oneshot;
use hyper::body::Incoming;
use tidegate_reactive::correlation::CorrelationId;
use tidegate_reactive::pending::Pending;

use self::http::pool::Backends;
use self::http::resolver::Resolver;
use super::body::Body;
use super::service::{Answer, Caller, text, uncached};
use super::{SharedWorld, bearer};
use crate::clock;
use crate::proxy::counts::Outcome;
use crate::proxy::deadline::Deadlines;
use crate::proxy::endpoint::{Endpoint, ResponseFrom, Target};
use crate::proxy::outbound::CorrelatedAnswer;
use crate::proxy::stored::{Kept, Stored};
use crate::proxy::table::{ApiTable, Found};
use crate::settings::ShardSettings;

/// Time between two log lines about requests that several endpoints match, in milliseconds.
const AMBIGUITY_LOG_MS: u64 = 10_000;

/// What the proxy of a shard keeps.
pub(super) struct Proxy {
    /// The endpoints in force. A request clones the `Arc` and finishes under what it began with.
    pub(super) apis: RefCell<Arc<ApiTable>>,
    /// Requests that wait for a correlated answer.
    pub(super) pending: Rc<RefCell<Pending<oneshot::Sender<CorrelatedAnswer>>>>,
    /// Answers for callers that come back for them.
    pub(super) stored: RefCell<Stored<oneshot::Sender<Kept>>>,
    /// Connections to HTTP backends.
    pub(super) backends: Backends,
    /// Deadlines of exchanges with them.
    pub(super) deadlines: Deadlines,
    /// Resolves their names.
    pub(super) resolver: Resolver,
    /// When the next line about an ambiguous request may be logged.
    next_ambiguity_log_ms: Cell<u64>,
}

impl Proxy {
    pub(super) fn new(number: usize, settings: &ShardSettings, resolver: Resolver, now_ms: u64) -> Self {
        let instance = settings.proxy.instance + number as u64;
        let pending = Pending::new(instance, settings.proxy.max_pending, now_ms);
        let proxy = Self {
            apis: RefCell::default(),
            pending: Rc::new(RefCell::new(pending)),
            stored: RefCell::new(Stored::new(settings.proxy.stored_bytes, settings.proxy.stored_ms, now_ms)),
            backends: Backends::default(),
            deadlines: Deadlines::new(now_ms),
            resolver,
            next_ambiguity_log_ms: Cell::new(0),
        };
        proxy.set_apis(&settings.proxy.apis);
        proxy
    }

    /// Puts endpoints in force.
    pub(super) fn set_apis(&self, table: &ApiTable) {
        *self.apis.borrow_mut() = Arc::new(table.for_one_thread());
    }

    /// Says, now and then, that more than one endpoint matches.
    fn log_ambiguity(&self, found: &Found, method: &Method, path: &str) {
        let now_ms = clock::now_ms();
        if found.others == 0 || now_ms < self.next_ambiguity_log_ms.get() {
            return;
        }
        self.next_ambiguity_log_ms.set(now_ms + AMBIGUITY_LOG_MS);
        let Found { endpoint, others, .. } = found;
        tracing::warn!(
            %method, path, api = &*endpoint.api_id, endpoint = &*endpoint.id, others,
            "several endpoints match; the first one counts"
        );
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
        let mut late = Vec::new();
        self.pending.borrow_mut().expire(now_ms, |_, waiting| late.push(waiting));
        drop(late);
        self.stored.borrow_mut().tick(now_ms);
    }

    /// Ends all waits for correlated answers: the shard stops.
    pub(super) fn end_waits(&self) {
        let mut waiting = Vec::new();
        self.pending.borrow_mut().drain(|_, sender| waiting.push(sender));
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
    pub(super) client: Option<IpAddr>,
    /// The address that the request came from, which may be a trusted proxy's.
    pub(super) peer: Option<IpAddr>,
    /// The client's connection has TLS.
    pub(super) secure: bool,
}

/// Says what became of the request, where the status alone doesn't: an answer that came from a service over Kafka or
/// `/v3/responses` is [`Outcome::Ok`] whatever its status.
pub(super) fn reported(mut answer: Answer, outcome: Outcome) -> Answer {
    answer.extensions_mut().insert(outcome);
    answer
}

/// What became of a request: as [`reported`], else by the status if the answer is Tidegate's own.
fn outcome(answer: &mut Answer, response_from: ResponseFrom) -> Outcome {
    if let Some(outcome) = answer.extensions_mut().remove() {
        return outcome;
    }
    if !matches!(answer.body(), Body::Full(_)) {
        return Outcome::Ok;
    }
    match answer.status() {
        StatusCode::NOT_FOUND => Outcome::NotFound,
        StatusCode::GATEWAY_TIMEOUT if response_from == ResponseFrom::Http => Outcome::RequestTimeout,
        StatusCode::GATEWAY_TIMEOUT => Outcome::ResponseTimeout,
        status if status.is_server_error() => Outcome::Unreachable,
        status if status.is_client_error() => Outcome::BadRequest,
        _ => Outcome::Ok,
    }
}

/// The answer to a call of a secured endpoint without a token that counts.
fn unauthorized(target: &Target) -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, "Authentication failed.");
    let headers = match target {
        Target::Http(_) => "content-type",
        Target::Kafka(_) => "content-type,authorization",
    };
    let map = answer.headers_mut();
    map.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("*"));
    map.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers));
    uncached(answer)
}

/// Answers a request by the endpoint it means.
pub(super) async fn answer(world: &SharedWorld, caller: &Caller, parts: &Parts, body: Incoming) -> Answer {
    if let Some(id) = stored::asked_for(parts) {
        return stored::fetch(world, caller, parts, id).await;
    }
    let apis = Arc::clone(&world.proxy.apis.borrow());
    let Some(found) = apis.find(&parts.method, parts.uri.path()) else {
        apis.count_unmatched(world.number, &parts.method);
        return uncached(text(StatusCode::NOT_FOUND, r#"{"message":"Not Found"}"#));
    };
    world.proxy.log_ambiguity(&found, &parts.method, parts.uri.path());
    let query = joined(found.query.as_deref(), parts.uri.query());
    let call = Call {
        endpoint: &found.endpoint,
        parts,
        path: &found.path,
        query: query.as_deref(),
        captures: &found.captures.iter().map(String::as_str).collect::<Vec<_>>(),
        client: caller.client,
        peer: caller.peer,
        secure: caller.secure,
    };
    let secured = found.endpoint.secured.as_ref();
    if secured.is_some_and(|place| !bearer::may_call(world, &parts.headers, parts.uri.query(), place)) {
        let mut answer = unauthorized(&found.endpoint.target);
        found.counts.add(world.number, outcome(&mut answer, found.endpoint.response_from));
        return answer;
    }
    if let Some(log) = &world.sinks.log {
        let remote_ip = caller.client.map(|peer| peer.to_string()).unwrap_or_default();
        log.call(&found.endpoint, parts.uri.path(), &remote_ip);
    }
    let mut answer = match &found.endpoint.target {
        Target::Http(_) if found.endpoint.response_from != ResponseFrom::Http => {
            correlated::over_http(world, caller, &call, body).await
        }
        Target::Http(_) => http::forward(world, caller, &call, body).await,
        Target::Kafka(_) => kafka::request(world, caller, &call, body).await,
    };
    found.counts.add(world.number, outcome(&mut answer, found.endpoint.response_from));
    answer
}

/// The query of a `path_replacement`, then the client's.
fn joined<'a>(first: Option<&'a str>, second: Option<&'a str>) -> Option<Cow<'a, str>> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Cow::Owned(format!("{first}&{second}"))),
        (one, other) => one.or(other).map(Cow::Borrowed),
    }
}
