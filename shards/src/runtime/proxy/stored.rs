//! Requests whose answer is kept: for callers that don't wait for it (`prefer: respond-async`, RFC 7240 section 4.1), and for
//! those that repeat a request with the same `idempotency-key`.
//!
//! Such a request runs in a task of its own, so that its answer is kept even if its client goes. An answer is kept by the shard
//! that its id names. An idempotency key belongs to the shard that its digest names: that one alone decides who was first.
//! Whoever asks goes through the control lanes, and so it doesn't matter which shard a client's connection is on.

use std::rc::Rc;

use ::http::header::{self, HeaderMap, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, StatusCode};
use futures_channel::oneshot;
use sha2::{Digest as _, Sha256};
use tidegate_reactive::correlation::CorrelationId;

use super::correlated::{Waiting, before, late, respond};
use super::kafka::{Ended, retry_later};
use super::{Call, reported};
use crate::clock;
use crate::mailbox::Control;
use crate::proxy::counts::Outcome;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::outbound::CorrelatedAnswer;
use crate::proxy::preference::Preference;
use crate::proxy::request_event::NotAnEvent;
use crate::proxy::stored::{Claimed, Digest, Kept, NoRoom, StoreCall};
use crate::runtime::http::Phase;
use crate::runtime::service::{Answer, Caller, busy, text, uncached};
use crate::runtime::{SharedWorld, bearer};

/// Where kept answers are fetched; the id follows.
const RESPONSES: &str = "/_rig/v1/responses/";
/// Characters of an idempotency key.
const MAX_KEY_CHARS: usize = 255;
/// Longest `prefer: wait` that is honoured.
const MAX_WAIT_MS: u64 = 60_000;
/// How long a look at another shard's store may take.
const LOOK_PATIENCE_MS: u64 = 1_000;
/// Low bits of an instance: the number of the shard.
const SHARD_BITS: u64 = 0xffff;

/// How a caller wants its answer.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// It doesn't wait for it, or not for long.
    pub(super) detached: bool,
    wait_ms: Option<u64>,
}

impl Asked {
    /// Reads the preferences, as far as this gateway keeps answers at all.
    pub(super) fn read(world: &SharedWorld, headers: &HeaderMap) -> Self {
        let Preference { respond_async, wait_ms } = Preference::read(headers);
        let wait_ms = wait_ms.map(|wait_ms| wait_ms.min(MAX_WAIT_MS));
        Self { detached: respond_async && world.settings.proxy.stored_bytes > 0, wait_ms }
    }

    /// How long this caller waits, in milliseconds.
    fn wait_ms(self, timeout_ms: u64) -> u64 {
        if self.detached { self.wait_ms.unwrap_or(0) } else { timeout_ms }
    }
}

/// The header is no key.
pub(super) struct Unusable;

/// What its sender reads.
pub(super) const UNUSABLE: &str = "idempotency-key must be 1 to 255 visible characters.";

/// The idempotency key of a request, where there is one and answers are kept.
pub(super) fn idempotency_key<'a>(world: &SharedWorld, headers: &'a HeaderMap) -> Result<Option<&'a str>, Unusable> {
    let mut keys = headers.get_all("idempotency-key").iter();
    match (keys.next(), keys.next()) {
        _ if world.settings.proxy.stored_bytes == 0 => Ok(None),
        (None, _) => Ok(None),
        (Some(key), None) => {
            let key = key.to_str().map_err(|_| Unusable)?;
            let usable = (1..=MAX_KEY_CHARS).contains(&key.len());
            if usable { Ok(Some(key)) } else { Err(Unusable) }
        }
        (Some(_), Some(_)) => Err(Unusable),
    }
}

/// An answer that will be asked for; a request that comes to nothing before it runs leaves nothing behind.
struct Opened {
    world: SharedWorld,
    id: CorrelationId,
    claim: Option<Digest>,
}

impl Opened {
    fn new(world: &SharedWorld, id: CorrelationId) -> Result<Self, NoRoom> {
        world.proxy.stored.borrow_mut().open(id, clock::now_ms())?;
        Ok(Self { world: Rc::clone(world), id, claim: None })
    }

    /// The answer is there.
    fn settle(mut self, answer: &CorrelatedAnswer, keep: bool) {
        self.tell(answer, keep);
        if keep {
            self.claim = None;
        }
    }

