//! Events in every content mode.
//!
//! The input is headers (`name: value` lines), an empty line, and a body. The body is read in all three modes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidegate_shards::event::{
    BinaryTransport, Event, EventLimits, decode_batch, decode_binary, decode_structured, http_mode, kafka_mode,
    peek_type,
};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::sse::append_event;

const LIMITS: EventLimits = EventLimits { max_depth: 64, max_body_bytes: 64 * 1024 };

static EXTRACTORS: LazyLock<Extractors> = LazyLock::new(|| {
    Extractors::parse(
        r#"{"a":{"f":{"stable_field_index":0,"event":{"json_pointer":"/data/f"}},
                 "g":{"stable_field_index":1,"event":{"json_pointer":"/data/l/0/x~1y"}},
                 "s":{"stable_field_index":2,"event":{"json_pointer":"/source"}},
                 "d":{"stable_field_index":3,"event":{"json_pointer":"/data"}}}}"#,
    )
    .expect("the extractors are valid")
});

fuzz_target!(|input: &[u8]| {
    let split = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = split.map_or((&b""[..], input), |at| (&input[..at], &input[at + 2..]));
    let headers: Vec<(&str, &[u8])> = head
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
        })
        .collect();
    let content_type = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .and_then(|(_, value)| std::str::from_utf8(value).ok());

    let _ = http_mode(content_type, headers.iter().any(|(name, _)| *name == "ce-specversion"));
    let _ = kafka_mode(content_type, headers.iter().any(|(name, _)| *name == "ce_specversion"));

    if let Ok(event) = decode_structured(body, &EXTRACTORS, &LIMITS) {
        check(&event);
        assert_eq!(peek_type(body).as_deref(), Some(&*event.event_type), "the type seen first is not the event's");
    }
    for event in decode_batch(body, &EXTRACTORS, &LIMITS).unwrap_or_default() {
        check(&event);
    }
    for transport in [BinaryTransport::Http, BinaryTransport::Kafka] {
        let headers = headers.iter().copied();
        if let Ok(event) = decode_binary(transport, headers, content_type, body, &EXTRACTORS, &LIMITS) {
            check(&event);
            assert!(
                decode_structured(&event.body, &EXTRACTORS, &EventLimits { max_depth: 128, max_body_bytes: 1 << 20 })
                    .is_ok()
            );
        }
    }
});

/// What goes to frontends is one JSON object in UTF-8, without `tracestate`.
fn check(event: &Event<'_>) {
    assert!(!event.event_type.is_empty());
    let text = std::str::from_utf8(&event.body).expect("the body is UTF-8");
    let members: std::collections::BTreeMap<String, &RawValue> =
        serde_json::from_str(text).expect("the body is a JSON object");
    assert!(!members.contains_key("tracestate"));

    let mut stream = Vec::new();
    append_event(&event.event_type, Some(&event.id), &event.body, &mut stream);
    assert!(stream.ends_with(b"\n\n"));
    let inside = &stream[..stream.len() - 1];
    assert!(!inside.windows(2).any(|pair| pair == b"\n\n"), "the event is cut in two");
    assert!(!stream.contains(&b'\r'), "a carriage return ends a line of the stream");
}
