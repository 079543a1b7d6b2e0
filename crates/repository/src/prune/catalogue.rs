//! Which index file lists which packs, what is marked, and which packs are there.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{PruneError, pack_sizes};
use crate::{
    format::{
        index_file::{IndexFile, IndexPack, MarkedPack},
        pack::{BlobKind, PackedBlob},
    },
    id::{BlobId, IndexId, PackId},
    index::Index,
    repository::{ReadError, Repository},
    run::Run,
    storage::{File, FileKind},
};

/// One index file, as far as it must be remembered.
pub(super) struct Listing {
    pub(super) id: IndexId,
    pub(super) packs: Vec<PackId>,
    pub(super) marks: Vec<PackId>,
}

/// All index files and packs.
#[derive(Default)]
pub(super) struct Catalogue {
    pub(super) files: Vec<Listing>,
    /// By pack; of several marks the latest.
    pub(super) marks: HashMap<PackId, MarkedPack, RandomState>,
    /// The packs that are there, with their sizes in bytes.
    pub(super) sizes: HashMap<PackId, u64, RandomState>,
    /// Marked packs that are needed after all.
    pub(super) recovered: HashSet<PackId, RandomState>,
}

impl Catalogue {
    pub(super) fn load(repository: &Repository, run: &Run) -> Result<(Self, Index), PruneError> {
        let (mut catalogue, mut index) = (Self::default(), Index::new());
        repository.for_each_index_file(run, |file, result| {
            catalogue.add(file, result?, &mut index);
            Ok::<_, ReadError>(())
        })?;
        Ok((catalogue, index))
    }

    /// Reads the index files that were written since.
    pub(super) fn load_new(
        &mut self,
        repository: &Repository,
        index: &mut Index,
        run: &Run,
    ) -> Result<(), PruneError> {
        let listed = repository.storage().list(FileKind::Index)?;
        let there: HashSet<File, RandomState> = listed.iter().map(|entry| entry.file).collect();
        if self.files.iter().any(|known| !there.contains(&File::Index(known.id))) {
            // Another prune or a repair was quicker: what was decided rests on an old index.
            return Err(PruneError::Overtaken);
        }
        let known: HashSet<IndexId, RandomState> = self.files.iter().map(|file| file.id).collect();
        for file in there {
            let File::Index(id) = file else { continue };
            if !known.contains(&id) {
                run.cancel.check()?;
                self.add(file, repository.read_index_file(file)?, index);
            }
        }
        Ok(())
    }

    fn add(&mut self, file: File, content: IndexFile, index: &mut Index) {
        let File::Index(id) = file else { return };
        index.add_file(&content);
        let packs = content.packs.iter().map(|pack| pack.id).collect();
        let marks = content.packs_to_delete.iter().map(|mark| mark.id).collect();
        self.files.push(Listing { id, packs, marks });
        for mark in content.packs_to_delete {
            match self.marks.get(&mark.id) {
                Some(known) if known.time >= mark.time => {}
                _ => drop(self.marks.insert(mark.id, mark)),
            }
        }
    }

    pub(super) fn list_packs(&mut self, repository: &Repository) -> Result<(), PruneError> {
        self.sizes = pack_sizes(repository)?;
        Ok(())
    }

    /// Adds a marked pack that holds the blob to the index again. Gives whether the index has the
    /// blob now.
    pub(super) fn recover(&mut self, kind: BlobKind, id: BlobId, index: &mut Index) -> bool {
        if index.contains(kind, id) {
            return true;
        }
        let holds = |mark: &&MarkedPack| {
            let blobs = mark.blobs.iter().map(|&blob| PackedBlob::from(blob));
            blobs.into_iter().any(|blob| blob.kind == kind && blob.id == id)
        };
        let Some(mark) = self.marks.values().find(holds) else { return false };
        index.add_pack(&IndexPack { id: mark.id, blobs: mark.blobs.clone() });
        self.recovered.insert(mark.id);
        true
    }
}