    fn tell(&self, answer: &CorrelatedAnswer, keep: bool) {
        let waiters = self.world.proxy.stored.borrow_mut().settle(self.id, answer, keep, clock::now_ms());
        for waiter in waiters {
            let _gone_meanwhile = waiter.send(Kept::Answer(answer.clone()));
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let body = "The request this one repeats came to nothing. Try again.".into();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        self.tell(&CorrelatedAnswer { status, headers: HeaderMap::new(), body }, false);
        if let Some(key) = self.claim {
            let _its_own_life_ends_it =
                ask(&self.world, owner(&self.world, &key), StoreCall::Release { key, id: self.id });
        }
    }
}

/// Runs a request whose answer is kept, unless the same one was made before, and waits as long as its caller does.
pub(super) async fn exchange<E: Future<Output = Ended> + 'static>(
    world: &SharedWorld,
    call: &Call<'_>,
    body: &[u8],
    key: Option<&str>,
    asked: Asked,
    timeout_ms: u64,
    make: impl Fn(Waiting) -> Result<E, NotAnEvent>,
) -> Answer {
    let claim = key.map(|key| (key_digest(world, call, key), looks(call, body)));
    let mut stale = None;
    for _attempt in 0..2 {
        let waiting = Waiting::register(world, clock::now_ms() + world.settings.proxy.stored_ms);
        let Ok(waiting) = waiting else { return busy() };
        let id = waiting.id();
        // First the message, so that a body that can't be sent claims nothing.
        let exchange = match make(waiting) {
            Ok(exchange) => exchange,
            Err(reason) => return text(StatusCode::BAD_REQUEST, reason.to_string()),
        };
        let Ok(mut opened) = Opened::new(world, id) else { return no_room() };
        if let Some((key, looks)) = claim {
            if let Some(id) = stale.take() {
                let _lane_full = ask(world, owner(world, &key), StoreCall::Release { key, id });
            }
            match claimed(world, key, looks, id).await {
                Some(Ok(Claimed::First)) => opened.claim = Some(key),
                Some(Ok(Claimed::Different)) => {
                    let reason = "This idempotency-key belongs to a different request.";
                    return reported(text(StatusCode::UNPROCESSABLE_ENTITY, reason), Outcome::BadRequest);
                }
                Some(Ok(Claimed::Before(first))) => {
                    drop((opened, exchange));
                    match follow(world, first, asked, timeout_ms).await {
                        Some(answer) => return answer,
                        None => {
                            stale = Some(first);
                            continue;
                        }
                    }
                }
                Some(Err(NoRoom)) => return no_room(),
                None => return busy(),
            }
        }
        let passed = spawn(world, opened, exchange);
        return match follow(world, id, asked, timeout_ms).await {
            Some(answer) => answer,
            None => passed.await.map_or_else(|oneshot::Canceled| late(), respond),
        };
    }
    retry_later("The answer to this idempotency-key is not there at the moment.")
}

/// Goes on waiting in a task of its own, for a caller that doesn't.
pub(super) async fn keep_waiting(world: &SharedWorld, waiting: Waiting, asked: Asked, timeout_ms: u64) -> Answer {
    let id = waiting.id();
    let Ok(opened) = Opened::new(world, id) else { return no_room() };
    let _kept = spawn(world, opened, async move {
        let mut waiting = waiting;
        match std::future::poll_fn(|cx| waiting.poll(cx)).await {
            Some(answer) => Ended::Answered(answer),
            None => Ended::Late,
        }
    });
    follow(world, id, asked, timeout_ms).await.unwrap_or_else(late)
}

/// Runs an exchange to its end whatever becomes of the client. An answer that isn't kept comes through the receiver too: it may be
/// gone from the store before anybody has looked.
fn spawn(
    world: &SharedWorld,
    opened: Opened,
    exchange: impl Future<Output = Ended> + 'static,
) -> oneshot::Receiver<CorrelatedAnswer> {
    let counted = Counted::new(world);
    let (pass, passed) = oneshot::channel();
    glommio::spawn_local(async move {
        let (answer, keep) = exchange.await.into_stored();
        opened.settle(&answer, keep);
        if !keep {
            let _has_seen_it_or_gone = pass.send(answer);
        }
        drop(counted);
    })
    .detach();
    passed
}

/// A task that the shard waits for when it stops.
struct Counted(SharedWorld);

