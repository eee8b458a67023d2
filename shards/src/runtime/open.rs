//! Opening an event stream or a WebSocket from a request head, without hyper.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::bearer::Credentials;
use super::{SharedWorld, World, bearer, checks, tokens};
use crate::auth::check::Check;
use crate::bearer::Bearer;
use crate::clock;
use crate::cursor::ResumeFrom;
use crate::head::{BodyLength, HttpVersion, RequestHead, Route, route};
use crate::query::{BrokenEncoding, ConnectionQuery};
use crate::queue::SlowClient;
use crate::settings::ShardSettings;
use crate::shard::Shard;
use crate::shard::connection::{Address, Closing, Output};
use crate::shard::identity::Identity;
use crate::subscription::{self, Duplicates, Subscription, SubscriptionError, parse_list};
use crate::token::TokenKind;
use crate::ws::codec::{Decoder, Message};
use crate::ws::{close_code, encode, handshake};

/// The close reason for a client that sends on a connection that only goes one way.
const ONE_WAY: &str = "This WebSocket endpoint cannot be used for two-way communication.";
/// The answer to somebody who may not subscribe.
pub(super) const DENIED: &str = "Subscription denied.";
/// The answer to a page that may not open WebSockets.
pub(super) const ORIGIN_REFUSED: &str = "Pages of this origin may not open WebSockets (ALLOWED_ORIGINS).";
/// Path of the WebSocket echo for conformance suites.
const ECHO_PATH: &str = "/_tidegate/test/echo";

/// What a request head asks for, checked.
pub(super) struct Opening {
    kind: Kind,
    greeting: Vec<u8>,
    requested: Result<Requested, String>,
    wishes: Wishes,
    /// The address that the stream counts for, where addresses are counted.
    client: Option<IpAddr>,
    /// The CORS lines of a refusal.
    cors: String,
    slow: SlowClient,
}

impl Opening {
    /// Says that its client may not subscribe: as an answer, or on a WebSocket as a close frame once it is open.
    pub(super) fn deny(mut self) -> Result<Self, Refusal> {
        if let Kind::EventStream { .. } = self.kind {
            return Err(plain(&self.cors, "400 Bad Request", DENIED));
        }
        if self.requested.is_ok() && self.kind == Kind::WebSocket {
            self.requested = Err(DENIED.to_owned());
        }
        Ok(self)
    }
}

/// What a connection begins with.
#[derive(Default)]
pub(super) struct Requested {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) identity: Identity,
}

/// What a client asks for about cursors.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// It wants the cursor of each event.
    pub(super) cursor: bool,
    /// It comes back from there.
    pub(super) from: Option<ResumeFrom>,
}

