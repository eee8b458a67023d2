//! The events that Tidegate itself sends to a client.

use std::fmt::Write as _;

use jiff::Timestamp;
use uuid::Uuid;

/// Type of the first event on a connection; its data holds the connection token.
pub const CONNECTION_CREATE: &str = "rig.connection.create";
/// Type of the event that puts subscriptions in force.
pub const SUBSCRIPTIONS_SET: &str = "rig.subscriptions_set";
/// Type of the event that comes a minute before a connection's token expires; its data says when.
pub const TOKEN_EXPIRING: &str = "rig.token_expiring";
/// Type of the last event on a stream whose token has expired.
pub const TOKEN_EXPIRED: &str = "rig.token_expired";
/// Type of the last event on a stream whose session was blacklisted.
pub const SESSION_KILLED: &str = "rig.session_killed";

/// The CloudEvents 0.2 text of one of Tidegate's own events, keys sorted; `data` is JSON.
#[must_use]
pub fn encode(event_type: &str, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 176);
    let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00");
    let id = Uuid::new_v4();
    let written = write!(
        text,
        r#"{{"data":{data},"id":"{id}","source":"rig","specversion":"0.2","time":"{time}","type":"{event_type}"}}"#
    );
    debug_assert!(written.is_ok(), "a String takes all text");
    text
}

/// Data of [`CONNECTION_CREATE`].
#[must_use]
pub fn connection_create_data(token: &str) -> String {
    format!(r#"{{"connection_token":"{token}","errors":[]}}"#)
}

/// Data of [`TOKEN_EXPIRING`]: the `exp` of the token, in seconds since 1970.
#[must_use]
pub fn token_expiring_data(expires_at_s: u64) -> String {
    format!(r#"{{"expires_at":{expires_at_s}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_event_has_sorted_keys_and_a_time_with_microseconds() {
        let text = encode(CONNECTION_CREATE, &connection_create_data("abc"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["data", "id", "source", "specversion", "time", "type"]);
        assert_eq!(value["data"]["connection_token"], "abc");
        let time = value["time"].as_str().unwrap();
        assert!(time.len() == 32 && time.ends_with("+00:00") && time.as_bytes()[19] == b'.', "{time}");
    }
}
