//! The index in memory: which blobs there are, and where.
//!
//! A hundred million blobs are about 100 TB, so every byte of an entry counts: entries lie in
//! segments that never move (no doubling of a large vector) and take 48 bytes; a hash table of
//! entry numbers adds 6 to 10. The blobs of a pack are neighbours, so a pack is a range.
//!
//! The table is seeded at random: whoever can write an index cannot choose ids that collide.
//! Equal ids collide always, so the table has each blob once, and its further places are listed
//! apart.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    ops::Range,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table};
use std::hash::BuildHasher;

use crate::{
    format::{
        index_file::{IndexFile, IndexPack},
        pack::{BlobKind, PackedBlob},
    },
    id::{BlobId, PackId},
};

/// Entries of a segment: 3 MiB of them.
const SEGMENT_ENTRIES: usize = 1 << 16;

/// A pack that has been described in more ranges than this, each time differently, is not
/// compared with the next description. Sound repositories stay at one.
const SAME_PACK_COMPARED_MAX: usize = 8;

/// A blob and the pack it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// The blob and its place in the pack.
    pub blob: PackedBlob,
}

/// One blob of one pack; 48 bytes.
#[derive(Clone, Copy)]
struct Entry {
    id: BlobId,
    pack: u32,
    offset: u32,
    length: u32,
    uncompressed_length: Option<NonZeroU32>,
}

#[derive(Clone)]
struct Pack {
    id: PackId,
    first: u32,
    count: u32,
    kind: BlobKind,
}

/// The blobs of a repository by their ids.
#[derive(Default)]
pub struct Index {
    segments: Vec<Vec<Entry>>,
    count: usize,
    /// For each blob the number of its first entry.
    table: HashTable<u32>,
    /// The numbers of a blob's further entries.
    copies: HashMap<(BlobKind, BlobId), Vec<u32>, RandomState>,
    packs: Vec<Pack>,
    /// By pack: the numbers of its ranges. More than one only for packs that break the rule of
    /// one kind per pack, and for such as are listed twice with different content.
    by_pack: HashMap<PackId, Vec<u32>, RandomState>,
    to_delete: HashMap<PackId, Vec<PackedBlob>, RandomState>,
    hasher: RandomState,
}

impl Index {
    /// An index that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what an index file says. A pack that is known with the same blobs is not added
    /// again.
    pub fn add_file(&mut self, file: &IndexFile) {
        for pack in &file.packs {
            self.add_pack(pack);
        }
        for pack in &file.packs_to_delete {
            let blobs = pack.blobs.iter().map(|&blob| blob.into()).collect();
            self.to_delete.insert(pack.id, blobs);
        }
    }

    /// Adds one pack.
    pub fn add_pack(&mut self, pack: &IndexPack) {
        let mut blobs: Vec<PackedBlob> = pack.blobs.iter().map(|&blob| blob.into()).collect();
        blobs.sort_by_key(|blob| (blob.kind, blob.offset));
        let known = self.by_pack.get(&pack.id).map_or(0, Vec::len);
        if (1..=SAME_PACK_COMPARED_MAX).contains(&known) && self.pack_blobs(&pack.id) == blobs {
            return;
        }
        for of_kind in blobs.chunk_by(|a, b| a.kind == b.kind) {
            self.add_range(pack.id, of_kind);
        }
    }

    /// The same without some packs.
    pub(crate) fn without(mut self, packs: &[PackId]) -> Self {
        let packs: HashSet<&PackId> = packs.iter().collect();
        let mut rest = Self { to_delete: std::mem::take(&mut self.to_delete), ..Self::new() };
        for id in self.packs().filter(|pack| !packs.contains(pack)) {
            let blobs = self.pack_blobs(&id).into_iter().map(Into::into).collect();
            rest.add_pack(&IndexPack { id, blobs });
        }
        rest
    }

