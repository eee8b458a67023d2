//! What nodes say to each other over their ports.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_shards::mailbox::{PollAnswer, SetOutcome};
use tidegate_shards::node::{ControlFull, Holders};
use tidegate_shards::peers::{CallKey, Unreachable};
use tidegate_shards::sessions::Fingerprint;
use tidegate_shards::shard::identity::Identity;
use tidegate_shards::subscription::{Subscription, parse_list, write_list};
use tidegate_shards::token::ConnectionAddress;

use crate::control::AnswerDesk;

/// Calls between nodes begin so; the identity of the node they are for follows, in hexadecimal.
pub const CALL_PREFIX: &str = "/_tidegate/node";
/// Carries the proof that another node makes the call, see [`CallKey::sign`].
pub const PROOF_HEADER: HeaderName = HeaderName::from_static("x-tidegate-proof");
pub(super) const SUBSCRIPTIONS: &str = "subscriptions";
pub(super) const POLL: &str = "poll";
pub(super) const RESPONSES_V2: &str = "responses/v2";
pub(super) const RESPONSES_V3: &str = "responses/v3";

/// Head fields of a service's call that belong to its connection alone.
const OF_THE_CONNECTION: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::EXPECT];

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Place {
    shard: u16,
    slot: u32,
    generation: u32,
}

#[derive(Serialize, Deserialize)]
struct SetRequest {
    at: Place,
    subscriptions: Box<RawValue>,
    /// Fingerprints of the sessions of the call's tokens.
    sessions: Vec<String>,
    expires_at_s: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct PollRequest {
    at: Place,
    last_event_id: String,
}

#[derive(Serialize, Deserialize)]
struct Polled {
    last_event_id: String,
    body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl From<ConnectionAddress> for Place {
    fn from(ConnectionAddress { shard, slot, generation, .. }: ConnectionAddress) -> Self {
        Self { shard, slot, generation }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("invariant: numbers and texts become JSON").into()
}

pub(super) fn set_request(at: ConnectionAddress, subscriptions: &[Subscription], identity: &Identity) -> Bytes {
    let subscriptions = RawValue::from_string(write_list(subscriptions)).expect("invariant: the list is JSON");
    let sessions = identity.sessions.iter().map(ToString::to_string).collect();
    json(&SetRequest { at: at.into(), subscriptions, sessions, expires_at_s: identity.expires_at_s })
}

pub(super) fn poll_request(at: ConnectionAddress, last_event_id: String) -> Bytes {
    json(&PollRequest { at: at.into(), last_event_id })
}

pub(super) fn set_outcome(status: StatusCode, body: &[u8]) -> Result<SetOutcome, Unreachable> {
    match status {
        StatusCode::NO_CONTENT => Ok(SetOutcome::InForce),
        StatusCode::GONE => Ok(SetOutcome::Gone),
        StatusCode::BAD_REQUEST => Ok(SetOutcome::Refused(String::from_utf8_lossy(body).into_owned())),
        _ => Err(Unreachable),
    }
}

pub(super) fn poll_outcome(status: StatusCode, body: &[u8]) -> Result<Option<PollAnswer>, Unreachable> {
    match status {
        StatusCode::OK => {
            let Polled { last_event_id, body, cursor } = serde_json::from_slice(body).map_err(|_| Unreachable)?;
            Ok(Some(PollAnswer { body: body.into(), last_event_id, cursor }))
        }
        StatusCode::GONE => Ok(None),
        _ => Err(Unreachable),
    }
}

/// The head fields of a service's call that its answer is made of.
pub(super) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| !OF_THE_CONNECTION.contains(name) && **name != PROOF_HEADER);
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Serves the calls of other nodes.
#[derive(Clone, Debug)]
pub struct NodeDesk {
    /// The identity of this node.
    pub me: u64,
    /// Proves who calls.
    pub key: CallKey,
    /// Reaches this node's connections.
    pub holders: Holders,
}

impl NodeDesk {
    /// Answers a call whose path begins with [`CALL_PREFIX`]: 404 to whoever isn't a node, 410 for another node than this one.
    pub async fn answer(&self, path: &str, mut headers: HeaderMap, body: Bytes, desk: &AnswerDesk) -> Response {
        let proof = headers.remove(PROOF_HEADER);
        let proof = proof.as_ref().and_then(|proof| proof.to_str().ok()).unwrap_or_default();
        if !self.key.proves(proof, path, &body, super::unix_ms() / 1_000) {
            return StatusCode::NOT_FOUND.into_response();
        }
        let below = path.strip_prefix(CALL_PREFIX).unwrap_or_default().trim_start_matches('/');
        let Some((node, call)) = below.split_once('/') else { return StatusCode::NOT_FOUND.into_response() };
        if u64::from_str_radix(node, 16) != Ok(self.me) {
            return StatusCode::GONE.into_response();
        }
        let answered = match call {
            SUBSCRIPTIONS => self.set_subscriptions(&body).await,
            POLL => self.poll(&body).await,
            RESPONSES_V2 => return desk.here(true, &headers, body).await,
            RESPONSES_V3 => return desk.here(false, &headers, body).await,
            _ => return StatusCode::NOT_FOUND.into_response(),
        };
        answered.unwrap_or_else(|status| status.into_response())
    }

