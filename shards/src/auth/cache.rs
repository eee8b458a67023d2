//! Tokens that have been verified, and some that have failed, by their hash.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;

use super::Verified;
use super::key::fingerprint;

/// Places for hashes of tokens whose signature was wrong: a client that tries again and again costs a hash each time.
const FAILED_PLACES: usize = 1_024;
/// Memory that an entry takes beside its claims, in bytes: hash, places in both tables, counters.
const ENTRY_BYTES: usize = 256;
/// Memory of claims for each byte of their token: values are larger than their text.
const BYTES_PER_BYTE: usize = 8;

/// The hash of a token (SHA-256), by which it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of this token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(fingerprint([token.as_bytes()]))
    }

    fn place(self) -> usize {
        usize::from(u16::from_be_bytes([self.0[0], self.0[1]])) % FAILED_PLACES
    }
}

#[derive(Debug)]
struct Entry {
    hash: TokenHash,
    verified: Arc<Verified>,
    bytes: usize,
    /// Asked for since the hand passed.
    used: bool,
}

/// A bounded memory of tokens. When it is full, one that hasn't been asked for lately goes.
#[derive(Debug)]
pub struct TokenCache {
    by_hash: HashMap<TokenHash, usize, RandomState>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: usize,
    max_bytes: usize,
    failed: Vec<TokenHash>,
}

impl TokenCache {
    /// An empty one that takes up to `max_bytes`, as estimated.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { by_hash: HashMap::default(), entries: Vec::new(), hand: 0, bytes: 0, max_bytes, failed: Vec::new() }
    }

    /// A token that was verified and hasn't expired.
    pub fn get(&mut self, hash: TokenHash, now_unix_s: u64) -> Option<Arc<Verified>> {
        let index = *self.by_hash.get(&hash)?;
        let entry = &mut self.entries[index];
        if now_unix_s >= entry.verified.expires_at_s {
            self.remove(index);
            return None;
        }
        entry.used = true;
        Some(Arc::clone(&entry.verified))
    }

    /// Remembers a token of this length.
    pub fn insert(&mut self, hash: TokenHash, token_bytes: usize, verified: Arc<Verified>) {
        let bytes = ENTRY_BYTES + BYTES_PER_BYTE * token_bytes;
        if bytes > self.max_bytes || self.by_hash.contains_key(&hash) {
            return;
        }
        while self.bytes + bytes > self.max_bytes {
            self.forget_one();
        }
        self.by_hash.insert(hash, self.entries.len());
        self.entries.push(Entry { hash, verified, bytes, used: false });
        self.bytes += bytes;
    }

    /// Whether a token had a wrong signature not long ago.
    #[must_use]
    pub fn has_failed(&self, hash: TokenHash) -> bool {
        self.failed.get(hash.place()) == Some(&hash)
    }

    /// Remembers that a token has a wrong signature.
    pub fn note_failed(&mut self, hash: TokenHash) {
        if self.failed.is_empty() {
            self.failed = vec![TokenHash([0; 32]); FAILED_PLACES];
        }
        self.failed[hash.place()] = hash;
    }

    /// Keys have changed: everything is to be verified anew.
    pub fn clear(&mut self) {
        *self = Self::new(self.max_bytes);
    }

    /// Estimated memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tokens that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget_one(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let Some(entry) = self.entries.get_mut(self.hand) else { return };
            if !std::mem::take(&mut entry.used) {
                break;
            }
            self.hand += 1;
        }
        self.remove(self.hand);
    }

    fn remove(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        self.by_hash.remove(&entry.hash);
        self.bytes -= entry.bytes;
        if let Some(moved) = self.entries.get(index) {
            self.by_hash.insert(moved.hash, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    fn verified(expires_at_s: u64) -> Arc<Verified> {
        Arc::new(Verified { session: None, expires_at_s, claims: Map::new() })
    }

    #[test]
    fn a_token_is_remembered_until_it_expires_and_never_longer() {
        let mut cache = TokenCache::new(1 << 20);
        let hash = TokenHash::of("a");
        cache.insert(hash, 1, verified(10));
        assert!(cache.get(hash, 9).is_some());
        assert!(cache.get(hash, 10).is_none());
        assert!(cache.is_empty() && cache.bytes() == 0, "what has expired is forgotten");
    }

    #[test]
    fn one_in_use_outlives_a_flood_of_others() {
        let mut cache = TokenCache::new(100 * ENTRY_BYTES);
        let mine = TokenHash::of("mine");
        cache.insert(mine, 0, verified(10));
        for number in 0..10_000 {
            assert!(cache.get(mine, 0).is_some(), "after {number} others");
            cache.insert(TokenHash::of(&number.to_string()), 0, verified(10));
        }
        assert!(cache.len() <= 100);
    }

    proptest! {
        #[test]
        fn the_bound_holds_whatever_comes(steps in proptest::collection::vec((0_u16..300, 0_usize..3_000, 0_u64..4), 1..400)) {
            let mut cache = TokenCache::new(20_000);
            for (name, len, now_s) in steps {
                let hash = TokenHash::of(&name.to_string());
                if let Some(found) = cache.get(hash, now_s) {
                    prop_assert!(found.expires_at_s > now_s);
                    prop_assert_eq!(found.expires_at_s, u64::from(name % 4) + 1, "it is the token that was asked for");
                }
                cache.insert(hash, len, verified(u64::from(name % 4) + 1));
                prop_assert!(cache.bytes() <= 20_000);
                prop_assert_eq!(cache.by_hash.len(), cache.entries.len());
                prop_assert_eq!(cache.bytes(), cache.entries.iter().map(|entry| entry.bytes).sum::<usize>());
            }
        }
    }
}
