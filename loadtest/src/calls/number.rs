//! The number of a call, and the payload that belongs to it: what the answer's audit stands on.

use std::fmt::{self, Display, Formatter};

/// Header in which a request carries its number, and an answer repeats it.
pub(crate) const HEADER: &str = "x-load-number";
/// Length of a number as text.
pub(crate) const NUMBER_BYTES: usize = 21;
const RUN_DIGITS: usize = 8;
const NUMBER_MASK: u64 = (1 << 48) - 1;

/// Names one call of one run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CallNumber {
    /// The run.
    pub(crate) run: u32,
    /// The call in it; 48 bits stand in its text.
    pub(crate) number: u64,
}

impl Display for CallNumber {
    /// Always [`NUMBER_BYTES`] long.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}-{:012x}", self.run, self.number & NUMBER_MASK)
    }
}

impl CallNumber {
    /// Reads the number at the front of `bytes`.
    pub(crate) fn at_front(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(..NUMBER_BYTES)?).ok()?;
        let (run, number) = text.split_once('-').filter(|(run, _)| run.len() == RUN_DIGITS)?;
        // `from_str_radix` also takes a sign.
        if !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self { run: u32::from_str_radix(run, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? })
    }

    /// What fills the payload behind the number: neighbours differ, so that a byte of another call shows.
    pub(crate) fn filler(self) -> u8 {
        b'a' + (self.number % 26) as u8
    }

    /// Appends the payload of this call: its text, filled up to `bytes`.
    pub(crate) fn append_payload(self, bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + bytes.max(NUMBER_BYTES);
        self.append_text(out);
        out.resize(end, self.filler());
    }

    /// Appends the text.
    pub(crate) fn append_text(self, out: &mut Vec<u8>) {
        use std::io::Write;
        write!(out, "{self}").expect("invariant: writing to a Vec does not fail");
    }
}

/// Whose payload an answer holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Payload {
    /// The one that was asked for, every byte of it.
    Own,
    /// Another call's.
    Foreign(CallNumber),
    /// Nobody's: no number at its front, or bytes behind it that don't belong to it.
    Broken,
}

impl Payload {
    /// Looks at the whole of `payload`.
    pub(crate) fn of(payload: &[u8], expected: CallNumber) -> Self {
        match CallNumber::at_front(payload) {
            None => Self::Broken,
            Some(found) if found != expected => Self::Foreign(found),
            Some(found) => {
                let filler = found.filler();
                if payload[NUMBER_BYTES..].iter().all(|&byte| byte == filler) { Self::Own } else { Self::Broken }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(number: u64) -> CallNumber {
        CallNumber { run: 7, number }
    }

    #[test]
    fn a_payload_has_the_size_asked_for_and_never_less_than_its_number() {
        let mut out = b"head".to_vec();
        call(1).append_payload(25, &mut out);
        assert_eq!(out, b"head00000007-000000000001bbbb");
        out.clear();
        call(1).append_payload(0, &mut out);
        assert_eq!(out.len(), NUMBER_BYTES);
    }

    #[test]
    fn the_payload_of_another_call_is_foreign_and_a_mixed_one_is_broken() {
        let mut payload = Vec::new();
        call(5).append_payload(40, &mut payload);
        assert_eq!(Payload::of(&payload, call(5)), Payload::Own);
        assert_eq!(Payload::of(&payload, call(6)), Payload::Foreign(call(5)));
        payload[39] = call(6).filler();
        assert_eq!(Payload::of(&payload, call(5)), Payload::Broken);
        assert_eq!(Payload::of(b"Bad gateway.", call(5)), Payload::Broken);
    }

    #[test]
    fn text_that_only_looks_like_a_number_is_none() {
        for text in ["0000000-7000000000001", "00000007-+00000000001", "0000000700000000000001", "00000007-"] {
            assert_eq!(CallNumber::at_front(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(run: u32, number in 0..=NUMBER_MASK) {
            let call = CallNumber { run, number };
            let text = call.to_string();
            prop_assert_eq!(text.len(), NUMBER_BYTES);
            prop_assert_eq!(CallNumber::at_front(text.as_bytes()), Some(call));
        }
    }
}