impl Wishes {
    /// Reads `cursor` and `lastEventId` of a query, and the head `last-event-id`, which counts where both are there: a browser
    /// that reconnects sends the query that it began with.
    pub(super) fn read(query: Option<&str>, last_event_id: Option<&str>) -> Self {
        let query = query.filter(|query| query.contains("ursor") || query.contains("ventId")).unwrap_or("");
        let query = ConnectionQuery::parse(query, BrokenEncoding::Literal).unwrap_or_default();
        let presented = last_event_id.filter(|id| !id.trim().is_empty()).or(query.last_event_id.as_deref());
        Self { cursor: query.wants_cursor(), from: presented.map(ResumeFrom::parse) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    WebSocket,
    Echo,
    EventStream { chunked: bool },
}

/// An answer that refuses, whole.
pub(super) type Refusal = Vec<u8>;

/// Reads the head of a request for an event stream or a WebSocket; `None` where it is for something else. `peer` is the
/// nearest address that is known, where it is needed.
pub(super) fn opening(
    world: &SharedWorld,
    head: &RequestHead<'_>,
    peer: Option<IpAddr>,
) -> Option<Result<Opening, Refusal>> {
    if !matches!(head.body, BodyLength::None | BodyLength::Bytes(0)) {
        return None;
    }
    let opening = if world.settings.echo_endpoint && head.path == ECHO_PATH {
        web_socket(world, head, Kind::Echo)
    } else {
        match route(head.path).ok()? {
            Route::Ws if head.method == "GET" => web_socket(world, head, Kind::WebSocket),
            Route::Sse if head.method == "GET" => event_stream(world, head),
            _ => return None,
        }
    };
    Some(opening.map(|mut opening| {
        let limits = &world.settings.limits;
        if limits.places.counts_addresses() {
            let values = head.header_values(limits.address_header.name());
            opening.client = limits.counted(limits.client(peer, values));
        }
        opening
    }))
}

fn web_socket(world: &World, head: &RequestHead<'_>, kind: Kind) -> Result<Opening, Refusal> {
    let mut greeting = Vec::with_capacity(1024);
    handshake::accept(head, &mut greeting).map_err(|error| error.to_response().to_vec())?;
    if !world.settings.limits.origins.allows(head.header_values("origin")) {
        world.shard.borrow().metrics().origins_refused.add(1);
        return Err(plain(&world.settings.cors.lines(head.header("origin")), "403 Forbidden", ORIGIN_REFUSED));
    }
    let mut requested = match kind {
        Kind::Echo => Ok(Requested::default()),
        _ => requested(world, head.query, credentials(head)),
    };
    let wishes = Wishes::read(head.query, head.header_text("last-event-id"));
    let slow = slow_client_of(world, head.query).unwrap_or_else(|reason| {
        requested = Err(reason);
        SlowClient::Disconnect
    });
    Ok(Opening { kind, greeting, requested, wishes, client: None, cors: String::new(), slow })
}

fn event_stream(world: &SharedWorld, head: &RequestHead<'_>) -> Result<Opening, Refusal> {
    let chunked = head.version == HttpVersion::Http11;
    let cors = world.settings.cors.lines(head.header("origin"));
    let requested =
        requested(world, head.query, credentials(head)).map_err(|reason| plain(&cors, "400 Bad Request", &reason))?;
    let slow = slow_client_of(world, head.query).map_err(|reason| plain(&cors, "400 Bad Request", &reason))?;
    let coding = if chunked { "transfer-encoding: chunked\r\n" } else { "connection: close\r\n" };
    let greeting = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
         {cors}x-accel-buffering: no\r\n{coding}\r\n"
    );
    Ok(Opening {
        kind: Kind::EventStream { chunked },
        greeting: greeting.into_bytes(),
        requested: Ok(requested),
        wishes: Wishes::read(head.query, head.header_text("last-event-id")),
        client: None,
        cors,
        slow,
    })
}

/// What a query and its tokens ask for.
pub(super) fn requested<'a>(
    world: &World,
    query: Option<&str>,
    credentials: Credentials<impl Iterator<Item = &'a [u8]>, impl Iterator<Item = &'a [u8]>>,
) -> Result<Requested, String> {
    let query =
        ConnectionQuery::parse(query.unwrap_or(""), BrokenEncoding::Refuse).map_err(|error| error.to_string())?;
    let Bearer { automatic, identity, is_known } = bearer::of_connection(world, query.jwt.as_deref(), credentials)?;
    let list = query.subscriptions.as_deref().map_or(Ok(Vec::new()), parse_list);
    if list.is_ok() && query.subscriptions.is_some() && !passes_token_check(world, is_known) {
        return Err(DENIED.to_owned());
    }
    let subscriptions = list.and_then(|list| in_force(world, automatic, list, Duplicates::Drop));
    Ok(Requested { subscriptions: subscriptions.map_err(|error| error.to_string())?, identity })
}

/// What is to happen if the client is too slow: as the query asks, where the operator allows it. Only a query that has
/// `slow` in it is read.
pub(super) fn slow_client_of(world: &World, query: Option<&str>) -> Result<SlowClient, String> {
    let allowed = &world.settings.slow_client;
    let default = allowed.first().copied().unwrap_or_default();
    let Some(query) = query.filter(|query| query.contains("slow")) else { return Ok(default) };
    let query = ConnectionQuery::parse(query, BrokenEncoding::Refuse).map_err(|error| error.to_string())?;
    let Some(name) = query.slow else { return Ok(default) };
    SlowClient::named(&name).filter(|asked| allowed.contains(asked)).ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|one| one.name()).collect();
        format!("slow={name} is not allowed here; what is (SLOW_CLIENT): {}", names.join(", "))
    })
}

/// Where tokens may be in a head.
fn credentials<'a>(
    head: &RequestHead<'a>,
) -> Credentials<impl Iterator<Item = &'a [u8]> + use<'a>, impl Iterator<Item = &'a [u8]> + use<'a>> {
    Credentials { authorization: head.header_values("authorization"), cookies: head.header_values("cookie") }
}

/// Whether somebody with a valid token, or without one, may subscribe as far as tokens decide it.
pub(super) fn passes_token_check(world: &World, is_known: bool) -> bool {
    world.settings.tokens.subscription_check != Check::Token || checks::counted(world, is_known)
}

/// What comes into force of automatic and manual subscriptions, within what one connection may have.
pub(super) fn in_force(
    world: &World,
    automatic: Vec<Subscription>,
    manual: Vec<Subscription>,
    duplicates: Duplicates,
) -> Result<Vec<Subscription>, SubscriptionError> {
    let ShardSettings { subscription_mode, max_subscriptions, .. } = *world.settings;
    subscription::in_force(subscription_mode, automatic, manual, duplicates, max_subscriptions)
}

