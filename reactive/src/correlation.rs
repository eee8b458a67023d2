//! Correlation ids: which request an answer belongs to, in 16 bytes; and their signed text for ids that strangers get to see.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of an id.
pub const ID_BYTES: usize = 16;

/// Characters of an unsigned id: URL-safe Base64 without padding.
pub const TEXT_CHARS: usize = 22;

/// Characters of a signed id: URL-safe Base64 without padding over the id and the first half of its HMAC-SHA256.
pub const SIGNED_CHARS: usize = 43;

const TAG_BYTES: usize = 16;

/// Keeps these signatures apart from everything else that is signed with a key from the same secret.
const PURPOSE: &[u8] = b"tidegate correlation id 1";

/// Names one request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CorrelationId {
    /// Who asked: a client instance, or a shard of a node.
    pub instance: u64,
    /// Slot of the request at that instance.
    pub slot: u32,
    /// Tells apart the requests that use a slot one after the other.
    pub generation: u32,
}

impl CorrelationId {
    /// The id as it travels: instance, slot and generation, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ID_BYTES] {
        let value = u128::from(self.instance) << 64 | u128::from(self.slot) << 32 | u128::from(self.generation);
        value.to_be_bytes()
    }

    /// The id as text of [`TEXT_CHARS`] characters, unsigned: for services that are trusted.
    #[must_use]
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.to_bytes())
    }

    /// Reads what [`Self::to_text`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_CHARS {
            return None;
        }
        let mut bytes = [0; ID_BYTES];
        let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        Self::from_bytes(&bytes[..written])
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let value = u128::from_be_bytes(bytes.try_into().ok()?);
        let word = |shift: u32| u32::try_from(value >> shift & u128::from(u32::MAX)).unwrap_or_default();
        Some(Self { instance: u64::from(word(96)) << 32 | u64::from(word(64)), slot: word(32), generation: word(0) })
    }
}

/// Signs ids, so that nobody else can name a request that waits here.
#[derive(Clone)]
pub struct CorrelationKey(Hmac<Sha256>);

impl fmt::Debug for CorrelationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CorrelationKey(secret)")
    }
}

impl CorrelationKey {
    /// The key of all who share `secret`.
    #[must_use]
    pub fn derive_from(secret: &[u8]) -> Self {
        let key = keyed(secret).chain_update(PURPOSE).finalize().into_bytes();
        Self(keyed(&key))
    }

    /// The text of an id for the outside, of [`SIGNED_CHARS`] characters.
    #[must_use]
    pub fn seal(&self, id: CorrelationId) -> String {
        let mut bytes = [0; ID_BYTES + TAG_BYTES];
        bytes[..ID_BYTES].copy_from_slice(&id.to_bytes());
        let tag = self.0.clone().chain_update(&bytes[..ID_BYTES]).finalize().into_bytes();
        bytes[ID_BYTES..].copy_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The id in a text that [`Self::seal`] wrote with the same key; `None` for anything else. Compares in constant time.
    #[must_use]
    pub fn open(&self, text: &[u8]) -> Option<CorrelationId> {
        if text.len() != SIGNED_CHARS {
            return None;
        }
        let mut bytes = [0; ID_BYTES + TAG_BYTES];
        let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (id, tag) = bytes[..written].split_at_checked(ID_BYTES)?;
        self.0.clone().chain_update(id).verify_truncated_left(tag).ok()?;
        (tag.len() == TAG_BYTES).then(|| CorrelationId::from_bytes(id))?
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("invariant: HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: CorrelationId = CorrelationId { instance: 0x0102_0304_0506_0708, slot: 9, generation: u32::MAX };

    #[test]
    fn a_signed_id_opens_with_its_own_key_only() {
        let key = CorrelationKey::derive_from(b"a");
        let text = key.seal(ID);
        assert_eq!(text.len(), SIGNED_CHARS);
        assert_eq!(key.open(text.as_bytes()), Some(ID));
        assert_eq!(CorrelationKey::derive_from(b"b").open(text.as_bytes()), None);
    }

    #[test]
    fn a_signed_id_with_any_character_changed_or_missing_is_refused() {
        let key = CorrelationKey::derive_from(b"a");
        let text = key.seal(ID).into_bytes();
        for at in 0..text.len() {
            let mut forged = text.clone();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open(&forged), None, "character {at}");
            assert_eq!(key.open(&text[..at]), None, "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn bytes_hold_the_whole_id(instance: u64, slot: u32, generation: u32) {
            let id = CorrelationId { instance, slot, generation };
            prop_assert_eq!(CorrelationId::from_bytes(&id.to_bytes()), Some(id));
            prop_assert_eq!(CorrelationId::from_text(id.to_text().as_bytes()), Some(id));
        }

        #[test]
        fn no_text_from_outside_is_taken(text in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(CorrelationKey::derive_from(b"a").open(&text), None);
            let _ = CorrelationId::from_text(&text);
        }
    }
}
