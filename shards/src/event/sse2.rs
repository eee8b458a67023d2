//! Looking for bytes 16 at a time: every x86-64 processor can.

use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};

/// Bit `i` is set if byte `i` is a quote or a backslash.
#[inline]
pub(super) fn quotes_and_backslashes(chunk: &[u8; 16]) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { mask_of(chunk) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn mask_of(chunk: &[u8; 16]) -> u32 {
    // SAFETY: the chunk has the 16 bytes that are read; the load needs no alignment.
    let bytes = unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) };
    let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"'.cast_signed()));
    let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\'.cast_signed()));
    _mm_movemask_epi8(_mm_or_si128(quotes, backslashes)).cast_unsigned()
}
