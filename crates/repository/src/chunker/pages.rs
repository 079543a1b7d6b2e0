//! Cuts the files of a database at their pages instead of by their content.
//!
//! A database updates its files in place, a few bytes here and there, and never moves what lies
//! behind. Chunks of a megabyte then change nearly all of them for rows that lie scattered: an
//! update of one row in five hundred stores the table anew. Blocks of a few pages at fixed places
//! store what changed and little around it, and cost entries in the tree and the index for it.
//!
//! Whether a file is cut so, and where, follows from its first page, so that the same table is cut in
//! the same places by every host on every day; unless it is long or lies in a folder of many pieces
//! already, whose tree would have to name them all ([`Fineness`]). A reader never needs to know: blobs
//! join to the file wherever they were cut. `docs/decisions/0026-pages-of-databases.md` weighs the
//! sizes.
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

/// Length of a table's block, in bytes: four pages. Decision 26 says what fewer or more cost.
const TABLE_BLOCK_BYTES: usize = 4 * PAGE_BYTES;

/// Length of the lower piece of a B-tree's page, in bytes: short records that differ little from
/// their neighbours, which want to be compressed in a way of their own.
pub(crate) const RECORDS_BYTES: usize = 3 << 10;

/// Longer files are no database's: `PostgreSQL` goes on in another file after 1 GiB.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;

/// How many pieces the files of one folder are cut into, before larger ones are made and at most. A
/// folder's tree names all its pieces, 67 bytes each, is read as a whole, and may be 1 GiB long.
const FOLDER_PIECES_FINE: u64 = 1 << 20;
const FOLDER_PIECES_MAX: u64 = 2 << 20;

/// Where a page of a B-tree is cut in two. A new entry is put below the others, which stay where
/// they are, and a pointer to it between those at the begin of the page. A page that the default
/// fill factor of 90 % left 800 bytes free and that holds keys of four or eight bytes changes in its
/// first 3 KiB until it is split.
const BTREE_UPPER_BEGINS: usize = RECORDS_BYTES;

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

/// How finely a file may be cut, for the sake of its folder's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fineness {
    /// As its layout says.
    Fine,
    /// Into blocks of several pages, whatever is in them.
    Coarse,
    /// By its content.
    Content,
}

impl Fineness {
    /// How finely a file of `bytes` may be cut when the folder has `pieces` already.
    pub(crate) fn of(pieces: u64, bytes: u64) -> Self {
        let after = |piece_bytes: usize| pieces + bytes / piece_bytes as u64;
        if bytes > FILE_BYTES_MAX {
            Self::Content
        } else if after(PAGE_BYTES / 2) <= FOLDER_PIECES_FINE {
            Self::Fine
        } else if after(TABLE_BLOCK_BYTES) <= FOLDER_PIECES_MAX {
            Self::Coarse
        } else {
            Self::Content
        }
    }

    /// How many pieces a file of `bytes` is cut into, at most.
    pub(crate) fn pieces(self, bytes: u64) -> u64 {
        let piece_bytes = match self {
            Self::Fine => PAGE_BYTES / 2,
            Self::Coarse => TABLE_BLOCK_BYTES,
            Self::Content => super::CHUNK_BYTES_MIN,
        };
        bytes / piece_bytes as u64 + 1
    }

    /// What becomes of a layout.
    pub(crate) fn bound(self, layout: PageLayout) -> Option<PageLayout> {
        match self {
            Self::Fine => Some(layout),
            Self::Coarse => Some(PageLayout::Table),
            Self::Content => None,
        }
    }
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
    pub(crate) fn pieces(self, length: usize) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let range = start..(start + self.step(start)).min(length);
            start = range.end;
            (!range.is_empty()).then_some(range)
        })
    }

    /// How many bytes further the cuts repeat.
    pub(crate) const fn period(self) -> usize {
        match self {
            Self::Table => TABLE_BLOCK_BYTES,
            Self::Btree => PAGE_BYTES,
        }
    }

    /// How long the piece is that begins at `start`.
    const fn step(self, start: usize) -> usize {
        match self {
            Self::Table => TABLE_BLOCK_BYTES,
            Self::Btree if start.is_multiple_of(PAGE_BYTES) => BTREE_UPPER_BEGINS,
            Self::Btree => PAGE_BYTES - BTREE_UPPER_BEGINS,
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

    #[test]
    fn a_folder_has_no_more_pieces_than_its_tree_can_name() {
        const GIB: u64 = 1 << 30;
        let (mut pieces, mut seen) = (0, Vec::new());
        for _ in 0..1000 {
            let fineness = Fineness::of(pieces, GIB);
            pieces += fineness.pieces(GIB);
            seen.push(fineness);
        }
        assert_eq!(
            (seen[0], seen[10], seen[999]),
            (Fineness::Fine, Fineness::Coarse, Fineness::Content)
        );
        // 67 bytes each, and those of a terabyte that is cut by its content.
        assert!(pieces * 67 < 512 << 20, "{pieces}");
        assert_eq!(Fineness::of(0, GIB + 1), Fineness::Content);
        assert_eq!(Fineness::Coarse.bound(PageLayout::Btree), Some(PageLayout::Table));
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
            let pieces: Vec<Range<usize>> = layout.pieces(length).collect();
            let mut end = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.start, end);
                prop_assert!(!piece.is_empty());
                end = piece.end;
            }
            prop_assert_eq!(end, length);
            // What is cut from a later multiple of the period on is cut in the same places.
            let period = layout.period();
            let shifted = layout.pieces(length + period).filter(|piece| piece.start >= period);
            let shifted: Vec<Range<usize>> =
                shifted.map(|piece| piece.start - period..piece.end - period).collect();
            prop_assert_eq!(shifted, pieces);
        }
    }
}
