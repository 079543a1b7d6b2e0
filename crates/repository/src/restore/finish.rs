//! Completing batches: hard links, then folders whose content is complete.

use std::{
    collections::HashMap,
    io,
    os::fd::AsFd,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use rustix::fs::{AtFlags, FileType, linkat, statat};

use super::{
    RestoreError,
    dirs::{Folder, assert_name},
    links::{FirstName, LinkKey, Restored},
    metadata::{Item, Metadata, Present, PresentAttributes, apply},
    plan::{Batch, BatchBuilder, FileState, LeftFolder, PlannedLink},
    report::{ProblemCause, beside_content},
    walk::Walk,
    workers::Begun,
};
use crate::repository::ReadError;

/// Folders whose owner may not list and enter them.
const LIST_AND_ENTER: u32 = 0o500;

/// Inodes whose content cannot be read, so that their other names need not try.
type Unreadable = HashMap<LinkKey, Arc<ReadError>>;

impl Walk<'_> {
    /// Hands the batch to the workers when it is large enough.
    pub(super) fn submit_if_full(&mut self) -> Result<(), RestoreError> {
        if self.builder.is_full() { self.submit() } else { Ok(()) }
    }

    /// Hands this batch to the workers, and completes the last one: what comes next is read while
    /// that is waited for. So two batches exist at a time, each with folders of its own to leave.
    fn submit(&mut self) -> Result<(), RestoreError> {
        let costs = self.context.repository.storage().costs();
        let next = BatchBuilder::new(self.builder.number() + 1, &costs);
        let builder = std::mem::replace(&mut self.builder, next);
        let batch = builder.finish(&costs, self.workers.count(), self.workers.range_bytes());
        let begun = self.workers.begin(batch);
        match self.under_way.replace(begun) {
            Some(last) => self.complete(last),
            None => Ok(()),
        }
    }

    /// Completes everything that was walked.
    pub(super) fn complete_all(&mut self) -> Result<(), RestoreError> {
        if !self.builder.is_empty() {
            self.submit()?;
        }
        if let Some(last) = self.under_way.take() {
            self.complete(last)?;
        }
        for (folder, metadata) in std::mem::take(&mut self.late) {
            self.complete_folder(&folder, &metadata);
        }
        self.check_stop()
    }

    /// Removes what was begun and will not be completed.
    pub(super) fn abandon(&mut self) {
        // The workers stop by themselves: the run is cancelled, or the fatal error is set.
        // Should it be neither, they finish the batch, and nothing is incomplete.
        if let Some(batch) = self.under_way.take() {
            let batch = self.workers.wait(batch);
            self.discard_incomplete(&batch);
        }
    }

    fn discard_incomplete(&self, batch: &Batch) {
        for number in 0..u32::try_from(batch.files.len()).unwrap_or(u32::MAX) {
            if batch.files[number as usize].progress.state() == FileState::Begun {
                self.context.discard(batch, number);
            }
        }
    }

    fn complete(&mut self, begun: Begun) -> Result<(), RestoreError> {
        let mut batch = self.workers.wait(begun);
        let left = std::mem::take(&mut batch.left);
        loop {
            self.discard_incomplete(&batch);
            self.check_stop()?;
            let unreadable = self.count_files(&batch);
            let without_first = self.make_links(std::mem::take(&mut batch.links), &unreadable);
            if without_first.is_empty() {
                break;
            }
            let again = self.plan_again(batch.number, without_first);
            let again = self.workers.begin(again);
            batch = self.workers.wait(again);
        }
        for folder in left {
            self.check_stop()?;
            self.leave(folder);
        }
        Ok(())
    }

    /// Counts what the workers did, and remembers where inodes with other names are.
    fn count_files(&mut self, batch: &Batch) -> Unreadable {
        let mut unreadable = Unreadable::default();
        let mut problems = batch.problems.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, operation, cause) in problems.drain(..) {
            let file = &batch.files[number as usize];
            if let (ProblemCause::Read(error), Some(key)) = (&cause, file.link) {
                unreadable.insert(key, error.clone());
            }
            self.problem(file.folder.path_of(&file.name), operation, cause);
        }
        let counts = &mut self.report.counts;
        counts.bytes_written += batch.bytes_written.load(Ordering::Relaxed);
        counts.metadata_denied += batch.metadata_denied.load(Ordering::Relaxed);
        for (number, file) in (0..).zip(&batch.files) {
            let is_whole = file.progress.state() == FileState::Whole;
            if is_whole {
                counts.files_restored += 1;
                counts.bytes_restored += file.size;
            }
            let Some(key) = file.link else { continue };
            match file.progress.identity.get() {
                Some(&identity) if is_whole => {
                    let (folder, name) = (file.folder.clone(), file.name.clone());
                    self.links.set_restored(key, Restored { folder, name, identity });
                }
                _ => self.links.forget_planned(key, batch.number, number),
            }
        }
        unreadable
    }

    /// Makes hard links, and returns those whose first name is not there.
    fn make_links(&mut self, links: Vec<PlannedLink>, unreadable: &Unreadable) -> Vec<PlannedLink> {
        let mut without_first = Vec::new();
        for link in links {
            let Some(FirstName::Restored(first)) = self.links.get(link.key).cloned() else {
                match unreadable.get(&link.key) {
                    Some(error) => {
                        let path = link.file.folder.path_of(&link.file.name);
                        self.problem(path, "read the content of", error.clone());
                    }
                    None => without_first.push(link),
                }
                continue;
            };
            self.links.count_name(link.key);
            let file = &link.file;
            match self.replace_by_link(&first, &file.folder, &file.name, file.replaces) {
                Ok(()) => {
                    self.report.counts.files_restored += 1;
                    self.context.run.progress.add_done(1, 0);
                }
                Err(error) => self.problem(file.folder.path_of(&file.name), "link", error),
            }
        }
        without_first
    }

    /// A batch of the files whose first name could not be restored: of each inode one name
    /// becomes the first, and the others links to it.
    fn plan_again(&mut self, number: u32, links: Vec<PlannedLink>) -> Batch {
        let costs = self.context.repository.storage().costs();
        let next = std::mem::replace(&mut self.builder, BatchBuilder::new(number, &costs));
        for link in links {
            if self.links.get(link.key).is_some() {
                self.builder.add_link(link);
                continue;
            }
            let PlannedLink { key, file } = link;
            let path = file.folder.path_of(&file.name);
            match self.plan_file(file) {
                Ok(file) => {
                    self.links.insert(key, FirstName::Planned { batch: number, file }, u64::MAX);
                }
                Err(error) => self.problem(path, "find the content of", error),
            }
        }
        let builder = std::mem::replace(&mut self.builder, next);
        builder.finish(&costs, self.workers.count(), self.workers.range_bytes())
    }

    fn replace_by_link(
        &self,
        first: &Restored,
        folder: &Arc<Folder>,
        name: &[u8],
        replaces: bool,
    ) -> io::Result<()> {
        if replaces {
            let found = self.context.dirs.look(folder, name)?;
            if found.is_some_and(|found| (found.st_dev, found.st_ino) == first.identity) {
                return Ok(());
            }
            if found.is_some() {
                self.context.dirs.unlink(folder, name)?;
            }
        }
        self.link(first, folder, name)
    }

    /// Gives the inode behind a restored name one more name.
    pub(super) fn link(
        &self,
        first: &Restored,
        folder: &Arc<Folder>,
        name: &[u8],
    ) -> io::Result<()> {
        assert_name(name);
        let from = self.context.dirs.fd(&first.folder)?;
        let to = self.context.dirs.fd(folder)?;
        let present = statat(&*to, name, AtFlags::SYMLINK_NOFOLLOW);
        if present.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == first.identity) {
            return Ok(());
        }
        linkat(&*from, &*first.name, &*to, name, AtFlags::empty())?;
        let stat = statat(&*to, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (stat.st_dev, stat.st_ino) != first.identity {
            self.context.dirs.unlink(folder, name)?;
            return Err(io::Error::other("somebody put another file in place of its first name"));
        }
        Ok(())
    }
}

