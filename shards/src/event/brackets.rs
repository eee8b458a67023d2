//! Skipping an object or a list, 64 bytes at a time.
//!
//! Each block becomes four bit masks (quotes, backslashes, opening and closing brackets). The running parity of the quotes tells
//! which bits lie in strings; the brackets outside them are counted until the first one is closed (Langdale and Lemire, "Parsing
//! Gigabytes of JSON per Second", 2019, section 3.1, describe the masks).

/// Bytes that are looked at together.
pub(super) const BLOCK: usize = 64;

/// Bit `i` of each mask tells about byte `i` of a block.
pub(super) struct Masks {
    pub(super) quotes: u64,
    pub(super) backslashes: u64,
    pub(super) opening: u64,
    pub(super) closing: u64,
}

/// Position after the bracket that closes the one at `pos`. Only brackets of the given kind are counted.
pub(super) fn container_end(bytes: &[u8], pos: usize, open: u8, close: u8) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if let Some(end) = super::avx2::container_end(bytes, pos, open, close) {
        return end;
    }
    container_end_with(bytes, pos, |block| portable_masks(block, open, close), running_parity)
}

fn portable_masks(block: &[u8; BLOCK], open: u8, close: u8) -> Masks {
    let mask_of = |byte: u8| {
        let (words, _) = block.as_chunks::<8>();
        words
            .iter()
            .enumerate()
            .fold(0, |mask, (i, word)| mask | equal_bytes(u64::from_le_bytes(*word), byte) << (8 * i))
    };
    Masks { quotes: mask_of(b'"'), backslashes: mask_of(b'\\'), opening: mask_of(open), closing: mask_of(close) }
}

/// Bit `i` of the result is set if byte `i` of the word equals `byte`.
fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let difference = word ^ u64::from_ne_bytes([byte; 8]);
    // The high bit of a byte ends up set exactly where the difference is zero; no carry crosses a byte.
    let zero_bytes = !(((difference & LOW_SEVEN) + LOW_SEVEN) | difference | LOW_SEVEN);
    // Gathers the eight high bits into the top byte: each product term lands on its own bit.
    (zero_bytes >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// [`container_end`], with the functions that turn a block into masks, and a mask into the parities of its bits `0..=i`.
#[inline(always)]
pub(super) fn container_end_with(
    bytes: &[u8],
    pos: usize,
    masks_of: impl Fn(&[u8; BLOCK]) -> Masks,
    running_parity: impl Fn(u64) -> u64,
) -> Option<usize> {
    let mut start = pos;
    let mut depth = 0_u64;
    let mut in_string = 0_u64; // all ones while the last block ended inside a string
    let mut escape_first = false; // the last block ended in a backslash that escapes this block's first byte
    while start < bytes.len() {
        let rest = &bytes[start..];
        let masks = if let Some(block) = rest.first_chunk::<BLOCK>() {
            masks_of(block)
        } else {
            let mut block = [b' '; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            masks_of(&block)
        };
        let mut quotes = masks.quotes;
        if masks.backslashes != 0 || escape_first {
            quotes &= !escaped(masks.backslashes, &mut escape_first);
        }
        let inside = running_parity(quotes) ^ in_string;
        in_string = (inside.cast_signed() >> 63).cast_unsigned();
        let opening = masks.opening & !inside;
        let mut closing = masks.closing & !inside;

        if u64::from(closing.count_ones()) < depth {
            depth = depth + u64::from(opening.count_ones()) - u64::from(closing.count_ones());
        } else {
            let mut opened_before = 0;
            while closing != 0 {
                let bit = closing & closing.wrapping_neg();
                let opened = u64::from((opening & (bit - 1)).count_ones());
                depth += opened - opened_before;
                opened_before = opened;
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(start + bit.trailing_zeros() as usize + 1);
                }
                closing &= closing - 1;
            }
            depth += u64::from(opening.count_ones()) - opened_before;
        }
        start += BLOCK;
    }
    None
}

/// Which bytes follow a backslash that counts (one that is not escaped itself).
fn escaped(mut backslashes: u64, escape_first: &mut bool) -> u64 {
    let mut escaped = u64::from(*escape_first);
    backslashes &= !escaped;
    *escape_first = false;
    while backslashes != 0 {
        let position = backslashes.trailing_zeros();
        if position == 63 {
            *escape_first = true;
            break;
        }
        let follower = 2_u64 << position;
        escaped |= follower;
        backslashes &= !(follower | follower >> 1);
    }
    escaped
}

/// Bit `i` of the result is the parity of the bits `0..=i`.
#[inline(always)]
fn running_parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, one byte after the other.
    fn container_end_by_bytes(bytes: &[u8], pos: usize, open: u8, close: u8) -> Option<usize> {
        let (mut depth, mut in_string, mut after_backslash) = (0_usize, false, false);
        for (i, &byte) in bytes.iter().enumerate().skip(pos) {
            let escaped = after_backslash;
            after_backslash = byte == b'\\' && !escaped;
            if byte == b'"' && !escaped {
                in_string = !in_string;
            } else if byte == open && !in_string {
                depth += 1;
            } else if byte == close && !in_string {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
        }
        None
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = br#"{"a":"}\"}","b":{"c":[1,{}]}} tail"#;
        assert_eq!(container_end(text, 0, b'{', b'}'), Some(29));
    }

    #[test]
    fn an_unclosed_container_has_no_end() {
        assert_eq!(container_end(br#"{"a":[1,2]"#, 0, b'{', b'}'), None);
        assert_eq!(container_end(br#"{"a":"}"#, 0, b'{', b'}'), None);
        assert_eq!(container_end(b"", 0, b'{', b'}'), None);
    }

    proptest! {
        #[test]
        fn blocks_and_bytes_find_the_same_end(text in r#"\{[a\\"{}\[\]\u{e9}]{0,300}"#) {
            let expected = container_end_by_bytes(text.as_bytes(), 0, b'{', b'}');
            prop_assert_eq!(container_end(text.as_bytes(), 0, b'{', b'}'), expected);
            let masks_of = |block: &[u8; BLOCK]| portable_masks(block, b'{', b'}');
            let portable = container_end_with(text.as_bytes(), 0, masks_of, running_parity);
            prop_assert_eq!(portable, expected);
        }

        #[test]
        fn the_end_does_not_depend_on_where_blocks_start(padding in 0_usize..130) {
            let text = format!("{}{}", " ".repeat(padding), r#"{"k\\":"\"\\","d":{"x":"}}}","y":[{"z":"\\\\\""}]},"e":1}}"#);
            prop_assert_eq!(container_end(text.as_bytes(), padding, b'{', b'}'), Some(text.len() - 1));
        }
    }
}
