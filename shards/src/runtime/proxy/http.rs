//! Requests to backends over HTTP, streamed in both directions.
//!
//! [`pool`] holds the connections, [`connect`] makes them with what [`addresses`] knows, [`line`] is one of HTTP/1.1.
//! [`exchange`] sends a request, whose body is an [`upload`], and waits for the answer's head; its body is a [`download`].
//! [`tunnel`] carries WebSockets. What goes into the heads is decided in [`crate::proxy::forward`].

mod addresses;
pub(in crate::runtime) mod ask;
mod connect;
pub(super) mod detached;
mod download;
mod exchange;
mod line;
pub(in crate::runtime) mod pool;
pub(in crate::runtime) mod resolver;
pub(in crate::runtime) mod tls;
mod transport;
pub(in crate::runtime) mod tunnel;
mod upload;

use std::future::pending;
use std::rc::Rc;

use ::http::uri::Authority;
use ::http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body as _, Incoming};

use self::connect::{Connected, Late, before, connect};
pub(in crate::runtime) use self::download::BackendBody;
use self::download::Source;
use self::exchange::{Failure, Limits, over_line, over_stream};
use self::pool::{Lease, Pool};
use self::upload::{RequestBody, Upload};
use super::Call;
use crate::clock;
use crate::proxy::endpoint::{Backend, Target};
use crate::proxy::forward::{self, Forwarding};
use crate::runtime::SharedWorld;
use crate::runtime::body::Body;
use crate::runtime::collect::BODY_LATE;
use crate::runtime::http::{Handed, Phase};
use crate::runtime::open::ORIGIN_REFUSED;
use crate::runtime::service::{Answer, Caller, busy, closing, text};

/// What became of a request whose answer may come from elsewhere.
pub(in crate::runtime) enum Forwarded {
    /// The backend has answered it.
    Answer(Answer),
    /// The backend has said 202: the answer comes later.
    Later,
}

/// Sends the request to the endpoint's backend and streams its answer back.
pub(super) async fn forward(world: &SharedWorld, caller: &Caller, call: &Call<'_>, body: Incoming) -> Answer {
    exchange(world, caller, call, call.query, body).await
}

/// As [`forward`], with the query parameter `correlation` in place of the client's.
pub(super) async fn forward_correlated(
    world: &SharedWorld,
    caller: &Caller,
    call: &Call<'_>,
    body: Incoming,
    correlation: &str,
) -> Forwarded {
    let query = forward::with_correlation(call.query, correlation);
    let answer = exchange(world, caller, call, Some(&query), body).await;
    if answer.status() == StatusCode::ACCEPTED { Forwarded::Later } else { Forwarded::Answer(answer) }
}

async fn exchange(
    world: &SharedWorld,
    caller: &Caller,
    call: &Call<'_>,
    query: Option<&str>,
    body: Incoming,
) -> Answer {
    let Target::Http(backend) = &call.endpoint.target else { return bad_gateway() };
    let settings = &world.settings.proxy;
    let pool = world.proxy.backends.pool(backend, settings);
    if caller.handoff.is_some() {
        // From here on the deadlines are the exchange's.
        caller.progress.enter(Phase::Waiting);
    }
    let lease = match wait_for_place(world, &pool).await {
        Ok(lease) => lease,
        Err(refusal) => return refusal,
    };
    let upload = Rc::new(Upload::default());
    let limits = Limits {
        first_byte_ms: settings.first_byte_timeout_ms,
        idle_ms: settings.idle_timeout_ms,
        min_body_bytes_per_s: world.settings.limits.min_body_bytes_per_s,
    };
    let upgrade = caller.handoff.is_some()
        && body.is_end_stream()
        && forward::wants_web_socket(call.parts.version, &call.parts.method, &call.parts.headers);
    let origins = call.parts.headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes);
    if upgrade && !world.settings.limits.origins.allows(origins) {
        world.shard.borrow().metrics().origins_refused.add(1);
        return closing(text(StatusCode::FORBIDDEN, ORIGIN_REFUSED));
    }
    let outgoing = Outgoing { world, call, query, pool: &pool, upgrade, bodiless: body.is_end_stream() };
    let mut body = RequestBody::new(body, &upload);
    let mut fresh = upgrade;
    loop {
        let (mut over, reused) = match obtain(world, &pool, fresh, upgrade).await {
            Ok(obtained) => obtained,
            Err(reason) => return unreachable(&pool, &reason),
        };
        let Some(mut request) = outgoing.request(body, matches!(over, Over::Stream(..))) else { return bad_gateway() };
        if !upload.ended.get() && forward::expects_continue(request.headers()) {
            upload.hold(&mut request);
        }
        let answered = match &mut over {
            Over::Line(line) => over_line(line, request, &upload, limits).await,
            Over::Stream(sender, deadline) => over_stream(sender, request, &upload, deadline, limits).await,
        };
        let failure = match answered {
            Ok(answer) => return outgoing.answer(caller, answer, over, lease, upload).await,
            Err(failure) => failure,
        };
        match failure {
            Failure::Late => return late(),
            Failure::ClientLate => {
                world.shard.borrow().metrics().bodies_timed_out.add(1);
                return closing(text(StatusCode::REQUEST_TIMEOUT, BODY_LATE));
            }
            Failure::ClientBroken => return closing(text(StatusCode::BAD_REQUEST, "The body could not be read.")),
            Failure::Broken { unsent, unanswered, reason } => {
                if matches!(over, Over::Stream(..)) {
                    pool.forget_multiplexed();
                }
                let again = reused && unanswered && outgoing.bodiless && forward::is_idempotent(&call.parts.method);
                body = match unsent {
                    Some(unsent) if reused => unsent,
                    _ if again => RequestBody::Empty,
                    _ => return unreachable(&pool, &reason),
                };
                fresh = true;
            }
        }
    }
}