/// Folders.
impl Walk<'_> {
    fn leave(&mut self, left: LeftFolder) {
        let LeftFolder { folder, metadata, extra } = left;
        let is_there =
            folder.touched.load(Ordering::Relaxed) && !folder.failed.load(Ordering::Relaxed);
        if !is_there {
            return;
        }
        for (name, kind) in extra {
            self.settle_extra(&folder, &name, kind);
        }
        let Some(metadata) = metadata else { return };
        self.report.counts.folders_restored += 1;
        self.context.run.progress.add_done(1, 0);
        if self.context.options.dry_run {
            return;
        }
        let locks_out = metadata.mode & LIST_AND_ENTER != LIST_AND_ENTER;
        if locks_out && !self.context.rights.is_root() {
            self.late.push((folder, metadata));
        } else {
            self.complete_folder(&folder, &metadata);
        }
    }

    fn settle_extra(&mut self, folder: &Arc<Folder>, name: &[u8], kind: FileType) {
        let path = folder.path_of(name);
        if self.context.options.delete && !self.context.options.dry_run {
            let dirs = &self.context.dirs;
            let removed = match kind {
                FileType::Directory => {
                    dirs.remove_whole(folder, name, &|| !self.context.is_stopped())
                }
                _ => dirs.unlink(folder, name).map(|()| 1),
            };
            match removed {
                Ok(count) => self.report.counts.deleted += count,
                Err(error) => self.problem(path.clone(), beside_content::REMOVE, error),
            }
        }
        self.report.add_extra(path);
    }

    fn complete_folder(&mut self, folder: &Arc<Folder>, metadata: &Metadata) {
        let fd = match self.context.dirs.fd(folder) {
            Ok(fd) => fd,
            Err(error) => return self.problem(folder.path(), "open", error),
        };
        let attributes = match folder.is_fresh() {
            true => PresentAttributes::None,
            false => PresentAttributes::Unknown,
        };
        let owner = folder.facts().map(|facts| facts.owner);
        let present = Present { owner, attributes };
        let applied = apply(Item::Open(fd.as_fd()), metadata, present, self.context.rights);
        self.report.counts.metadata_denied += u64::from(applied.denied);
        if let Some((operation, error)) = applied.problem {
            self.problem(folder.path(), operation, error);
        }
    }
}
