//! `scryptROMix` of two lanes at once: each half of a vector of AVX2 holds a row of one of them.
//!
//! With AVX-512's rotation of words the same text takes three quarters of the time: the compiler makes it
//! of the shifts below.
//!
//! This module has `unsafe` for its calls of functions that want these instructions, once they
//! are known to be there. The intrinsics are safe within them, and no pointer is used.
//!
//! As scrypt wants it, the second half of its steps reads at places that depend on the password.
//!
//! # Source
//! RFC 7914, 3 to 5. That a block's diagonals lie in vectors, so that all four quarter rounds are one,
//! is from D. J. Bernstein's *Salsa20 specification* and C. Percival's `crypto_scrypt-sse.c`.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_extract_epi32, _mm256_extract_epi64, _mm256_or_si256,
    _mm256_set_epi64x, _mm256_shuffle_epi32, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_xor_si256,
};

/// Bytes of a block of Salsa20.
const BLOCK_BYTES: usize = 64;

/// Which word of a block lies where: diagonal by diagonal.
const DIAGONALS: [usize; 16] = [0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11];

/// A block of a lane, as it lies in the table: its diagonals.
type Stored = [u64; BLOCK_BYTES / 8];

/// A block of two lanes, which have half of each vector each.
type Block = [__m256i; 4];

/// The table of a lane, V in the RFC. Takes memory when it is first written to.
pub(super) struct Lane {
    table: Vec<Stored>,
}

impl Lane {
    /// Room for a lane whose N blocks of 128 × r bytes take `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        Self { table: vec![Stored::default(); bytes / BLOCK_BYTES] }
    }
}

/// Which instructions are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mix {
    Avx2,
    Avx512,
}

impl Mix {
    /// The best that the processor has, if any.
    pub(super) fn detect() -> Option<Self> {
        Self::detect_all().last()
    }

    /// All that the processor has, the best last.
    pub(super) fn detect_all() -> impl Iterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2");
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        let avx2 = avx2.then_some(Self::Avx2);
        avx2.into_iter().chain(avx2.and(avx512.then_some(Self::Avx512)))
    }

    /// Mixes one lane, of 128 × r bytes.
    pub(super) fn one(self, (lane, table): (&mut [u8], &mut Lane)) {
        let mut nothing = Lane { table: Vec::new() };
        self.mix::<false>(lane, &mut [], table, &mut nothing);
    }

    /// Mixes two lanes, which are equally long.
    pub(super) fn two(self, [(first, table), (second, other)]: [(&mut [u8], &mut Lane); 2]) {
        self.mix::<true>(first, second, table, other);
    }

    fn mix<const TWO: bool>(
        self,
        first: &mut [u8],
        second: &mut [u8],
        table: &mut Lane,
        other: &mut Lane,
    ) {
        let mut state: Vec<Pair> = match TWO {
            true => stored(first).zip(stored(second)).map(pair).collect(),
            // The other half of each vector does the same, and nobody looks at it.
            false => stored(first).map(|block| pair((block, block))).collect(),
        };
        // SAFETY: values of this type come from `detect_all`, which asked the processor for all that
        // the functions want.
        #[expect(unsafe_code, reason = "calls a function that wants instructions, which are there")]
        unsafe {
            match self {
                Self::Avx2 => avx2::mix::<TWO>(&mut state, &mut table.table, &mut other.table),
                Self::Avx512 => avx512::mix::<TWO>(&mut state, &mut table.table, &mut other.table),
            }
        }
        unstore(&state, 0, first);
        unstore(&state, 1, second);
    }
}

/// A block of two lanes: rows, each of which has two numbers of either.
type Pair = [[u64; 4]; 4];

fn pair((first, second): (Stored, Stored)) -> Pair {
    std::array::from_fn(|row| {
        let [low, high] = [2 * row, 2 * row + 1];
        [first[low], first[high], second[low], second[high]]
    })
}

/// The blocks of a lane, each as its diagonals.
fn stored(lane: &[u8]) -> impl Iterator<Item = Stored> + '_ {
    lane.as_chunks::<BLOCK_BYTES>().0.iter().map(|block| {
        let (words, _) = block.as_chunks::<4>();
        let word = |place: usize| u64::from(u32::from_le_bytes(words[DIAGONALS[place]]));
        std::array::from_fn(|at| word(2 * at) | word(2 * at + 1) << 32)
    })
}

/// Writes a lane back that is in half `half` of the blocks.
fn unstore(blocks: &[Pair], half: usize, lane: &mut [u8]) {
    for (block, bytes) in blocks.iter().zip(lane.as_chunks_mut::<BLOCK_BYTES>().0) {
        let (words, _) = bytes.as_chunks_mut::<4>();
        for (place, &word) in DIAGONALS.iter().enumerate() {
            let number = block[place / 4][2 * half + place % 4 / 2] >> (32 * (place % 2));
            words[word].copy_from_slice(&number.to_le_bytes()[..4]);
        }
    }
}

