//! The scan for cuts with AVX2 or GFNI: thirty-two stretches of the data at once, byte by byte.
//!
//! A table of 256 entries cannot be looked into by a vector instruction, but one of sixteen can
//! (`PSHUFB`). What the tables of [`Tables`](super::Tables) do to a byte is linear over GF(2), so
//! it is the XOR of what they do to its lower and to its upper half; and what comes out is wanted
//! one byte at a time. So the fingerprints of all stretches are kept as *planes*: vector *k* holds
//! byte *k* of every fingerprint, and appending a byte renames the planes and XORs, into each, four
//! looked-up vectors: two halves of the byte that is shifted out above, two of the byte that leaves
//! the window.
//!
//! Where the processor multiplies each byte by a matrix over GF(2) (GFNI, with AVX-512), it needs no halves: each plane
//! takes two products, of the byte that is shifted out and of the one that leaves ([`affine`]).
//!
//! Fingerprints are kept shifted up by three bits: their 53 bits then end where a plane ends.
//!
//! This module alone has `unsafe`: for its calls of functions that want these instructions, once they
//! are known to be there. The intrinsics are safe within them, and no pointer is used. Its safe twin is
//! [`super::scan`]; tests compare the two on every kind of input.
//!
//! # Source
//! Intel, *Galois Field New Instructions technology guide*, 2018: the order of a matrix's rows.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_set_epi64x, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_cmpeq_epi8, _mm256_gf2p8affine_epi64_epi8, _mm256_min_epu8, _mm256_movemask_epi8,
    _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set1_epi8,
    _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
    _mm256_srli_epi16, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8, _mm256_xor_si256,
};
use std::array;

use super::WINDOW_BYTES;

/// Stretches that are scanned at once: the bytes of a vector.
pub(super) const LANES: usize = 32;

/// Bytes of each stretch that are taken from memory at once, and after which one looks whether a
/// cut was among them.
pub(super) const BLOCK_BYTES: usize = 32;

/// Blocks of a window: what enters leaves so many blocks later.
const WINDOW_BLOCKS: usize = WINDOW_BYTES / BLOCK_BYTES;

/// Bytes of a fingerprint that is shifted up by [`SHIFT`].
const PLANES: usize = 7;

/// By how many bits fingerprints are shifted up: 53 and 3 make seven bytes.
const SHIFT: u32 = 3;

/// What a byte does to each plane, by the value of one of its halves.
type HalfTables = [[[u8; 16]; 2]; PLANES];

/// What a byte does to each plane, as a matrix of 8 × 8 bits: the uppermost byte has the row of the
/// lowest bit, and in it each bit stands for that of the byte.
type Matrices = [i64; PLANES];

/// The tables of a polynomial in planes.
#[derive(Debug)]
pub(super) struct WideTables {
    leave: Linear,
    reduce: Linear,
    instructions: Instructions,
}

/// What a byte does, in both ways to look it up.
#[derive(Debug)]
struct Linear {
    halves: HalfTables,
    matrices: Matrices,
}

/// What the processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    Avx2,
    /// GFNI, and AVX-512 for XORs of three.
    Gfni,
}

impl Instructions {
    /// All that there are, the best last.
    pub(super) fn detect_all() -> impl Iterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2");
        let gfni = is_x86_feature_detected!("gfni")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl");
        let avx2 = avx2.then_some(Self::Avx2);
        avx2.into_iter().chain(avx2.and(gfni.then_some(Self::Gfni)))
    }
}

impl WideTables {
    /// `leave` and `remainder` tell what a byte does to the fingerprint when it leaves the window,
    /// and when it is shifted out above; both must be linear. `None` without AVX2.
    pub(super) fn new(leave: impl Fn(u64) -> u64, remainder: impl Fn(u64) -> u64) -> Option<Self> {
        let instructions = Instructions::detect_all().last()?;
        Some(Self { leave: Linear::new(leave), reduce: Linear::new(remainder), instructions })
    }

    /// The same, looked up with other instructions, which must be among those that there are.
    #[cfg(test)]
    pub(super) fn set_instructions(&mut self, instructions: Instructions) {
        assert!(Instructions::detect_all().any(|there| there == instructions));
        self.instructions = instructions;
    }

