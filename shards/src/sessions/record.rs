//! A stored entry: in the topic, the fingerprint is the key and the time is the value; in the file, a line holds both.

use super::Fingerprint;
use serde::{Deserialize, Serialize};

/// A blacklisted session as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The session.
    pub session: Fingerprint,
    /// When it may come back, in milliseconds since 1970.
    pub until_unix_ms: u64,
}

/// Something stored is no entry.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The key, or the member `session`, is not a fingerprint.
    #[error("{0:.64?} is not 32 hexadecimal digits")]
    Session(String),
    /// Not the JSON that it must be.
    #[error("not an entry of the blacklist: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct Value {
    until_unix_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    session: &'a str,
    until_unix_ms: u64,
}

impl Record {
    /// Reads a record of the topic.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn from_topic(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        let Value { until_unix_ms } = serde_json::from_slice(value)?;
        Ok(Self { session: fingerprint(key)?, until_unix_ms })
    }

    /// The value in the topic; the key is the fingerprint's text.
    #[must_use]
    pub fn to_value(self) -> String {
        format!(r#"{{"until_unix_ms":{}}}"#, self.until_unix_ms)
    }

    /// Reads a line of the file.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn from_line(line: &str) -> Result<Self, RecordError> {
        let Line { session, until_unix_ms } = serde_json::from_str(line)?;
        Ok(Self { session: fingerprint(session)?, until_unix_ms })
    }

    /// The line in the file, without its end.
    #[must_use]
    pub fn to_line(self) -> String {
        format!(r#"{{"session":"{}","until_unix_ms":{}}}"#, self.session, self.until_unix_ms)
    }
}

fn fingerprint(text: &str) -> Result<Fingerprint, RecordError> {
    Fingerprint::parse(text).ok_or_else(|| RecordError::Session(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for until_unix_ms in [0, 1_800_000_000_000, u64::MAX] {
            let record = Record { session: Fingerprint::of("s"), until_unix_ms };
            let key = record.session.to_string();
            assert_eq!(Record::from_topic(&key, record.to_value().as_bytes()).unwrap(), record);
            assert_eq!(Record::from_line(&record.to_line()).unwrap(), record);
        }
    }

    #[test]
    fn members_of_later_versions_are_ignored() {
        let key = Fingerprint::of("s").to_string();
        let record = Record::from_topic(&key, br#"{"reason":"stolen","until_unix_ms":5}"#).unwrap();
        assert_eq!(record.until_unix_ms, 5);
    }

    #[test]
    fn anything_else_is_refused() {
        let key = Fingerprint::of("s").to_string();
        let deep = "[".repeat(100_000);
        for value in ["", "5", "null", "{}", r#"{"until_unix_ms":-1}"#, r#"{"until_unix_ms":"5"}"#, "\u{fffd}", &deep] {
            assert!(Record::from_topic(&key, value.as_bytes()).is_err(), "{value:.20}");
            assert!(Record::from_line(value).is_err(), "{value:.20}");
        }
        assert!(Record::from_topic("session", br#"{"until_unix_ms":5}"#).is_err());
        assert!(Record::from_topic(&key, b"\xff").is_err());
    }
}