macro_rules! rotate {
    ($words:expr, $bits:literal) => {{
        let words = $words;
        _mm256_or_si256(
            _mm256_slli_epi32::<$bits>(words),
            _mm256_srli_epi32::<{ 32 - $bits }>(words),
        )
    }};
}

macro_rules! mix {
    ($module:ident, $features:literal) => {
        mod $module {
            use super::*;

            /// `scryptROMix`; without `TWO` only the first lane's table is used.
            #[target_feature(enable = $features)]
            pub(super) fn mix<const TWO: bool>(
                lanes: &mut [Pair],
                table: &mut [Stored],
                other: &mut [Stored],
            ) {
                let blocks = lanes.len();
                let mut state: Vec<Block> =
                    lanes.iter().map(|rows| rows.map(|row| vector(row))).collect();
                let mut mixed = state.clone();
                for at in (0..table.len()).step_by(blocks) {
                    let places = at..at + blocks;
                    for (block, place) in state.iter().zip(places) {
                        for (row, vector) in block.iter().enumerate() {
                            let [a, b, c, d] = numbers(*vector);
                            table[place][2 * row] = a;
                            table[place][2 * row + 1] = b;
                            if TWO {
                                other[place][2 * row] = c;
                                other[place][2 * row + 1] = d;
                            }
                        }
                    }
                    mix_blocks(&state, &mut mixed);
                    std::mem::swap(&mut state, &mut mixed);
                }
                let steps = table.len() / blocks;
                for _ in 0..steps {
                    let last = state[blocks - 1][0];
                    // N is a power of two.
                    let place = |word: i32| (word.cast_unsigned() as usize & (steps - 1)) * blocks;
                    let [first, second] =
                        [_mm256_extract_epi32::<0>(last), _mm256_extract_epi32::<4>(last)]
                            .map(place);
                    let first = &table[first..first + blocks];
                    let second = if TWO { &other[second..second + blocks] } else { first };
                    for ((block, first), second) in state.iter_mut().zip(first).zip(second) {
                        for (row, vector) in block.iter_mut().enumerate() {
                            let [low, high] = [2 * row, 2 * row + 1];
                            let stored = [first[low], first[high], second[low], second[high]];
                            *vector = _mm256_xor_si256(*vector, super::vector(stored));
                        }
                    }
                    mix_blocks(&state, &mut mixed);
                    std::mem::swap(&mut state, &mut mixed);
                }
                for (rows, block) in lanes.iter_mut().zip(&state) {
                    *rows = block.map(|row| numbers(row));
                }
            }

            /// `scryptBlockMix`.
            #[inline]
            #[target_feature(enable = $features)]
            fn mix_blocks(input: &[Block], output: &mut [Block]) {
                let (even, odd) = output.split_at_mut(input.len() / 2);
                let mut last = input[input.len() - 1];
                let pairs = input.as_chunks::<2>().0.iter();
                for (([first, second], even), odd) in pairs.zip(even).zip(odd) {
                    last = salsa(last, first);
                    *even = last;
                    last = salsa(last, second);
                    *odd = last;
                }
            }

            /// Salsa20/8 of the XOR of two blocks.
            #[inline]
            #[target_feature(enable = $features)]
            fn salsa(last: Block, block: &Block) -> Block {
                let mut before = last;
                for (vector, row) in before.iter_mut().zip(block) {
                    *vector = _mm256_xor_si256(*vector, *row);
                }
                let [mut a, mut b, mut c, mut d] = before;
                for _ in 0..8 {
                    b = _mm256_xor_si256(b, rotate!(_mm256_add_epi32(a, d), 7));
                    c = _mm256_xor_si256(c, rotate!(_mm256_add_epi32(b, a), 9));
                    d = _mm256_xor_si256(d, rotate!(_mm256_add_epi32(c, b), 13));
                    a = _mm256_xor_si256(a, rotate!(_mm256_add_epi32(d, c), 18));
                    // From columns to rows and back: what was left of a is right of it then.
                    (b, c, d) = (
                        _mm256_shuffle_epi32::<0b00_11_10_01>(d),
                        _mm256_shuffle_epi32::<0b01_00_11_10>(c),
                        _mm256_shuffle_epi32::<0b10_01_00_11>(b),
                    );
                }
                let after = [a, b, c, d];
                std::array::from_fn(|row| _mm256_add_epi32(before[row], after[row]))
            }
        }
    };
}

mix!(avx2, "avx2");
mix!(avx512, "avx2,avx512f,avx512vl");

#[inline]
#[target_feature(enable = "avx2")]
fn vector([a, b, c, d]: [u64; 4]) -> __m256i {
    let [a, b, c, d] = [a, b, c, d].map(u64::cast_signed);
    _mm256_set_epi64x(d, c, b, a)
}

#[inline]
#[target_feature(enable = "avx2")]
fn numbers(vector: __m256i) -> [u64; 4] {
    [
        _mm256_extract_epi64::<0>(vector),
        _mm256_extract_epi64::<1>(vector),
        _mm256_extract_epi64::<2>(vector),
        _mm256_extract_epi64::<3>(vector),
    ]
    .map(i64::cast_unsigned)
}