    fn address(&self, Place { shard, slot, generation }: Place) -> ConnectionAddress {
        ConnectionAddress { node: self.me, shard, slot, generation }
    }

    async fn set_subscriptions(&self, body: &[u8]) -> Result<Response, StatusCode> {
        let request: SetRequest = serde_json::from_slice(body).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
        let list = match parse_list(request.subscriptions.get()) {
            Ok(list) => list,
            Err(error) => return Ok((StatusCode::BAD_REQUEST, error.to_string()).into_response()),
        };
        let sessions: Option<Vec<_>> = request.sessions.iter().map(|text| Fingerprint::parse(text)).collect();
        let sessions = sessions.ok_or(StatusCode::UNPROCESSABLE_ENTITY)?;
        let identity = Identity { sessions, expires_at_s: request.expires_at_s };
        let outcome = self.holders.set_subscriptions(self.address(request.at), list, identity).map_err(busy)?;
        Ok(match outcome.await {
            Ok(SetOutcome::InForce) => StatusCode::NO_CONTENT.into_response(),
            Ok(SetOutcome::Refused(reason)) => (StatusCode::BAD_REQUEST, reason).into_response(),
            Ok(SetOutcome::Gone) | Err(_) => StatusCode::GONE.into_response(),
        })
    }

    async fn poll(&self, body: &[u8]) -> Result<Response, StatusCode> {
        let request: PollRequest = serde_json::from_slice(body).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
        let answer = self.holders.poll(self.address(request.at), request.last_event_id).map_err(busy)?;
        let PollAnswer { body, last_event_id, cursor } = answer.await.map_err(|_| StatusCode::GONE)?;
        let body = String::from_utf8(body.into()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(Response::new(Body::from(json(&Polled { last_event_id, body, cursor }))))
    }
}

fn busy(_: ControlFull) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_arrive_at_the_other_node_as_they_were() {
        let text = r#"[{"eventType":"greeting","oneOf":[{"name":"J\"ö","n":1e3},{"room":null}]},{"eventType":"x","snapshot":true}]"#;
        let list = parse_list(text).expect("a list");
        let identity = Identity { sessions: vec![Fingerprint::of("session")], expires_at_s: Some(7) };
        let at = ConnectionAddress { node: 1, shard: 2, slot: 3, generation: 4 };
        let request: SetRequest = serde_json::from_slice(&set_request(at, &list, &identity)).expect("a request");
        assert_eq!(request.sessions, [identity.sessions[0].to_string()]);
        assert_eq!(request.expires_at_s, Some(7));
        assert_eq!((request.at.shard, request.at.slot, request.at.generation), (2, 3, 4));
        assert_eq!(write_list(&parse_list(request.subscriptions.get()).expect("a list")), write_list(&list));
    }

    #[test]
    fn an_answer_that_no_node_gives_counts_as_none() {
        for status in [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNPROCESSABLE_ENTITY] {
            assert_eq!(set_outcome(status, b""), Err(Unreachable));
            assert_eq!(poll_outcome(status, b""), Err(Unreachable));
        }
        assert_eq!(poll_outcome(StatusCode::OK, b"no JSON"), Err(Unreachable));
        assert_eq!(poll_outcome(StatusCode::GONE, b""), Ok(None));
        assert_eq!(set_outcome(StatusCode::BAD_REQUEST, b"why"), Ok(SetOutcome::Refused("why".to_owned())));
    }
}
