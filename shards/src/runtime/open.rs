//! Opening an event stream or a WebSocket from a request head, without hyper.

use std::os::fd::RawFd;

use super::{SharedWorld, World, tokens};
use crate::clock;
use crate::head::{BodyLength, HttpVersion, RequestHead, Route, route};
use crate::query::{BrokenEncoding, ConnectionQuery};
use crate::queue::SlowClient;
use crate::shard::connection::{Address, Output};
use crate::subscription::{Duplicates, Subscription, SubscriptionError, parse_list, unite};
use crate::token::TokenKind;
use crate::ws::codec::{Decoder, Message};
use crate::ws::{close_code, encode, handshake};

/// The close reason for a client that sends on a connection that only goes one way.
const ONE_WAY: &str = "This WebSocket endpoint cannot be used for two-way communication.";
/// The close reason, and the answer, for a connection over the rate.
pub(super) const RATE_REACHED: &str = "Reached maximum number of connections";
/// Path of the WebSocket echo for conformance suites.
const ECHO_PATH: &str = "/_tidegate/test/echo";

/// What a request head asks for, checked.
pub(super) struct Opening {
    kind: Kind,
    greeting: Vec<u8>,
    subscriptions: Result<Vec<Subscription>, String>,
    slow: SlowClient,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    WebSocket,
    Echo,
    EventStream { chunked: bool },
}

/// An answer that refuses, whole.
pub(super) type Refusal = Vec<u8>;

/// Reads the head of a request for an event stream or a WebSocket; `None` where it is for something else.
pub(super) fn opening(world: &SharedWorld, head: &RequestHead<'_>) -> Option<Result<Opening, Refusal>> {
    if head.body != BodyLength::None {
        return None;
    }
    if world.settings.echo_endpoint && head.path == ECHO_PATH {
        return Some(web_socket(world, head, Kind::Echo));
    }
    match route(head.path).ok()? {
        Route::Ws if head.method != "OPTIONS" => Some(web_socket(world, head, Kind::WebSocket)),
        Route::Sse if head.method == "GET" => Some(event_stream(world, head)),
        _ => None,
    }
}

fn web_socket(world: &World, head: &RequestHead<'_>, kind: Kind) -> Result<Opening, Refusal> {
    let mut greeting = Vec::with_capacity(1024);
    handshake::accept(head, &mut greeting).map_err(|error| error.to_response().to_vec())?;
    let mut subscriptions = match kind {
        Kind::Echo => Ok(Vec::new()),
        _ => subscriptions_of(world, head.query),
    };
    let slow = slow_client_of(world, head.query).unwrap_or_else(|reason| {
        subscriptions = Err(reason);
        SlowClient::Disconnect
    });
    Ok(Opening { kind, greeting, subscriptions, slow })
}

fn event_stream(world: &SharedWorld, head: &RequestHead<'_>) -> Result<Opening, Refusal> {
    let chunked = head.version == HttpVersion::Http11;
    let cors = &world.settings.cors;
    let subscriptions =
        subscriptions_of(world, head.query).map_err(|reason| plain(world, "400 Bad Request", &reason))?;
    let slow = slow_client_of(world, head.query).map_err(|reason| plain(world, "400 Bad Request", &reason))?;
    let coding = if chunked { "transfer-encoding: chunked\r\n" } else { "connection: close\r\n" };
    let greeting = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
         access-control-allow-origin: {cors}\r\nx-accel-buffering: no\r\n{coding}\r\n"
    );
    Ok(Opening {
        kind: Kind::EventStream { chunked },
        greeting: greeting.into_bytes(),
        subscriptions: Ok(subscriptions),
        slow,
    })
}

