//! Writing index files anew: without some packs, with others.
//!
//! Only the files that are named are replaced. New files are stored and read back before the
//! first old one is deleted, so the index says at every moment at least what it said before.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::{
    format::{
        FormatError,
        index_file::{IndexFile, IndexPack, MarkedPack},
    },
    id::{IndexId, PackId},
    repository::{ReadError, Repository},
    run::Run,
    storage::{File, StorageProblem},
    supersede::ChangeError,
};

/// Blobs of an index file, as in restic.
const BLOBS_MAX: usize = 50_000;

/// What was written and deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Index files that were written.
    pub written: u64,
    /// Index files that were deleted.
    pub deleted: u64,
}

/// Replaces the index files in `obsolete`: of their packs stay those that `keep` lets through,
/// marks for deletion likewise, and `added` come along.
pub(super) fn replace(
    repository: &Repository,
    obsolete: &HashSet<File, RandomState>,
    keep: impl Fn(&PackId) -> bool,
    added: Vec<IndexPack>,
    run: &Run,
) -> Result<Replaced, ChangeError> {
    let (open, marks, written) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = Writer { repository, run, open, marks, blobs: 0, written };
    let mut moved: HashSet<PackId, RandomState> = added.iter().map(|pack| pack.id).collect();
    for pack in added {
        writer.add(pack)?;
    }
    let mut failure = None;
    repository.for_each_index_file(run, |file, content| {
        if !obsolete.contains(&file) || failure.is_some() {
            return Ok::<_, ReadError>(());
        }
        let Ok(content) = content else { return Ok(()) };
        for pack in content.packs {
            if keep(&pack.id) && moved.insert(pack.id) {
                failure = failure.take().or(writer.add(pack).err());
            }
        }
        // Marks stay marks: what waits for its deletion goes on waiting.
        for mark in content.packs_to_delete {
            if keep(&mark.id) && moved.insert(mark.id) {
                writer.marks.push(mark);
            }
        }
        Ok(())
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    writer.save()?;
    let mut deleted = 0;
    for &file in obsolete {
        // Without the lock, others may rely on the old files by now.
        run.cancel.check_condition()?;
        // By chance the new content may have been sealed to the same bytes: never, but it would
        // be the end of it.
        if writer.written.iter().any(|id| File::Index(*id) == file) {
            continue;
        }
        match repository.storage().delete(file) {
            Ok(()) => deleted += 1,
            Err(error) if error.problem() == StorageProblem::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Replaced { written: writer.written.len() as u64, deleted })
}

struct Writer<'w> {
    repository: &'w Repository,
    run: &'w Run,
    open: Vec<IndexPack>,
    marks: Vec<MarkedPack>,
    blobs: usize,
    written: Vec<IndexId>,
}

impl Writer<'_> {
    fn add(&mut self, pack: IndexPack) -> Result<(), ChangeError> {
        self.blobs += pack.blobs.len();
        self.open.push(pack);
        if self.blobs >= BLOBS_MAX { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<(), ChangeError> {
        if self.open.is_empty() && self.marks.is_empty() {
            return Ok(());
        }
        self.run.cancel.check_condition()?;
        let packs = std::mem::take(&mut self.open);
        self.blobs = 0;
        let packs_to_delete = std::mem::take(&mut self.marks);
        let content = IndexFile { packs, packs_to_delete };
        let id = self.repository.save_unpacked(File::Index, &content)?;
        let file = File::Index(id);
        if self.repository.read_unpacked::<IndexFile>(file)? != content {
            let source = FormatError::invalid("it is not what was stored");
            return Err(ReadError::Damaged { file, source }.into());
        }
        self.written.push(id);
        Ok(())
    }
}
