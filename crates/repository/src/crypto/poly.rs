//! Poly1305 with vectors of 512 bits, eight blocks at once, where the processor multiplies 52 bits at a
//! time in them (AVX-512 IFMA).
//!
//! The `poly1305` crate takes three times as long, uses none of it, and is the rule: what is done here is
//! compared with it, and other processors use it alone. This module has `unsafe` for one call, of a
//! function that wants these instructions, once they are known to be there. The intrinsics are safe within
//! it, and no pointer is used.
//!
//! Numbers below 2^130 are in three limbs of 44, 44 and 42 bits. Eight blocks are added to eight numbers,
//! which are multiplied by r^8, and so on; at last each is multiplied by its own power of r, and they are
//! added up. No step depends on a secret but by its numbers.
//!
//! # Source
//! D. J. Bernstein, *The Poly1305-AES message-authentication code*, 2005. Limbs of 44 bits: A. Moon,
//! *poly1305-donna*. Several blocks at once by powers of r: M. Goll and S. Gueron, *Vectorization of
//! Poly1305 message authentication code*, 2015.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_or_si512, _mm512_reduce_add_epi64, _mm512_set_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{MAC_BLOCK_BYTES, MAC_BYTES};

const LANES: usize = 8;
const STRIDE_BYTES: usize = LANES * MAC_BLOCK_BYTES;
const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;
/// 2^128, in the upper limb: what a whole block is more than its bytes.
const BLOCK_MARK: u64 = 1 << 40;

type Block = [u8; MAC_BLOCK_BYTES];
type Stride = [u8; STRIDE_BYTES];

/// A number in limbs of 44, 44 and 42 bits; the lower two may be a little longer.
#[derive(Clone, Copy, Zeroize)]
struct Limbs([u64; 3]);

impl Limbs {
    const ZERO: Self = Self([0; 3]);

    /// The number of 16 bytes, little-endian, without a mark.
    fn of(bytes: Block) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self([low(number) & MASK_44, low(number >> 44) & MASK_44, low(number >> 88)])
    }

    fn plus(self, other: Self) -> Self {
        let Self([a0, a1, a2]) = self;
        let Self([b0, b1, b2]) = other;
        Self([a0 + b0, a1 + b1, a2 + b2])
    }

    /// The product modulo 2^130 - 5.
    fn times(self, other: Self) -> Self {
        let wide = |limbs: Self| limbs.0.map(u128::from);
        let [a0, a1, a2] = wide(self);
        let [b0, b1, b2] = wide(other);
        // 2^132 is 20.
        let (c1, c2) = (20 * b1, 20 * b2);
        Self::carried([
            a0 * b0 + a1 * c2 + a2 * c1,
            a0 * b1 + a1 * b0 + a2 * c2,
            a0 * b2 + a1 * b1 + a2 * b0,
        ])
    }

    /// Limbs that are too long, made shorter.
    fn carried([d0, d1, d2]: [u128; 3]) -> Self {
        let d1 = d1 + (d0 >> 44);
        let d2 = d2 + (d1 >> 44);
        // 2^130 is 5.
        let d0 = (d0 & u128::from(MASK_44)) + 5 * (d2 >> 42);
        let d1 = (d1 & u128::from(MASK_44)) + (d0 >> 44);
        Self([low(d0) & MASK_44, low(d1), low(d2) & MASK_42])
    }

    /// The number modulo 2^130 - 5, of which the lower 128 bits.
    fn reduced(self) -> u128 {
        // Twice: what is carried from the top can carry once more.
        let Self([h0, h1, h2]) =
            Self::carried(Self::carried(self.0.map(u128::from)).0.map(u128::from));
        let h2 = h2 + (h1 >> 44);
        let h1 = h1 & MASK_44;
        // If the number plus 5 reaches 2^130, that less 2^130 is the remainder.
        let g0 = h0 + 5;
        let g1 = h1 + (g0 >> 44);
        let g2 = h2 + (g1 >> 44);
        let reaches = 0_u64.wrapping_sub(g2 >> 42);
        let pick = |g: u64, h: u64| u128::from((g & reaches) | (h & !reaches));
        let [low, middle, high] =
            [pick(g0 & MASK_44, h0), pick(g1 & MASK_44, h1), pick(g2 & MASK_42, h2)];
        low | middle << 44 | high << 88
    }
}