/// The subscriptions that a query asks for.
pub(super) fn subscriptions_of(world: &World, query: Option<&str>) -> Result<Vec<Subscription>, String> {
    let query =
        ConnectionQuery::parse(query.unwrap_or(""), BrokenEncoding::Refuse).map_err(|error| error.to_string())?;
    if query.jwt.is_some() {
        return Err(tokens::JWT_REFUSED.into());
    }
    let list = query.subscriptions.as_deref().map_or(Ok(Vec::new()), parse_list);
    list.and_then(|list| within_limits(world, list, Duplicates::Drop)).map_err(|error| error.to_string())
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

/// Holds a list against what one connection may have.
pub(super) fn within_limits(
    world: &World,
    list: Vec<Subscription>,
    duplicates: Duplicates,
) -> Result<Vec<Subscription>, SubscriptionError> {
    unite(Vec::new(), list, duplicates, world.settings.max_subscriptions)
}

fn plain(world: &SharedWorld, status: &str, text: &str) -> Refusal {
    let (cors, len) = (&world.settings.cors, text.len());
    format!(
        "HTTP/1.1 {status}\r\naccess-control-allow-origin: {cors}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

/// A stream that has been opened: what its task needs.
pub(super) struct Opened {
    /// Reads the frames of a WebSocket; nothing a client sends on an event stream matters.
    decoder: Option<Decoder>,
    echo: bool,
}

/// Opens the stream and sends everything up to the subscriptions in one go where ingress knows them.
pub(super) fn open(world: &SharedWorld, address: Address, fd: RawFd, opening: Opening) -> Result<Opened, Refusal> {
    let Opening { kind, greeting, subscriptions, slow } = opening;
    let now_ms = clock::now_ms();
    let mut shard = world.shard.borrow_mut();
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
    let refusal = match &subscriptions {
        Err(_) => Some("Bad request.".to_owned()),
        Ok(list) => match shard.compile(list) {
            Err(reason) if !web_socket => return Err(plain(world, "400 Bad Request", &reason)),
            Err(_) => Some("Bad request.".to_owned()),
            Ok(_) if shard.admit(now_ms) => None,
            Ok(_) if !web_socket => return Err(plain(world, "429 Too Many Requests", RATE_REACHED)),
            Ok(_) => Some(RATE_REACHED.to_owned()),
        },
    };
    if let Some(reason) = refusal {
        // A browser sees no HTTP error on a WebSocket, so the refusal is a close frame.
        shard.open_bare(address, output, greeting);
        shard.finish(address, Some(close_code::NORMAL), &reason);
        shard.opened(address);
        return Ok(Opened { decoder: decoder(), echo: false });
    }
    let token = tokens::issue(world, TokenKind::Stream, address);
    shard.open(address, output, greeting, &token, now_ms);
    shard.set_slow_client(address, slow);
    shard.set_subscriptions(address, &subscriptions.unwrap_or_default(), None);
    shard.opened(address);
    Ok(Opened { decoder: web_socket.then(decoder).flatten(), echo: false })
}

impl Opened {
    /// Takes bytes from the client. An event stream's client has nothing to say.
    pub(super) fn feed(&mut self, world: &SharedWorld, address: Address, bytes: &mut [u8]) {
        let Some(decoder) = &mut self.decoder else { return };
        let mut shard = world.shard.borrow_mut();
        let echo = self.echo;
        let fed = decoder.feed(bytes, &mut |message| match message {
            Message::Ping(payload) => {
                let mut pong = Vec::new();
                encode::append_pong(payload, &mut pong);
                shard.send_control(address, pong.into());
            }
            Message::Pong => {}
            Message::Close { code, .. } => shard.finish(address, code, ""),
            Message::Text(text) if echo => shard.send_message(address, encode::OpCode::Text, text.as_bytes()),
            Message::Binary(bytes) if echo => shard.send_message(address, encode::OpCode::Binary, bytes),
            Message::Text(_) | Message::Binary(_) => shard.finish(address, Some(close_code::NORMAL), ONE_WAY),
        });
        if let Err(error) = fed {
            shard.metrics().requests_malformed.add(1);
            shard.finish(address, Some(error.close_code), error.reason);
        }
    }
}