fn plain(cors: &str, status: &str, text: &str) -> Refusal {
    let len = text.len();
    format!("HTTP/1.1 {status}\r\n{cors}content-length: {len}\r\nconnection: close\r\n\r\n{text}").into_bytes()
}

/// A stream that has been opened: what its task needs.
pub(super) struct Opened {
    /// Reads the frames of a WebSocket; nothing a client sends on an event stream matters.
    decoder: Option<Decoder>,
    echo: bool,
}

/// Opens the stream and sends everything up to the subscriptions in one go where ingress knows them.
pub(super) fn open(world: &SharedWorld, address: Address, fd: RawFd, opening: Opening) -> Result<Opened, Refusal> {
    let Opening { kind, greeting, requested, wishes, client, cors, slow } = opening;
    let now_ms = clock::now_ms();
    let mut shard = world.shard.borrow_mut();
    let client = client.filter(|_| !shard.is_held(address));
    let decoder = || Some(Decoder::new(world.settings.max_message_bytes));
    let output = match kind {
        Kind::Echo => {
            shard.open_bare(address, Output::WebSocket(fd), greeting);
            shard.opened(address);
            return Ok(Opened { decoder: decoder(), echo: true });
        }
        Kind::WebSocket => Output::WebSocket(fd),
        Kind::EventStream { chunked } => Output::EventStream { fd, chunked },
    };
    let web_socket = kind == Kind::WebSocket;
    let refusal = match &requested {
        Err(_) => Some("Bad request.".to_owned()),
        Ok(requested) => match shard.compile(&requested.subscriptions) {
            Err(reason) if !web_socket => return Err(plain(&cors, "400 Bad Request", &reason)),
            Err(_) => Some("Bad request.".to_owned()),
            Ok(_) => match shard.admit(now_ms, client) {
                Ok(()) => None,
                Err(refused) if !web_socket => return Err(refused.to_response(&cors)),
                Err(refused) => Some(refused.reason().to_owned()),
            },
        },
    };
    if let Some(reason) = refusal {
        // A browser sees no HTTP error on a WebSocket, so the refusal is a close frame.
        shard.open_bare(address, output, greeting);
        shard.finish(address, Some(close_code::NORMAL), &reason);
        shard.opened(address);
        return Ok(Opened { decoder: decoder(), echo: false });
    }
    if let Some(client) = client {
        shard.hold(address, client);
    }
    let token = tokens::issue(world, TokenKind::Stream, address);
    if let Some(connection) = shard.connections().get_mut(address) {
        connection.cursor = web_socket && wishes.cursor;
    }
    shard.open(address, output, greeting, &token, now_ms);
    shard.set_slow_client(address, slow);
    let Requested { subscriptions, identity } = requested.unwrap_or_default();
    match wishes.from {
        Some(from) => shard.resume(address, &subscriptions, from, None),
        None => shard.set_subscriptions(address, &subscriptions, None),
    }
    shard.identify(address, &identity, now_ms);
    shard.opened(address);
    Ok(Opened { decoder: web_socket.then(decoder).flatten(), echo: false })
}

impl Opened {
    /// Takes bytes from the client. An event stream's client has nothing to say.
    pub(super) fn feed(&mut self, world: &SharedWorld, address: Address, bytes: &mut [u8]) {
        let Some(decoder) = &mut self.decoder else { return };
        let mut shard = world.shard.borrow_mut();
        let echo = self.echo;
        // One read may hold thousands of pings: their pongs go out together, in their place among the other answers.
        let mut pongs = Vec::new();
        let fed = decoder.feed(bytes, &mut |message| {
            match message {
                Message::Ping(payload) => return encode::append_pong(payload, &mut pongs),
                Message::Pong => return,
                Message::Close { .. } | Message::Text(_) | Message::Binary(_) => {}
            }
            send_pongs(&mut shard, address, &mut pongs);
            match message {
                Message::Close { code, .. } => shard.finish(address, code, ""),
                Message::Text(text) if echo => shard.send_message(address, encode::OpCode::Text, text.as_bytes()),
                Message::Binary(bytes) if echo => shard.send_message(address, encode::OpCode::Binary, bytes),
                _ => shard.finish(address, Some(close_code::NORMAL), ONE_WAY),
            }
        });
        send_pongs(&mut shard, address, &mut pongs);
        if let Err(error) = fed {
            shard.metrics().requests_malformed.add(1);
            shard.finish(address, Some(error.close_code), error.reason);
        }
    }
}

/// Sends what answers the pings of a connection, unless it is about to end.
fn send_pongs(shard: &mut Shard, address: Address, pongs: &mut Vec<u8>) {
    let pongs = std::mem::take(pongs);
    let lives = shard.connections().get(address).is_some_and(|connection| connection.closing == Closing::No);
    if lives && !pongs.is_empty() {
        shard.send_control(address, pongs.into());
    }
}