/// The lower half.
fn low(number: u128) -> u64 {
    (number & u128::from(u64::MAX)).try_into().expect("the upper half was taken away")
}

/// The powers of r that are needed, of a key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct WidePowers {
    /// r^1 to r^8.
    powers: [Limbs; LANES],
}

impl WidePowers {
    /// Those of `r`, whose fixed bits are cleared here; `None` without the instructions.
    pub(super) fn new(r: &Block) -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        there.then(|| {
            let r = Limbs::of(
                (u128::from_le_bytes(*r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff).to_le_bytes(),
            );
            let mut powers = [r; LANES];
            for at in 1..LANES {
                powers[at] = powers[at - 1].times(r);
            }
            Self { powers }
        })
    }

    /// An authenticator of no blocks.
    pub(super) fn begin(&self) -> WidePoly<'_> {
        WidePoly { powers: &self.powers, sum: Limbs::ZERO }
    }
}

/// An authenticator on its way.
pub(super) struct WidePoly<'k> {
    powers: &'k [Limbs; LANES],
    sum: Limbs,
}

/// Whoever has the sum and the message has an equation for r.
impl Drop for WidePoly<'_> {
    fn drop(&mut self) {
        self.sum.zeroize();
    }
}

impl WidePoly<'_> {
    /// Adds whole blocks.
    pub(super) fn update(&mut self, blocks: &[Block]) {
        let (strides, rest) = blocks.as_flattened().as_chunks();
        if !strides.is_empty() {
            // SAFETY: a value of this type is made only after the processor was asked for all that the
            // function wants.
            #[expect(
                unsafe_code,
                reason = "calls a function that wants instructions, which are there"
            )]
            unsafe {
                self.sum = add_strides(self.sum, strides, self.powers);
            }
        }
        for block in rest.as_chunks().0 {
            let mut limbs = Limbs::of(*block);
            limbs.0[2] += BLOCK_MARK;
            self.add(limbs);
        }
    }

    fn add(&mut self, block: Limbs) {
        self.sum = self.sum.plus(block).times(self.powers[0]);
    }

    /// The authenticator of all blocks and then of `end`, less than a block; `pad` is what the key gives
    /// for this message alone.
    pub(super) fn finish(mut self, end: &[u8], pad: &Block) -> [u8; MAC_BYTES] {
        if !end.is_empty() {
            let mut block = [0; MAC_BLOCK_BYTES];
            block[..end.len()].copy_from_slice(end);
            block[end.len()] = 1;
            self.add(Limbs::of(block));
        }
        self.sum.reduced().wrapping_add(u128::from_le_bytes(*pad)).to_le_bytes()
    }
}

/// Eight numbers, limb by limb.
#[derive(Clone, Copy)]
struct Wide([__m512i; 3]);

#[target_feature(enable = "avx512f,avx512ifma")]
fn add_strides(sum: Limbs, strides: &[Stride], powers: &[Limbs; LANES]) -> Limbs {
    let [.., last] = powers;
    let every = Wide(last.0.map(|limb| _mm512_set1_epi64(limb.cast_signed())));
    let every_20 = times_20(every);
    // The sum so far belongs to the first block.
    let mut sums =
        Wide(sum.0.map(|limb| _mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, limb.cast_signed())));
    for (number, stride) in strides.iter().enumerate() {
        if number > 0 {
            sums = times(sums, every, every_20);
        }
        let Wide(blocks) = blocks_of(stride);
        for (sum, block) in sums.0.iter_mut().zip(blocks) {
            *sum = _mm512_add_epi64(*sum, block);
        }
    }
    // Which block is in which lane follows from `blocks_of`.
    let [r1, r2, r3, r4, r5, r6, r7, r8] = powers.map(|power| power.0.map(u64::cast_signed));
    let own = Wide(std::array::from_fn(|limb| {
        _mm512_set_epi64(
            r1[limb], r5[limb], r2[limb], r6[limb], r3[limb], r7[limb], r4[limb], r8[limb],
        )
    }));
    let Wide(sums) = times(sums, own, times_20(own));
    let added = sums.map(|sum| _mm512_reduce_add_epi64(sum).cast_unsigned());
    Limbs::carried(added.map(u128::from))
}

