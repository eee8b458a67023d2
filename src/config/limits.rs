//! Settings of limits on clients, and of who they are.

use std::sync::Arc;

use tidegate_shards::limits::LimitSettings;
use tidegate_shards::limits::client_address::AddressHeader;
use tidegate_shards::limits::network::TrustedProxies;
use tidegate_shards::limits::origin::{AllowedOrigins, Cors};
use tidegate_shards::limits::places::{MAX_PER_ADDRESS, Places};

use super::MAX_BYTES;
use super::values::Reader;
use crate::limits::open_files;

/// Highest rate of requests: one a microsecond.
const MAX_REQUESTS_PER_SECOND: u64 = 1_000_000;

/// Limits on clients.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Connections of the node; `None` follows from the limit of open files.
    pub max_connections: Option<usize>,
    /// Connections of one address; 0 for no limit.
    pub max_connections_per_address: u32,
    /// Requests a second from one address; 0 for no limit.
    pub requests_per_address: u32,
    /// Requests a second with one token; 0 for no limit.
    pub requests_per_token: u32,
    /// Seconds' worth of requests that may come at once.
    pub request_burst_s: u32,
    /// Requests a minute that an HTTP/2 client may take back.
    pub max_http2_resets: u32,
    /// Bytes that may wait for all clients of a shard.
    pub max_queued_bytes: u64,
    /// Slowest average of a request body, in bytes a second.
    pub min_body_bytes_per_s: u64,
    /// Who is believed when it names the client.
    pub trusted: TrustedProxies,
    /// Where they name it.
    pub address_header: AddressHeader,
    /// Their connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Web sites whose pages may open WebSockets.
    pub origins: AllowedOrigins,
}

impl LimitsConfig {
    /// As the shards are told.
    #[must_use]
    pub fn settings(&self) -> LimitSettings {
        let max_connections = self.max_connections.unwrap_or_else(connections_by_open_files);
        LimitSettings {
            places: Arc::new(Places::new(max_connections, self.max_connections_per_address)),
            requests_per_address: self.requests_per_address,
            requests_per_token: self.requests_per_token,
            request_burst_s: self.request_burst_s,
            max_queued_bytes: self.max_queued_bytes,
            min_body_bytes_per_s: self.min_body_bytes_per_s,
            max_http2_resets: self.max_http2_resets,
            trusted: self.trusted.clone(),
            address_header: self.address_header,
            proxy_protocol: self.proxy_protocol,
            origins: self.origins.clone(),
        }
    }
}

/// Leaves some files for backends and brokers: a client that is refused knows more than one that is never accepted.
fn connections_by_open_files() -> usize {
    let files = open_files().map_or(u64::MAX, |limit| limit.soft);
    usize::try_from(files - files / 16).unwrap_or(usize::MAX)
}

pub(super) fn limits(reader: &mut Reader<'_>) -> LimitsConfig {
    let mut count = |variable, range| u32::try_from(reader.number(variable, range)).unwrap_or(u32::MAX);
    let max_connections_per_address = count("MAX_CONNECTIONS_PER_ADDRESS", 0..=u64::from(MAX_PER_ADDRESS));
    let requests_per_address = count("MAX_REQUESTS_PER_SECOND_PER_ADDRESS", 0..=MAX_REQUESTS_PER_SECOND);
    let requests_per_token = count("MAX_REQUESTS_PER_SECOND_PER_TOKEN", 0..=MAX_REQUESTS_PER_SECOND);
    let request_burst_s = count("REQUEST_BURST_SECONDS", 1..=3_600);
    let max_http2_resets = count("MAX_HTTP2_RESETS", 1..=MAX_REQUESTS_PER_SECOND);
    let trusted = trusted(reader);
    let proxy_protocol = reader.switch("PROXY_PROTOCOL");
    if proxy_protocol && trusted.is_empty() && reader.text("TRUSTED_PROXIES").is_none() {
        reader.problem("PROXY_PROTOCOL", "nobody is trusted to name clients", "Set TRUSTED_PROXIES too");
    }
    LimitsConfig {
        max_connections: reader.text("MAX_CONNECTIONS").map(|_| reader.size("MAX_CONNECTIONS", 1..=1 << 32)),
        max_connections_per_address,
        requests_per_address,
        requests_per_token,
        request_burst_s,
        max_http2_resets,
        max_queued_bytes: reader.number("MAX_QUEUED_BYTES_PER_SHARD", 1_024..=MAX_BYTES),
        min_body_bytes_per_s: reader.number("MIN_BODY_BYTES_PER_SECOND", 0..=MAX_BYTES),
        trusted,
        address_header: reader.word(
            "CLIENT_ADDRESS_HEADER",
            &[("x-forwarded-for", AddressHeader::XForwardedFor), ("forwarded", AddressHeader::Forwarded)],
        ),
        proxy_protocol,
        origins: origins(reader),
    }
}

fn trusted(reader: &mut Reader<'_>) -> TrustedProxies {
    let mut networks = Vec::new();
    for entry in reader.list("TRUSTED_PROXIES") {
        match entry.parse() {
            Ok(network) => networks.push(network),
            Err(error) => reader.problem(
                "TRUSTED_PROXIES",
                format!("{entry:?}: {error}"),
                "Use addresses and networks such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
            ),
        }
    }
    TrustedProxies::new(networks)
}

fn origins(reader: &mut Reader<'_>) -> AllowedOrigins {
    AllowedOrigins::parse(&reader.text("ALLOWED_ORIGINS").unwrap_or_default()).unwrap_or_else(|error| {
        reader.problem("ALLOWED_ORIGINS", error.to_string(), "Use a list such as https://shop.example");
        AllowedOrigins::Any
    })
}

/// One value as RIG takes it, or a list of origins.
pub(super) fn cors(reader: &mut Reader<'_>) -> Cors {
    let text = reader.text("CORS").unwrap_or_default();
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        reader.problem("CORS", "not a header value", "Use * or an origin such as https://shop.example");
    }
    Cors::parse(&text).unwrap_or_else(|error| {
        reader.problem("CORS", error.to_string(), "Use *, one origin, or origins with commas between");
        Cors::Fixed(text.into())
    })
}