    /// Finds the blocks with a cut in [`LANES`] stretches of `n_blocks` blocks each, which follow
    /// on the first window of `data`. For each in turn that has one in it, `found` is told the
    /// stretch and the block.
    pub(super) fn find_blocks(
        &self,
        data: &[u8],
        n_blocks: usize,
        found: impl FnMut(usize, usize),
    ) {
        let (blocks, _) = data.as_chunks::<BLOCK_BYTES>();
        // SAFETY: values of this type come from `detect_all`, which asked the processor.
        #[expect(unsafe_code, reason = "calls functions that want instructions, which are there")]
        unsafe {
            match self.instructions {
                Instructions::Avx2 => halved::find_blocks(self, blocks, n_blocks, found),
                Instructions::Gfni => affine::find_blocks(self, blocks, n_blocks, found),
            }
        }
    }
}

impl Linear {
    fn new(of_byte: impl Fn(u64) -> u64) -> Self {
        let planes = |byte: usize| (of_byte(byte as u64) << SHIFT).to_le_bytes();
        let halves = array::from_fn(|plane| {
            array::from_fn(|half| array::from_fn(|value| planes(value << (4 * half))[plane]))
        });
        let matrices = array::from_fn(|plane| {
            let row = |bit: usize| {
                (0..8).fold(0_u8, |row, from| row | (planes(1 << from)[plane] >> bit & 1) << from)
            };
            i64::from_be_bytes(array::from_fn(row))
        });
        Self { halves, matrices }
    }
}

/// The scan, where `prepare`, `lookup` and `look_up` tell what a byte does to a plane.
macro_rules! scan {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn find_blocks(
            tables: &WideTables,
            blocks: &[[u8; BLOCK_BYTES]],
            n_blocks: usize,
            mut found: impl FnMut(usize, usize),
        ) {
            let (leave, reduce) = (lookup(&tables.leave), lookup(&tables.reduce));
            let mut planes = [_mm256_setzero_si256(); PLANES];
            // The blocks that entered last; the oldest leaves.
            let mut window = [[_mm256_setzero_si256(); BLOCK_BYTES]; WINDOW_BLOCKS];
            for block in 0..WINDOW_BLOCKS + n_blocks {
                let entering = columns(blocks, n_blocks, block);
                let slot = &mut window[block % WINDOW_BLOCKS];
                // Zero where no fingerprint so far may be a cut.
                let mut lowest = _mm256_set1_epi8(-1);
                for (entering, leaving) in entering.into_iter().zip(*slot) {
                    planes = slide(planes, &leave, &reduce, leaving, entering);
                    lowest = _mm256_min_epu8(lowest, cut_bits(&planes));
                }
                *slot = entering;
                let cuts = _mm256_movemask_epi8(_mm256_cmpeq_epi8(lowest, _mm256_setzero_si256()));
                if cuts != 0 && block >= WINDOW_BLOCKS {
                    let lanes = (0..LANES).filter(|lane| cuts >> lane & 1 == 1);
                    lanes.for_each(|lane| found(lane, block - WINDOW_BLOCKS));
                }
            }
        }

        /// Moves the window of every lane on by one byte.
        #[inline]
        #[target_feature(enable = $features)]
        fn slide(
            planes: [__m256i; PLANES],
            leave: &[Lookup; PLANES],
            reduce: &[Lookup; PLANES],
            leaving: __m256i,
            entering: __m256i,
        ) -> [__m256i; PLANES] {
            let above = prepare(planes[PLANES - 1]);
            let leaving = prepare(leaving);
            let mut next = planes;
            for plane in 0..PLANES {
                let out = look_up(&leave[plane], leaving);
                let reduced = look_up(&reduce[plane], above);
                // What enters below is the new byte, shifted up: all but its uppermost bits are in the
                // first plane, these in the second.
                let from_below = match plane {
                    0 => shifted_up(entering),
                    1 => _mm256_xor_si256(planes[0], shifted_out(entering)),
                    _ => planes[plane - 1],
                };
                next[plane] = _mm256_xor_si256(from_below, _mm256_xor_si256(out, reduced));
            }
            next
        }
    };
}

/// By halves of bytes, with AVX2.
mod halved {
    use super::*;

    scan!("avx2");

