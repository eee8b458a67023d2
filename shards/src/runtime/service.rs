//! The answers of the inbound port, but for streams on HTTP/1.1, which never get here.

use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_channel::oneshot;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as HttpBody, Incoming};

use super::body::{Body, EventBody};
use super::collect::{BODY_LATE, Unread, collect};
use super::http::{Handed, Handoff, Phase, Progress};
use super::open::Requested;
use super::tokens::Place;
use super::{SharedWorld, bearer, checks, open, polling, proxy, publish, tokens};
use crate::bearer::Bearer;
use crate::clock;
use crate::head::{self, HeadLimits, HeadStatus, Route, route};
use crate::limits::origin::{Cors, CorsAnswer};
use crate::limits::requests::Limited;
use crate::mailbox::{Control, SetOutcome};
use crate::peers::Unreachable;
use crate::proxy::forward;
use crate::query::BrokenEncoding;
use crate::shard::admission::Refused;
use crate::shard::connection::{Address, Output};
use crate::shard::identity::Identity;
use crate::subscription::{Duplicates, Subscription, SubscriptionError, parse_put_body};
use crate::token::{ConnectionAddress, TokenKind};
use crate::trace;

/// Who a request came from.
pub(super) struct Caller {
    pub(super) progress: Progress,
    /// Where a stream on HTTP/1.1 goes; `None` on HTTP/2.
    pub(super) handoff: Option<Handoff>,
    /// The nearest address: the socket's, or what a header of the PROXY protocol has said.
    pub(super) peer: Option<IpAddr>,
    /// The client's address, which may be behind trusted proxies.
    pub(super) client: Option<IpAddr>,
    /// The connection has TLS.
    pub(super) secure: bool,
}

pub(super) type Answer = Response<Body>;

/// Answers one request.
pub(super) async fn answer(
    world: SharedWorld,
    mut caller: Caller,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let http2 = request.version() == Version::HTTP_2;
    if !http2 {
        caller.progress.enter(Phase::Request);
    }
    let (parts, body) = request.into_parts();
    let limits = &world.settings.limits;
    let named = parts.headers.get_all(limits.address_header.name()).iter().map(HeaderValue::as_bytes);
    caller.client = limits.client(caller.peer, named);
    let mut response = respond(&world, &caller, &parts, body).await;
    if world.draining.get() && !http2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(response.body(), Body::Backend(_)) {
        // It passes as it is, and says itself when it has ended.
        return Ok(response);
    }
    // A stream of events says itself, too, when it has begun and ended.
    if !http2 && !matches!(response.body(), Body::Events(_)) {
        caller.progress.enter(Phase::Idle);
    }
    if matches!(response.body(), Body::Full(_)) {
        name_request(&parts.headers, response.headers_mut());
        if parts.method == Method::HEAD {
            leave_body_out(&mut response);
        }
    }
    allow_origin(&world.settings.cors, &parts.headers, response.headers_mut());
    Ok(response)
}