/// What a request goes over.
enum Over {
    Line(Box<line::Line>),
    Stream(hyper::client::conn::http2::SendRequest<RequestBody>, crate::proxy::deadline::Deadline),
}

/// A connection, and whether it had been used before.
async fn obtain(
    world: &SharedWorld,
    pool: &Pool,
    fresh: bool,
    upgrade: bool,
) -> Result<(Over, bool), std::sync::Arc<str>> {
    let stream = |sender| Over::Stream(sender, world.proxy.deadlines.at(u64::MAX));
    if !fresh {
        if let Some(line) = pool.take_idle() {
            return Ok((Over::Line(line), true));
        }
        if let Some(sender) = pool.multiplexed() {
            return Ok((stream(sender), true));
        }
    }
    Ok(match connect(world, pool, upgrade).await? {
        Connected::Line(line) => (Over::Line(line), false),
        Connected::Multiplexed(sender) => (stream(sender), false),
    })
}

/// Waits for a place among the connections as long as a backend may take to begin its answer.
async fn wait_for_place(world: &SharedWorld, pool: &Rc<Pool>) -> Result<Lease, Answer> {
    let granted = match pool.lease() {
        Ok(Ok(lease)) => return Ok(lease),
        Ok(Err(granted)) => granted,
        Err(pool::Full) => return Err(busy()),
    };
    let deadline = world.proxy.deadlines.at(clock::now_ms() + world.settings.proxy.first_byte_timeout_ms);
    match before(&deadline, granted).await {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(_canceled)) => Err(busy()),
        Err(Late) => Err(late()),
    }
}

/// A request as it goes to the backend.
struct Outgoing<'a> {
    world: &'a SharedWorld,
    call: &'a Call<'a>,
    query: Option<&'a str>,
    pool: &'a Rc<Pool>,
    upgrade: bool,
    bodiless: bool,
}

impl Outgoing<'_> {
    fn request<B>(&self, body: B, http2: bool) -> Option<Request<B>> {
        let Self { world, call, pool, upgrade, bodiless, .. } = self;
        let forwarding = Forwarding {
            method: &call.parts.method,
            headers: &call.parts.headers,
            authority: call.parts.uri.authority().map(Authority::as_str),
            endpoint: call.endpoint,
            host: &pool.host,
            client: call.client,
            peer: call.peer,
            secure: call.secure,
            by: &world.settings.proxy.forwarded_by,
            bodiless: *bodiless,
            upgrade: *upgrade,
            http2,
        };
        let mut request = Request::new(body);
        *request.headers_mut() = forwarding.headers();
        *request.method_mut() = call.parts.method.clone();
        *request.uri_mut() = self.uri(http2)?;
        Some(request)
    }

    /// The path, which can't name a host; HTTP/2 wants the backend's beside it.
    fn uri(&self, http2: bool) -> Option<Uri> {
        let Self { call, query, pool, .. } = self;
        let Backend { tls, .. } = &pool.backend;
        let mut uri = String::with_capacity(call.path.len() + query.map_or(0, str::len) + 64);
        if http2 {
            uri.push_str(if *tls { "https://" } else { "http://" });
            uri.push_str(pool.host.to_str().ok()?);
        }
        uri.push_str(call.path);
        if let Some(query) = query {
            uri.push('?');
            uri.push_str(query);
        }
        let uri = Uri::from_maybe_shared(bytes::Bytes::from(uri)).ok()?;
        (http2 || uri.authority().is_none()).then_some(uri)
    }

    async fn answer(
        &self,
        caller: &Caller,
        answer: Response<Incoming>,
        over: Over,
        lease: Lease,
        upload: Rc<Upload>,
    ) -> Answer {
        let (mut parts, incoming) = answer.into_parts();
        let checked = forward::answer_headers(parts.status, parts.version, &mut parts.headers, self.upgrade);
        if let Err(broken) = checked {
            return unreachable(self.pool, &broken.to_string());
        }
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(handoff), Over::Line(line)) = (&caller.handoff, over) else { return bad_gateway() };
            let Some((wire, read)) = line.into_wire() else { return bad_gateway() };
            *handoff.borrow_mut() = Some(Handed::Tunnel(tunnel::Tunnel::new(&parts.headers, wire, read, lease)));
            // The client's connection drops this future and goes on with the tunnel.
            return pending().await;
        }
        let source = match over {
            Over::Line(line) => Source::Line(line),
            Over::Stream(_, deadline) => Source::Stream(deadline),
        };
        let idle_ms = self.world.settings.proxy.idle_timeout_ms;
        let client = caller.handoff.is_some().then(|| caller.progress.clone());
        let mut response =
            Response::new(Body::Backend(Box::new(BackendBody::new(incoming, source, lease, idle_ms, client, upload))));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        *response.version_mut() = Version::HTTP_11;
        response
    }
}

fn bad_gateway() -> Answer {
    text(StatusCode::BAD_GATEWAY, bad_gateway_text())
}

fn bad_gateway_text() -> &'static str {
    "Bad gateway."
}

fn late() -> Answer {
    text(StatusCode::GATEWAY_TIMEOUT, "Gateway timeout.")
}

fn unreachable(pool: &Pool, reason: &str) -> Answer {
    warn_unreachable(pool, reason);
    bad_gateway()
}

fn warn_unreachable(pool: &Pool, reason: &str) {
    let backend = pool.host.to_str().unwrap_or_default();
    if pool.may_warn() {
        tracing::warn!(backend, reason, "a request got 502: the backend can't be reached, or its answer is broken");
    }
}
