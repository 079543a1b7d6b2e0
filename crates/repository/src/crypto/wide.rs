//! AES-256 in counter mode, sixteen blocks at once: two in each vector of AVX2 (VAES).
//!
//! The `aes` crate uses these instructions only where there is AVX-512 too, which many processors
//! that have them lack. It is the safe twin that this is tested against, and does what is left of
//! a message, and all of it elsewhere.
//!
//! This module has `unsafe` for its calls of functions that want these instructions, once they are
//! known to be there. The intrinsics are safe within them, and no pointer is used.
//!
//! # Source
//! FIPS 197, *Advanced Encryption Standard*, for the key schedule (5.2); NIST SP 800-38A, 6.5,
//! for the mode, with a counter of 128 bits, big-endian.

use std::{
    arch::x86_64::{
        __m128i, __m256i, _mm_aeskeygenassist_si128, _mm_extract_epi64, _mm_set_epi8,
        _mm_set_epi64x, _mm_shuffle_epi32, _mm_slli_si128, _mm_xor_si128, _mm256_add_epi64,
        _mm256_aesenc_epi128, _mm256_aesenclast_epi128, _mm256_broadcastsi128_si256,
        _mm256_extract_epi64, _mm256_set_epi64x, _mm256_shuffle_epi8, _mm256_xor_si256,
    },
    array,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Round keys of AES-256.
const ROUND_KEYS: usize = 15;
const VECTOR_BYTES: usize = 32;
const VECTORS: usize = 8;
/// Blocks that are done at once.
const BLOCKS: u64 = 2 * VECTORS as u64;
/// Bytes that are done at once; what is done of a message is a multiple of it.
pub(super) const STRIDE_BYTES: usize = VECTOR_BYTES * VECTORS;

/// An expanded key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct WideKey {
    round_keys: [[u64; 2]; ROUND_KEYS],
}

impl WideKey {
    /// Expands a key; `None` without the instructions.
    pub(super) fn new(key: &[u8; 32]) -> Option<Self> {
        let there = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("avx2");
        // SAFETY: the processor was just asked for all that the function wants.
        #[expect(unsafe_code, reason = "calls a function that wants instructions, which are there")]
        there.then(|| Self { round_keys: unsafe { expand(key) } })
    }

    /// XORs the key stream from `counter` on with as much of `input` as is done here, into
    /// `output`, which is as long. Returns how many bytes that is.
    pub(super) fn apply_into(&self, counter: u128, input: &[u8], output: &mut [u8]) -> usize {
        let (input, _) = input.as_chunks();
        let (output, _) = output.as_chunks_mut();
        // SAFETY: a value of this type is made only after the processor was asked for all that the
        // function wants.
        #[expect(unsafe_code, reason = "calls a function that wants instructions, which are there")]
        unsafe {
            apply_into(&self.round_keys, counter, input, output);
        }
        input.len() * STRIDE_BYTES
    }

    /// As [`WideKey::apply_into`], in one buffer.
    pub(super) fn apply(&self, counter: u128, data: &mut [u8]) -> usize {
        let (data, _) = data.as_chunks_mut();
        // SAFETY: as in `apply_into`.
        #[expect(unsafe_code, reason = "calls a function that wants instructions, which are there")]
        unsafe {
            apply(&self.round_keys, counter, data);
        }
        data.len() * STRIDE_BYTES
    }
}

#[target_feature(enable = "aes,sse4.1")]
fn expand(key: &[u8; 32]) -> [[u64; 2]; ROUND_KEYS] {
    let (quarters, _) = key.as_chunks::<8>();
    let quarter = |n: usize| u64::from_le_bytes(quarters[n]).cast_signed();
    let mut even = _mm_set_epi64x(quarter(1), quarter(0));
    let mut odd = _mm_set_epi64x(quarter(3), quarter(2));
    let mut keys = [even; ROUND_KEYS];
    keys[1] = odd;
    // The last round key is an even one.
    macro_rules! expand {
        ($($at:literal $constant:literal)*) => {$(
            let word = _mm_aeskeygenassist_si128::<$constant>(odd);
            even = _mm_xor_si128(spread(even), _mm_shuffle_epi32::<0xff>(word));
            keys[$at] = even;
            if let Some(key) = keys.get_mut($at + 1) {
                let word = _mm_aeskeygenassist_si128::<0>(even);
                odd = _mm_xor_si128(spread(odd), _mm_shuffle_epi32::<0xaa>(word));
                *key = odd;
            }
        )*};
    }
    expand!(2 0x01 4 0x02 6 0x04 8 0x08 10 0x10 12 0x20 14 0x40);
    keys.map(|key| {
        [_mm_extract_epi64::<0>(key), _mm_extract_epi64::<1>(key)].map(i64::cast_unsigned)
    })
}

