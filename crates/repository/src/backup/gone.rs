//! Packs that the index names and the store no longer has: somebody deleted them, or a disk lost them.
//!
//! A backup that took their blobs for stored would be a snapshot that cannot be restored, and would
//! say nothing. So they count for nothing: what they held and the sources still hold is stored
//! again, and the loss is told. What older snapshots lost with them is for `check` to tell, and for
//! `repair` to settle.
//!
//! Deliberately not here: packs that are there and damaged. Nobody knows before they are read.

use std::collections::HashSet;

use muster_model::units::{agree, counted};

use crate::{
    id::PackId,
    index::Index,
    repository::{Repository, all_at_once},
    storage::{File, Listed, StorageProblem},
};

/// The packs of `index` that are gone. `listed` are those that were there before it was read; of what
/// is not among them the store is asked, for it may have come since.
pub(super) fn find(repository: &Repository, listed: &[Listed], index: &Index) -> Vec<PackId> {
    let there: HashSet<File> = listed.iter().map(|listed| listed.file).collect();
    let suspects: Vec<PackId> =
        index.packs().filter(|&pack| !there.contains(&File::Pack(pack))).collect();
    let storage = repository.storage().as_ref();
    let sizes = all_at_once(storage, &suspects, |&pack| storage.size(File::Pack(pack)));
    let mut gone: Vec<PackId> = suspects
        .into_iter()
        .zip(sizes)
        .filter(|(_, size)| {
            size.as_ref().is_err_and(|error| error.problem() == StorageProblem::NotFound)
        })
        .map(|(pack, _)| pack)
        .collect();
    gone.sort_unstable();
    gone
}

/// What whoever runs the backup is told of packs that are gone.
pub(super) fn notice(gone: &[PackId]) -> Option<String> {
    let first = gone.first()?;
    let others = match gone.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let lost = counted(gone.len() as u64, "pack");
    let are = agree(gone.len() as u64, "is", "are");
    Some(format!(
        "{lost} that the index names {are} gone ({first}{others}): what is still in the sources is \
         stored again, older snapshots may have lost data; run 'muster repo check', then \
         'muster repo repair index'"
    ))
}
