//! What lies in the target already, and what becomes of it.

use std::{fs::File as OpenFile, io, sync::Arc};

use rustix::fs::{FileType, Mode, OFlags, Stat, openat};

use super::{
    Context, Overwrite,
    dirs::Folder,
    report::ProblemCause,
    walk::{Failure, Walk},
    write::first_difference,
};
use crate::{
    format::{
        mode::unix_mode,
        time::Timestamp,
        tree::{Node, NodeKind},
    },
    id::BlobId,
};

/// What becomes of an entry, given what lies in its place.
pub(super) enum Verdict {
    /// Nothing is there.
    Make,
    /// Something else is there and goes.
    Replace(Stat),
    /// The content is there already: only metadata is set.
    Unchanged(Stat),
    /// What is there stays as it is.
    Keep,
}

impl Walk<'_> {
    /// Decides about an entry. `is_other_name` tells that the inode was restored under another
    /// name already.
    pub(super) fn verdict(
        &self,
        folder: &Arc<Folder>,
        node: &Node,
        content: &[BlobId],
        is_other_name: bool,
    ) -> Result<Verdict, Failure> {
        if folder.is_fresh() {
            return Ok(Verdict::Make);
        }
        let found = self.context.dirs.look(folder, &node.name);
        let Some(found) = found.map_err(|error| ("look at", error.into()))? else {
            return Ok(Verdict::Make);
        };
        Ok(match self.context.options.overwrite {
            Overwrite::Always => Verdict::Replace(found),
            Overwrite::IfChanged if is_other_name => Verdict::Replace(found),
            Overwrite::IfChanged => match self.is_unchanged(folder, node, content, &found) {
                true => Verdict::Unchanged(found),
                false => Verdict::Replace(found),
            },
            Overwrite::IfNewer if node.mtime > mtime_of(&found) => Verdict::Replace(found),
            Overwrite::IfNewer | Overwrite::Never => Verdict::Keep,
            Overwrite::Refuse => {
                let text = "something lies there that was not there when the restore began";
                return Err(("create", ProblemCause::InTheWay(text)));
            }
        })
    }

    fn is_unchanged(
        &self,
        folder: &Arc<Folder>,
        node: &Node,
        content: &[BlobId],
        found: &Stat,
    ) -> bool {
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        if node.kind != NodeKind::File || !is_file || size != node.size {
            return false;
        }
        // A name that somebody else's file has too must not be given our metadata.
        let mode = unix_mode(node.mode);
        let same_rights =
            (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (node.uid, node.gid, mode);
        if found.st_nlink > 1 && !same_rights {
            return false;
        }
        mtime_of(found) == node.mtime
            || self.has_content(folder, &node.name, content).unwrap_or(false)
    }

    fn has_content(
        &self,
        folder: &Arc<Folder>,
        name: &[u8],
        content: &[BlobId],
    ) -> io::Result<bool> {
        let fd = self.context.dirs.fd(folder)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = OpenFile::from(openat(&*fd, name, flags, Mode::empty())?);
        let index = self.context.repository.index();
        Ok(first_difference(&file, content, index)?.is_none())
    }

    /// Removes a folder that lies where something else goes. Returns whether it was one: other
    /// things are replaced when what replaces them is ready.
    pub(super) fn clear(
        &mut self,
        folder: &Arc<Folder>,
        name: &[u8],
        found: &Stat,
    ) -> Result<bool, Failure> {
        let Context { dirs, options, .. } = self.context;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Ok(false);
        }
        if options.dry_run {
            return Ok(true);
        }
        let removed = match dirs.remove_empty(folder, name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && options.delete => {
                dirs.remove_whole(folder, name, &|| !self.context.is_stopped())
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let text = "a folder that is not empty lies there; '--delete' removes it";
                return Err(("replace", ProblemCause::InTheWay(text)));
            }
            result => result.map(|()| 1),
        };
        self.report.counts.deleted += removed.map_err(|error| ("replace", error.into()))?;
        Ok(true)
    }
}

fn mtime_of(stat: &Stat) -> Timestamp {
    Timestamp::new(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0), 0)
}
