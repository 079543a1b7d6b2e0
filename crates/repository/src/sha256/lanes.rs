//! Blocks of several messages through the processor's instructions for SHA-256.
//!
//! This module has `unsafe` for one call, of a function that wants these instructions, once they
//! are known to be there. The intrinsics are safe within it, and no pointer is used.
//!
//! # Source
//! S. Gulley et al., *Intel SHA Extensions*, 2013: what the instructions do, and in which order the
//! words of the state lie for them.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi8, _mm_set_epi32,
    _mm_set_epi64x, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32,
};
use std::array;

use super::{Block, State};

/// Adds to each state its blocks, of which there are as many for each; `false` without the
/// instructions, and then nothing is done.
pub(super) fn compress<const N: usize>(lanes: &mut [(&mut State, &[Block]); N]) -> bool {
    let there = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1");
    if there {
        // SAFETY: the processor was just asked for all that the function wants.
        #[expect(unsafe_code, reason = "calls a function that wants instructions, which are there")]
        unsafe {
            compress_there(lanes);
        }
    }
    there
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_there<const N: usize>(lanes: &mut [(&mut State, &[Block]); N]) {
    let mut so_far: [Halves; N] = array::from_fn(|lane| load(lanes[lane].0));
    let blocks = lanes.each_ref().map(|(_, blocks)| *blocks);
    #[expect(clippy::needless_range_loop, reason = "it is the same place in each lane")]
    for at in 0..blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0) {
        let mut under_way: [Lane; N] =
            array::from_fn(|lane| Lane { state: so_far[lane], words: words(&blocks[lane][at]) });
        // One after the other in the text; the processor finds that they do not need each other.
        macro_rules! rounds {
            ($($quad:literal)*) => {$(
                for lane in &mut under_way {
                    lane.four_rounds::<$quad>();
                }
            )*};
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        so_far = array::from_fn(|lane| so_far[lane].plus(under_way[lane].state));
    }
    for ((state, _), so_far) in lanes.iter_mut().zip(so_far) {
        **state = store(so_far);
    }
}

/// The state as the instructions want it: each the first of its four words on top.
#[derive(Clone, Copy)]
struct Halves {
    abef: __m128i,
    cdgh: __m128i,
}

impl Halves {
    #[inline]
    #[target_feature(enable = "sse2")]
    fn plus(self, other: Self) -> Self {
        Self {
            abef: _mm_add_epi32(self.abef, other.abef),
            cdgh: _mm_add_epi32(self.cdgh, other.cdgh),
        }
    }
}

/// A block on its way into the state of a message.
struct Lane {
    state: Halves,
    /// The last sixteen words of the schedule; those of quad *n* are at *n* modulo 4.
    words: [__m128i; 4],
}

impl Lane {
    /// Rounds `4 * QUAD` to `4 * QUAD + 3`.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn four_rounds<const QUAD: usize>(&mut self) {
        if QUAD >= 4 {
            let [w16, w12, w8, w4] = array::from_fn(|quad| self.words[(QUAD + quad) % 4]);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w16, w12), _mm_alignr_epi8::<4>(w4, w8));
            self.words[QUAD % 4] = _mm_sha256msg2_epu32(sum, w4);
        }
        let input = _mm_add_epi32(self.words[QUAD % 4], vector(ROUND_CONSTANTS[QUAD]));
        let Halves { abef, cdgh } = &mut self.state;
        *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, input);
        *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(input));
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn vector(words: [u32; 4]) -> __m128i {
    let [w0, w1, w2, w3] = words.map(u32::cast_signed);
    _mm_set_epi32(w3, w2, w1, w0)
}

/// The words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "ssse3")]
fn words(block: &Block) -> [__m128i; 4] {
    let big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let (halves, _) = block.as_chunks::<8>();
    let half = |n: usize| i64::from_le_bytes(halves[n]);
    array::from_fn(|quad| {
        _mm_shuffle_epi8(_mm_set_epi64x(half(2 * quad + 1), half(2 * quad)), big_endian)
    })
}

#[target_feature(enable = "sse2")]
fn load(state: &State) -> Halves {
    let [a, b, c, d, e, f, g, h] = *state;
    Halves { abef: vector([f, e, b, a]), cdgh: vector([h, g, d, c]) }
}

#[target_feature(enable = "sse4.1")]
fn store(Halves { abef, cdgh }: Halves) -> State {
    let [[f, e, b, a], [h, g, d, c]] = [abef, cdgh].map(|half| {
        [
            _mm_extract_epi32::<0>(half),
            _mm_extract_epi32::<1>(half),
            _mm_extract_epi32::<2>(half),
            _mm_extract_epi32::<3>(half),
        ]
    });
    [a, b, c, d, e, f, g, h].map(i32::cast_unsigned)
}

/// FIPS 180-4, 4.2.2.
#[rustfmt::skip]
const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];
