//! What nodes say to each other over their ports.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_shards::mailbox::{PollAnswer, SetOutcome};
use tidegate_shards::node::{ControlFull, Holders};
use tidegate_shards::peers::{CallKey, SignedBody, Unreachable};
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

/// What is around the body of a client's call when it is passed on, in bytes.
const AROUND_BYTES: usize = 64 << 10;
/// Said of a list of subscriptions that a token has made too long.
pub(super) const TOO_LARGE: &str =
    "The subscriptions are too large to be passed on to the node that holds the connection.";

/// The longest body of a call between nodes, in bytes, by `MAX_BODY_BYTES`, to which clients and services are held. A list
/// of subscriptions may be written in more bytes than its client took, but not in twice as many.
pub(super) fn max_call_bytes(max_body_bytes: usize) -> usize {
    max_body_bytes.saturating_mul(2).saturating_add(AROUND_BYTES)
}

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
        StatusCode::PAYLOAD_TOO_LARGE => Ok(SetOutcome::Refused(TOO_LARGE.to_owned())),
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

/// A call of another node, known by its head to be one.
#[derive(Debug)]
pub(super) struct Admitted {
    call: String,
    body: SignedBody,
}

impl NodeDesk {
    /// Looks at the head of a call, before its body is read; `now_s` is the time since 1970 in seconds.
    ///
    /// # Errors
    /// 404 to whoever isn't a node, 410 for another node than this one.
    pub(super) fn admit(&self, path: &str, headers: &HeaderMap, now_s: u64) -> Result<Admitted, StatusCode> {
        let proof = headers.get(PROOF_HEADER).and_then(|proof| proof.to_str().ok()).unwrap_or_default();
        let body = self.key.verify(proof, path, now_s).ok_or(StatusCode::NOT_FOUND)?;
        let below = path.strip_prefix(CALL_PREFIX).ok_or(StatusCode::NOT_FOUND)?;
        let (node, call) = below.trim_start_matches('/').split_once('/').ok_or(StatusCode::NOT_FOUND)?;
        if u64::from_str_radix(node, 16) != Ok(self.me) {
            return Err(StatusCode::GONE);
        }
        Ok(Admitted { call: call.to_owned(), body })
    }

    /// Answers a call; 404 where its body is not the one that was signed.
    pub(super) async fn answer(
        &self,
        admitted: &Admitted,
        mut headers: HeaderMap,
        body: Bytes,
        desk: &AnswerDesk,
    ) -> Response {
        if !admitted.body.is(&body) {
            return StatusCode::NOT_FOUND.into_response();
        }
        headers.remove(PROOF_HEADER);
        let answered = match admitted.call.as_str() {
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
    fn a_call_is_admitted_by_its_head_alone() {
        let key = CallKey::derive_from("cookie");
        let desk = NodeDesk { me: 0x2a, key: key.clone(), holders: Holders::default() };
        let path = format!("{CALL_PREFIX}/{:016x}/{POLL}", 0x2a);
        let admit = |path: &str, proof: &str, now_s| {
            let headers = HeaderMap::from_iter([(PROOF_HEADER, proof.parse().expect("a header value"))]);
            desk.admit(path, &headers, now_s).map(|admitted| (admitted.call, admitted.body.is(b"body")))
        };
        let proof = key.sign(&path, b"body", 1_000);
        assert_eq!(admit(&path, &proof, 1_060), Ok((POLL.to_owned(), true)));
        assert_eq!(admit(&path, &proof, 2_000), Err(StatusCode::NOT_FOUND), "stale");
        assert_eq!(admit(&path, "", 1_000), Err(StatusCode::NOT_FOUND));
        assert_eq!(desk.admit(&path, &HeaderMap::new(), 1_000).map(|_| ()), Err(StatusCode::NOT_FOUND));
        let other = path.replace("2a", "2b");
        assert_eq!(admit(&other, &key.sign(&other, b"body", 1_000), 1_000), Err(StatusCode::GONE));
        for no_call in [CALL_PREFIX, "/elsewhere/000000000000002a/poll"] {
            assert_eq!(admit(no_call, &key.sign(no_call, b"body", 1_000), 1_000), Err(StatusCode::NOT_FOUND));
        }
    }

    #[test]
    fn a_list_is_written_in_less_than_twice_the_bytes_that_it_came_in() {
        let worst = r#"[{"eventType":"a","oneOf":[{"b":[1e9,1e9,1e9,1e9]}]},{"eventType":"a"},{"eventType":"a"}]"#;
        let list = parse_list(worst).expect("a list");
        assert!(write_list(&list).len() < 2 * worst.len());
        assert_eq!(max_call_bytes(1 << 20), (2 << 20) + (64 << 10));
    }

    #[test]
    fn an_answer_that_no_node_gives_counts_as_none() {
        for status in [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNPROCESSABLE_ENTITY] {
            assert_eq!(set_outcome(status, b""), Err(Unreachable));
            assert_eq!(poll_outcome(status, b""), Err(Unreachable));
        }
        assert_eq!(poll_outcome(StatusCode::OK, b"no JSON"), Err(Unreachable));
        assert_eq!(poll_outcome(StatusCode::GONE, b""), Ok(None));
        assert_eq!(set_outcome(StatusCode::PAYLOAD_TOO_LARGE, b""), Ok(SetOutcome::Refused(TOO_LARGE.to_owned())));
        assert_eq!(set_outcome(StatusCode::BAD_REQUEST, b"why"), Ok(SetOutcome::Refused("why".to_owned())));
    }
}
