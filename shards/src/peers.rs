//! Calls about connections that live on other nodes, and the signature by which nodes know each other.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_channel::oneshot;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::mailbox::{PollAnswer, SetOutcome};
use crate::shard::identity::Identity;
use crate::subscription::Subscription;
use crate::token::ConnectionAddress;

/// Keeps these signatures apart from everything else that is signed with a key from the same secret.
const PURPOSE: &[u8] = b"tidegate call between nodes 2";
/// How far the clocks of two nodes may differ, and how long a call may be under way, in seconds.
pub const MAX_AGE_S: u64 = 120;

/// The node that holds the connection can't be asked at the moment; a retry may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// Reaches connections that live on other nodes. Neither call blocks; a dropped reply means [`Unreachable`].
pub trait Peers: Send + Sync + 'static {
    /// Replaces the subscriptions of a connection, checked already, and notes whose it is by the tokens of the call.
    fn set_subscriptions(
        &self,
        at: ConnectionAddress,
        subscriptions: Vec<Subscription>,
        identity: Identity,
        reply: oneshot::Sender<Result<SetOutcome, Unreachable>>,
    );

    /// Fetches events of a long-polling session; `None` where it is gone.
    fn poll(
        &self,
        at: ConnectionAddress,
        last_event_id: String,
        reply: oneshot::Sender<Result<Option<PollAnswer>, Unreachable>>,
    );
}

/// The body of a call, as the node that made the call has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedBody([u8; 32]);

impl SignedBody {
    fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, body: &[u8]) -> bool {
        *self == Self::of(body)
    }
}

/// Signs calls between the nodes that share a `NODE_COOKIE`.
#[derive(Clone)]
pub struct CallKey(Hmac<Sha256>);

impl fmt::Debug for CallKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CallKey(secret)")
    }
}

impl CallKey {
    /// The key of all nodes that were given the same `NODE_COOKIE`.
    #[must_use]
    pub fn derive_from(cookie: &str) -> Self {
        let key = keyed(cookie.as_bytes()).chain_update(PURPOSE).finalize().into_bytes();
        Self(keyed(&key))
    }

    /// The proof that a call with this path and body was made by a node, at this time in seconds since 1970.
    #[must_use]
    pub fn sign(&self, path: &str, body: &[u8], now_s: u64) -> String {
        let body = SignedBody::of(body);
        let tag = self.mac(path, body, now_s).finalize().into_bytes();
        format!("{now_s}.{}.{}", URL_SAFE_NO_PAD.encode(body.0), URL_SAFE_NO_PAD.encode(tag))
    }

    /// The body that a call with this path must have, if [`Self::sign`] wrote its proof, less than two minutes ago: who makes
    /// a call is known before its body is read. The signature is compared in constant time.
    #[must_use]
    pub fn verify(&self, proof: &str, path: &str, now_s: u64) -> Option<SignedBody> {
        let mut parts = proof.split('.');
        let signed_s: u64 = parts.next()?.parse().ok()?;
        let mut decoded = || URL_SAFE_NO_PAD.decode(parts.next()?).ok();
        let (body, tag) = (SignedBody(decoded()?.try_into().ok()?), decoded()?);
        let holds = now_s.abs_diff(signed_s) <= MAX_AGE_S && self.mac(path, body, signed_s).verify_slice(&tag).is_ok();
        holds.then_some(body)
    }

    fn mac(&self, path: &str, body: SignedBody, at_s: u64) -> Hmac<Sha256> {
        // Time and body are of one length each, so the three parts can't be shifted against each other.
        self.0.clone().chain_update(at_s.to_be_bytes()).chain_update(body.0).chain_update(path)
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("invariant: HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_call_alone_and_not_for_long() {
        let key = CallKey::derive_from("cookie");
        let proof = key.sign("/a", b"body", 1_000);
        let body = key.verify(&proof, "/a", 1_000).unwrap();
        assert_eq!((body.is(b"body"), body.is(b"bodY"), body.is(b"")), (true, false, false));
        assert_eq!(key.verify(&proof, "/a", 1_000 + MAX_AGE_S), Some(body));
        assert_eq!(key.verify(&proof, "/a", 1_001 + MAX_AGE_S), None, "too old");
        assert_eq!(key.verify(&proof, "/a", 999 - MAX_AGE_S), None, "too early");
        assert_eq!(key.verify(&proof, "/b", 1_000), None, "another path");
        assert_eq!(key.verify(&proof.replacen("1000", "1001", 1), "/a", 1_000), None, "another time");
        let digest = |body: &[u8]| URL_SAFE_NO_PAD.encode(SignedBody::of(body).0);
        let another = proof.replace(&digest(b"body"), &digest(b"bodY"));
        assert_eq!(key.verify(&another, "/a", 1_000), None, "another body");
        assert_eq!(CallKey::derive_from("guess").verify(&proof, "/a", 1_000), None, "another cookie");
        for wrong in ["", ".", "..", "1000", "1000.", "x.y.z", "1000.AAAA", "1000.AAAA.AAAA", "1000.AAAA.", &proof[5..]]
        {
            assert_eq!(key.verify(wrong, "/a", 1_000), None, "{wrong:?}");
        }
    }
}
