//! Avro values by schemas, both from outside: the input is a schema's JSON, a NUL byte, and a value. What is read is
//! JSON, and what is written of it again can be read.
//!
//! The codec is compiled into this target, so that nothing of Kafka is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[path = "../../src/avro/codec/mod.rs"]
mod codec;

use codec::{DecodeLimits, Schema, decode, encode};

const LIMITS: DecodeLimits = DecodeLimits { max_depth: 100, max_json_bytes: 1 << 16 };
/// What is written again may be a little longer.
const MORE: DecodeLimits = DecodeLimits { max_json_bytes: 1 << 20, ..LIMITS };

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|&byte| byte == 0) else { return };
    let Ok(json) = std::str::from_utf8(&input[..end]) else { return };
    let Ok(schema) = Schema::parse(json) else { return };
    let value = &input[end + 1..];
    let Ok(text) = decode(&schema, value, &LIMITS) else { return };
    assert!(text.len() <= LIMITS.max_json_bytes);
    let read: Value = serde_json::from_slice(&text).expect("what is read is JSON");
    let mut written = Vec::new();
    if encode(&schema, &read, &mut written).is_ok() {
        let again = decode(&schema, &written, &MORE).expect("what is written can be read");
        serde_json::from_slice::<Value>(&again).expect("and is JSON");
    }
});
