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
