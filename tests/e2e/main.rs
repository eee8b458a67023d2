//! End to end: the real binary, seen from outside, held against the contract. Each test is named
//! after what a client would see and has a gateway process of its own.

mod support;

mod api_definitions;
mod autobahn;
mod bad_heads;
mod bad_input;
mod breaks_rig;
mod browser;
mod connections_longpolling;
mod connections_sse;
mod connections_ws;
mod cors_and_preflight;
mod drain;
mod events_http;
mod hostile;
mod internal_port;
mod kafka;
mod kafka_security;
mod matching;
mod nodes;
mod paths_and_heads;
mod proxy_async;
mod proxy_async_faults;
mod proxy_async_http;
mod proxy_async_kept;
mod proxy_http;
mod proxy_http_bodies;
mod proxy_http_connections;
mod proxy_http_faults;
mod proxy_http_mixed;
mod proxy_http_websocket;
mod proxy_kafka;
mod proxy_reactive;
mod settings;
mod slow_clients;
mod subscriptions;
mod systemd;
mod takeover;
mod tune;
