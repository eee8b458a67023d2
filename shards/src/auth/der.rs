//! As much of DER (ITU-T X.690) as it takes to find a public key in a certificate or in its own structure.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
/// The version of a certificate, which is left out in the first one.
const VERSION: u8 = 0xa0;

/// Reads elements one after the other.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (
                    bytes
                        .iter()
                        .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?,
                    rest,
                )
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    pub(super) fn sequence(&mut self) -> Option<Reader<'a>> {
        self.expect(SEQUENCE).map(Reader)
    }

    pub(super) fn object_id(&mut self) -> Option<&'a [u8]> {
        self.expect(OBJECT_ID)
    }

    /// Whole bytes of a bit string.
    pub(super) fn bits(&mut self) -> Option<&'a [u8]> {
        match self.expect(BIT_STRING)? {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }

    /// A number above 0, without leading zeros.
    pub(super) fn unsigned(&mut self) -> Option<&'a [u8]> {
        let digits = self.expect(INTEGER)?;
        if digits.first()? & 0x80 != 0 {
            return None;
        }
        Some(&digits[digits.iter().take_while(|digit| **digit == 0).count()..])
    }
}

/// The public key structure of a certificate (RFC 5280 section 4.1), as a reader that stands on it.
pub(super) fn key_of_certificate(certificate: &[u8]) -> Option<Reader<'_>> {
    let mut signed = Reader::new(certificate).sequence()?.sequence()?;
    if signed.0.first() == Some(&VERSION) {
        signed.next()?;
    }
    // Serial number, algorithm, issuer, validity, subject.
    for _ in 0..5 {
        signed.next()?;
    }
    Some(signed)
}
