//! Packs that have lost what the index says they hold.
//!
//! A backup that took their blobs for stored would be a snapshot that cannot be restored, and would
//! say nothing. So they count for nothing: what they held and the sources still hold is stored
//! again, and the loss is told. What older snapshots lost with them is for `check` to tell, and for
//! `repair` to settle.
//!
//! A backup sees that a pack is gone or cut short from the listing that it makes anyway, and that
//! one of folders is damaged when it reads the trees of its parent. Deliberately not here: damage
//! within packs of data. Nobody knows of it before they are read.

use std::collections::HashMap;

use muster_model::units::{agree, counted};

use super::Loss;
use crate::{
    id::PackId,
    index::Index,
    repository::{Repository, all_at_once},
    storage::{File, Listed, StorageError, StorageProblem},
};

/// The packs of `index` that are gone, or end before the last of their blobs does. `listed` are
/// those that were there before it was read; of what is not among them the store is asked, for it
/// may have come since.
pub(super) fn find(repository: &Repository, listed: &[Listed], index: &Index) -> Vec<PackId> {
    let sizes: HashMap<File, u64> =
        listed.iter().map(|listed| (listed.file, listed.bytes)).collect();
    let holds = |pack: &PackId, bytes: u64| bytes >= index.pack_end(pack);
    let suspects: Vec<PackId> = index
        .packs()
        .filter(|pack| !sizes.get(&File::Pack(*pack)).is_some_and(|&bytes| holds(pack, bytes)))
        .collect();
    let storage = repository.storage().as_ref();
    let sizes = all_at_once(storage, &suspects, |&pack| storage.size(File::Pack(pack)));
    let is_lost = |pack: &PackId, size: &Result<u64, StorageError>| match size {
        Ok(bytes) => !holds(pack, *bytes),
        Err(error) => error.problem() == StorageProblem::NotFound,
    };
    let asked = suspects.into_iter().zip(sizes);
    let mut lost: Vec<PackId> =
        asked.filter(|(pack, size)| is_lost(pack, size)).map(|(pack, _)| pack).collect();
    lost.sort_unstable();
    lost
}

/// What whoever runs the backup is told of packs that are gone or cut short.
pub(super) fn gone(packs: &[PackId]) -> Option<Loss> {
    let (which, are) = named(packs)?;
    let message = format!(
        "{which} that the index names {are} gone or cut short: what is still in the sources is \
         stored again, older snapshots may have lost data; run 'muster repo check', then \
         'muster repo repair index' for those that are gone, 'repair packs' for the others"
    );
    Some(Loss { code: "packs-gone", message })
}

/// What they are told of packs whose folders could not be read.
pub(super) fn damaged(packs: &[PackId]) -> Option<Loss> {
    let (which, are) = named(packs)?;
    let message = format!(
        "{which} with folders of the snapshot before {are} damaged: what is still in the sources \
         is stored again, older snapshots may have lost data; run 'muster repo check --read-data', \
         which tells what is lost and how to repair it"
    );
    Some(Loss { code: "packs-damaged", message })
}

/// Packs in words, and the verb for them.
fn named(packs: &[PackId]) -> Option<(String, &'static str)> {
    let first = packs.first()?;
    let others = match packs.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let count = packs.len() as u64;
    Some((format!("{} ({first}{others})", counted(count, "pack")), agree(count, "is", "are")))
}
