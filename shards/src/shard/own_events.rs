//! The events that Tidegate itself sends to a client.

use std::fmt::Write as _;

use jiff::Timestamp;
use uuid::Uuid;

use super::connection::Output;
use crate::cursor::{Layout, Loss};
use crate::{sse, ws};

/// Type of the first event on a connection; its data holds the connection token.
pub const CONNECTION_CREATE: &str = "rig.connection.create";
/// Type of the event that puts subscriptions in force.
pub const SUBSCRIPTIONS_SET: &str = "rig.subscriptions_set";
/// Type of the notice that events were left out, because the client took them too slowly; its data holds how many.
pub const DROPPED: &str = "tidegate.dropped";
/// Type of the event that comes a minute before a connection's token expires; its data says when.
pub const TOKEN_EXPIRING: &str = "rig.token_expiring";
/// Type of the last event on a stream whose token has expired.
pub const TOKEN_EXPIRED: &str = "rig.token_expired";
/// Type of the last event on a stream whose session was blacklisted.
pub const SESSION_KILLED: &str = "rig.session_killed";

/// Type of the event that says that events may be missing.
pub const HISTORY_LOST: &str = "tidegate.history_lost";

/// Type of the event that says that a client has all of its snapshot.
pub const SNAPSHOT: &str = "tidegate.snapshot";

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

/// Most partitions that [`history_lost_data`] names one by one.
const MAX_NAMED: usize = 100;

/// Data of [`HISTORY_LOST`]: the reason of the first loss, and each loss with its topic, partition, and the offsets from which
/// and up to which events are missing.
#[must_use]
pub fn history_lost_data(losses: &[Loss], layout: &Layout) -> String {
    let named = |loss: &Loss| {
        let slot = loss.slot.and_then(|slot| layout.slot(slot));
        let topic = slot.and_then(|slot| layout.sources().get(slot.source)).map(|source| source.name.clone());
        let partition = slot.map(|slot| slot.partition);
        serde_json::json!({
            "from": loss.from, "partition": partition, "reason": loss.reason.word(), "to": loss.to, "topic": topic
        })
    };
    let lost: Vec<_> = losses.iter().take(MAX_NAMED).map(named).collect();
    let reason = losses.first().map_or("", |loss| loss.reason.word());
    serde_json::json!({ "lost": lost, "reason": reason }).to_string()
}

/// Data of [`SNAPSHOT`]: how many events it had, and whether these were all that there are.
#[must_use]
pub fn snapshot_data(complete: bool, events: u64) -> String {
    format!(r#"{{"complete":{complete},"events":{events}}}"#)
}

/// Data of [`TOKEN_EXPIRING`]: the `exp` of the token, in seconds since 1970.
#[must_use]
pub fn token_expiring_data(expires_at_s: u64) -> String {
    format!(r#"{{"expires_at":{expires_at_s}}}"#)
}

/// Data of [`DROPPED`].
#[must_use]
pub fn dropped_data(count: u64) -> String {
    format!(r#"{{"dropped":{count}}}"#)
}

/// One of these events as its connection takes it.
#[derive(Debug)]
pub enum Framed {
    /// A frame, an event of an event stream, or a chunk that holds one.
    Bytes(Vec<u8>),
    /// The JSON text, for a session that keeps it.
    Stored(String),
    /// The connection takes no events.
    Nothing,
}

/// Encodes an event for an output; `data` is JSON.
#[must_use]
pub fn framed(output: &Output, event_type: &str, data: &str) -> Framed {
    let body = encode(event_type, data);
    let mut bytes = Vec::with_capacity(body.len() + 64);
    match output {
        Output::WebSocket(_) => ws::encode::append_frame(ws::encode::OpCode::Text, body.as_bytes(), &mut bytes),
        Output::EventStream { chunked: true, .. } => {
            let mut event = Vec::with_capacity(body.len() + 64);
            sse::append_event(event_type, None, body.as_bytes(), &mut event);
            bytes.extend_from_slice(format!("{:x}\r\n", event.len()).as_bytes());
            bytes.extend_from_slice(&event);
            bytes.extend_from_slice(b"\r\n");
        }
        Output::EventStream { .. } | Output::Pulled => {
            sse::append_event(event_type, None, body.as_bytes(), &mut bytes);
        }
        Output::Session(_) => return Framed::Stored(body),
        Output::Http => return Framed::Nothing,
    }
    Framed::Bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_never_takes_more_room_than_is_kept_for_it() {
        let data = dropped_data(u64::MAX);
        for output in [Output::WebSocket(0), Output::EventStream { fd: 0, chunked: true }, Output::Pulled] {
            let Framed::Bytes(bytes) = framed(&output, DROPPED, &data) else { panic!("a frame") };
            assert!(bytes.len() <= crate::queue::MAX_NOTICE_BYTES, "{} bytes", bytes.len());
        }
    }

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
