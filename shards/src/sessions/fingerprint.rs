//! What stands for a session where many are kept: 16 bytes, however long its name is.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The first 128 bits of SHA-256 (FIPS 180-4) of a session's text. Nobody can make up a second session with the fingerprint of
/// a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u64; 2]);

impl Fingerprint {
    /// That of the session with this name.
    #[must_use]
    pub fn of(session: &str) -> Self {
        let digest = Sha256::digest(session.as_bytes());
        let half = |at: usize| digest[at..at + 8].iter().fold(0, |half, byte| (half << 8) | u64::from(*byte));
        Self([half(0), half(8)])
    }

    /// Reads the 32 hexadecimal digits that [`fmt::Display`] writes, in lower case; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        let (first, second) = text.split_at(16);
        Some(Self([u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(second, 16).ok()?]))
    }

    /// From its two halves.
    pub(super) const fn from_halves(halves: [u64; 2]) -> Self {
        Self(halves)
    }

    /// Its two halves.
    pub(super) const fn halves(self) -> [u64; 2] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0;
        write!(formatter, "{first:016x}{second:016x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fingerprint_is_the_start_of_the_sha_256_of_the_session() {
        // The first example of FIPS 180-2, appendix B.
        assert_eq!(Fingerprint::of("abc").to_string(), "ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn only_what_was_written_is_read() {
        let text = Fingerprint::of("x").to_string();
        for wrong in ["", "0", &text[1..], &format!("{text}0"), &text.to_uppercase(), &text.replace('d', "+")] {
            assert!(wrong == text || Fingerprint::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_fingerprint_survives_its_text(session: String) {
            let fingerprint = Fingerprint::of(&session);
            prop_assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-fA-F+ é]{30,33}") {
            if let Some(fingerprint) = Fingerprint::parse(&text) {
                prop_assert_eq!(fingerprint.to_string(), text);
            }
        }
    }
}
