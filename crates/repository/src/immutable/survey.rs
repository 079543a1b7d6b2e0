//! Which files snapshots need.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ImmutableError;
use crate::{
    format::{index_file::IndexFile, pack::pack_bytes},
    id::{IndexId, PackId, SnapshotId},
    index::Index,
    prune::usage::Used,
    repository::{IndexedRepository, ReadError, Repository},
    run::Run,
    storage::{File, FileKind},
};

/// A file that a snapshot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// The size that it must have, where something else than the store tells.
    pub bytes: Option<u64>,
}

/// What snapshots need.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// All files, each once.
    pub files: BTreeMap<File, Needed>,
    /// What every snapshot needs: the config and the keys.
    common: BTreeSet<File>,
    /// What each needs besides, its own file included.
    pub(super) snapshots: BTreeMap<SnapshotId, BTreeSet<File>>,
}

impl Survey {
    pub(super) fn files_of(&self, id: SnapshotId) -> BTreeSet<File> {
        let own = self.snapshots.get(&id).into_iter().flatten();
        self.common.iter().chain(own).copied().collect()
    }

    fn add(&mut self, id: SnapshotId, files: impl IntoIterator<Item = (File, Needed)>) {
        let own = self.snapshots.entry(id).or_default();
        for (file, needed) in files {
            own.insert(file);
            self.files.insert(file, needed);
        }
    }
}

/// Finds out what snapshots need. The index that vouches for it is read from the store now.
///
/// # Errors
/// Fails when an index file, a snapshot or one of its trees cannot be read, when something that it
/// needs is in no index, or the run is cancelled.
pub fn survey(
    repository: &Repository,
    ids: &[SnapshotId],
    run: &Run,
) -> Result<Survey, ImmutableError> {
    let (index, named_in) = load(repository, run)?;
    let indexed = IndexedRepository::with_index(repository.clone(), index);
    let mut survey = Survey::default();
    survey.common.insert(File::Config);
    survey.common.extend(repository.storage().list(FileKind::Key)?.iter().map(|key| key.file));
    for file in survey.common.clone() {
        survey.files.insert(file, Needed { bytes: None });
    }
    for id in ids {
        run.cancel.check()?;
        let packs = packs_of(&indexed, *id, run)?;
        let indexes: BTreeSet<IndexId> =
            packs.iter().filter_map(|pack| named_in.get(pack)).flatten().copied().collect();
        let free = Needed { bytes: None };
        survey.add(*id, [(File::Snapshot(*id), free)]);
        survey.add(*id, indexes.into_iter().map(|index| (File::Index(index), free)));
        let of_pack = |pack: PackId| {
            let bytes = Some(pack_bytes(&indexed.index().pack_blobs(&pack)));
            (File::Pack(pack), Needed { bytes })
        };
        survey.add(*id, packs.into_iter().map(of_pack));
    }
    Ok(survey)
}

type NamedIn = HashMap<PackId, Vec<IndexId>>;

/// The index, and which index files name which packs.
fn load(repository: &Repository, run: &Run) -> Result<(Index, NamedIn), ReadError> {
    let (mut index, mut named_in) = (Index::new(), NamedIn::new());
    repository.for_each_index_file(run, |file, content| {
        let content: IndexFile = content?;
        index.add_file(&content);
        if let File::Index(id) = file {
            for pack in &content.packs {
                named_in.entry(pack.id).or_default().push(id);
            }
        }
        Ok::<_, ReadError>(())
    })?;
    Ok((index, named_in))
}

/// The packs with something that a snapshot needs.
fn packs_of(
    repository: &IndexedRepository,
    id: SnapshotId,
    run: &Run,
) -> Result<BTreeSet<PackId>, ImmutableError> {
    let mut used = Used::default();
    used.grow(repository.index());
    let roots = vec![repository.snapshot(id)?.tree];
    let missing = used.follow(repository, roots, run)?;
    if !missing.is_empty() {
        let snapshot = File::Snapshot(id);
        return Err(ImmutableError::Incomplete { snapshot, blobs: missing.len() });
    }
    let index = repository.index();
    let is_needed =
        |place: &crate::index::Location| used.needs(index, place.blob.kind, place.blob.id);
    Ok(index.iter().filter(is_needed).map(|place| place.pack).collect())
}