impl Counted {
    fn new(world: &SharedWorld) -> Self {
        world.tasks.set(world.tasks.get() + 1);
        Self(Rc::clone(world))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}

/// Waits for a kept answer as long as the caller does; `None` if nothing is known of it.
async fn follow(world: &SharedWorld, id: CorrelationId, asked: Asked, timeout_ms: u64) -> Option<Answer> {
    let wait_ms = asked.wait_ms(timeout_ms);
    let (reply, kept) = oneshot::channel();
    if ask(world, shard_of(id), StoreCall::Look { id, wait: wait_ms > 0, reply }).is_none() {
        return Some(busy());
    }
    // Who doesn't wait is answered as soon as the other shard has looked.
    let patience_ms = if wait_ms > 0 { wait_ms } else { LOOK_PATIENCE_MS };
    let deadline = world.proxy.deadlines.at(clock::now_ms() + patience_ms);
    Some(match before(&deadline, kept).await {
        Some(Ok(Kept::Answer(answer))) => respond(answer),
        Some(Ok(Kept::Unknown)) => return None,
        Some(Ok(Kept::Crowded)) | Some(Err(oneshot::Canceled)) => busy(),
        Some(Ok(Kept::Running)) | None if asked.detached => later(world, id),
        Some(Ok(Kept::Running)) | None => late(),
    })
}

/// 202, and where the answer will be.
fn later(world: &SharedWorld, id: CorrelationId) -> Answer {
    let mut answer = uncached(text(StatusCode::ACCEPTED, "Accepted."));
    let location = format!("{RESPONSES}{}", world.settings.proxy.correlation_key.seal(id));
    let headers = answer.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert("preference-applied", HeaderValue::from_static("respond-async"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// The id of a call for a kept answer; `None` for any other call.
pub(super) fn asked_for(parts: &Parts) -> Option<&str> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    parts.uri.path().strip_prefix(RESPONSES).filter(|id| reads && !id.contains('/'))
}

/// Answers a call for a kept answer: the answer, 202 while it isn't there, 404 where there is none. `prefer: wait` waits.
pub(super) async fn fetch(world: &SharedWorld, caller: &Caller, parts: &Parts, id: &str) -> Answer {
    if caller.handoff.is_some() {
        caller.progress.enter(Phase::Waiting);
    }
    let unknown = || uncached(text(StatusCode::NOT_FOUND, "There is no such answer, or it is no longer kept."));
    let settings = &world.settings.proxy;
    let id = settings.correlation_key.open(id.as_bytes());
    let Some(id) = id.filter(|id| id.instance & !SHARD_BITS == settings.instance & !SHARD_BITS) else {
        return unknown();
    };
    let asked = Asked { detached: true, ..Asked::read(world, &parts.headers) };
    follow(world, id, asked, 0).await.unwrap_or_else(unknown)
}

async fn claimed(
    world: &SharedWorld,
    key: Digest,
    looks: Digest,
    id: CorrelationId,
) -> Option<Result<Claimed, NoRoom>> {
    let (reply, claimed) = oneshot::channel();
    ask(world, owner(world, &key), StoreCall::Claim { key, looks, id, reply })?;
    claimed.await.ok()
}

fn ask(world: &SharedWorld, shard: usize, call: StoreCall) -> Option<()> {
    world.lanes.get(shard)?.send(Control::Store(call)).ok()
}

fn shard_of(id: CorrelationId) -> usize {
    usize::try_from(id.instance & SHARD_BITS).unwrap_or(usize::MAX)
}

/// The shard that decides on an idempotency key.
fn owner(world: &SharedWorld, key: &Digest) -> usize {
    usize::from(u16::from_be_bytes([key[0], key[1]])) % world.lanes.len()
}

/// What a key is unique in: its endpoint, and who asks.
fn key_digest(world: &SharedWorld, call: &Call<'_>, key: &str) -> Digest {
    let Endpoint { api_id, id, secured, .. } = &**call.endpoint;
    let mut parts = vec![api_id.as_bytes(), id.as_bytes(), key.as_bytes()];
    parts.extend(bearer::of_caller(world, call.parts, secured.as_ref()));
    digest(&parts)
}

/// What makes a request the same as another one.
fn looks(call: &Call<'_>, body: &[u8]) -> Digest {
    let query = call.query.unwrap_or_default().as_bytes();
    digest(&[call.parts.method.as_str().as_bytes(), call.path.as_bytes(), query, body])
}

/// SHA-256 over the parts, each after its length.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn no_room() -> Answer {
    retry_later("Too many answers are being kept already (PROXY_STORED_BYTES).")
}
