//! Packs that an interrupted backup or copy stored and no index names.
//!
//! They are sound (a stored pack is whole) and would otherwise be stored again. They may only be
//! adopted while nobody else is at work: the packs of a running backup look the same. Each is
//! read whole and held against its name first, which is ten times quicker than to compress the
//! same data once more; what fails the test is left for `check` to tell of.

use crate::{
    format::{
        index_file::IndexPack,
        pack::{self, PackedBlob},
    },
    id::PackId,
    index::Index,
    lock::Lock,
    packer::WriteError,
    repository::{Repository, verify_digest},
    run::Run,
    storage::{File, FileKind, Listed},
};

/// The largest pack that is adopted, in bytes: restic's largest and some slack. It is read into
/// memory before any other work begins.
const PACK_BYTES_MAX: u64 = 140 << 20;

/// The packs that were stored at some moment. Taken before the index is loaded: a pack in it
/// that the index does not name was not named at that moment either.
///
/// # Errors
/// Fails when the store cannot be listed.
pub(crate) fn list(repository: &Repository) -> Result<Vec<Listed>, WriteError> {
    Ok(repository.storage().list(FileKind::Pack)?)
}

/// Whether nobody else is at work, who could be writing packs. To be asked after the packs were
/// listed: whoever began later has none in the listing. What never became a file is cleared away
/// then, too.
pub(crate) fn is_alone(lock: &Lock) -> bool {
    let alone = lock.others_at_work().is_ok_and(|others| others.is_empty());
    if alone {
        // A failure to do so harms nobody.
        drop(lock.repository().storage().remove_leftovers());
    }
    alone
}

/// Verifies the packs among `listed` that `index` does not name and adds them to it. Only when
/// one [`is_alone`].
///
/// # Errors
/// Fails when the run is cancelled. Packs that cannot be read are passed over.
pub(crate) fn adopt(
    repository: &Repository,
    listed: &[Listed],
    index: &mut Index,
    run: &Run,
) -> Result<Vec<IndexPack>, WriteError> {
    let orphans: Vec<(PackId, u64)> = listed
        .iter()
        .filter_map(|listed| match listed.file {
            File::Pack(id) if !index.knows_pack(&id) => Some((id, listed.bytes)),
            _ => None,
        })
        .collect();
    let mut adopted = Vec::new();
    for (id, bytes) in orphans {
        run.cancel.check()?;
        if let Some(blobs) = verified_blobs(repository, id, bytes) {
            let blobs = blobs.into_iter().map(Into::into).collect();
            let pack = IndexPack { id, blobs };
            index.add_pack(&pack);
            adopted.push(pack);
        }
    }
    Ok(adopted)
}

fn verified_blobs(repository: &Repository, id: PackId, bytes: u64) -> Option<Vec<PackedBlob>> {
    let file = File::Pack(id);
    let content = repository.storage().read(file, bytes.min(PACK_BYTES_MAX)).ok()?;
    verify_digest(file, &content).ok()?;
    let span = pack::header_span(*content.last_chunk()?, bytes).ok()?;
    pack::read_header(repository.key(), &content[content.len() - span..], bytes).ok()
}
