//! File content that is the same on every run.

/// Numbers that look random and depend on the seed only (SplitMix64).
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn seeded_by(seed: &[u8]) -> Self {
        // FNV-1a: enough to give every name a start of its own.
        let hash = seed.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Makes `size` bytes that do not compress.
pub(super) fn random(seed: &[u8], size: usize) -> Vec<u8> {
    let mut numbers = Numbers::seeded_by(seed);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&numbers.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Makes `size` bytes of text that compresses well.
pub(super) fn text(size: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["ledger ", "harbour ", "muster ", "beacon ", "anchor ", "signal ", "keel ", "mast\n"];
    let mut numbers = Numbers::seeded_by(b"text");
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        let index = usize::from(numbers.next().to_le_bytes()[0] % 8);
        bytes.extend_from_slice(WORDS[index].as_bytes());
    }
    bytes.truncate(size);
    bytes
}
