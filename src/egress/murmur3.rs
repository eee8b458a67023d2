//! The hash that picks the partition of a request (contract, section 4): MurmurHash3_x86_32 by Austin Appleby, in the public
//! domain (<https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp>).

/// The hash of `bytes` with seed 0.
#[must_use]
pub(super) fn murmur3_x86_32(bytes: &[u8]) -> u32 {
    let mix = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for block in blocks {
        hash ^= mix(u32::from_le_bytes(*block));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let last = tail.iter().rev().fold(0, |last, byte| last << 8 | u32::from(*byte));
    if !tail.is_empty() {
        hash ^= mix(last);
    }
    // The length counts modulo 2^32, as in the original.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let len = bytes.len() as u32;
    hash ^= len;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        for (text, hash) in [
            ("", 0),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ] {
            assert_eq!(murmur3_x86_32(text.as_bytes()), hash, "{text:?}");
        }
        assert_eq!(murmur3_x86_32(&[0xff; 4]), 0x7629_3b50);
        assert_eq!(murmur3_x86_32(&[0x21, 0x43, 0x65, 0x87]), 0xf55b_516b);
        assert_eq!(murmur3_x86_32(&[0x21, 0x43, 0x65]), 0x7e4a_8634);
        assert_eq!(murmur3_x86_32(&[0x21, 0x43]), 0xa0f7_b07a);
        assert_eq!(murmur3_x86_32(&[0x21]), 0x7266_1cf4);
    }
}
