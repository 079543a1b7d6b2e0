//! The blobs that a run has written or is writing: millions, so every byte of one counts.
//!
//! Ids lie in segments that never move, and a table of their numbers finds them: some 42 bytes for
//! each, where a table of the ids themselves takes 73 when it is as empty as tables are on average.
//! All of it is in parts, so that what grows by doubling is small.

use std::sync::Mutex;

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use std::hash::BuildHasher;

use super::lock;
use crate::{format::pack::BlobKind, id::BlobId};

/// A table that is full is rebuilt twice as large beside the old one; this many never are at once.
const PARTS: usize = 64;

/// Ids of a segment: 32 KiB.
const SEGMENT_IDS: usize = 1 << 10;

/// Blobs by their ids, for many threads.
pub(super) struct Claimed {
    data: [Mutex<Ids>; PARTS],
    trees: [Mutex<Ids>; PARTS],
    hasher: RandomState,
}

#[derive(Default)]
struct Ids {
    segments: Vec<Vec<BlobId>>,
    count: u32,
    /// The number of each id.
    table: HashTable<u32>,
}

impl Claimed {
    pub(super) fn none() -> Self {
        let parts = || std::array::from_fn(|_| Mutex::default());
        Self { data: parts(), trees: parts(), hasher: RandomState::default() }
    }

    /// Whether nobody has claimed it before.
    pub(super) fn insert(&self, kind: BlobKind, id: BlobId) -> bool {
        let parts = match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        };
        let part = usize::from(id.as_bytes()[0]) % PARTS;
        lock(&parts[part]).insert(id, &self.hasher)
    }
}

impl Ids {
    fn insert(&mut self, id: BlobId, hasher: &RandomState) -> bool {
        let Self { segments, count, table } = self;
        let hash_of = |number: &u32| hasher.hash_one(at(segments, *number).as_bytes());
        let is_same = |number: &u32| *at(segments, *number) == id;
        match table.entry(hasher.hash_one(id.as_bytes()), is_same, hash_of) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(place) => drop(place.insert(*count)),
        }
        // 2^32 of them are 160 GiB of memory for each part: the machine gives up before.
        *count = count.checked_add(1).expect("fewer than 2^32 blobs fit in memory");
        if segments.last().is_none_or(|segment| segment.len() == SEGMENT_IDS) {
            segments.push(Vec::with_capacity(SEGMENT_IDS));
        }
        if let Some(segment) = segments.last_mut() {
            segment.push(id);
        }
        true
    }
}

fn at(segments: &[Vec<BlobId>], number: u32) -> &BlobId {
    &segments[number as usize / SEGMENT_IDS][number as usize % SEGMENT_IDS]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blob_is_claimed_once_and_kinds_are_apart() {
        let claimed = Claimed::none();
        let id = |n: u32| BlobId::of(&n.to_le_bytes());
        for n in 0..200_000 {
            assert!(claimed.insert(BlobKind::Data, id(n)));
        }
        for n in 0..200_000 {
            assert!(!claimed.insert(BlobKind::Data, id(n)));
        }
        assert!(claimed.insert(BlobKind::Tree, id(7)) && !claimed.insert(BlobKind::Tree, id(7)));
    }
}
