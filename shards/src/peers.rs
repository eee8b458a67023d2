//! Calls about connections that live on other nodes, and the signature by which nodes know each other.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_channel::oneshot;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::mailbox::{PollAnswer, SetOutcome};
use crate::shard::identity::Identity;
use crate::subscription::Subscription;
use crate::token::ConnectionAddress;

/// Keeps these signatures apart from everything else that is signed with a key from the same secret.
const PURPOSE: &[u8] = b"tidegate call between nodes 1";
/// How far the clocks of two nodes may differ, and how long a call may be under way, in seconds.
const MAX_AGE_S: u64 = 120;

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
        format!("{now_s}.{}", URL_SAFE_NO_PAD.encode(self.mac(path, body, now_s).finalize().into_bytes()))
    }

    /// Whether [`Self::sign`] wrote this proof, less than two minutes ago. The signature is compared in constant time.
    #[must_use]
    pub fn proves(&self, proof: &str, path: &str, body: &[u8], now_s: u64) -> bool {
        let Some((signed_s, tag)) = proof.split_once('.') else { return false };
        let (Ok(signed_s), Ok(tag)) = (signed_s.parse::<u64>(), URL_SAFE_NO_PAD.decode(tag)) else { return false };
        now_s.abs_diff(signed_s) <= MAX_AGE_S && self.mac(path, body, signed_s).verify_slice(&tag).is_ok()
    }

    fn mac(&self, path: &str, body: &[u8], at_s: u64) -> Hmac<Sha256> {
        // A path has no line feed, so the three parts can't be shifted against each other.
        self.0.clone().chain_update(at_s.to_be_bytes()).chain_update(path).chain_update(b"\n").chain_update(body)
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
        assert!(key.proves(&proof, "/a", b"body", 1_000));
        assert!(key.proves(&proof, "/a", b"body", 1_000 + MAX_AGE_S));
        assert!(!key.proves(&proof, "/a", b"body", 1_001 + MAX_AGE_S), "too old");
        assert!(!key.proves(&proof, "/b", b"body", 1_000), "another path");
        assert!(!key.proves(&proof, "/a", b"bodY", 1_000), "another body");
        assert!(!key.proves(&proof.replacen("1000", "1001", 1), "/a", b"body", 1_000), "another time");
        assert!(!CallKey::derive_from("guess").proves(&proof, "/a", b"body", 1_000), "another cookie");
        for wrong in ["", ".", "1000", "1000.", "x.y", "1000.AAAA"] {
            assert!(!key.proves(wrong, "/a", b"body", 1_000), "{wrong:?}");
        }
    }
}
