//! What a load balancer says before its client speaks: PROXY protocol, and the header fields that name a client.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use tidegate_shards::limits::client_address::{AddressHeader, client_address};
use tidegate_shards::limits::network::TrustedProxies;
use tidegate_shards::proxy_protocol::{MAX_HEADER_BYTES, Parsed, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if let Ok(Parsed::Header { len, .. }) = whole {
        assert!(len <= bytes.len() && len <= MAX_HEADER_BYTES);
        assert_eq!(parse(&bytes[..len]), whole, "what follows a header changes it");
        for at in (0..len).step_by(len / 32 + 1) {
            assert_eq!(parse(&bytes[..at]), Ok(Parsed::Partial), "cut at {at}");
        }
    }
    if bytes.len() >= MAX_HEADER_BYTES {
        assert_ne!(whole, Ok(Parsed::Partial), "a header without end");
    }
    let proxy = IpAddr::from(Ipv4Addr::LOCALHOST);
    let trusted = TrustedProxies::new("127.0.0.1".parse().into_iter().collect());
    let client = IpAddr::from([198, 51, 100, 7]);
    for (header, own) in [(AddressHeader::XForwardedFor, "198.51.100.7"), (AddressHeader::Forwarded, "for=198.51.100.7")] {
        let appended = [bytes, b",", own.as_bytes()].concat();
        assert_eq!(client_address(proxy, &trusted, header, [&appended[..]]), client);
        assert_eq!(client_address(proxy, &trusted, header, [bytes, own.as_bytes()]), client);
        assert_eq!(client_address(client, &trusted, header, [bytes]), client, "a stranger is believed");
    }
});
