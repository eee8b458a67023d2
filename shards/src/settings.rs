//! What a shard is told at start: limits, addresses and texts. Validated before it gets here.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::extractor::Extractors;
use crate::token::TokenKey;

/// Settings that every shard of a node shares; nothing in here changes after the start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Addresses of the inbound port; every shard binds each with `SO_REUSEPORT`.
    pub listen: Vec<SocketAddr>,
    /// Value of `access-control-allow-origin` on Tidegate's own answers (`CORS`).
    pub cors: Box<str>,
    /// Extractors in force (`EXTRACTORS`).
    pub extractors: Arc<Extractors>,
    /// Refuse constraints on fields without extractor (`STRICT_CONSTRAINTS`).
    pub strict_constraints: bool,
    /// New connections a minute on this shard: the node's `MAX_CONNECTIONS_PER_MINUTE`, shared out.
    pub max_connections_per_minute: u32,
    /// Subscriptions that one connection may hold.
    pub max_subscriptions: usize,
    /// Bytes that may wait for one connection before the bound's action is taken.
    pub max_queue_bytes: usize,
    /// Bytes of a request body on the calls that Tidegate answers itself.
    pub max_body_bytes: usize,
    /// Bytes of one WebSocket message from a client.
    pub max_message_bytes: usize,
    /// Time for a request head to arrive, and between two pieces of a body, in milliseconds; also how long a
    /// kept-alive connection waits for its next request.
    pub header_timeout_ms: u64,
    /// Time between two heartbeats (SSE comment, WebSocket ping), in milliseconds.
    pub heartbeat_ms: u64,
    /// Longest wait of a long-polling call for its first event, in milliseconds.
    pub long_polling_wait_ms: u64,
    /// Life of a long-polling session after its last call, in milliseconds.
    pub long_polling_session_ms: u64,
    /// Key of connection tokens (`NODE_COOKIE`, or random per start).
    pub token_key: TokenKey,
    /// This node's identity inside connection tokens.
    pub node_id: u64,
    /// Serve `/_tidegate/test/echo`, a WebSocket echo on the production codec, for conformance suites.
    pub echo_endpoint: bool,
    /// Spin for this long before a shard sleeps, in microseconds; 0 never spins (`--spin`).
    pub spin_us: u64,
}