/// Says to pages of other sites whether they may read the answer.
fn allow_origin(cors: &Cors, request: &HeaderMap, answer: &mut HeaderMap) {
    if answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let CorsAnswer { allow, varies } = cors.answer(request.get(header::ORIGIN).map(HeaderValue::as_bytes));
    if let Some(Ok(origin)) = allow.map(HeaderValue::from_str) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if varies {
        answer.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// An answer to HEAD tells the length of what it leaves out (RFC 9110 section 9.3.2). hyper sends it nevertheless on HTTP/2.
fn leave_body_out(answer: &mut Answer) {
    let len = HttpBody::size_hint(answer.body()).lower();
    if len > 0 {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        *answer.body_mut() = Body::empty();
    }
}

/// Adds the heads by which an answer is found again in logs and traces.
fn name_request(request: &HeaderMap, answer: &mut HeaderMap) {
    let text = |name| request.get(name).and_then(|value| value.to_str().ok());
    for (name, value) in [
        ("x-request-id", trace::request_id(text("x-request-id"))),
        ("traceparent", trace::continue_trace(text("traceparent"))),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.entry(name).or_insert(value);
        }
    }
}

async fn respond(world: &SharedWorld, caller: &Caller, parts: &Parts, body: Incoming) -> Answer {
    if let Some(reason) = forward::ambiguous_framing(parts.version, &parts.headers) {
        world.shard.borrow().metrics().requests_malformed.add(1);
        return closing(text(StatusCode::BAD_REQUEST, reason));
    }
    let Ok(route) = route(parts.uri.path()) else { return with_status(StatusCode::BAD_REQUEST) };
    let method = &parts.method;
    match route {
        Route::Sse | Route::Ws if *method == Method::OPTIONS => preflight("GET", "*", true),
        Route::LongPolling if *method == Method::OPTIONS => preflight("GET", "*", true),
        Route::Subscriptions { .. } if *method == Method::OPTIONS => {
            preflight("PUT", "content-type,authorization", false)
        }
        Route::Events if *method == Method::OPTIONS => preflight("POST", "content-type", false),
        Route::Sse | Route::Ws if *method == Method::GET => {
            if caller.handoff.is_some() && checks::must_ask(world, parts.uri.query()) {
                caller.progress.enter(Phase::Waiting);
            }
            let allowed = checks::may_connect(world, parts, BrokenEncoding::Refuse).await;
            if let Some(handoff) = &caller.handoff
                && let Some(opening) = reread(world, caller, parts)
            {
                match opening.and_then(|opening| if allowed { Ok(opening) } else { opening.deny() }) {
                    Ok(opening) => {
                        *handoff.borrow_mut() = Some(Handed::Stream(opening));
                        // The connection's task drops this future and goes on with the stream.
                        return pending().await;
                    }
                    Err(refusal) => return from_refusal(&refusal),
                }
            }
            if !allowed {
                return text(StatusCode::BAD_REQUEST, open::DENIED);
            }
            if route == Route::Sse { event_stream(world, caller, parts) } else { upgrade_required() }
        }
        Route::LongPolling if matches!(*method, Method::GET | Method::HEAD) => {
            caller.progress.enter(Phase::Waiting);
            polling::answer(world, caller, parts).await
        }
        Route::Subscriptions { token } if *method == Method::PUT => {
            put_subscriptions(world, caller, &token, &parts.headers, body).await
        }
        Route::Events if *method == Method::POST => {
            if let Some(refusal) = over_rate(world, caller, parts) {
                return refusal;
            }
            match read_body(world, caller, body, world.settings.max_body_bytes).await {
                Ok(body) if !checks::may_publish(world, &parts.headers, &body).await => {
                    uncached(text(StatusCode::FORBIDDEN, "Submission denied."))
                }
                Ok(body) => publish::answer(world, &parts.headers, body).await,
                Err(refusal) => refusal,
            }
        }
        Route::Health if matches!(*method, Method::GET | Method::HEAD) => {
            let mut answer = text(StatusCode::OK, "OK");
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, plain);
            uncached(answer)
        }
        _ => match over_rate(world, caller, parts) {
            None => proxy::answer(world, caller, parts, body).await,
            Some(refusal) => refusal,
        },
    }
}

/// Counts a request for its address and its credentials; the answer to one over their rates.
fn over_rate(world: &SharedWorld, caller: &Caller, parts: &Parts) -> Option<Answer> {
    let mut rates = world.rates.borrow_mut();
    if rates.is_unlimited() {
        return None;
    }
    let client = world.settings.limits.counted(caller.client);
    let credentials = parts.headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let limited = rates.take(client, credentials, parts.uri.query(), clock::now_us()).err()?;
    let shard = world.shard.borrow();
    match limited {
        Limited::Address(_) => shard.metrics().requests_limited_address.add(1),
        Limited::Token(_) => shard.metrics().requests_limited_token.add(1),
    }
    let mut answer = text(StatusCode::TOO_MANY_REQUESTS, limited.reason());
    answer.headers_mut().insert(header::RETRY_AFTER, limited.retry_after_s().into());
    Some(uncached(answer))
}

/// The answer to a connection that isn't let in.
pub(super) fn refused(refused: Refused) -> Answer {
    let status = StatusCode::from_u16(refused.status().0).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut answer = text(status, refused.reason());
    answer.headers_mut().insert(header::RETRY_AFTER, refused.retry_after_s().into());
    answer
}

