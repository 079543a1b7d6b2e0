//! The checksum of a page, as the server computes it, so that damage is found while a backup reads.
//!
//! A 32-lane FNV-1a variant over the page's words with the checksum field taken as zero, mixed
//! with the page's number so that a page in the wrong place is noticed, and folded to 16 bits that
//! are never zero.
//!
//! # Source
//! PostgreSQL, `src/include/storage/checksum_impl.h`; the layout of a page's header from
//! `src/include/storage/bufpage.h`.

use std::array;

/// Lanes of the hash.
const LANES: usize = 32;

/// Bytes that go into all lanes once.
const ROW_BYTES: usize = LANES * 4;

/// FNV's prime for 32 bits.
const PRIME: u32 = 16_777_619;

/// Where the lanes begin.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Where the checksum is in a page, in bytes.
const CHECKSUM_AT: usize = 8;

/// What a page says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Never used: it has no checksum.
    New,
    /// The checksum is right.
    Sound,
    /// The checksum is wrong.
    Broken {
        /// The checksum that is stored in the page.
        stored: u16,
        /// The checksum that its content has.
        computed: u16,
        /// Position in the log of the page's last change, were it to be believed.
        lsn: u64,
    },
}

/// Looks at a page. `number` is its number in the relation, over all its segment files.
#[must_use]
pub fn look(page: &[u8], number: u32) -> PageState {
    // The end of free space is 0 in no page that was ever used.
    let is_new = half(page, 14) == 0;
    if is_new && page.iter().all(|&byte| byte == 0) {
        return PageState::New;
    }
    let (stored, computed) = (half(page, CHECKSUM_AT), checksum(page, number));
    if stored == computed && !is_new {
        return PageState::Sound;
    }
    let lsn = u64::from(word(page, 0)) << 32 | u64::from(word(page, 4));
    PageState::Broken { stored, computed, lsn }
}

/// Computes the checksum of a page; the one that is stored in it makes no difference.
///
/// # Panics
/// Panics when the page is shorter than 128 bytes; a server's has 1,024 at least.
#[must_use]
pub fn checksum(page: &[u8], number: u32) -> u16 {
    let mut lanes = OFFSETS;
    let (head, rest) = page.split_at(ROW_BYTES);
    let mut head: [u8; ROW_BYTES] = array::from_fn(|at| head[at]);
    head[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    mix_row(&mut lanes, &head);
    rest.chunks_exact(ROW_BYTES).for_each(|row| mix_row(&mut lanes, row));
    for _ in 0..2 {
        lanes.iter_mut().for_each(|sum| *sum = mix(*sum, 0));
    }
    let folded = lanes.iter().fold(0, |all, sum| all ^ sum) ^ number;
    u16::try_from(folded % 65535).map_or(u16::MAX, |rest| rest + 1)
}

fn mix_row(lanes: &mut [u32; LANES], row: &[u8]) {
    for (sum, value) in lanes.iter_mut().zip(row.chunks_exact(4)) {
        *sum = mix(*sum, word(value, 0));
    }
}

fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

/// Servers keep pages in the byte order of their machine, and are restored on the same kind.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        page[14..16].copy_from_slice(&8192u16.to_ne_bytes());
        let sum = checksum(&page, 5);
        page[8..10].copy_from_slice(&sum.to_ne_bytes());
        page
    }

    #[test]
    fn the_stored_checksum_does_not_count() {
        let page = page();
        assert_eq!(look(&page, 5), PageState::Sound);
    }

    #[test]
    fn any_flipped_bit_and_any_other_place_is_noticed() {
        let sound = page();
        for at in (0..8192).step_by(61).filter(|at| !(14..16).contains(at)) {
            let mut page = sound.clone();
            page[at] ^= 1;
            assert!(matches!(look(&page, 5), PageState::Broken { .. }), "byte {at}");
        }
        assert!(matches!(look(&sound, 6), PageState::Broken { .. }));
    }

    #[test]
    fn a_page_never_used_has_none() {
        assert_eq!(look(&[0; 8192], 1), PageState::New);
    }
}
