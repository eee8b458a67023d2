//! The first bytes of a connection: head, route, query, cookies, WebSocket handshake.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_shards::cookie::{PollCookies, set_last_event_id};
use tidegate_shards::head::{HeadLimits, HeadStatus, RequestHead, parse, route};
use tidegate_shards::query::{BrokenEncoding, ConnectionQuery};
use tidegate_shards::ws::handshake::accept;

fuzz_target!(|bytes: &[u8]| {
    let limits = HeadLimits::default();
    if let Ok(HeadStatus::Complete(head)) = parse(bytes, &limits) {
        check(bytes, &head, &limits);
    }
});

fn check(bytes: &[u8], head: &RequestHead<'_>, limits: &HeadLimits) {
    let own = &bytes[..head.head_len];
    assert!(own.len() <= limits.max_head_bytes);
    assert!(own.ends_with(b"\r\n\r\n"));
    assert!(own.windows(2).all(|pair| pair[1] != b'\n' || pair[0] == b'\r'), "a bare line feed got through");
    assert!(!own.contains(&0), "a NUL got through");
    assert_eq!(parse(own, limits), Ok(HeadStatus::Complete(head.clone())), "what follows a head changes it");
    for at in (0..own.len()).step_by(own.len() / 32 + 1) {
        assert_eq!(parse(&own[..at], limits), Ok(HeadStatus::Partial), "cut at {at}");
    }
    assert!(head.header_values("host").count() <= 1);
    assert!(head.header_values("content-length").count() + head.header_values("transfer-encoding").count() <= 1);

    let _ = route(head.path);
    if let Some(query) = head.query {
        let strict = ConnectionQuery::parse(query, BrokenEncoding::Refuse);
        let literal = ConnectionQuery::parse(query, BrokenEncoding::Literal);
        assert!(strict.is_err() || strict == literal, "the two readings of a well encoded query differ");
    }
    let cookies = PollCookies::parse(head.header_values("cookie"));
    let cookie = set_last_event_id(&cookies.last_event_id);
    assert_eq!(PollCookies::parse([cookie.as_bytes()]).last_event_id, cookies.last_event_id);
    let mut answer = Vec::new();
    assert_eq!(accept(head, &mut answer).is_err(), answer.is_empty());
}
