//! What a shard is told at start: limits, addresses and texts. Validated before it gets here.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_reactive::correlation::CorrelationKey;

use crate::auth::settings::TokenSettings;
use crate::extractor::Extractors;
use crate::limits::LimitSettings;
use crate::limits::origin::Cors;
use crate::proxy::table::ApiTable;
use crate::queue::SlowClient;
use crate::sessions::SessionTable;
use crate::subscription::SubscriptionMode;
use crate::tls::TlsSettings;
use crate::token::TokenKey;

/// Settings that every shard of a node shares; nothing in here changes after the start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Addresses of the inbound port; every shard binds each with `SO_REUSEPORT`.
    pub listen: Vec<SocketAddr>,
    /// The inbound TLS port; `None` opens none.
    pub tls: Option<TlsSettings>,
    /// `access-control-allow-origin` on Tidegate's own answers (`CORS`).
    pub cors: Cors,
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
    /// What happens at that bound: the first unless the client asks for another of these (`SLOW_CLIENT`). Never empty.
    pub slow_client: Box<[SlowClient]>,
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
    /// Clients may ask for everything that is kept, or for what came since a time, in place of a cursor (`REPLAY_EARLIEST`).
    pub replay_earliest: bool,
    /// Spin for this long before a shard sleeps, in microseconds; 0 never spins (`--spin`).
    pub spin_us: u64,
    /// What tokens must be like, and who needs one.
    pub tokens: TokenSettings,
    /// Blacklisted sessions.
    pub sessions: Arc<SessionTable>,
    /// A connection ends when its token expires (`END_AT_TOKEN_EXPIRY`).
    pub end_at_token_expiry: bool,
    /// Manual subscriptions can only narrow the automatic ones (`AUTO_SUBSCRIPTIONS`).
    pub subscription_mode: SubscriptionMode,
    /// Settings of the API proxy.
    pub proxy: ProxySettings,
    /// Limits on what clients may take, and who they are.
    pub limits: LimitSettings,
}

/// What the API proxy of every shard is told at start.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// The endpoints in force when the shards begin to listen.
    pub apis: Arc<ApiTable>,
    /// Key of correlation ids (`NODE_COOKIE`, or random per start).
    pub correlation_key: CorrelationKey,
    /// Identity of this node inside correlation ids: a shard's instance is this plus its number; the low 16 bits are zero.
    pub instance: u64,
    /// `by` of the `forwarded` header: this node's address as backends see it (`HOST`).
    pub forwarded_by: Box<str>,
    /// Time to connect to a backend, TLS included, in milliseconds (`PROXY_CONNECT_TIMEOUT`).
    pub connect_timeout_ms: u64,
    /// Time for a backend to begin its answer, in milliseconds (`PROXY_RECV_TIMEOUT`).
    pub first_byte_timeout_ms: u64,
    /// Time between two pieces of a body, either way, in milliseconds (`PROXY_IDLE_TIMEOUT`).
    pub idle_timeout_ms: u64,
    /// Life of an unused connection to a backend, in milliseconds (`PROXY_KEEP_ALIVE`).
    pub keep_alive_ms: u64,
    /// Connections to one backend per shard (`PROXY_MAX_CONNECTIONS`, shared out); beyond, requests wait for one.
    pub max_connections: usize,
    /// Certificate authority for https backends beside the system's, PEM (`PROXY_CA_CERTFILE`).
    pub ca_pem: Option<Arc<[u8]>>,
    /// Time for an answer over `/v3/responses`, in milliseconds.
    pub http_async_timeout_ms: u64,
    /// Time for an answer over Kafka, in milliseconds.
    pub kafka_timeout_ms: u64,
    /// Requests of this shard that may wait for correlated answers (`PROXY_MAX_PENDING`, shared out); beyond, 503.
    pub max_pending: usize,
    /// Largest body of a request to Kafka, in bytes (`MAX_BODY_BYTES`).
    pub max_kafka_body_bytes: usize,
    /// Memory for stored answers (`idempotency-key`, `prefer: respond-async`) per shard, in bytes (`PROXY_STORED_BYTES`,
    /// shared out).
    pub stored_bytes: usize,
    /// Life of a stored answer, in milliseconds (`PROXY_STORED_SECONDS`).
    pub stored_ms: u64,
}

impl Default for ShardSettings {
    /// The defaults of the command line, with a random key and no address to listen on.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tls: None,
            cors: Cors::Fixed("*".into()),
            extractors: Arc::default(),
            strict_constraints: false,
            max_connections_per_minute: 5_000,
            max_subscriptions: 1_000,
            max_queue_bytes: 2 << 20,
            slow_client: Box::new([SlowClient::Disconnect]),
            max_body_bytes: 1 << 20,
            max_message_bytes: 64 << 10,
            header_timeout_ms: 10_000,
            heartbeat_ms: 15_000,
            long_polling_wait_ms: 5_000,
            long_polling_session_ms: 3_600_000,
            token_key: TokenKey::random(),
            node_id: 1,
            echo_endpoint: false,
            replay_earliest: false,
            spin_us: 0,
            tokens: TokenSettings::default(),
            sessions: Arc::default(),
            end_at_token_expiry: true,
            subscription_mode: SubscriptionMode::Unite,
            proxy: ProxySettings::default(),
            limits: LimitSettings::default(),
        }
    }
}

impl Default for ProxySettings {
    /// The defaults of the command line on one shard, with a key that everybody knows: for tests and benchmarks.
    fn default() -> Self {
        Self {
            apis: Arc::default(),
            correlation_key: CorrelationKey::derive_from(b"not a secret"),
            instance: 1 << 16,
            forwarded_by: "127.0.0.1".into(),
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 5_000,
            idle_timeout_ms: 60_000,
            keep_alive_ms: 30_000,
            max_connections: 1_024,
            ca_pem: None,
            http_async_timeout_ms: 5_000,
            kafka_timeout_ms: 5_000,
            max_pending: 100_000,
            max_kafka_body_bytes: 1 << 20,
            stored_bytes: 64 << 20,
            stored_ms: 300_000,
        }
    }
}
