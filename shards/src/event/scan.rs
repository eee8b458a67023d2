//! Finding the end of things in JSON, many bytes at a time.
//!
//! Nothing here proves that a text is JSON: on broken input the functions find nothing, or a wrong end, but never fail and never
//! leave the slice.

/// A word of eight equal bytes.
const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

const HIGH_BITS: u64 = splat(0x80);

/// Position of the next byte, from `pos` on, that ends a run of plain string content: `"`, `\`, or a control character.
#[inline]
pub(super) fn string_special(bytes: &[u8], mut pos: usize) -> Option<usize> {
    while let Some(chunk) = bytes.get(pos..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ splat(b'"');
        let backslash = word ^ splat(b'\\');
        // A byte is below n exactly if subtracting n borrows from its high bit; borrows spill only into later bytes, and the
        // first hit is all that counts.
        let hits = (quote.wrapping_sub(splat(1)) & !quote)
            | (backslash.wrapping_sub(splat(1)) & !backslash)
            | (word.wrapping_sub(splat(0x20)) & !word);
        let hits = hits & HIGH_BITS;
        if hits != 0 {
            return Some(pos + (hits.trailing_zeros() / 8) as usize);
        }
        pos += 8;
    }
    let rest = bytes.get(pos..)?;
    rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).map(|i| pos + i)
}

/// Position after the closing quote of the string whose content starts at `pos`, and whether it has escapes.
#[inline]
pub(super) fn string_end(bytes: &[u8], mut pos: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    loop {
        pos = quote_or_backslash(bytes, pos)?;
        if bytes[pos] == b'"' {
            return Some((pos + 1, escaped));
        }
        escaped = true;
        pos += 2;
    }
}

/// Most strings are short, and for them setting up wide vectors costs more than it gains.
#[inline]
fn quote_or_backslash(bytes: &[u8], mut pos: usize) -> Option<usize> {
    const SHORT: usize = 64;
    let far = pos.saturating_add(SHORT);
    while pos < far
        && let Some(chunk) = bytes.get(pos..).and_then(<[u8]>::first_chunk::<STEP>)
    {
        let hits = quotes_and_backslashes(chunk);
        if hits != 0 {
            return Some(pos + hits.trailing_zeros() as usize);
        }
        pos += STEP;
    }
    memchr::memchr2(b'"', b'\\', bytes.get(pos..)?).map(|at| pos + at)
}

/// Bytes that [`quotes_and_backslashes`] looks at.
const STEP: usize = 16;

#[cfg(target_arch = "x86_64")]
use super::sse2::quotes_and_backslashes;

/// Bit `i` is set if byte `i` is a quote or a backslash.
#[cfg(not(target_arch = "x86_64"))]
fn quotes_and_backslashes(chunk: &[u8; STEP]) -> u32 {
    let bit = |(at, byte): (usize, &u8)| u32::from(matches!(byte, b'"' | b'\\')) << at;
    chunk.iter().enumerate().map(bit).sum()
}

/// Position of the next byte, from `pos` on, that is not JSON white space; the length if there is none.
#[inline]
pub(super) fn skip_whitespace(bytes: &[u8], mut pos: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(pos) {
        pos += 1;
    }
    pos
}

/// Position after the value that starts at `pos`.
#[inline]
pub(super) fn value_end(bytes: &[u8], pos: usize) -> Option<usize> {
    match bytes.get(pos)? {
        b'"' => string_end(bytes, pos + 1).map(|(end, _)| end),
        b'{' => super::brackets::container_end(bytes, pos, b'{', b'}'),
        b'[' => super::brackets::container_end(bytes, pos, b'[', b']'),
        b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            Some(bytes[pos..].iter().position(ends).map_or(bytes.len(), |i| pos + i))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_byte_is_found_at_every_position() {
        for special in [b'"', b'\\', 0x00, 0x1f] {
            for position in 0..40 {
                let mut text = vec![0xe9; 40];
                text[position] = special;
                assert_eq!(string_special(&text, 0), Some(position), "byte {special:#x}");
                assert_eq!(string_special(&text, position + 1), None);
            }
        }
    }

    #[test]
    fn neighbours_of_special_bytes_are_plain() {
        let plain: Vec<u8> = (0x20..=0xff).filter(|b| !matches!(b, b'"' | b'\\')).collect();
        assert_eq!(string_special(&plain, 0), None);
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_string() {
        assert_eq!(string_end(br#"a\"b\\" x"#, 0), Some((7, true)));
        assert_eq!(string_end(br#"abc""#, 0), Some((4, false)));
        assert_eq!(string_end(br"abc\", 0), None);
        assert_eq!(string_end(br#"abc\""#, 0), None);
        assert_eq!(string_end(b"", 1), None);
    }

    #[test]
    fn a_long_string_ends_where_a_short_one_would() {
        for length in 0..100 {
            let content = "x".repeat(length);
            assert_eq!(string_end(format!("{content}\"tail\"").as_bytes(), 0), Some((length + 1, false)));
            assert_eq!(string_end(format!("{content}\\\"{content}\"").as_bytes(), 0), Some((2 * length + 3, true)));
        }
    }
}