/// Reads a head that hyper has parsed as the lean path would have.
fn reread(world: &SharedWorld, caller: &Caller, parts: &Parts) -> Option<Result<open::Opening, open::Refusal>> {
    let minor = if parts.version == Version::HTTP_10 { 0 } else { 1 };
    let mut text = format!("{} {} HTTP/1.{minor}\r\n", parts.method, parts.uri).into_bytes();
    for (name, value) in &parts.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    match head::parse(&text, &HeadLimits { max_head_bytes: usize::MAX / 2, ..HeadLimits::default() }) {
        Ok(HeadStatus::Complete(head)) => open::opening(world, &head, caller.peer),
        _ => None,
    }
}

/// A refusal of the lean path as hyper sends it.
fn from_refusal(refusal: &[u8]) -> Answer {
    let head = std::str::from_utf8(refusal).unwrap_or_default();
    let status =
        head.get(9..12).and_then(|code| code.parse::<u16>().ok()).and_then(|code| StatusCode::from_u16(code).ok());
    let (head, body) = head.split_once("\r\n\r\n").unwrap_or((head, ""));
    let status = status.unwrap_or(StatusCode::BAD_REQUEST);
    if status == StatusCode::UPGRADE_REQUIRED {
        return upgrade_required();
    }
    let mut answer = closing(text(status, body.to_owned()));
    let retry_after = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    if let Some(Ok(seconds)) = retry_after.map(HeaderValue::from_str) {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

/// An event stream that hyper carries: on HTTP/2, or asked for in an unusual way.
fn event_stream(world: &SharedWorld, caller: &Caller, parts: &Parts) -> Answer {
    let credentials = bearer::of_headers(&parts.headers);
    let Requested { subscriptions, identity } = match open::requested(world, parts.uri.query(), credentials) {
        Ok(requested) => requested,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let slow = match open::slow_client_of(world, parts.uri.query()) {
        Ok(slow) => slow,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let now_ms = clock::now_ms();
    let mut shard = world.shard.borrow_mut();
    if let Err(reason) = shard.compile(&subscriptions) {
        return text(StatusCode::BAD_REQUEST, reason);
    }
    let client = world.settings.limits.counted(caller.client);
    if let Err(reason) = shard.admit_detached(now_ms, client) {
        return refused(reason);
    }
    let token = |address| tokens::issue(world, TokenKind::Stream, address);
    let address = shard.open_detached(Output::Pulled, token, now_ms);
    shard.set_slow_client(address, slow);
    if let Some(client) = client {
        shard.hold(address, client);
    }
    let last_event_id = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    match open::Wishes::read(parts.uri.query(), last_event_id).from {
        Some(from) => shard.resume(address, &subscriptions, from, None),
        None => shard.set_subscriptions(address, &subscriptions, None),
    }
    shard.identify(address, &identity, now_ms);
    shard.opened(address);
    drop(shard);
    let client = caller.handoff.is_some().then(|| caller.progress.clone());
    if let Some(client) = &client {
        client.enter(Phase::Waiting);
    }
    let mut answer = Response::new(Body::Events(EventBody { world: Rc::clone(world), address, client }));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

async fn put_subscriptions(
    world: &SharedWorld,
    caller: &Caller,
    token: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let body = match read_body(world, caller, body, world.settings.max_body_bytes).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if !is_json(headers) {
        return text(StatusCode::BAD_REQUEST, "The body must be JSON: send content-type application/json.");
    }
    let list = parse_put_body(&body);
    if let Err(error @ (SubscriptionError::NotJson(_) | SubscriptionError::NoSubscriptions)) = &list {
        return text(StatusCode::BAD_REQUEST, error.to_string());
    }
    if !checks::may_subscribe(world, headers, &body).await {
        return text(StatusCode::FORBIDDEN, open::DENIED);
    }
    let Some((_, place)) = tokens::open(world, token) else {
        return text(StatusCode::BAD_REQUEST, "Invalid connection token.");
    };
    let gone = || text(StatusCode::GONE, "Connection no longer exists.");
    let is_gone = match place {
        Place::Here(shard, address) => {
            shard == world.number && world.shard.borrow_mut().connections().get(address).is_none()
        }
        Place::Elsewhere(_) => world.sinks.peers.is_none(),
    };
    if is_gone {
        return gone();
    }
    let Bearer { automatic, identity, .. } = match bearer::of_put(world, headers) {
        Ok(bearer) => bearer,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let subscriptions = match list.and_then(|list| open::in_force(world, automatic, list, Duplicates::Keep)) {
        Ok(subscriptions) => subscriptions,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    caller.progress.enter(Phase::Waiting);
    let (shard, address) = match place {
        Place::Here(shard, address) => (shard, address),
        Place::Elsewhere(at) => {
            return match set_elsewhere(world, at, subscriptions, identity).await {
                Ok(outcome) => replaced(outcome),
                Err(Unreachable) => unreachable_node(),
            };
        }
    };
    let (reply, outcome) = oneshot::channel();
    if shard == world.number {
        let mut shard = world.shard.borrow_mut();
        shard.identify(address, &identity, clock::now_ms());
        shard.set_subscriptions(address, &subscriptions, Some(reply));
    } else {
        let Address { slot, generation } = address;
        let message = Control::SetSubscriptions { slot, generation, subscriptions, identity, reply };
        if world.lanes[shard].send(message).is_err() {
            return busy();
        }
    }
    replaced(outcome.await.unwrap_or(SetOutcome::Gone))
}

fn replaced(outcome: SetOutcome) -> Answer {
    match outcome {
        SetOutcome::InForce => uncached(with_status(StatusCode::NO_CONTENT)),
        SetOutcome::Refused(reason) => text(StatusCode::BAD_REQUEST, reason),
        SetOutcome::Gone => text(StatusCode::GONE, "Connection no longer exists."),
    }
}

async fn set_elsewhere(
    world: &SharedWorld,
    at: ConnectionAddress,
    subscriptions: Vec<Subscription>,
    identity: Identity,
) -> Result<SetOutcome, Unreachable> {
    let Some(peers) = &world.sinks.peers else { return Ok(SetOutcome::Gone) };
    let (reply, outcome) = oneshot::channel();
    peers.set_subscriptions(at, subscriptions, identity, reply);
    outcome.await.unwrap_or(Err(Unreachable))
}

/// The node that holds the connection is there, and doesn't answer.
pub(super) fn unreachable_node() -> Answer {
    let reason = "The node that holds this connection can't be reached. Try again in a second.";
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut content_types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (content_types.next(), content_types.next()) else { return false };
    let content_type = content_type.to_str().unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

/// Reads the whole body within the limits of size and time.
pub(super) async fn read_body(
    world: &SharedWorld,
    caller: &Caller,
    body: Incoming,
    limit: usize,
) -> Result<Bytes, Answer> {
    if caller.handoff.is_some() {
        // From here on the body has a deadline of its own.
        caller.progress.enter(Phase::Waiting);
    }
    collect(world, body, limit).await.map_err(|failure| {
        let shard = world.shard.borrow();
        let (counter, answer) = match failure {
            Unread::Late => (&shard.metrics().bodies_timed_out, text(StatusCode::REQUEST_TIMEOUT, BODY_LATE)),
            Unread::TooLarge => {
                let reason = format!("The body is larger than {limit} bytes (MAX_BODY_BYTES).");
                (&shard.metrics().requests_malformed, text(StatusCode::PAYLOAD_TOO_LARGE, reason))
            }
            Unread::Broken => {
                (&shard.metrics().requests_malformed, text(StatusCode::BAD_REQUEST, "The body could not be read."))
            }
        };
        counter.add(1);
        closing(answer)
    })
}

/// The answer to a preflight request.
pub(super) fn preflight(methods: &'static str, headers: &'static str, credentials: bool) -> Answer {
    let mut answer = with_status(StatusCode::NO_CONTENT);
    let map = answer.headers_mut();
    map.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    map.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers));
    if credentials {
        map.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    uncached(answer)
}

fn upgrade_required() -> Answer {
    let mut answer = closing(with_status(StatusCode::UPGRADE_REQUIRED));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer
}

/// An answer in plain text.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::full(text));
    *answer.status_mut() = status;
    answer
}

/// An answer without body.
pub(super) fn with_status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// The shard that holds the connection is far behind.
pub(super) fn busy() -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "The gateway is overloaded. Try again in a second.");
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// The connection can't be used after this answer.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// With the caching rule that RIG sends.
pub(super) fn uncached(mut answer: Answer) -> Answer {
    let rule = HeaderValue::from_static("max-age=0, private, must-revalidate");
    answer.headers_mut().insert(header::CACHE_CONTROL, rule);
    answer
}
