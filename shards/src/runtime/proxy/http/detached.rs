//! A request whose answer is kept: its body is read before, and it goes on although its client has gone.

use std::rc::Rc;

use ::http::{HeaderMap, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::download::Source;
use super::exchange::{Failure, Limits, over_line, over_stream};
use super::pool::{Lease, Pool};
use super::upload::{RequestBody, Upload};
use super::{BackendBody, Outgoing, Over, bad_gateway_text, obtain, wait_for_place, warn_unreachable};
use crate::proxy::endpoint::Target;
use crate::proxy::forward;
use crate::proxy::outbound::CorrelatedAnswer;
use crate::runtime::SharedWorld;
use crate::runtime::body::Body;
use crate::runtime::proxy::Call;
use crate::runtime::proxy::correlated::Waiting;
use crate::runtime::proxy::kafka::Ended;

/// A request that needs no connection of a client any more.
pub(in crate::runtime::proxy) struct Detached {
    world: SharedWorld,
    pool: Rc<Pool>,
    /// As it goes over HTTP/1.1, and over HTTP/2.
    heads: [Request<()>; 2],
    body: Bytes,
    waiting: Waiting,
}

/// What its caller gets where a request can't be made at all.
pub(in crate::runtime::proxy) fn impossible() -> Ended {
    refused(StatusCode::BAD_GATEWAY, bad_gateway_text())
}

fn refused(status: StatusCode, reason: &'static str) -> Ended {
    Ended::Refused(CorrelatedAnswer { status, headers: HeaderMap::new(), body: reason.into() })
}

/// What became of the request at the backend.
enum Sent {
    Answer(CorrelatedAnswer),
    Failed(StatusCode, &'static str),
}

impl Detached {
    /// Takes what it needs of the call; `None` for a target that isn't HTTP.
    pub(in crate::runtime::proxy) fn new(
        world: &SharedWorld,
        call: &Call<'_>,
        body: &Bytes,
        waiting: Waiting,
    ) -> Option<Self> {
        let Target::Http(backend) = &call.endpoint.target else { return None };
        let pool = world.proxy.backends.pool(backend, &world.settings.proxy);
        let query = forward::with_correlation(call.query, &waiting.text());
        let bodiless = body.is_empty();
        let outgoing = Outgoing { world, call, query: Some(&query), pool: &pool, upgrade: false, bodiless };
        let head = |http2| {
            let mut head = outgoing.request((), http2)?;
            // The body is here already.
            head.headers_mut().remove(header::EXPECT);
            Some(head)
        };
        let heads = [head(false)?, head(true)?];
        Some(Self { world: Rc::clone(world), pool: Rc::clone(&pool), heads, body: body.clone(), waiting })
    }

    /// Sends it, and waits for the answer that comes later if the backend says so.
    pub(in crate::runtime::proxy) async fn run(self) -> Ended {
        let sent = match wait_for_place(&self.world, &self.pool).await {
            Ok(lease) => self.send(lease).await,
            Err(refusal) => Sent::Failed(refusal.status(), "The backend has no free connection."),
        };
        match sent {
            Sent::Answer(answer) if answer.status == StatusCode::ACCEPTED => {
                let mut waiting = self.waiting;
                match std::future::poll_fn(|cx| waiting.poll(cx)).await {
                    Some(answer) => Ended::Answered(answer),
                    None => Ended::Late,
                }
            }
            Sent::Answer(answer) if answer.status.is_server_error() => Ended::Refused(answer),
            Sent::Answer(answer) => Ended::Answered(answer),
            Sent::Failed(status, reason) => refused(status, reason),
        }
    }

    async fn send(&self, lease: Lease) -> Sent {
        let Self { world, pool, .. } = self;
        let settings = &world.settings.proxy;
        let limits = Limits {
            first_byte_ms: settings.first_byte_timeout_ms,
            idle_ms: settings.idle_timeout_ms,
            min_body_bytes_per_s: 0,
        };
        let mut fresh = false;
        loop {
            let upload = Rc::new(Upload::default());
            upload.ended.set(true);
            let (mut over, reused) = match obtain(world, pool, fresh, false).await {
                Ok(obtained) => obtained,
                Err(reason) => {
                    warn_unreachable(pool, &reason);
                    return Sent::Failed(StatusCode::BAD_GATEWAY, bad_gateway_text());
                }
            };
            let (head, ()) = self.heads[usize::from(matches!(over, Over::Stream(..)))].clone().into_parts();
            let request = Request::from_parts(head, RequestBody::Whole(Some(self.body.clone())));
            let answered = match &mut over {
                Over::Line(line) => over_line(line, request, &upload, limits).await,
                Over::Stream(sender, deadline) => over_stream(sender, request, &upload, deadline, limits).await,
            };
            match answered {
                Ok(answer) => return self.collect(answer, over, lease, upload).await,
                Err(Failure::Broken { unsent: Some(_), .. }) if reused => fresh = true,
                Err(Failure::Broken { reason, .. }) => {
                    if matches!(over, Over::Stream(..)) {
                        pool.forget_multiplexed();
                    }
                    warn_unreachable(pool, &reason);
                    return Sent::Failed(StatusCode::BAD_GATEWAY, bad_gateway_text());
                }
                Err(_late) => return Sent::Failed(StatusCode::GATEWAY_TIMEOUT, "Gateway timeout."),
            }
        }
    }

    /// Reads the whole answer, within what a body may have.
    async fn collect(&self, answer: Response<Incoming>, over: Over, lease: Lease, upload: Rc<Upload>) -> Sent {
        let (mut parts, incoming) = answer.into_parts();
        if let Err(broken) = forward::answer_headers(parts.status, parts.version, &mut parts.headers, false) {
            warn_unreachable(&self.pool, &broken.to_string());
            return Sent::Failed(StatusCode::BAD_GATEWAY, bad_gateway_text());
        }
        let source = match over {
            Over::Line(line) => Source::Line(line),
            Over::Stream(_, deadline) => Source::Stream(deadline),
        };
        let settings = &self.world.settings;
        let body = BackendBody::new(incoming, source, lease, settings.proxy.idle_timeout_ms, None, upload);
        let body = Body::Backend(Box::new(body));
        match Limited::new(body, settings.max_body_bytes).collect().await {
            Ok(body) => {
                parts.headers.remove(header::CONTENT_LENGTH);
                Sent::Answer(CorrelatedAnswer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
            }
            Err(_too_large_or_broken) => {
                let reason = "The backend's answer broke off, or is larger than MAX_BODY_BYTES: too large to be kept.";
                Sent::Failed(StatusCode::BAD_GATEWAY, reason)
            }
        }
    }
}
