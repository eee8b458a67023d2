//! Records of the topic of nodes.
//!
//! The input is records with NUL bytes between them, each a key, a blank and a value; a key alone is a tombstone. The table of
//! nodes is compiled into this target, so that nothing of Kafka is.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/nodes/directory.rs"]
#[allow(dead_code, reason = "what only the gateway calls")]
mod directory;

use directory::{Directory, EXPIRY_MS, Found};

const ME: u64 = 0x0123_4567_89ab_cdef;
const UNIX_MS: u64 = 1_800_000_000_000;

fuzz_target!(|input: &[u8]| {
    let mut directory = Directory::new(ME);
    let mut now_ms = 0;
    for record in input.split(|&byte| byte == 0) {
        let mut parts = record.splitn(2, |&byte| byte == b' ');
        let key = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let value = parts.next();
        now_ms += u64::from(record.first().copied().unwrap_or_default()) * 100;
        let node = u64::from_str_radix(&key, 16).ok();
        let before = node.map(|node| directory.find(node));
        match (directory.take(&key, value, UNIX_MS + now_ms, now_ms), node) {
            (Ok(()), Some(node)) if value.is_none() => {
                assert!(!matches!(directory.find(node), Found::At(..)), "it has said farewell");
            }
            (Err(_), Some(node)) => assert_eq!(Some(directory.find(node)), before, "what is refused changes nothing"),
            _ => {}
        }
        assert!(!matches!(directory.find(ME), Found::At(..)), "a node calls itself");
    }
    directory.read_back();
    // After a silence in which only this node was heard, it is alone.
    let own = format!("{{\"address\":\"me:1\",\"at_ms\":{}}}", u64::MAX);
    let later_ms = now_ms.saturating_add(UNIX_MS).saturating_add(EXPIRY_MS).saturating_add(1);
    directory.take(&format!("{ME:x}"), Some(own.as_bytes()), u64::MAX, later_ms).expect("a heartbeat");
    assert!(directory.is_empty(), "who is silent is gone");
});
