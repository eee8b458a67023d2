//! Connection tokens: where a connection lives, in a text that only this installation can write.
//!
//! A token is 84 characters of URL-safe Base64 over 63 bytes: kind (1), node (8), shard (2), slot (4), generation (4),
//! nonce (12), all big-endian, and the HMAC-SHA256 (RFC 2104) of these. It hides nothing; it can't be made up.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

/// Characters of every token.
pub const TOKEN_CHARS: usize = 84;

/// Bytes that make two texts of one connection differ.
pub const NONCE_BYTES: usize = 12;

const ADDRESS_BYTES: usize = 19;
const SIGNED_BYTES: usize = ADDRESS_BYTES + NONCE_BYTES;
const TAG_BYTES: usize = 32;
const TOKEN_BYTES: usize = SIGNED_BYTES + TAG_BYTES;

/// Keeps tokens apart from everything else that is signed with a key from the same secret.
const PURPOSE: &[u8] = b"tidegate connection token 1";

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An event stream or a WebSocket.
    Stream,
    /// A long-polling session.
    Session,
}

/// Where a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionAddress {
    /// Identity of the node.
    pub node: u64,
    /// Number of the shard on that node.
    pub shard: u16,
    /// Slot of the connection on that shard.
    pub slot: u32,
    /// Tells apart the connections that use a slot one after the other.
    pub generation: u32,
}

/// Why a token is refused (400 "Invalid connection token."; long polling opens a new session).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// Not 84 characters of URL-safe Base64 that hold an address.
    #[error("the connection token is malformed or cut short")]
    Malformed,
    /// Written with another key: forged, or from a node that does not share `NODE_COOKIE`.
    #[error("the connection token was not issued here (nodes behind one address must share NODE_COOKIE)")]
    Foreign,
}

/// Key that signs the tokens of a node, or of all nodes that share a `NODE_COOKIE`.
#[derive(Clone)]
pub struct TokenKey {
    mac: Hmac<Sha256>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenKey(secret)")
    }
}

