//! The bracket masks with 256-bit vectors, where the processor has them.

use std::arch::x86_64::{
    __m256i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm256_cmpeq_epi8, _mm256_loadu_si256,
    _mm256_movemask_epi8, _mm256_set1_epi8,
};
use std::hint::black_box;

use super::brackets::{BLOCK, Masks, container_end_with};

/// [`super::brackets::container_end`]; `None` if this processor lacks AVX2, PCLMULQDQ, POPCNT or BMI1.
#[inline]
pub(super) fn container_end(bytes: &[u8], pos: usize, open: u8, close: u8) -> Option<Option<usize>> {
    let supported = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("bmi1");
    // SAFETY: the processor has the four features that the function is compiled for, as has just been asked.
    supported.then(|| unsafe { vectorised_container_end(bytes, pos, open, close) })
}

#[target_feature(enable = "avx2,pclmulqdq,popcnt,bmi1")]
fn vectorised_container_end(bytes: &[u8], pos: usize, open: u8, close: u8) -> Option<usize> {
    container_end_with(
        bytes,
        pos,
        |block| {
            let halves = load(block);
            Masks {
                quotes: mask_of(halves, b'"'),
                backslashes: mask_of(halves, b'\\'),
                opening: mask_of(halves, open),
                closing: mask_of(halves, close),
            }
        },
        |bits| running_parity(bits),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(block: &[u8; BLOCK]) -> (__m256i, __m256i) {
    let start = block.as_ptr().cast::<__m256i>();
    // SAFETY: the block has 64 bytes; the loads read bytes 0..32 and 32..64 of it and need no alignment.
    unsafe { (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn mask_of((low, high): (__m256i, __m256i), byte: u8) -> u64 {
    let needle = _mm256_set1_epi8(byte.cast_signed());
    let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, needle)).cast_unsigned();
    let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, needle)).cast_unsigned();
    // Seen as one mask of 64, the halves would be joined bit by bit (LLVM 22), which makes the whole walk five times slower.
    u64::from(low) | u64::from(black_box(high)) << 32
}

/// Bit `i` of the result is the parity of the bits `0..=i`: a carry-less product with all ones.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn running_parity(bits: u64) -> u64 {
    let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits.cast_signed()), _mm_set_epi64x(0, -1));
    _mm_cvtsi128_si64(product).cast_unsigned()
}