/// Each word XORed with all words before it.
#[target_feature(enable = "sse2")]
fn spread(key: __m128i) -> __m128i {
    let key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    _mm_xor_si128(key, _mm_slli_si128::<8>(key))
}

type RoundKeys = [__m256i; ROUND_KEYS];
type Stride = [u8; STRIDE_BYTES];

#[target_feature(enable = "aes,vaes,avx2")]
fn apply_into(
    round_keys: &[[u64; 2]; ROUND_KEYS],
    mut counter: u128,
    input: &[Stride],
    output: &mut [Stride],
) {
    let keys = broadcast(round_keys);
    for (input, output) in input.iter().zip(output) {
        let stream = key_stream(&keys, counter);
        counter = counter.wrapping_add(u128::from(BLOCKS));
        let (input, _) = input.as_chunks();
        let (output, _) = output.as_chunks_mut();
        for ((input, output), stream) in input.iter().zip(output).zip(stream) {
            *output = bytes(_mm256_xor_si256(vector(input), stream));
        }
    }
}

#[target_feature(enable = "aes,vaes,avx2")]
fn apply(round_keys: &[[u64; 2]; ROUND_KEYS], mut counter: u128, data: &mut [Stride]) {
    let keys = broadcast(round_keys);
    for data in data {
        let stream = key_stream(&keys, counter);
        counter = counter.wrapping_add(u128::from(BLOCKS));
        for (data, stream) in data.as_chunks_mut().0.iter_mut().zip(stream) {
            *data = bytes(_mm256_xor_si256(vector(data), stream));
        }
    }
}

#[target_feature(enable = "avx2")]
fn broadcast(round_keys: &[[u64; 2]; ROUND_KEYS]) -> RoundKeys {
    round_keys.map(|[low, high]| {
        _mm256_broadcastsi128_si256(_mm_set_epi64x(high.cast_signed(), low.cast_signed()))
    })
}

/// The key stream of [`BLOCKS`] blocks.
#[inline]
#[target_feature(enable = "aes,vaes,avx2")]
fn key_stream(keys: &RoundKeys, counter: u128) -> [__m256i; VECTORS] {
    let big_endian = _mm256_broadcastsi128_si256(_mm_set_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ));
    let mut stream = counters(counter)
        .map(|pair| _mm256_xor_si256(_mm256_shuffle_epi8(pair, big_endian), keys[0]));
    let [_, rounds @ .., last] = keys;
    for key in rounds {
        stream = stream.map(|pair| _mm256_aesenc_epi128(pair, *key));
    }
    stream.map(|pair| _mm256_aesenclast_epi128(pair, *last))
}

/// The counters from `first` on, two in a vector, little-endian.
#[inline]
#[target_feature(enable = "avx2")]
fn counters(first: u128) -> [__m256i; VECTORS] {
    let halves = |counter: u128| {
        let bytes = counter.to_le_bytes();
        let (halves, _) = bytes.as_chunks();
        [i64::from_le_bytes(halves[0]), i64::from_le_bytes(halves[1])]
    };
    let [low, high] = halves(first);
    if low.cast_unsigned().checked_add(BLOCKS).is_none() {
        // Once in 2^64 blocks the lower half overflows within these.
        return array::from_fn(|pair| {
            let [even, odd] = [2 * pair as u128, 2 * pair as u128 + 1];
            let [[low_even, high_even], [low_odd, high_odd]] =
                [even, odd].map(|add| halves(first.wrapping_add(add)));
            _mm256_set_epi64x(high_odd, low_odd, high_even, low_even)
        });
    }
    let first = _mm256_set_epi64x(high, low, high, low);
    array::from_fn(|pair| {
        let even = 2 * pair as i64;
        _mm256_add_epi64(first, _mm256_set_epi64x(0, even + 1, 0, even))
    })
}

#[inline]
#[target_feature(enable = "avx2")]
fn vector(bytes: &[u8; VECTOR_BYTES]) -> __m256i {
    let (quarters, _) = bytes.as_chunks::<8>();
    let quarter = |n: usize| i64::from_le_bytes(quarters[n]);
    _mm256_set_epi64x(quarter(3), quarter(2), quarter(1), quarter(0))
}

#[inline]
#[target_feature(enable = "avx2")]
fn bytes(vector: __m256i) -> [u8; VECTOR_BYTES] {
    let quarters = [
        _mm256_extract_epi64::<0>(vector),
        _mm256_extract_epi64::<1>(vector),
        _mm256_extract_epi64::<2>(vector),
        _mm256_extract_epi64::<3>(vector),
    ];
    let mut bytes = [0; VECTOR_BYTES];
    for (place, quarter) in bytes.as_chunks_mut().0.iter_mut().zip(quarters) {
        *place = quarter.to_le_bytes();
    }
    bytes
}
