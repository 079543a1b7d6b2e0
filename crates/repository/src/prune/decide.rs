//! What shall go, what is copied out of packs first, and what stays: a function of numbers.
//!
//! # Source
//! restic, `internal/repository/prune.go`, `decidePackAction`.

use std::{collections::HashMap, fmt, str::FromStr};

use foldhash::fast::RandomState;
use muster_model::units::parse_size;

use super::{PruneError, PruneOptions, usage::Used};
use crate::{
    format::pack::{BlobKind, PackedBlob, pack_bytes},
    id::PackId,
    index::Index,
};

/// Sound repositories hold a blob once or twice. Of what lies in more places than this it is
/// remembered which one counts, or each place would ask all the others.
pub(super) const COPIES_FEW: usize = 4;

/// Packs below this share of the target size are small.
const SMALL_PERCENT: u64 = 80;

/// How much waste may stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// So much of the repository, in percent.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
    /// Any amount: nothing is repacked for it.
    Unlimited,
}

impl Limit {
    /// In bytes, beside `used` ones. A percentage is of the size afterwards.
    fn bytes(self, used: u64) -> u64 {
        match self {
            Self::Unlimited => u64::MAX,
            Self::Bytes(bytes) => bytes,
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a goal, not a promise to the byte; below 100 percent it is finite"
            )]
            Self::Percent(percent) => (percent / (100.0 - percent) * used as f64) as u64,
        }
    }
}

/// The text is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownLimit;

impl fmt::Display for UnknownLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a percentage below 100 (5%), a size (200M), or 'unlimited'")
    }
}

impl std::error::Error for UnknownLimit {}

impl FromStr for Limit {
    type Err = UnknownLimit;

    fn from_str(text: &str) -> Result<Self, UnknownLimit> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        match text.strip_suffix('%') {
            Some(number) => {
                let percent = number.trim().parse().map_err(|_| UnknownLimit)?;
                let is_percentage = (0.0..100.0).contains(&percent);
                is_percentage.then_some(Self::Percent(percent)).ok_or(UnknownLimit)
            }
            None => parse_size(text).map(Self::Bytes).map_err(|_| UnknownLimit),
        }
    }
}

/// A pack of the index, by what is needed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackUse {
    pub(super) id: PackId,
    /// Size of the file, as the index says; the file may be missing.
    pub(super) bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) unused_bytes: u64,
    /// Whether all blobs are data.
    pub(super) is_data: bool,
    /// Whether data and trees lie side by side.
    pub(super) is_mixed: bool,
}

/// What shall happen to the packs of the index.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// Nothing in them is needed.
    pub(super) remove: Vec<PackUse>,
    /// What is needed is copied, then they are as the others.
    pub(super) repack: Vec<PackUse>,
    pub(super) used_bytes: u64,
    pub(super) unused_bytes: u64,
    pub(super) waste_left_bytes: u64,
}

/// Counts what is needed of each pack. Of a blob that lies in several packs, one place counts as
/// needed: in the pack of which most is needed.
pub(super) fn survey(
    index: &Index,
    sizes: &HashMap<PackId, u64, RandomState>,
    used: &Used,
) -> Result<Vec<PackUse>, PruneError> {
    let mut shares: HashMap<PackId, u64, RandomState> = HashMap::default();
    for pack in index.packs() {
        shares.insert(pack, share(index, sizes, used, pack));
    }
    let mut widespread: HashMap<_, _, RandomState> = HashMap::default();
    let mut holder_of = |blob: &PackedBlob| {
        let find = || holder(index, &shares, blob);
        match index.find_all(blob.kind, blob.id).nth(COPIES_FEW) {
            Some(_) => *widespread.entry((blob.kind, blob.id)).or_insert_with(find),
            None => find(),
        }
    };
    let mut packs = Vec::new();
    let mut lost: Vec<PackId> = Vec::new();
    for pack in index.packs() {
        let blobs = index.pack_blobs(&pack);
        let mut found = PackUse {
            id: pack,
            bytes: pack_bytes(&blobs),
            used_bytes: 0,
            unused_bytes: 0,
            is_data: blobs.iter().all(|blob| blob.kind == BlobKind::Data),
            is_mixed: blobs.iter().any(|blob| blob.kind != blobs[0].kind),
        };
        for blob in &blobs {
            let needed = used.needs(index, blob.kind, blob.id);
            let holder = if needed { holder_of(blob) } else { None };
            match holder {
                Some(holder) if holder == pack => found.used_bytes += u64::from(blob.length),
                None if needed => lost.push(pack),
                _ => found.unused_bytes += u64::from(blob.length),
            }
        }
        packs.push(found);
    }
    lost.sort_unstable();
    lost.dedup();
    match lost.is_empty() {
        true => Ok(packs),
        false => Err(PruneError::PacksLost { packs: lost }),
    }
}

