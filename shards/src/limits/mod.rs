//! What one client, or all of them together, may take of a node; without sockets or clocks.
//!
//! [`network`] names addresses that are trusted, [`client_address`] finds the client behind them, [`origin`] says which web
//! sites may use the gateway. [`places`] counts connections, [`requests`] (with [`rate`]) requests, [`pace`] the bytes of a body.
//!
//! Two kinds of counters: what changes once per connection ([`places`]) is shared by all shards, in atomics, because the
//! kernel spreads the connections of one address over them and a share of a small limit would refuse clients that are
//! within it. What changes with every request ([`rate`]) belongs to one shard, because a cache line that all cores write to
//! per request would make them wait for each other: a client is never refused below the limit, and one that spreads its
//! requests over connections to several shards has it on each of them.

pub mod client_address;
pub mod network;
pub mod origin;
pub mod pace;
pub mod places;
pub mod rate;
pub mod requests;

use std::net::IpAddr;
use std::sync::Arc;

use self::client_address::{AddressHeader, client_address};
use self::network::TrustedProxies;
use self::origin::AllowedOrigins;
use self::places::Places;

/// The limits in force, and what is needed to know whom they count for.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// Counts the node's connections (`MAX_CONNECTIONS`, `MAX_CONNECTIONS_PER_ADDRESS`).
    pub places: Arc<Places>,
    /// Requests a second from one address to publish and to the API proxy, on one shard; 0 for no limit
    /// (`MAX_REQUESTS_PER_SECOND_PER_ADDRESS`).
    pub requests_per_address: u32,
    /// The same with one credential (`MAX_REQUESTS_PER_SECOND_PER_TOKEN`).
    pub requests_per_token: u32,
    /// Seconds' worth of requests that may come at once (`REQUEST_BURST_SECONDS`).
    pub request_burst_s: u32,
    /// Bytes that may wait for all connections of a shard together (`MAX_QUEUED_BYTES_PER_SHARD`).
    pub max_queued_bytes: u64,
    /// The slowest a request body may come on average, in bytes a second; 0 for as slow as it likes
    /// (`MIN_BODY_BYTES_PER_SECOND`).
    pub min_body_bytes_per_s: u64,
    /// Requests a minute that an HTTP/2 client may take back before they are answered (`MAX_HTTP2_RESETS`).
    pub max_http2_resets: u32,
    /// Who is believed when it names the client (`TRUSTED_PROXIES`).
    pub trusted: TrustedProxies,
    /// Where they name it (`CLIENT_ADDRESS_HEADER`).
    pub address_header: AddressHeader,
    /// Connections from trusted addresses begin with a header of the PROXY protocol (`PROXY_PROTOCOL`).
    pub proxy_protocol: bool,
    /// Web sites whose pages may open WebSockets (`ALLOWED_ORIGINS`).
    pub origins: AllowedOrigins,
}

impl LimitSettings {
    /// Whether a connection's address must be known before its first request is looked at.
    #[must_use]
    pub fn needs_address(&self) -> bool {
        self.places.counts_addresses() || !self.trusted.is_empty()
    }

    /// The client behind `peer`, by what trusted proxies have written into these values of [`Self::address_header`].
    pub fn client<'a>(&self, peer: Option<IpAddr>, values: impl IntoIterator<Item = &'a [u8]>) -> Option<IpAddr> {
        Some(client_address(peer?, &self.trusted, self.address_header, values))
    }

    /// The address, if limits count for it: a trusted proxy speaks for many.
    #[must_use]
    pub fn counted(&self, client: Option<IpAddr>) -> Option<IpAddr> {
        client.filter(|client| !self.trusted.contains(*client))
    }
}

impl Default for LimitSettings {
    /// The defaults of the command line, for a process with any number of open files.
    fn default() -> Self {
        Self {
            places: Arc::new(Places::new(usize::MAX, 0)),
            requests_per_address: 0,
            requests_per_token: 0,
            request_burst_s: 5,
            max_queued_bytes: 256 << 20,
            min_body_bytes_per_s: 500,
            max_http2_resets: 1_000,
            trusted: TrustedProxies::default(),
            address_header: AddressHeader::XForwardedFor,
            proxy_protocol: false,
            origins: AllowedOrigins::Any,
        }
    }
}