/// Eight blocks, marked as such: the first four in the lanes with even numbers, the others between them.
#[inline]
#[target_feature(enable = "avx512f")]
fn blocks_of(stride: &Stride) -> Wide {
    let (words, _) = stride.as_chunks::<8>();
    let word = |n: usize| i64::from_le_bytes(words[n]);
    let half = |first: usize| {
        _mm512_set_epi64(
            word(first + 7),
            word(first + 6),
            word(first + 5),
            word(first + 4),
            word(first + 3),
            word(first + 2),
            word(first + 1),
            word(first),
        )
    };
    let (first, second) = (half(0), half(8));
    let low = _mm512_unpacklo_epi64(first, second);
    let high = _mm512_unpackhi_epi64(first, second);
    let mask = _mm512_set1_epi64(MASK_44.cast_signed());
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    let mark = _mm512_set1_epi64(BLOCK_MARK.cast_signed());
    Wide([
        _mm512_and_si512(low, mask),
        _mm512_and_si512(middle, mask),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), mark),
    ])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn times_20(Wide(limbs): Wide) -> Wide {
    Wide(
        limbs.map(|limb| {
            _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb))
        }),
    )
}

/// The products modulo 2^130 - 5, in limbs as [`Limbs`] has them.
///
/// A limb of `a` has at most 46 bits and one of `b_20` 49, so that each product has less than 104, of
/// which the instructions add the lower 52 and the upper to 64 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn times(Wide([a0, a1, a2]): Wide, Wide([b0, b1, b2]): Wide, b_20: Wide) -> Wide {
    let Wide([_, c1, c2]) = b_20;
    let zero = _mm512_setzero_si512();
    let sum = |products: [(__m512i, __m512i); 3]| {
        let [(x0, y0), (x1, y1), (x2, y2)] = products;
        let low = _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, x0, y0), x1, y1);
        let high = _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, x0, y0), x1, y1);
        (_mm512_madd52lo_epu64(low, x2, y2), _mm512_madd52hi_epu64(high, x2, y2))
    };
    let (low0, high0) = sum([(a0, b0), (a1, c2), (a2, c1)]);
    let (low1, high1) = sum([(a0, b1), (a1, b0), (a2, c2)]);
    let (low2, high2) = sum([(a0, b2), (a1, b1), (a2, b0)]);
    let mask_44 = _mm512_set1_epi64(MASK_44.cast_signed());
    let mask_42 = _mm512_set1_epi64(MASK_42.cast_signed());
    let add = |x, y| _mm512_add_epi64(x, y);
    // 2^52 of one limb is 2^8 of the next, 2^42 of the last is 5 of the first, and so 2^52 is 5 times 2^10.
    let d0 = low0;
    let d1 = add(add(low1, _mm512_slli_epi64::<8>(high0)), _mm512_srli_epi64::<44>(d0));
    let d2 = add(add(low2, _mm512_slli_epi64::<8>(high1)), _mm512_srli_epi64::<44>(d1));
    let top = add(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(high2));
    let d0 = add(_mm512_and_si512(d0, mask_44), add(top, _mm512_slli_epi64::<2>(top)));
    Wide([
        _mm512_and_si512(d0, mask_44),
        add(_mm512_and_si512(d1, mask_44), _mm512_srli_epi64::<44>(d0)),
        _mm512_and_si512(d2, mask_42),
    ])
}