/// How much of a pack is needed, in parts of a million, and one; 0 when the pack is missing or has
/// another size than the index says: then its blobs do not count.
fn share(
    index: &Index,
    sizes: &HashMap<PackId, u64, RandomState>,
    used: &Used,
    pack: PackId,
) -> u64 {
    let blobs = index.pack_blobs(&pack);
    if sizes.get(&pack) != Some(&pack_bytes(&blobs)) {
        return 0;
    }
    let is_needed = |blob: &&PackedBlob| used.needs(index, blob.kind, blob.id);
    let length = |blob: &PackedBlob| u64::from(blob.length);
    let needed: u64 = blobs.iter().filter(is_needed).map(length).sum();
    let all: u64 = blobs.iter().map(length).sum();
    1 + needed * 1_000_000 / all.max(1)
}

/// The pack whose copy of a blob counts; none when no pack with it is whole.
fn holder(
    index: &Index,
    shares: &HashMap<PackId, u64, RandomState>,
    blob: &PackedBlob,
) -> Option<PackId> {
    let packs = index.find_all(blob.kind, blob.id).map(|location| location.pack);
    let of = |pack: PackId| shares.get(&pack).copied().unwrap_or_default();
    packs.filter(|pack| of(*pack) > 0).max_by_key(|pack| (of(*pack), *pack))
}

/// Decides what to do.
pub(super) fn decide(packs: Vec<PackUse>, options: &PruneOptions) -> Decision {
    let mut decision = Decision::default();
    let mut candidates = Vec::new();
    let small_bytes = u64::from(options.packs.pack_bytes) * SMALL_PERCENT / 100;
    for pack in packs {
        decision.used_bytes += pack.used_bytes;
        decision.unused_bytes += pack.unused_bytes;
        let is_small = options.repack_small && pack.bytes < small_bytes;
        match (pack.used_bytes, pack.unused_bytes) {
            (0, _) => decision.remove.push(pack),
            (_, 0) if !is_small && !pack.is_mixed => {}
            _ => {
                decision.waste_left_bytes += pack.unused_bytes;
                candidates.push(pack);
            }
        }
    }
    // Trees first, then what frees most for what it costs.
    candidates.sort_by_key(|pack| {
        let waste = u128::from(pack.unused_bytes) * 1_000_000 / u128::from(pack.used_bytes.max(1));
        (pack.is_data, std::cmp::Reverse(waste), pack.id)
    });
    let waste_max = options.max_unused.bytes(decision.used_bytes);
    let repack_max = options.max_repack_bytes.unwrap_or(u64::MAX);
    let mut repack_bytes: u64 = 0;
    for pack in candidates {
        let is_small = options.repack_small && pack.bytes < small_bytes;
        let wanted = !pack.is_data || is_small || decision.waste_left_bytes > waste_max;
        let is_allowed = !(options.repack_cacheable_only && pack.is_data);
        let fits = repack_bytes.saturating_add(pack.bytes) <= repack_max;
        if wanted && is_allowed && fits {
            repack_bytes += pack.bytes;
            decision.waste_left_bytes -= pack.unused_bytes;
            decision.repack.push(pack);
        }
    }
    drop_lonely_small_packs(&mut decision);
    decision
}

/// One small pack without waste cannot be joined with anything.
fn drop_lonely_small_packs(decision: &mut Decision) {
    for is_data in [true, false] {
        let is_kind = |pack: &&PackUse| pack.is_data == is_data;
        if decision.repack.iter().filter(is_kind).count() == 1 {
            let is_pointless = |pack: &PackUse| {
                pack.is_data == is_data && pack.unused_bytes == 0 && !pack.is_mixed
            };
            decision.repack.retain(|pack| !is_pointless(pack));
        }
    }
}