    /// Each byte's lower and upper half.
    type Prepared = [__m256i; 2];
    /// A table for each half, ready to be looked into by all lanes.
    type Lookup = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2")]
    fn prepare(bytes: __m256i) -> Prepared {
        let mask = _mm256_set1_epi8(0x0f);
        [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn look_up(lookup: &Lookup, bytes: Prepared) -> __m256i {
        _mm256_xor_si256(
            _mm256_shuffle_epi8(lookup[0], bytes[0]),
            _mm256_shuffle_epi8(lookup[1], bytes[1]),
        )
    }

    #[target_feature(enable = "avx2")]
    fn lookup(linear: &Linear) -> [Lookup; PLANES] {
        array::from_fn(|plane| linear.halves[plane].each_ref().map(|half| broadcast(half)))
    }

    #[target_feature(enable = "avx2")]
    fn broadcast(table: &[u8; 16]) -> __m256i {
        let [low, high] = quarters(table);
        let table: __m128i = _mm_set_epi64x(high, low);
        _mm256_broadcastsi128_si256(table)
    }
}

/// By matrices, with GFNI.
mod affine {
    use super::*;

    scan!("avx2,gfni,avx512f,avx512vl");

    type Prepared = __m256i;
    type Lookup = __m256i;

    #[inline]
    #[target_feature(enable = "avx2,gfni,avx512f,avx512vl")]
    fn prepare(bytes: __m256i) -> Prepared {
        bytes
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni,avx512f,avx512vl")]
    fn look_up(lookup: &Lookup, bytes: Prepared) -> __m256i {
        _mm256_gf2p8affine_epi64_epi8::<0>(bytes, *lookup)
    }

    #[target_feature(enable = "avx2,gfni,avx512f,avx512vl")]
    fn lookup(linear: &Linear) -> [Lookup; PLANES] {
        linear.matrices.map(|matrix| _mm256_set1_epi64x(matrix))
    }
}

/// The five lower bits of each byte, moved up by [`SHIFT`].
#[inline]
#[target_feature(enable = "avx2")]
fn shifted_up(bytes: __m256i) -> __m256i {
    _mm256_and_si256(_mm256_slli_epi16::<{ SHIFT as i32 }>(bytes), _mm256_set1_epi8(!0x07))
}

/// The three upper bits of each byte, which [`shifted_up`] loses.
#[inline]
#[target_feature(enable = "avx2")]
fn shifted_out(bytes: __m256i) -> __m256i {
    _mm256_and_si256(_mm256_srli_epi16::<{ 8 - SHIFT as i32 }>(bytes), _mm256_set1_epi8(0x07))
}

/// Zero in each lane whose fingerprint has its low 20 bits zero: here the bits 3 to 22.
#[inline]
#[target_feature(enable = "avx2")]
fn cut_bits(planes: &[__m256i; PLANES]) -> __m256i {
    let third = _mm256_and_si256(planes[2], _mm256_set1_epi8(0x7f));
    _mm256_or_si256(_mm256_or_si256(planes[0], planes[1]), third)
}

/// The bytes of block `block` of all lanes: vector *i* holds byte *i* of each. Lanes are
/// `n_blocks` apart.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(blocks: &[[u8; BLOCK_BYTES]], n_blocks: usize, block: usize) -> [__m256i; BLOCK_BYTES] {
    let mut rows = [_mm256_setzero_si256(); LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        let [first, second, third, fourth] = quarters(&blocks[lane * n_blocks + block]);
        *row = _mm256_set_epi64x(fourth, third, second, first);
    }
    transpose(rows)
}

/// Eight bytes each, as numbers whose bytes in memory are the same.
fn quarters<const BYTES: usize, const QUARTERS: usize>(bytes: &[u8; BYTES]) -> [i64; QUARTERS] {
    let (words, _) = bytes.as_chunks::<8>();
    array::from_fn(|index| i64::from_le_bytes(words[index]))
}

/// Rows become columns. Instructions that interleave work within halves of 16 bytes: sixteen rows
/// at a time are transposed in both halves at once, and the halves are joined at the end.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 32]) -> [__m256i; 32] {
    let (upper, lower) = rows.split_at(16);
    let (upper, lower) = (transpose_halves(upper), transpose_halves(lower));
    let mut columns = [_mm256_setzero_si256(); 32];
    for index in 0..16 {
        columns[index] = _mm256_permute2x128_si256::<0x20>(upper[index], lower[index]);
        columns[index + 16] = _mm256_permute2x128_si256::<0x31>(upper[index], lower[index]);
    }
    columns
}

/// Transposes 16 × 16 bytes in both halves: four times a perfect shuffle of all.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_halves(rows: &[__m256i]) -> [__m256i; 16] {
    let mut now = [_mm256_setzero_si256(); 16];
    now.copy_from_slice(rows);
    for _ in 0..4 {
        let before = now;
        for index in 0..8 {
            now[2 * index] = _mm256_unpacklo_epi8(before[index], before[index + 8]);
            now[2 * index + 1] = _mm256_unpackhi_epi8(before[index], before[index + 8]);
        }
    }
    now
}
