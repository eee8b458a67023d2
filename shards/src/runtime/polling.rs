//! The long-polling call: the first opens a session, later ones fetch events from whichever shard holds it.

use futures_channel::oneshot;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use super::body::Body;
use super::service::{Answer, Caller, busy, refused, text, unreachable_node};
use super::tokens::Place;
use super::{SharedWorld, bearer, checks, tokens};
use crate::bearer::Bearer;
use crate::clock;
use crate::cookie::{self, FIRST_EVENT, PollCookies, set_connection_token, set_last_event_id};
use crate::mailbox::{Control, PollAnswer};
use crate::peers::Unreachable;
use crate::query::{BrokenEncoding, ConnectionQuery};
use crate::runtime::open::{DENIED, Wishes, in_force, passes_token_check};
use crate::shard::connection::Output;
use crate::shard::session::LongPolling;
use crate::subscription::{Duplicates, parse_query_parameter};
use crate::token::{ConnectionAddress, TokenKind};

/// Answers one call.
pub(super) async fn answer(world: &SharedWorld, caller: &Caller, parts: &Parts) -> Answer {
    let mut answer = match poll(world, parts).await {
        Polled::Answer(token, answer) => json(&token, &answer.last_event_id, answer.cursor.as_deref(), answer.body),
        Polled::Busy => busy(),
        Polled::Unreachable => unreachable_node(),
        Polled::NoSession => open(world, caller, parts).await,
    };
    let credentials = HeaderValue::from_static("true");
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
    answer
}

enum Polled {
    Answer(String, PollAnswer),
    Busy,
    Unreachable,
    NoSession,
}

async fn poll(world: &SharedWorld, parts: &Parts) -> Polled {
    let cookies = PollCookies::parse(parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes));
    let Some(token) = cookies.connection_token else { return Polled::NoSession };
    let Some((TokenKind::Session, place)) = tokens::open(world, &token) else { return Polled::NoSession };
    let last_event_id = cookies.last_event_id.into_owned();
    let (shard, address) = match place {
        Place::Here(shard, address) => (shard, address),
        Place::Elsewhere(at) => return poll_elsewhere(world, at, token.into_owned(), last_event_id).await,
    };
    let (reply, answer) = oneshot::channel();
    if shard == world.number {
        world.shard.borrow_mut().poll(address, last_event_id, reply, clock::now_ms());
    } else {
        let message = Control::Poll { slot: address.slot, generation: address.generation, last_event_id, reply };
        if world.lanes[shard].send(message).is_err() {
            return Polled::Busy;
        }
    }
    match answer.await {
        Ok(answer) => Polled::Answer(token.into_owned(), answer),
        Err(oneshot::Canceled) => Polled::NoSession,
    }
}

async fn poll_elsewhere(world: &SharedWorld, at: ConnectionAddress, token: String, last_event_id: String) -> Polled {
    let Some(peers) = &world.sinks.peers else { return Polled::NoSession };
    let (reply, answer) = oneshot::channel();
    peers.poll(at, last_event_id, reply);
    match answer.await {
        Ok(Ok(Some(answer))) => Polled::Answer(token, answer),
        Ok(Ok(None)) => Polled::NoSession,
        Ok(Err(Unreachable)) | Err(oneshot::Canceled) => Polled::Unreachable,
    }
}

async fn open(world: &SharedWorld, caller: &Caller, parts: &Parts) -> Answer {
    let query = match ConnectionQuery::parse(parts.uri.query().unwrap_or(""), BrokenEncoding::Literal) {
        Ok(query) => query,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let credentials = bearer::of_headers(&parts.headers);
    let Bearer { automatic, identity, is_known } = match bearer::of_connection(world, query.jwt.as_deref(), credentials)
    {
        Ok(bearer) => bearer,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let list = query.subscriptions.as_deref().map_or(Ok(Vec::new()), |json| parse_query_parameter(json, true));
    if list.is_ok()
        && query.subscriptions.is_some()
        && !(passes_token_check(world, is_known) && checks::may_connect(world, parts, BrokenEncoding::Literal).await)
    {
        return text(StatusCode::BAD_REQUEST, DENIED);
    }
    let subscriptions = match list.and_then(|list| in_force(world, automatic, list, Duplicates::Drop)) {
        Ok(subscriptions) => subscriptions,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let last_event_id = cookie::cursor(parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes));
    let last_event_id =
        last_event_id.or_else(|| parts.headers.get("last-event-id").and_then(|value| value.to_str().ok()));
    let wishes = Wishes::read(parts.uri.query(), last_event_id);
    let (reply, outcome) = oneshot::channel();
    let (token, address) = {
        let now_ms = clock::now_ms();
        let mut shard = world.shard.borrow_mut();
        if let Err(reason) = shard.compile(&subscriptions) {
            return text(StatusCode::BAD_REQUEST, reason);
        }
        let client = world.settings.limits.counted(caller.client);
        if let Err(reason) = shard.admit_detached(now_ms, client) {
            return refused(reason);
        }
        let output = Output::Session(Box::new(LongPolling::new(now_ms)));
        let token = |address| tokens::issue(world, TokenKind::Session, address);
        let address = shard.open_detached(output, token, now_ms);
        if let Some(client) = client {
            shard.hold(address, client);
        }
        if let Some(connection) = shard.connections().get_mut(address) {
            connection.cursor = wishes.cursor;
        }
        match wishes.from {
            Some(from) => shard.resume(address, &subscriptions, from, Some(reply)),
            None => shard.set_subscriptions(address, &subscriptions, Some(reply)),
        }
        shard.identify(address, &identity, now_ms);
        shard.opened(address);
        (tokens::issue(world, TokenKind::Session, address), address)
    };
    // The client takes this answer to mean that its subscriptions are in force.
    let _in_force = outcome.await;
    let cursor = world.shard.borrow_mut().session_cursor(address);
    json(&token, FIRST_EVENT, cursor.as_deref(), "\"ok\"".into())
}

fn json(token: &str, last_event_id: &str, cursor: Option<&str>, body: bytes::Bytes) -> Answer {
    let mut answer = Response::new(Body::full(body));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let cookies = [set_connection_token(token), set_last_event_id(last_event_id)];
    for cookie in cookies.into_iter().chain(cursor.map(cookie::set_cursor)) {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    answer
}
