//! Cuts the files of a database at their pages instead of by their content.
//!
//! A database updates its files in place, a few bytes here and there, and never moves what lies
//! behind. Chunks of a megabyte then change nearly all of them for rows that lie scattered: an
//! update of one row in five hundred stores the table anew. Blocks of a few pages at fixed places
//! store what changed and little around it, and cost entries in the tree and the index for it.
//!
//! Whether a file is cut so, and where, follows from its first page alone, so that the same table is
//! cut in the same places by every host on every day. A reader never needs to know: blobs join to
//! the file wherever they were cut. `docs/decisions/` weighs the sizes.
//!
//! Deliberately not here: files of other databases, and images of disks, whose pages say nothing
//! about what lies in them.

use std::ops::Range;

/// The size of `PostgreSQL`'s pages, in bytes, unless it was built with another; then a file is cut
/// by its content.
///
/// # Source
/// `PostgreSQL` 18, *Database Page Layout* (`storage-page-layout`).
const PAGE_BYTES: usize = 8 << 10;

/// How many bytes have to be known of a file to say where it is cut.
pub(crate) const HEAD_BYTES: usize = PAGE_BYTES;

/// Pages of a table that make up a block. See `docs/decisions/` for what fewer or more cost.
const TABLE_BLOCK_BYTES: usize = 4 * PAGE_BYTES;

/// Where a page of a B-tree is cut in two. A new entry is put below the others, which stay where
/// they are, and a pointer to it between those at the begin of the page. A page that the default
/// fill factor of 90 % left 800 bytes free and that holds keys of four or eight bytes changes in its
/// first 3 KiB until it is split.
const BTREE_UPPER_BEGINS: usize = 3 << 10;

/// Length of the special space at the end of a B-tree's page, in bytes (`BTPageOpaqueData`). Pages
/// of `GiST` and hash indexes have one of this length too, and end with a number that says so.
const BTREE_SPECIAL_BYTES: usize = 16;

/// The largest of the numbers that a B-tree's page may end with (`MAX_BT_CYCLE_ID`); the larger ones
/// are other kinds of index.
///
/// # Source
/// `PostgreSQL`, `src/include/access/nbtree.h`: `MAX_BT_CYCLE_ID`.
const BTREE_CYCLE_MAX: u16 = 0xff7f;

/// How the pages of a file are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageLayout {
    /// Rows: blocks of several pages.
    Table,
    /// Entries of a B-tree: each page in two pieces.
    Btree,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it lies in the bytes that were cut.
    pub(crate) range: Range<usize>,
    /// Whether it is full of short records that differ little from their neighbours.
    pub(crate) records: bool,
}

impl PageLayout {
    /// The layout of a file that begins with `head`; `None` when it has to be cut by its content.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let page: &[u8; PAGE_BYTES] = head.get(..PAGE_BYTES)?.try_into().ok()?;
        let number = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
        // `pd_lower`, `pd_upper`, `pd_special`, `pd_pagesize_version`.
        let [lower, upper, special, size_and_version] = [12, 14, 16, 18].map(number);
        const HEADER_BYTES: usize = 24;
        const LAYOUT_VERSION: usize = 4;
        let is_page = size_and_version == PAGE_BYTES | LAYOUT_VERSION
            && HEADER_BYTES <= lower
            && lower <= upper
            && upper <= special
            && special <= PAGE_BYTES;
        if !is_page {
            return None;
        }
        let is_btree = special == PAGE_BYTES - BTREE_SPECIAL_BYTES
            && number(PAGE_BYTES - 2) <= usize::from(BTREE_CYCLE_MAX);
        Some(if is_btree { Self::Btree } else { Self::Table })
    }

    /// The pieces of `length` bytes that begin at a multiple of [`PageLayout::period`] in the file.
    pub(crate) fn pieces(self, length: usize) -> impl Iterator<Item = Piece> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let (step, records) = self.step(start);
            let range = start..(start + step).min(length);
            start = range.end;
            (!range.is_empty()).then_some(Piece { range, records })
        })
    }

    /// How many bytes further the cuts repeat.
    pub(crate) const fn period(self) -> usize {
        match self {
            Self::Table => TABLE_BLOCK_BYTES,
            Self::Btree => PAGE_BYTES,
        }
    }

    /// How long the piece is that begins at `start`, and whether it holds records.
    const fn step(self, start: usize) -> (usize, bool) {
        match self {
            Self::Table => (TABLE_BLOCK_BYTES, false),
            Self::Btree if start.is_multiple_of(PAGE_BYTES) => (BTREE_UPPER_BEGINS, true),
            Self::Btree => (PAGE_BYTES - BTREE_UPPER_BEGINS, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An empty page with a special space of so many bytes, which ends with `last`.
    fn page(special_bytes: u16, last: u16) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        let special = u16::try_from(PAGE_BYTES).unwrap() - special_bytes;
        for (at, number) in [(12, 24), (14, special), (16, special), (18, 0x2004)] {
            page[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        if special_bytes > 0 {
            page[PAGE_BYTES - 2..].copy_from_slice(&last.to_le_bytes());
        }
        page
    }

    #[test]
    fn the_first_page_tells_the_layout() {
        assert_eq!(PageLayout::of(&page(0, 0)), Some(PageLayout::Table));
        assert_eq!(PageLayout::of(&page(16, 0)), Some(PageLayout::Btree));
        assert_eq!(PageLayout::of(&page(16, 0xff7f)), Some(PageLayout::Btree));
        // GiST, hash.
        assert_eq!(PageLayout::of(&page(16, 0xff81)), Some(PageLayout::Table));
        assert_eq!(PageLayout::of(&page(16, 0xff80)), Some(PageLayout::Table));
        // GIN.
        assert_eq!(PageLayout::of(&page(8, 0)), Some(PageLayout::Table));
    }

    #[test]
    fn what_is_no_page_is_cut_by_its_content() {
        let sound = page(0, 0);
        assert_eq!(PageLayout::of(&sound[..PAGE_BYTES - 1]), None);
        assert_eq!(PageLayout::of(&vec![0; PAGE_BYTES]), None, "all zeros");
        assert_eq!(PageLayout::of(&vec![0xff; PAGE_BYTES]), None);
        // Each field out of its range: lower, upper, special, size and version.
        for (at, number) in [(12, 23), (12, 8193), (14, 8193), (16, 8191), (16, 8193), (18, 0x4004)]
        {
            let mut page = sound.clone();
            page[at..at + 2].copy_from_slice(&u16::to_le_bytes(number));
            assert_eq!(PageLayout::of(&page), None, "{number} at {at}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_file_begins_with_is_too_strange(head in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut page = page(0, 0);
            page[..head.len()].copy_from_slice(&head);
            let _ = PageLayout::of(&page);
        }

        #[test]
        fn pieces_join_to_the_whole_and_repeat(length in 0_usize..300_000, btree: bool) {
            let layout = if btree { PageLayout::Btree } else { PageLayout::Table };
            let pieces: Vec<Piece> = layout.pieces(length).collect();
            let mut end = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.range.start, end);
                prop_assert!(!piece.range.is_empty());
                end = piece.range.end;
            }
            prop_assert_eq!(end, length);
            // What is cut from a later multiple of the period on is cut in the same places.
            let period = layout.period();
            let shifted = layout.pieces(length + period).filter(|piece| piece.range.start >= period);
            let shifted: Vec<Piece> = shifted
                .map(|Piece { range, records }| {
                    Piece { range: range.start - period..range.end - period, records }
                })
                .collect();
            prop_assert_eq!(shifted, pieces);
        }
    }
}