    fn add_range(&mut self, id: PackId, blobs: &[PackedBlob]) {
        // 2^32 entries are 200 GiB of memory: the machine gives up before the numbers do.
        let number = |n: usize| u32::try_from(n).expect("fewer than 2^32 blobs fit in memory");
        let pack = number(self.packs.len());
        let (first, count) = (number(self.count), number(blobs.len()));
        self.packs.push(Pack { id, first, count, kind: blobs[0].kind });
        self.by_pack.entry(id).or_default().push(pack);
        for blob in blobs {
            let PackedBlob { id, offset, length, uncompressed_length, .. } = *blob;
            self.push(Entry { id, pack, offset, length, uncompressed_length });
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.segments.last().is_none_or(|segment| segment.len() == SEGMENT_ENTRIES) {
            self.segments.push(Vec::with_capacity(SEGMENT_ENTRIES));
        }
        let number = u32::try_from(self.count).expect("fewer than 2^32 blobs fit in memory");
        if let Some(segment) = self.segments.last_mut() {
            segment.push(entry);
        }
        self.count += 1;
        let (segments, packs, hasher) = (&self.segments, &self.packs, &self.hasher);
        let kind = packs[entry.pack as usize].kind;
        let is_same = |&number: &u32| is_blob(packs, entry_at(segments, number), kind, entry.id);
        let hash_of = |&number: &u32| hasher.hash_one(entry_at(segments, number).id.as_bytes());
        match self.table.entry(hasher.hash_one(entry.id.as_bytes()), is_same, hash_of) {
            hash_table::Entry::Vacant(place) => drop(place.insert(number)),
            hash_table::Entry::Occupied(_) => {
                self.copies.entry((kind, entry.id)).or_default().push(number);
            }
        }
    }

    fn location(&self, entry: &Entry) -> Location {
        let pack = &self.packs[entry.pack as usize];
        let Entry { id, offset, length, uncompressed_length, .. } = *entry;
        let blob = PackedBlob { id, kind: pack.kind, offset, length, uncompressed_length };
        Location { pack: pack.id, blob }
    }

    /// Every place where the blob lies; usually one. Two packs may hold the same blob.
    pub fn find_all(&self, kind: BlobKind, id: BlobId) -> impl Iterator<Item = Location> + '_ {
        let first = self.first(kind, id);
        let copies = first.and_then(|_| self.copies.get(&(kind, id))).into_iter().flatten();
        first
            .into_iter()
            .chain(copies)
            .map(|&number| self.location(entry_at(&self.segments, number)))
    }

    /// The number of the first entry for a blob.
    fn first(&self, kind: BlobKind, id: BlobId) -> Option<&u32> {
        let is_same =
            |&number: &u32| is_blob(&self.packs, entry_at(&self.segments, number), kind, id);
        self.table.find(self.hasher.hash_one(id.as_bytes()), is_same)
    }

    /// One place where the blob lies.
    #[must_use]
    pub fn find(&self, kind: BlobKind, id: BlobId) -> Option<Location> {
        self.find_all(kind, id).next()
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn contains(&self, kind: BlobKind, id: BlobId) -> bool {
        self.first(kind, id).is_some()
    }

    /// How many blobs there are, duplicates counted each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no blob at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All blobs, pack by pack.
    pub fn iter(&self) -> impl Iterator<Item = Location> + '_ {
        self.segments.iter().flatten().map(|entry| self.location(entry))
    }

    /// The packs that hold blobs.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        self.by_pack.keys().copied()
    }

    /// How many packs hold blobs.
    #[must_use]
    pub fn pack_count(&self) -> usize {
        self.by_pack.len()
    }

    /// Whether the pack is listed with its blobs, be it for deletion. One that was marked when no
    /// index listed it may still be an interrupted backup's.
    #[must_use]
    pub fn knows_pack(&self, pack: &PackId) -> bool {
        let is_marked = || self.to_delete.get(pack).is_some_and(|blobs| !blobs.is_empty());
        self.by_pack.contains_key(pack) || is_marked()
    }

    /// Whether blobs are taken from the pack.
    #[must_use]
    pub fn has_pack(&self, pack: &PackId) -> bool {
        self.by_pack.contains_key(pack)
    }

    /// A number below [`Index::len`] that the blob shares with all its copies and with no other.
    pub(crate) fn number(&self, kind: BlobKind, id: BlobId) -> Option<usize> {
        let is_same =
            |&number: &u32| is_blob(&self.packs, entry_at(&self.segments, number), kind, id);
        let number = self.table.find(self.hasher.hash_one(id.as_bytes()), is_same)?;
        Some(*number as usize)
    }

    /// The entry with a number that [`Index::number`] gave.
    pub(crate) fn at(&self, number: u32) -> Location {
        self.location(entry_at(&self.segments, number))
    }

    /// Where the last blob of a pack ends, in bytes; 0 when blobs are not taken from it.
    pub(crate) fn pack_end(&self, pack: &PackId) -> u64 {
        let ranges = self.by_pack.get(pack).into_iter().flatten();
        // The blobs of a range are in the order of their places.
        let last = ranges.filter_map(|&range| {
            let range = &self.packs[range as usize];
            let last = (range.first + range.count).checked_sub(1)?;
            Some(entry_at(&self.segments, last))
        });
        last.map(|entry| u64::from(entry.offset) + u64::from(entry.length)).max().unwrap_or(0)
    }

    /// Packs that wait for their deletion.
    pub fn packs_to_delete(&self) -> impl Iterator<Item = PackId> + '_ {
        self.to_delete.keys().copied()
    }

    /// The bytes of the blobs of the same kind that lie around a blob in its pack: those that begin
    /// in the same window, when the pack is cut into windows of `window` bytes.
    pub(crate) fn around(&self, location: &Location, window: u32) -> Range<u64> {
        let blob = location.blob;
        let ranges = self.by_pack.get(&location.pack).map_or(&[][..], Vec::as_slice);
        let ranges = ranges.iter().map(|&range| &self.packs[range as usize]);
        let own = u64::from(blob.offset)..u64::from(blob.offset) + u64::from(blob.length);
        let first = blob.offset - blob.offset % window;
        let last = first.saturating_add(window - 1);
        ranges.filter(|range| range.kind == blob.kind).fold(own, |around, range| {
            let entry = |at: u32| entry_at(&self.segments, range.first + at);
            let begin = partition(range.count, |at| entry(at).offset < first);
            let end = partition(range.count, |at| entry(at).offset <= last);
            if begin >= end {
                return around;
            }
            let end = entry(end - 1);
            let end = u64::from(end.offset) + u64::from(end.length);
            around.start.min(entry(begin).offset.into())..around.end.max(end)
        })
    }

    /// Where trees lie in packs, if these are `packs_max` at most and the trees `bytes_max` together.
    pub(crate) fn few_trees(
        &self,
        packs_max: usize,
        bytes_max: u64,
    ) -> Option<Vec<(PackId, Range<u64>)>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for pack in self.packs.iter().filter(|pack| pack.kind == BlobKind::Tree && pack.count > 0) {
            let last = entry_at(&self.segments, pack.first + pack.count - 1);
            let start = u64::from(entry_at(&self.segments, pack.first).offset);
            let end = u64::from(last.offset) + u64::from(last.length);
            bytes += end - start;
            if found.len() == packs_max || bytes > bytes_max {
                return None;
            }
            found.push((pack.id, start..end));
        }
        Some(found)
    }

    /// The blobs of a pack, by kind and offset; none when the pack is unknown.
    #[must_use]
    pub fn pack_blobs(&self, pack: &PackId) -> Vec<PackedBlob> {
        let ranges = self.by_pack.get(pack).map_or(&[][..], Vec::as_slice);
        let ranges = ranges.iter().map(|&range| &self.packs[range as usize]);
        ranges
            .flat_map(|range| range.first..range.first + range.count)
            .map(|number| self.location(entry_at(&self.segments, number)).blob)
            .collect()
    }
}

