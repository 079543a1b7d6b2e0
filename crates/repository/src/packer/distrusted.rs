//! Packs that turned out to be damaged while a run relied on them.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::lock;
use crate::{
    format::pack::BlobKind,
    id::{BlobId, PackId},
    index::Index,
};

/// For many threads; costs next to nothing while there is none.
#[derive(Default)]
pub(super) struct Distrusted {
    any: AtomicBool,
    packs: Mutex<BTreeSet<PackId>>,
}

impl Distrusted {
    pub(super) fn add(&self, packs: impl Iterator<Item = PackId>) {
        lock(&self.packs).extend(packs);
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn packs(&self) -> Vec<PackId> {
        lock(&self.packs).iter().copied().collect()
    }

    /// Whether `known` has a place for the blob that is none of these packs.
    pub(super) fn leaves(&self, known: &Index, kind: BlobKind, id: BlobId) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return known.contains(kind, id);
        }
        let packs = lock(&self.packs);
        known.find_all(kind, id).any(|place| !packs.contains(&place.pack))
    }
}
