//! Records of the topic of blacklisted sessions, and lines of the state file.
//!
//! The input is a key and a value with a NUL byte between them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_shards::sessions::record::Record;
use tidegate_shards::sessions::{Fingerprint, SessionWriter};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (key, value) = (String::from_utf8_lossy(next()).into_owned(), next());

    if let Ok(line) = std::str::from_utf8(value)
        && let Ok(record) = Record::from_line(line)
    {
        assert_eq!(Record::from_line(&record.to_line()).expect("what is written is read"), record);
    }
    let session = Fingerprint::of(&key);
    for key in [key, session.to_string()] {
        let Ok(record) = Record::from_topic(&key, value) else { continue };
        assert_eq!(record.session.to_string(), key);
        assert_eq!(Record::from_topic(&key, record.to_value().as_bytes()).expect("what is written is read"), record);
        let mut writer = SessionWriter::new(0);
        writer.set(record.session, record.until_unix_ms).expect("there is room");
        assert_eq!(writer.until_unix_ms(record.session), Some(record.until_unix_ms));
        writer.remove(record.session);
        assert!(writer.is_empty() && writer.until_unix_ms(record.session).is_none());
    }
});