impl TokenKey {
    /// A key of its own for this start of the process.
    ///
    /// # Panics
    ///
    /// When the kernel gives no random bytes, without which nothing safe can be done.
    #[must_use]
    pub fn random() -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("invariant: the kernel gives random bytes");
        Self::from_secret(&secret)
    }

    /// The key of all nodes that were given the same `NODE_COOKIE`.
    #[must_use]
    pub fn derive_from(cookie: &str) -> Self {
        Self::from_secret(cookie.as_bytes())
    }

    fn from_secret(secret: &[u8]) -> Self {
        let key = keyed(secret).chain_update(PURPOSE).finalize().into_bytes();
        Self { mac: keyed(&key) }
    }

    /// Writes a token. Every text shown to a client needs a `nonce` of its own; a counter will do, since the signature is
    /// what can't be guessed.
    #[must_use]
    pub fn issue(&self, kind: TokenKind, address: &ConnectionAddress, nonce: [u8; NONCE_BYTES]) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[0] = match kind {
            TokenKind::Stream => 1,
            TokenKind::Session => 2,
        };
        bytes[1..9].copy_from_slice(&address.node.to_be_bytes());
        bytes[9..11].copy_from_slice(&address.shard.to_be_bytes());
        bytes[11..15].copy_from_slice(&address.slot.to_be_bytes());
        bytes[15..19].copy_from_slice(&address.generation.to_be_bytes());
        bytes[ADDRESS_BYTES..SIGNED_BYTES].copy_from_slice(&nonce);
        let tag = self.mac.clone().chain_update(&bytes[..SIGNED_BYTES]).finalize().into_bytes();
        bytes[SIGNED_BYTES..].copy_from_slice(&tag);
        URL_SAFE.encode(bytes)
    }

    /// Reads a token, whose signature is compared in constant time.
    ///
    /// # Errors
    ///
    /// [`TokenError::Malformed`] or [`TokenError::Foreign`]. Whether the connection still exists is not known here.
    pub fn open(&self, text: &str) -> Result<(TokenKind, ConnectionAddress), TokenError> {
        if text.len() != TOKEN_CHARS {
            return Err(TokenError::Malformed);
        }
        let mut bytes = [0; TOKEN_BYTES];
        match URL_SAFE.decode_slice(text, &mut bytes) {
            Ok(TOKEN_BYTES) => {}
            _ => return Err(TokenError::Malformed),
        }
        let (signed, tag) = bytes.split_at(SIGNED_BYTES);
        self.mac.clone().chain_update(signed).verify_slice(tag).map_err(|_| TokenError::Foreign)?;
        let kind = match signed[0] {
            1 => TokenKind::Stream,
            2 => TokenKind::Session,
            _ => return Err(TokenError::Malformed),
        };
        let address = ConnectionAddress {
            node: u64::from_be_bytes(field(signed, 1)),
            shard: u16::from_be_bytes(field(signed, 9)),
            slot: u32::from_be_bytes(field(signed, 11)),
            generation: u32::from_be_bytes(field(signed, 15)),
        };
        Ok((kind, address))
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("invariant: HMAC takes a key of any length")
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: ConnectionAddress =
        ConnectionAddress { node: 0x0102_0304_0506_0708, shard: 9, slot: 10, generation: 11 };

    #[test]
    fn a_token_opens_to_what_it_was_issued_for() {
        let key = TokenKey::derive_from("a cookie");
        for kind in [TokenKind::Stream, TokenKind::Session] {
            let text = key.issue(kind, &ADDRESS, [7; NONCE_BYTES]);
            assert_eq!(text.len(), TOKEN_CHARS);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(key.open(&text), Ok((kind, ADDRESS)));
        }
    }

    #[test]
    fn two_nonces_give_two_texts_that_both_stay_valid() {
        let key = TokenKey::random();
        let first = key.issue(TokenKind::Stream, &ADDRESS, [1; NONCE_BYTES]);
        let second = key.issue(TokenKind::Stream, &ADDRESS, [2; NONCE_BYTES]);
        assert_ne!(first, second);
        assert_eq!(key.open(&first), key.open(&second));
    }

    #[test]
    fn a_token_of_another_key_is_foreign() {
        let text = TokenKey::random().issue(TokenKind::Stream, &ADDRESS, [0; NONCE_BYTES]);
        assert_eq!(TokenKey::random().open(&text), Err(TokenError::Foreign));
        assert_eq!(TokenKey::derive_from("").open(&text), Err(TokenError::Foreign));
    }

    #[test]
    fn nodes_with_one_cookie_open_each_others_tokens() {
        let text = TokenKey::derive_from("shared").issue(TokenKind::Session, &ADDRESS, [3; NONCE_BYTES]);
        assert!(TokenKey::derive_from("shared").open(&text).is_ok());
    }

    #[test]
    fn a_token_that_is_cut_short_at_any_point_is_malformed() {
        let key = TokenKey::random();
        let text = key.issue(TokenKind::Stream, &ADDRESS, [0; NONCE_BYTES]);
        for length in 0..TOKEN_CHARS {
            assert_eq!(key.open(&text[..length]), Err(TokenError::Malformed));
        }
        assert_eq!(key.open(&format!("{text}A")), Err(TokenError::Malformed));
        assert_eq!(key.open(&"!".repeat(TOKEN_CHARS)), Err(TokenError::Malformed));
    }

    #[test]
    fn a_change_of_any_character_is_noticed() {
        let key = TokenKey::random();
        let text = key.issue(TokenKind::Stream, &ADDRESS, [0; NONCE_BYTES]);
        for at in 0..TOKEN_CHARS {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key.open(&changed), Err(TokenError::Foreign), "character {at}");
        }
    }

    #[test]
    fn the_debug_text_of_a_key_does_not_show_it() {
        assert_eq!(format!("{:?}", TokenKey::derive_from("hunter2")), "TokenKey(secret)");
    }

    proptest! {
        #[test]
        fn every_address_survives(node: u64, shard: u16, slot: u32, generation: u32, nonce: [u8; NONCE_BYTES]) {
            let key = TokenKey::derive_from("x");
            let address = ConnectionAddress { node, shard, slot, generation };
            prop_assert_eq!(key.open(&key.issue(TokenKind::Stream, &address, nonce)), Ok((TokenKind::Stream, address)));
        }

        #[test]
        fn no_text_makes_open_panic(text in ".{0,100}") {
            prop_assert!(TokenKey::derive_from("x").open(&text).is_err());
        }
    }
}
