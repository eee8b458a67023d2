//! What the parts of a node are told, from the settings of the process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use tidegate_reactive::correlation::CorrelationKey;
use tidegate_shards::auth::settings::TokenSettings;
use tidegate_shards::settings::{ProxySettings, ShardSettings};
use tidegate_shards::token::TokenKey;

use super::certificates::shard_tls;
use crate::config::Config;
use crate::proxy::apis::ApiSources;

pub(super) fn shard_settings(config: &Config, shards: usize) -> ShardSettings {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
    let node_id = uuid::Uuid::new_v4().as_u64_pair().0;
    let token_key = config.node_cookie.as_deref().map_or_else(TokenKey::random, TokenKey::derive_from);
    ShardSettings {
        listen: listen_addresses(&config.inbound_hosts, config.inbound_port),
        tls: shard_tls(config, shards),
        cors: config.cors.clone(),
        extractors: Arc::clone(&config.extractors),
        strict_constraints: config.strict_constraints,
        max_connections_per_minute: config.max_connections_per_minute.div_ceil(shards),
        max_subscriptions: config.max_subscriptions,
        max_queue_bytes: config.max_queue_bytes,
        slow_client: config.slow_client.as_slice().into(),
        max_body_bytes: config.max_body_bytes,
        max_message_bytes: config.max_message_bytes,
        header_timeout_ms: config.header_timeout_ms,
        heartbeat_ms: config.heartbeat_ms,
        long_polling_wait_ms: config.long_polling_wait_ms,
        long_polling_session_ms: config.long_polling_session_ms,
        token_key,
        node_id,
        proxy: proxy_settings(config, shards as usize, node_id),
        limits: config.limits.settings(),
        echo_endpoint: config.echo_endpoint,
        replay_earliest: config.replay_earliest,
        tokens: TokenSettings {
            cache_bytes: config.tokens.settings.cache_bytes / shards as usize,
            ..config.tokens.settings.clone()
        },
        sessions: Arc::default(),
        end_at_token_expiry: config.sessions.end_at_token_expiry,
        subscription_mode: config.sessions.mode,
        spin_us: config.spin_us,
    }
}

pub(super) fn api_sources(config: &Config, shards: usize) -> ApiSources<'_> {
    let proxy = &config.proxy;
    ApiSources {
        definitions: &proxy.definitions,
        kafka: config.kafka.as_ref().map(|settings| (settings, proxy.apis_topic.as_str())),
        state_dir: proxy.state_dir.as_deref(),
        avro: proxy.avro,
        node_name: &proxy.forwarded_by,
        shards,
    }
}

fn proxy_settings(config: &Config, shards: usize, node_id: u64) -> ProxySettings {
    let proxy = &config.proxy;
    let secret = config.node_cookie.as_deref().map_or_else(random_secret, |cookie| cookie.as_bytes().to_vec());
    ProxySettings {
        apis: Arc::default(),
        correlation_key: CorrelationKey::derive_from(&secret),
        instance: node_id & !0xffff,
        forwarded_by: proxy.forwarded_by.as_str().into(),
        connect_timeout_ms: proxy.connect_timeout_ms,
        first_byte_timeout_ms: proxy.first_byte_timeout_ms,
        idle_timeout_ms: proxy.idle_timeout_ms,
        keep_alive_ms: proxy.keep_alive_ms,
        max_connections: proxy.max_connections.div_ceil(shards),
        ca_pem: proxy.ca_pem.clone(),
        http_async_timeout_ms: proxy.http_async_timeout_ms,
        kafka_timeout_ms: proxy.kafka_timeout_ms,
        max_pending: proxy.max_pending.div_ceil(shards),
        max_kafka_body_bytes: config.max_body_bytes,
        stored_bytes: proxy.stored_bytes / shards,
        stored_ms: proxy.stored_ms,
    }
}

fn random_secret() -> Vec<u8> {
    let (first, second) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    [*first.as_bytes(), *second.as_bytes()].concat()
}

/// Every address that clients and operators are to reach.
pub(super) fn listened_on(config: &Config) -> Vec<SocketAddr> {
    let mut addresses = listen_addresses(&config.inbound_hosts, config.inbound_port);
    addresses.extend(config.internal_port.map(|port| SocketAddr::new(config.internal_host, port)));
    if let Some(tls) = &config.tls {
        addresses.extend(listen_addresses(&config.inbound_hosts, tls.inbound_port));
        addresses.push(SocketAddr::new(config.internal_host, tls.internal_port));
    }
    addresses
}

/// All IPv6 addresses, which takes in IPv4, becomes all IPv4 addresses on a machine without IPv6.
pub(super) fn listen_addresses(hosts: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let has_ipv6 = || TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let usable = |host: &IpAddr| match host {
        IpAddr::V6(address) if address.is_unspecified() && !has_ipv6() => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        host => *host,
    };
    hosts.iter().map(usable).map(|host| SocketAddr::new(host, port)).collect()
}
