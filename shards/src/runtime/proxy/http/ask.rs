//! A question of the gateway's own to a service: a whole body goes, the status that comes back is the answer.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;

use super::connect::{Late, before};
use super::download::{BackendBody, Source};
use super::exchange::{Failure, Limits, over_line, over_stream};
use super::pool::{Lease, Pool};
use super::upload::{RequestBody, Upload};
use super::{Over, obtain, wait_for_place};
use crate::auth::check::CheckUrl;
use crate::clock;
use crate::runtime::SharedWorld;
use crate::runtime::body::Body;

/// Bytes of an answer's body that are read so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// POSTs a body and waits `timeout_ms` for the status.
///
/// # Errors
/// Why there is none.
pub(in crate::runtime) async fn ask(
    world: &SharedWorld,
    url: &CheckUrl,
    headers: HeaderMap,
    body: Bytes,
    timeout_ms: u64,
) -> Result<StatusCode, Arc<str>> {
    let deadline = world.proxy.deadlines.at(clock::now_ms() + timeout_ms);
    let question = Ask { world, url, headers, body, timeout_ms };
    match before(&deadline, question.status()).await {
        Ok(outcome) => outcome,
        Err(Late) => Err("no answer in time (CHECK_TIMEOUT_MS)".into()),
    }
}

struct Ask<'a> {
    world: &'a SharedWorld,
    url: &'a CheckUrl,
    headers: HeaderMap,
    body: Bytes,
    timeout_ms: u64,
}

impl Ask<'_> {
    async fn status(&self) -> Result<StatusCode, Arc<str>> {
        let pool = self.world.proxy.backends.pool(&self.url.backend, &self.world.settings.proxy);
        let lease = wait_for_place(self.world, &pool).await.map_err(|_| Arc::from("no connection is free"))?;
        let limits = Limits {
            first_byte_ms: self.timeout_ms,
            idle_ms: self.timeout_ms,
            min_body_bytes_per_s: self.world.settings.limits.min_body_bytes_per_s,
        };
        let mut fresh = false;
        loop {
            let (mut over, reused) = obtain(self.world, &pool, fresh, false).await?;
            let upload = Rc::new(Upload::default());
            upload.ended.set(true);
            let request = self.request(&pool, matches!(over, Over::Stream(..))).ok_or("the URL can't be sent")?;
            let answered = match &mut over {
                Over::Line(line) => over_line(line, request, &upload, limits).await,
                Over::Stream(sender, deadline) => over_stream(sender, request, &upload, deadline, limits).await,
            };
            match answered {
                Ok(answer) => {
                    let (parts, incoming) = answer.into_parts();
                    self.read_rest(incoming, over, lease, upload).await;
                    return Ok(parts.status);
                }
                Err(Failure::Broken { unanswered: true, .. }) if reused => {
                    // It was closed while nobody used it: a question may be asked again.
                    pool.forget_multiplexed();
                    fresh = true;
                }
                Err(Failure::Broken { reason, .. }) => return Err(reason.into()),
                Err(_) => return Err("no answer in time (CHECK_TIMEOUT_MS)".into()),
            }
        }
    }

    fn request(&self, pool: &Pool, http2: bool) -> Option<Request<RequestBody>> {
        let host = pool.host.to_str().ok()?;
        let scheme = if self.url.backend.tls { "https" } else { "http" };
        let uri = if http2 { format!("{scheme}://{host}{}", self.url.path) } else { self.url.path.to_string() };
        let mut request = Request::new(RequestBody::Whole(Some(self.body.clone())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(uri).ok()?;
        *request.headers_mut() = self.headers.clone();
        if !http2 {
            request.headers_mut().insert(header::HOST, pool.host.clone());
        }
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("tidegate"));
        Some(request)
    }

    /// What the answer says beside its status doesn't matter; a connection whose answer was read can be used again.
    async fn read_rest(&self, incoming: hyper::body::Incoming, over: Over, lease: Lease, upload: Rc<Upload>) {
        let source = match over {
            Over::Line(line) => Source::Line(line),
            Over::Stream(_, deadline) => Source::Stream(deadline),
        };
        let mut body =
            Body::Backend(Box::new(BackendBody::new(incoming, source, lease, self.timeout_ms, None, upload)));
        let mut read = 0;
        while read <= MAX_ANSWER_BYTES {
            let Some(Ok(frame)) = body.frame().await else { return };
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}