/// The first number below `count` of which `is_before` is false, when it is true of all before.
fn partition(count: u32, is_before: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match is_before(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

fn is_blob(packs: &[Pack], entry: &Entry, kind: BlobKind, id: BlobId) -> bool {
    entry.id == id && packs[entry.pack as usize].kind == kind
}

fn entry_at(segments: &[Vec<Entry>], number: u32) -> &Entry {
    &segments[number as usize / SEGMENT_ENTRIES][number as usize % SEGMENT_ENTRIES]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(kind: BlobKind, seed: u32, offset: u32) -> PackedBlob {
        let id = BlobId::of(&seed.to_le_bytes());
        PackedBlob { id, kind, offset, length: 40, uncompressed_length: NonZeroU32::new(seed % 3) }
    }

    fn pack(name: &[u8], blobs: &[PackedBlob]) -> IndexPack {
        let blobs = blobs.iter().map(|&blob| blob.into()).collect();
        IndexPack { id: PackId::of(name), blobs }
    }

    #[test]
    fn an_entry_is_48_bytes() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    #[test]
    fn blobs_are_found_where_they_were_put() {
        let mut index = Index::new();
        let mut packs = Vec::new();
        for p in 0..300_u32 {
            let blobs: Vec<_> =
                (0..300).map(|i| blob(BlobKind::Data, p * 300 + i, i * 40)).collect();
            index.add_pack(&pack(&p.to_le_bytes(), &blobs));
            packs.push((PackId::of(&p.to_le_bytes()), blobs));
        }
        assert_eq!((index.len(), index.pack_count()), (90_000, 300));
        for (id, blobs) in &packs {
            assert_eq!(index.pack_blobs(id), *blobs);
            for blob in blobs {
                let expected = Location { pack: *id, blob: *blob };
                assert_eq!(index.find(BlobKind::Data, blob.id), Some(expected));
                assert!(!index.contains(BlobKind::Tree, blob.id));
            }
        }
        assert_eq!(index.iter().count(), 90_000);
    }

    #[test]
    fn duplicates_and_mixed_packs_are_kept_apart() {
        let mut index = Index::new();
        let (data, tree) = (blob(BlobKind::Data, 1, 0), blob(BlobKind::Tree, 1, 40));
        index.add_pack(&pack(b"mixed", &[data, tree]));
        index.add_pack(&pack(b"other", &[data]));
        index.add_pack(&pack(b"other", &[data]));
        assert_eq!(index.find_all(BlobKind::Data, data.id).count(), 2);
        assert_eq!(index.find_all(BlobKind::Tree, tree.id).count(), 1);
        assert_eq!(index.len(), 3);
        assert_eq!(index.pack_blobs(&PackId::of(b"mixed")), [data, tree]);
        assert_eq!(index.pack_blobs(&PackId::of(b"unknown")), []);
    }
}
